"""The two-room house and simulators in it."""

from __future__ import annotations

import logging

import pytest
from habitat.core.logging import logger

from memo_habitat.simulator.embree.sim import EmbreeSim
from memo_habitat.testing.tasks import simulator_config
from tests.factories.houses import write_test_house


@pytest.fixture(scope="session")
def house(tmp_path_factory):
    return write_test_house(tmp_path_factory.mktemp("house"))


@pytest.fixture
def make_sim(house):
    """Simulator in the house with arrangement `index`; further keys go into its config."""

    def make(index=0, **changes):
        settings = {"scene": house.scene_id, "scene_dataset": house.scene_dataset_config}
        config = simulator_config(**{**settings, **changes})
        sim = EmbreeSim(config)
        sim.reconfigure(config, house.arrangement(index))
        return sim

    return make


@pytest.fixture
def sim(make_sim):
    return make_sim(sensors=("rgb", "depth", "panoptic"))


@pytest.fixture
def said():
    """Warnings that were logged."""
    lines: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)
