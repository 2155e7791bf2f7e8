"""Frames and environment steps per second of EmbreeSim-v0, in one thread.

python tools/bench/sim.py
python tools/bench/sim.py --json --sizes 64 256 --sensors rgb --seconds 2
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

import memo_habitat.register  # noqa: F401
from memo_habitat.simulator.embree.scene import clear_caches
from memo_habitat.simulator.embree.sim import EmbreeSim
from memo_habitat.testing.tasks import simulator_config
from memo_habitat.utils.data_paths import SET_CONFIG_SUFFIX, resolve


def bench_sim(folder: Path, size: int, sensors: Sequence[str], seconds: float) -> dict[str, Any]:
    """One row: what `size` x `size` pixels cost in the first arrangement of a data set.

    A frame is one ray cast with all its pictures from a random pose; an environment step is a
    random action with collisions, pictures, a geodesic distance and a pixel count.
    """
    file = sorted((folder / "episodes").glob("*.json.gz"))[0]
    episode = SimpleNamespace(**json.loads(gzip.decompress(file.read_bytes()))["episodes"][0])
    dataset = next(folder.glob(f"*{SET_CONFIG_SUFFIX}"))
    config = simulator_config(episode.scene_id, str(dataset), size, sensors)
    loaded = []
    for _ in range(2):  # the first compiles the kernels
        clear_caches()
        begin = time.perf_counter()
        simulator = EmbreeSim(config)
        simulator.reconfigure(config, episode)
        loaded.append(time.perf_counter() - begin)
    return {
        "size": size,
        "sensors": list(sensors),
        "frames_per_second": round(_rate(_frames(simulator), seconds), 1),
        "env_steps_per_second": round(_rate(_steps(simulator), seconds), 1),
        "scene_load_ms": round(1000.0 * loaded[-1], 1),
        "triangles": len(simulator.arrangement.geometry.soup),
        "scene": Path(episode.scene_id).name,
    }


def _frames(simulator: EmbreeSim) -> Callable[[int], Any]:
    rng = np.random.default_rng(0)
    half_turns = rng.uniform(-np.pi / 2, np.pi / 2, 512)
    rotations = np.stack([0 * half_turns, np.sin(half_turns), 0 * half_turns, np.cos(half_turns)])
    poses = [(simulator.sample_floor_point(rng), rotation) for rotation in rotations.T]

    def frame(index: int) -> None:
        simulator.set_agent_state(*poses[index % len(poses)])
        simulator.get_sensor_observations()

    return frame


def _steps(simulator: EmbreeSim) -> Callable[[int], Any]:
    rng = np.random.default_rng(0)
    goals = simulator.sample_floor_point(rng)[None]
    moves = ("move_forward",) * 3 + ("turn_left", "turn_right")
    actions = [moves[index] for index in rng.integers(len(moves), size=4096)]
    target, camera = [simulator.instances[0].id], simulator.camera_uuids[0]
    simulator.start_next_episode_at(simulator.sample_floor_point(rng), 0.0)
    simulator.reset()

    def step(index: int) -> None:
        simulator.step(actions[index % len(actions)])
        simulator.distance_to(simulator.agent_pose()[0], goals)
        simulator.visible_pixels(target, camera)

    return step


def _rate(work: Callable[[int], Any], seconds: float, warm_up: int = 20) -> float:
    """Calls of `work(index)` per second."""
    for index in range(warm_up):
        work(index)
    begin, count, elapsed = time.perf_counter(), 0, 0.0
    while elapsed < seconds or not count:
        work(warm_up + count)
        count += 1
        elapsed = time.perf_counter() - begin
    return count / elapsed


def main() -> None:
    """Print a row per image size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256], metavar="PX")
    parser.add_argument(
        "--sensors", nargs="+", default=["rgb", "panoptic"], choices=["rgb", "depth", "panoptic"]
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="per number")
    parser.add_argument("--data", default="data/apartments", help="folder of a scene data set")
    given = parser.parse_args()
    for size in given.sizes:
        row = bench_sim(resolve(given.data), size, given.sensors, given.seconds)
        if given.json:
            print(json.dumps(row), flush=True)
        else:
            print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
