"""Entering houses with the simulator that will run their episodes, to see what can be reached."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from habitat.config import read_write
from habitat.config.default import patch_config
from habitat.sims import make_sim
from omegaconf import OmegaConf

from memo_habitat.compat import startup
from memo_habitat.config.compose import compose_config
from memo_habitat.config.simulator import options_of
from memo_habitat.scenes import files
from memo_habitat.scenes.any_house import AnyHouse
from memo_habitat.scenes.files import EpisodePlace
from memo_habitat.scenes.floor_plan import RandomStream
from memo_habitat.scenes.object_placement import Arrangement
from memo_habitat.scenes.receptacles import read_receptacles
from memo_habitat.simulator.embree.geometry import Geometry
from memo_habitat.simulator.embree.scene import load_scene
from memo_habitat.simulator.embree.scene_dataset import find_scene
from memo_habitat.simulator.embree.sim import agent_shape
from memo_habitat.simulator.interface import instance_names, task_simulator
from memo_habitat.tasks.extobjnav.dataset import parse_episodes
from memo_habitat.tasks.extobjnav.goals import GoalOptions


@cache
def _composed(simulator: str) -> Any:
    # In a process of its own: composing loads Habitat-Baselines and with it Triton, and beside that
    # Habitat-Sim cannot draw without a GPU.
    quiet = startup.silence_gym_notice
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=quiet) as pool:
        return pool.submit(_compose, simulator).result()


def _compose(simulator: str) -> Any:
    """`habitat` of an experiment with a simulator, in plain containers."""
    config = patch_config(compose_config("extobjnav/base", [f"simulator={simulator}"]))
    return OmegaConf.to_container(config.habitat, resolve=True)


class HouseSimulator:
    """The simulator that will run the episodes, entering one house after the other."""

    def __init__(self, simulator: str) -> None:
        """Choose a simulator by its name among the configs."""
        self._config = OmegaConf.create(_composed(simulator))
        self._sim: Any = None

    def __enter__(self) -> HouseSimulator:
        return self

    def __exit__(self, *_: object) -> None:
        if self._sim is not None:
            self._sim.close()

    def enter(self, place: EpisodePlace, rng: RandomStream) -> AnyHouse:
        """A house, without small objects yet."""
        config = self._config.simulator
        _, instance = find_scene(place.scene_id, place.scene_dataset_config)
        with read_write(config):
            config.scene, config.scene_dataset = place.scene_id, place.scene_dataset_config
            # Furniture has the numbers below.
            config.object_ids_start = max(config.object_ids_start, len(instance.furniture) + 1)
        options = options_of(config)
        kept = options.cached_houses, options.cached_fields
        # Of EmbreeSim, whichever simulator runs: it reads the geometry.
        scene = load_scene(config.scene, config.scene_dataset, agent_shape(config), *kept)
        names = ["stage", *instance_names(piece.template.name for piece in instance.furniture)]

        def arrange(rigid_objs: Sequence[Any]) -> None:
            record = files.episode(place, 0, Arrangement([], (0.0, 0.0, 0.0), 0))
            record["rigid_objs"] = list(rigid_objs)
            (episode,) = parse_episodes({"episodes": [record]}, Path(place.scene_id))
            self._sim.reconfigure(config, episode)

        if self._sim is None:
            self._sim = make_sim(config.type, config=config)
        arrange([])
        goals = GoalOptions.of(self._config.task)
        geometry = Geometry(scene.parts, list(range(len(scene.parts))))
        receptacles, simulator = read_receptacles(instance), task_simulator(self._sim)
        return AnyHouse(geometry, names, receptacles, simulator, arrange, goals, rng)
