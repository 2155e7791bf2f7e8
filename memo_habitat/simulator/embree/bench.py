"""How many frames and environment steps per second the simulator makes on one core."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from habitat.sims.habitat_simulator.actions import HabitatSimActions

from memo_habitat.errors import UserError
from memo_habitat.simulator.embree.scene import clear_caches
from memo_habitat.simulator.embree.scene_dataset import load_dataset, resolve
from memo_habitat.simulator.embree.sim import EmbreeSim
from memo_habitat.testing.simulators import simulator_config

BUNDLED = "data/apartments/apartments.scene_dataset_config.json"
#: Pictures that every row's frame consists of; all of a frame come from one ray cast.
SENSORS = ("rgb", "panoptic")
_WARM_UP = 20


def bench_sim(
    scene_dataset: str | None = None,
    sizes: Sequence[int] = (64, 128, 256),
    seconds: float = 5.0,
    sensors: Sequence[str] = SENSORS,
) -> Iterator[dict[str, Any]]:
    """One row per image size, measured in one thread.

    A frame is one ray cast with all its pictures, from random poses; an environment step is a
    random action with collisions, pictures, one geodesic distance and a pixel count.

    Args:
        scene_dataset: scene data set configuration; None: the apartments that ship.
        sizes: widths (= heights) of the images, pixels.
        seconds: time spent on each of the two numbers of a row.
        sensors: of "rgb", "depth" and "panoptic".

    Yields:
        sensor_size, sensors, frames_per_second, env_steps_per_second, scene_load_ms (reading the
        house, its grid included, and placing the objects), triangles, scene.
    """
    path = resolve(scene_dataset or BUNDLED)
    dataset = load_dataset(path)
    if not dataset.scenes:
        raise UserError(f"{path} has no scene instances: give a scene data set with houses")
    episode = _first_episode(path, sorted(dataset.scenes)[0])
    _compile(episode, str(path))
    for size in sizes:
        config = simulator_config(episode.scene_id, str(path), size, sensors)
        clear_caches()
        begin = time.perf_counter()
        simulator = EmbreeSim(config)
        simulator.reconfigure(config, episode)
        loaded = time.perf_counter() - begin
        yield {
            "sensor_size": size,
            "sensors": list(sensors),
            "frames_per_second": round(_frames(simulator, seconds), 1),
            "env_steps_per_second": round(_steps(simulator, seconds), 1),
            "scene_load_ms": round(1000.0 * loaded, 1),
            "triangles": len(simulator.arrangement.geometry.soup),
            "scene": Path(episode.scene_id).name,
        }


def _first_episode(path: Path, first_scene: str) -> Any:
    """The first arrangement that lies beside a scene data set, or its first house alone."""
    for file in sorted((path.parent / "episodes").glob("*.json.gz")):
        document = json.loads(gzip.decompress(file.read_bytes()))
        for episode in document.get("episodes", [])[:1]:
            return SimpleNamespace(
                scene_id=episode["scene_id"],
                rigid_objs=episode.get("rigid_objs", []),
                additional_obj_config_paths=episode.get("additional_obj_config_paths", []),
            )
    return SimpleNamespace(scene_id=first_scene, rigid_objs=[], additional_obj_config_paths=[])


def _compile(episode: Any, scene_dataset: str) -> None:
    """Lets numba compile or load every kernel, so that no row pays for it."""
    config = simulator_config(episode.scene_id, scene_dataset, 8, ("rgb", "depth", "panoptic"))
    simulator = EmbreeSim(config)
    simulator.reconfigure(config, episode)
    _steps(simulator, 0.0)
    simulator.close()


def _frames(simulator: EmbreeSim, seconds: float) -> float:
    rng = np.random.default_rng(0)
    poses = [
        (simulator.sample_floor_point(rng), float(rng.uniform(-np.pi, np.pi))) for _ in range(512)
    ]

    def frame(index: int) -> None:
        simulator._position, simulator._heading = poses[index % len(poses)]
        simulator.get_sensor_observations()

    return _rate(frame, seconds)


def _steps(simulator: EmbreeSim, seconds: float) -> float:
    rng = np.random.default_rng(0)
    goals = np.stack([simulator.sample_floor_point(rng)])
    moves = (HabitatSimActions.move_forward,) * 3 + (
        HabitatSimActions.turn_left,
        HabitatSimActions.turn_right,
    )
    actions = [moves[index] for index in rng.integers(len(moves), size=4096)]
    instances = simulator.instances
    camera = next(iter(simulator.sensor_suite.sensors))
    simulator.start_next_episode_at(simulator.sample_floor_point(rng), 0.0)
    simulator.reset()

    def step(index: int) -> None:
        simulator.step(actions[index % len(actions)])
        simulator.distance_to(simulator.agent_pose()[0], goals)
        if instances:
            simulator.visible_pixels([instances[0].id], camera)

    return _rate(step, seconds)


def _rate(work: Any, seconds: float) -> float:
    """Calls of `work(index)` per second."""
    for index in range(_WARM_UP):
        work(index)
    begin = time.perf_counter()
    count = 0
    while True:
        work(count + _WARM_UP)
        count += 1
        elapsed = time.perf_counter() - begin
        if elapsed >= seconds:
            return count / max(elapsed, 1e-9)
