"""Union-find: what was joined, directly or through others, is one set."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgec.quantization.planning.groups import Groups


def test_the_first_member_represents_the_set() -> None:
    groups = Groups()
    groups.join(["a", "b"])
    groups.join(["c", "d"])
    groups.join(["d", "b"])
    groups.add("e")
    assert groups.sets() == {"c": ["a", "b", "c", "d"], "e": ["e"]}
    assert groups.find("unknown") == "unknown"


@given(st.lists(st.lists(st.integers(0, 20).map(str), min_size=1, max_size=4), max_size=20))
def test_sets_are_the_connected_components(joins: list[list[str]]) -> None:
    groups = Groups()
    components: list[set[str]] = []
    for names in joins:
        groups.join(names)
        touched = [c for c in components if c & set(names)]
        components = [c for c in components if c not in touched] + [set(names).union(*touched)]
    assert sorted(map(sorted, groups.sets().values())) == sorted(map(sorted, components))
