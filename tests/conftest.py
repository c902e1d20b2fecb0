"""What holds for every test: the data it draws depends on the test alone, not on what ran before it."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import settings

pytest_plugins = ["tests.support.devlab"]

# A suite that draws new examples in every run fails on somebody else's change.
settings.register_profile("repeatable", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("repeatable")


#: Fixtures of tools/devlab: whole machines in software, on the processor that the other tests are using too.
_EMULATED = frozenset({"vpi", "sshd", "pi4", "pi5", "bare_pi", "phone", "phone_arm64", "prometheus", "virtual_board"})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests on emulated devices get a second try: a connection that a busy machine let time out is no finding."""
    for item in items:
        if _EMULATED.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.flaky(reruns=2, reruns_delay=5))


@pytest.fixture(autouse=True)
def _own_random_numbers(request: pytest.FixtureRequest) -> Iterator[None]:
    """Modules share one generator among their tests: each test gets it fresh, seeded by its own name."""
    module = request.module
    shared = {name: value for name, value in vars(module).items() if isinstance(value, np.random.Generator)}
    for name, generator in shared.items():
        seed = zlib.crc32(f"{name}/{request.node.name}".encode())
        generator.bit_generator.state = np.random.PCG64(seed).state
    yield
