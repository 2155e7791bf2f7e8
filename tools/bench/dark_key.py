"""How fast the rules of Dark-Key-To-Door run on one core, and what the reference agents collect.

python tools/bench/dark_key.py
python tools/bench/dark_key.py --json --settings quick --layouts 1000 --seconds 0.2
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

import memo_habitat.register  # noqa: F401
from memo_habitat.report.statistics import mean_with_interval
from memo_habitat.tasks.dark_key.layouts import ACTIONS, SETTINGS, DrawnLayouts, Setting
from memo_habitat.tasks.dark_key.oracle import (
    Actor,
    Searcher,
    oracle_actions,
    oracle_returns,
    play,
    steps_to_door,
)
from memo_habitat.tasks.dark_key.rules import Trials

# Environments at once: as many as a training has, and as many as are fastest.
ENVIRONMENTS = (64, 4096)
_BURST = 50


def bench_dark_key(
    settings: Sequence[str] = tuple(SETTINGS),
    layouts: int = 10_000,
    seed: int = 0,
    seconds: float = 1.0,
) -> Iterator[dict[str, Any]]:
    """One row per setting, measured in one thread.

    Args:
        settings: names of `SETTINGS`.
        layouts: trials that the returns are means over; the same for all agents.
        seed: of the layouts and of the random actions.
        seconds: time spent on each number of steps per second.

    Yields:
        setting, size, episode_steps, trial_steps, layouts, seed; env_steps_per_second_<N> with N
        environments at once, observations included; of `oracle`, `searcher` and `random` their mean
        return, <agent>_low and <agent>_high (95 % bootstrap interval over layouts) and
        <agent>_median; shortest_episode (mean fewest steps); play_seconds (all agents and
        layouts).
    """
    for name in settings:
        setting = SETTINGS[name]
        speeds = {
            f"env_steps_per_second_{count}": round(_speed(setting, count, seconds))
            for count in ENVIRONMENTS
        }
        yield {
            "setting": name,
            "size": setting.size,
            "episode_steps": setting.episode_steps,
            "trial_steps": setting.trial_steps,
            "layouts": layouts,
            "seed": seed,
            **speeds,
            **_returns(setting, layouts, seed),
        }


def _returns(setting: Setting, count: int, seed: int) -> dict[str, Any]:
    source = DrawnLayouts(seed, setting.cells)
    begin, rng = time.perf_counter(), np.random.default_rng(seed)
    actors: dict[str, Actor] = {
        "oracle": oracle_actions,
        "searcher": Searcher(),
        "random": lambda trials: rng.integers(len(ACTIONS), size=trials.count),
    }
    played = {name: play(setting, source, count, actor) for name, actor in actors.items()}
    elapsed = time.perf_counter() - begin
    drawn = source.of(np.arange(count))
    if not np.array_equal(played["oracle"], oracle_returns(setting, drawn)):
        raise RuntimeError("the oracle did not collect what its layouts allow: the rules changed")
    found: dict[str, Any] = {}
    for name, returns in played.items():
        estimate = mean_with_interval(
            returns.astype(np.float64), np.arange(count), bounds=None, resamples=_resamples(count)
        )
        found |= {
            name: round(estimate.mean, 3),
            f"{name}_low": round(estimate.low, 3),
            f"{name}_high": round(estimate.high, 3),
            f"{name}_median": float(np.median(returns)),
        }
    to_key, to_door = steps_to_door(drawn, setting.size)
    found["shortest_episode"] = round(float((to_key + to_door).mean()), 2)
    found["play_seconds"] = round(elapsed, 2)
    return found


def _resamples(count: int) -> int:
    """Fewer draws of very many layouts: 10,000 of them would take minutes and gigabytes."""
    return int(np.clip(20_000_000 // count, 200, 10_000))


def _speed(setting: Setting, count: int, seconds: float) -> float:
    trials = Trials(setting, count, DrawnLayouts(0, setting.cells))
    trials.reset()
    actions = np.random.default_rng(0).integers(5, size=(_BURST, count))
    for row in actions:
        trials.step(row)
    begin, steps = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds or not steps:
        for row in actions:
            trials.step(row)
        steps += _BURST * count
    return steps / (time.perf_counter() - begin)


def main() -> None:
    """Print a row per setting."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--layouts", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=1.0, help="per number of steps a second")
    given = vars(parser.parse_args())
    as_json = given.pop("json")
    for row in bench_dark_key(**given):
        text = json.dumps(row) if as_json else "  ".join(f"{k} {v}" for k, v in row.items())
        print(text, flush=True)


if __name__ == "__main__":
    main()
