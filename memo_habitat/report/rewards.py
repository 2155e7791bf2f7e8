"""Rewards along the trials of an evaluation: summed over short stretches, a line per trial."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from memo_habitat.errors import UserError
from memo_habitat.report.statistics import FloatArray
from memo_habitat.utils.files import append_json_line

REWARDS_FILE = "returns.jsonl"
# Stretches of a trial at most: as many points as a curve across half a page can show.
_STRETCHES = 100


class RewardLog:
    """Sums rewards of running trials by stretch and appends a trial's line when it ends.

    A trial that is not played to its end leaves nothing, as it leaves no records.
    """

    def __init__(self, folder: Path, steps_per_trial: int) -> None:
        """Write into `folder`."""
        self._path = folder / REWARDS_FILE
        self._width = -(-steps_per_trial // _STRETCHES)
        self._count = -(-steps_per_trial // self._width)
        self._open: dict[str, list[float]] = {}

    def add(self, trial: str, step: int, reward: float) -> None:
        """Take in the reward of step `step` (from 1) of `trial`."""
        sums = self._open.setdefault(trial, [0.0] * self._count)
        sums[min((step - 1) // self._width, self._count - 1)] += reward

    def end_trial(self, trial: str) -> None:
        """Write what was collected of `trial`."""
        sums = [round(value, 6) for value in self._open.pop(trial, [])]
        line = {"trial_id": trial, "bin_steps": self._width, "rewards": sums}
        append_json_line(self._path, line)


@dataclass(frozen=True)
class TrialRewards:
    """Rewards along T equally long trials.

    Attributes:
        ends: float64 [B], the last step of each stretch.
        sums: float64 [T, B], sum of the rewards in each stretch.
    """

    ends: FloatArray
    sums: FloatArray

    def cumulative(self) -> tuple[FloatArray, FloatArray]:
        """Steps [B + 1] from 0 on, and the mean over trials of what was earned by then [B + 1]."""
        steps = np.concatenate([[0.0], self.ends])
        return steps, np.concatenate([[0.0], np.cumsum(self.sums.mean(axis=0))])

    def rate(self, parts: int = 10) -> tuple[FloatArray, FloatArray]:
        """Middles [P] of `parts` equal parts of the trial, and the mean reward per step there [P].

        The cumulative reward is taken to grow evenly within a stretch.
        """
        steps, earned = self.cumulative()
        edges = np.linspace(0.0, steps[-1], min(parts, len(self.ends)) + 1)
        gained = np.diff(np.interp(edges, steps, earned))
        return (edges[1:] + edges[:-1]) / 2, gained / np.diff(edges)


def parse_rewards(
    path: Path, lines: Iterable[dict[str, Any]], trials: Collection[str], steps: int
) -> TrialRewards | None:
    """Rewards as `RewardLog` wrote them into `path`, of `trials`; None unless all are there.

    A mean over some of them would stand for the whole evaluation: an evaluation whose first
    trials were played without a log has no curve. A trial's last line counts: it was played anew
    where there are several.
    """
    found: dict[str, list[float]] = {}
    width = 0
    for number, line in enumerate(lines, start=1):
        try:
            trial, width = str(line["trial_id"]), int(line["bin_steps"])
            sums = [float(value) for value in line["rewards"]]
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{path}, line {number}: no rewards of a trial ({error!r}); delete the file"
            ) from error
        if len(sums) != -(-steps // max(1, width)):
            raise UserError(
                f"{path}, line {number}: {len(sums)} stretches of {width} steps make no trial of "
                f"{steps} steps; delete the file"
            )
        if trial in trials:
            found[trial] = sums
    if not found or len(found) < len(set(trials)):
        return None
    ends = np.minimum(width * np.arange(1.0, -(-steps // width) + 1), steps)
    return TrialRewards(ends, np.array([found[trial] for trial in sorted(found)]))
