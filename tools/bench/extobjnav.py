"""Environment steps per second of ExtObjNav stepped all together in one process and one thread.

python tools/bench/extobjnav.py
python tools/bench/extobjnav.py --json --data data/houses --environments 64 --size 128

Detections, every other vector sensor that a training observes, and all measures are included.
The first trials load houses and compute distance fields that are not on disk yet; they are not
timed. Also by processor time, which other work on the machine distorts less.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np
from omegaconf import OmegaConf

import memo_habitat.register  # noqa: F401
from memo_habitat.tasks.extobjnav.vector_env import ExtObjNavVectorEnvFactory
from memo_habitat.testing.tasks import task_config
from memo_habitat.utils.data_paths import resolve

#: stop, move_forward, turn_left, turn_right, look_up, look_down: an episode of some 50 steps.
PROBABILITIES = (0.02, 0.5, 0.2, 0.2, 0.04, 0.04)


def bench_extobjnav(
    data: str, environments: int, size: int, trial_steps: int, seconds: float, oracle: bool
) -> dict[str, Any]:
    """One row: steps in the training houses of a data set.

    Args:
        data: folder of a scene data set with episodes.
        environments: stepped together.
        size: edge of the camera's image in pixels, which detections are counted in.
        trial_steps: length of a trial.
        seconds: to measure, after a trial to warm up.
        oracle: the best action is observed, and taken; else actions are random.
    """
    config = task_config(
        resolve(data) / "episodes/train.json.gz",
        simulator="EmbreeSim-v0",
        image_size=size,
        oracle=oracle,
        overrides={
            "simulator.render_images": False,
            "simulator.object_ids_start": 1000,
            "task.trial_steps": trial_steps,
            "environment.iterator_options.shuffle": True,
        },
    )
    for sensor in ("target_found_sensor", "last_reward_sensor"):
        del config.habitat.task.lab_sensors[sensor]
    del config.habitat.task.measurements["extobjnav_episode"]
    config.habitat_baselines = OmegaConf.create({"num_environments": environments})
    envs = ExtObjNavVectorEnvFactory().construct_envs(config)
    rng = np.random.default_rng(0)
    observed = envs.reset_batch()
    detected = observed["detections"][..., 0]
    shown = episodes = steps = 0
    begin = time.perf_counter(), time.process_time()
    for step in range(10**9):
        if step == trial_steps + 1:
            shown = episodes = steps = 0
            begin = time.perf_counter(), time.process_time()
        actions = rng.choice(6, size=environments, p=PROBABILITIES)
        taken = envs.step_batch(observed["oracle_action"][:, 0] if oracle else actions)
        steps += environments
        episodes += int(taken.episode_ends.sum())
        shown += int(detected.sum())
        if step > trial_steps + 1 and time.perf_counter() - begin[0] >= seconds:
            break
    return {
        "data": data,
        "environments": environments,
        "size": size,
        "trial_steps": trial_steps,
        "oracle": oracle,
        "env_steps_per_second": round(steps / (time.perf_counter() - begin[0])),
        "env_steps_per_processor_second": round(steps / (time.process_time() - begin[1])),
        "steps_per_episode": round(steps / max(episodes, 1), 1),
        "categories_detected": round(shown / steps, 3),
    }


def main() -> None:
    """Print a row."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--data", default="data/apartments", help="folder of a scene data set")
    parser.add_argument("--environments", type=int, default=64)
    parser.add_argument("--size", type=int, default=64, metavar="PX")
    parser.add_argument("--trial-steps", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--oracle", action="store_true", help="take the best action")
    given = vars(parser.parse_args())
    as_json = given.pop("json")
    row = bench_extobjnav(**given)
    print(json.dumps(row) if as_json else "\n".join(f"{k:32}{v}" for k, v in row.items()))


if __name__ == "__main__":
    main()
