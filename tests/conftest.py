"""What all tests share: one thread, quiet imports, the checkout, and a reason to skip."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

# Before NumPy and torch are imported: two cores shared by several test processes.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import HealthCheck, settings

from memo_habitat.compat import habitat_sim_stub, startup

if not habitat_sim_stub.habitat_sim_is_missing():
    from memo_habitat.simulator.habitat_sim import device

    # All tests share one process, in which Mesa and Triton cannot both be loaded.
    if not device.has_nvidia_gpu():
        device.keep_triton_away()
# Tests that are started in the background or under nohup get these ignored, and so would the
# commands they start. What is handled here, they get as a terminal gives it: not ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda number, frame: None)

# The same examples in every run, on however slow a machine; nothing is kept in the checkout.
settings.register_profile(
    "reproducible",
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("reproducible")

CHECKOUT = Path(__file__).resolve().parents[1]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    with startup.importing("habitat"):
        return (yield)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not habitat_sim_stub.habitat_sim_is_missing():
        return
    missing = pytest.mark.skip(reason="the real Habitat-Sim is not installed")
    for item in items:
        if "habitat_sim" in item.keywords:
            item.add_marker(missing)


@pytest.fixture(scope="session", autouse=True)
def _caches(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Distance fields are not left in the user's own cache, nor found there."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module", autouse=True)
def _memories() -> Iterator[None]:
    """A memory that the tests of a file register is gone with them: kinds are the process's own."""
    from memo_habitat.memory.variants import kinds, unregister

    before = kinds()
    yield
    for kind in set(kinds()) - set(before):
        unregister(kind)


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The folder of the checkout, which holds data/."""
    return CHECKOUT
