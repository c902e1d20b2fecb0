"""The slots' state machine: every way through it, cut after every step, ends with a whole release."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgec.flash.slots import (
    Act,
    Goal,
    Install,
    Rollback,
    Seen,
    State,
    Step,
    after,
    digest_of,
    failure,
    forget,
    next_step,
    release_name,
    rollback_target,
    runtime_of,
    steps_of,
    wanted,
)

MOST_STEPS = 40


def run(seen: Seen, goal: Goal, *, bad: tuple[Act, ...] = (), stop: int = MOST_STEPS) -> Seen:
    """Take steps until there is none left or `stop` are done; acts in `bad` find that something is wrong."""
    for _ in range(stop):
        step = next_step(seen, goal)
        if step is None:
            return seen
        seen = take(seen, step, good=step.act not in bad)
    assert stop < MOST_STEPS, "the machine does not come to an end"
    return seen


def take(seen: Seen, step: Step, *, good: bool = True) -> Seen:
    """`after`, with what must hold for a step on any device."""
    if step.act is Act.switch:
        assert seen.has(step.path), "a switch to a release that is not there"
    if step.act is Act.remove:
        removed = step.path
        assert removed != f"releases/{seen.link}"
        assert removed != runtime_of(seen.link)
    return after(seen, step, good=good)


def running(seen: Seen) -> str:
    """The release that `current` leads to, which must be whole."""
    assert not seen.link or seen.has(seen.link), f"current is dangling: {seen}"
    return seen.link


def installed(*releases: str) -> Seen:
    seen = Seen()
    for release in releases:
        seen = forget(run(seen, Install(release=release)))
        assert running(seen) == release
    return seen


def acts(seen: Seen, goal: Goal) -> list[str]:
    return [step.act.value for step in steps_of(seen, goal)]


def test_a_first_install() -> None:
    assert acts(Seen(), Install(release="a")) == [
        *("upload", "settle", "check", "record", "switch", "confirm", "record"),
    ]
    seen = installed("a")
    assert seen.state == State(active="a", good=("a",))


def test_the_same_release_again_is_verified_and_checked_only() -> None:
    assert acts(installed("a"), Install(release="a")) == ["verify", "check"]


def test_a_runtime_is_delivered_first() -> None:
    steps = steps_of(Seen(), Install(release=release_name("a", "rt")))
    assert [(step.act.value, step.path) for step in steps[:4]] == [
        ("upload", "runtimes/rt"),
        ("settle", "runtimes/rt"),
        ("upload", "releases/a-rt"),
        ("settle", "releases/a-rt"),
    ]
    assert digest_of("a-rt.2") == digest_of("a.2") == "a"


def test_two_releases_stay_and_older_ones_go() -> None:
    seen = installed("a", "b", "c")
    assert seen.state.good == ("b", "c")
    seen = forget(run(seen, Install(release="d")))
    assert seen.present == {"releases/b", "releases/c", "releases/d"} - {"releases/b"} | {"releases/b"} & seen.present
    assert {"releases/c", "releases/d"} <= seen.present
    assert rollback_target(seen) == "c"


def test_keep_is_never_less_than_two() -> None:
    seen = forget(run(installed("a"), Install(release="b", keep=0)))
    assert seen.state.good == ("a", "b")


def test_an_unhealthy_release_is_never_switched_to() -> None:
    seen = run(installed("a"), Install(release="b"), bad=(Act.check,))
    assert running(seen) == "a"
    assert failure(seen, Install(release="b")) == "unhealthy"
    assert seen.present == {"releases/a"}
    assert seen.state == State(active="a", good=("a",))


def test_an_unconfirmed_release_is_rolled_back() -> None:
    seen = run(installed("a"), Install(release="b"), bad=(Act.confirm,))
    assert running(seen) == "a"
    assert failure(seen, Install(release="b")) == "unconfirmed"
    assert seen.present == {"releases/a"}
    assert seen.state == State(active="a", good=("a",), bad=("b",))
    # What failed once may be tried again, and leaves the list when it is well.
    assert forget(run(forget(seen), Install(release="b"))).state == State(active="b", good=("a", "b"))


def test_a_first_install_that_fails_leaves_nothing_running() -> None:
    seen = run(Seen(), Install(release="a"), bad=(Act.confirm,))
    assert running(seen) == ""
    assert seen.present == frozenset()


def test_a_damaged_release_is_delivered_again_beside_itself() -> None:
    seen = run(installed("a"), Install(release="a"), bad=())
    damaged = run(installed("a"), Install(release="a"), bad=(Act.verify,))
    assert running(seen) == "a"
    assert running(damaged) == "a.2"
    assert damaged.state.good == ("a.2",)
    assert forget(run(forget(damaged), Install(release="b"))).present == {"releases/a.2", "releases/b"}


def test_a_damaged_runtime_is_delivered_again() -> None:
    seen = installed("a-rt")
    step = next_step(seen, Install(release="b-rt"))
    assert step is not None
    assert (step.act, step.path) == (Act.verify, "runtimes/rt")
    seen = after(seen, step, good=False)
    assert wanted(seen, Install(release="b-rt")) == "b-rt.2"
    seen = run(seen, Install(release="b-rt"))
    assert running(seen) == "b-rt.2"
    assert "runtimes/rt.2" in seen.present


def test_rollback_and_back_again() -> None:
    seen = installed("a", "b")
    assert rollback_target(seen) == "a"
    seen = forget(run(seen, Rollback(release="a")))
    assert running(seen) == "a"
    assert seen.state == State(active="a", good=("a",), bad=("b",))
    assert rollback_target(seen) == ""
    # The release that was taken back is still there: flashing it again sends nothing.
    assert "upload" not in acts(seen, Install(release="b"))


def test_rollback_refuses_a_damaged_release() -> None:
    goal = Rollback(release="a")
    seen = run(installed("a", "b"), goal, bad=(Act.verify,))
    assert running(seen) == "b"
    assert failure(seen, goal) == "damaged"


def test_leftovers_of_other_uploads_are_removed() -> None:
    seen = replace(installed("a"), incoming=frozenset({"releases/x", "releases/b", "runtimes/y"}))
    removed = [step.path for step in steps_of(seen, Install(release="b")) if step.act is Act.remove]
    assert removed == ["incoming/releases/x", "incoming/runtimes/y"]


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        # No record, but a link: somebody removed the record, or it was lost.
        (Seen(link="a", present=frozenset({"releases/a"})), "a"),
        # A link to nothing, and an older release that is there.
        (Seen(state=State(active="b", good=("a", "b")), link="b", present=frozenset({"releases/a"})), "a"),
        # No link: a first install that was cut before its switch.
        (Seen(state=State(active="b", trial=True), present=frozenset({"releases/b"})), ""),
        # A record of releases that are all gone.
        (Seen(state=State(active="b", good=("a", "b"))), ""),
    ],
)
def test_what_is_odd_is_put_right(seen: Seen, expected: str) -> None:
    for _ in range(MOST_STEPS):
        step = next_step(seen, Install(release="new"))
        assert step is not None
        if step.act is Act.upload:
            break
        seen = take(seen, step)
    assert running(seen) == expected
    assert running(run(seen, Install(release="new"))) == "new"


GOALS: tuple[Goal, ...] = (
    *(Install(release=name) for name in ("a", "b-rt", "c-rt")),
    Rollback(release="a"),
)
WRONG: tuple[tuple[Act, ...], ...] = ((), (Act.check,), (Act.confirm,), (Act.verify,))


def test_cut_anywhere_twice_and_the_next_flash_succeeds() -> None:
    """Exhaustive: three sessions, of which the first two are cut after any number of steps and may find faults."""
    cases = 0
    for start in (Seen(), installed("a"), installed("a", "b-rt"), installed("b-rt", "a")):
        for first, second in itertools.product(GOALS, repeat=2):
            if isinstance(first, Rollback) and not start.has("a"):
                continue
            for wrong in WRONG:
                for stop in range(14):
                    seen = forget(run(start, first, bad=wrong, stop=stop))
                    running(seen)
                    for again in range(0, 8, 3):
                        between = forget(run(seen, second, stop=again))
                        running(between)
                        last = run(between, Install(release="new"))
                        assert running(last) == "new"
                        assert last.state.active == "new"
                        assert not last.state.trial
                        cases += 1
    assert cases > 5_000


names = st.sampled_from(["a", "b", "c-rt", "d-rt", "e.2"])
states = st.builds(
    State,
    active=st.one_of(st.just(""), names),
    trial=st.booleans(),
    good=st.lists(names, unique=True).map(tuple),
    bad=st.lists(names, unique=True).map(tuple),
)
folders = st.frozensets(
    st.sampled_from(["releases/a", "releases/b", "releases/c-rt", "releases/d-rt", "releases/e.2", "runtimes/rt"])
)
devices = st.builds(Seen, state=states, link=st.one_of(st.just(""), names), present=folders, incoming=folders)


@given(devices, names, st.sampled_from(WRONG), st.integers(0, MOST_STEPS - 1))
def test_from_any_device_whatever(seen: Seen, release: str, wrong: tuple[Act, ...], stop: int) -> None:
    """Records and folders that contradict each other in any way: the machine ends, and never makes it worse."""
    was_whole = seen.has(seen.link)
    goal = Install(release=release)
    cut = run(seen, goal, bad=wrong, stop=stop)
    if was_whole:
        # Only a release that the record itself calls failed may be taken away.
        assert cut.has(cut.link) or seen.link in seen.state.bad or (Act.confirm in wrong and not cut.state.good)
    done = run(forget(cut), goal)
    assert done.has(done.link)
    assert done.link == wanted(done, goal) == done.state.active
    assert not done.state.trial
