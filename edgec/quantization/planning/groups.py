"""Values that must share one scale: union-find over the operators that hand their input's scale to their output."""

from __future__ import annotations

from collections.abc import Iterable


class Groups:
    """Disjoint sets of value names. The first name that came in represents its set."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def add(self, name: str) -> None:
        """Make `name` known, as a set of its own if it is new."""
        self._parent.setdefault(name, name)

    def find(self, name: str) -> str:
        """The representative of the set that holds `name` (itself when it was never joined)."""
        root = name
        while self._parent.get(root, root) != root:
            root = self._parent[root]
        while self._parent.get(name, name) != root:
            self._parent[name], name = root, self._parent[name]
        return root

    def join(self, names: Iterable[str]) -> None:
        """Put all names into one set."""
        members = list(names)
        for name in members:
            self.add(name)
        first, *others = [self.find(n) for n in members]
        for root in others:
            if (again := self.find(first)) != root:
                self._parent[root] = again

    def sets(self) -> dict[str, list[str]]:
        """All sets, members in the order in which they came in, by representative."""
        found: dict[str, list[str]] = {}
        for name in self._parent:
            found.setdefault(self.find(name), []).append(name)
        return found
