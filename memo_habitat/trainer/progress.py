"""What a training tells while it runs: a progress bar, and one JSON line an update."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tqdm import tqdm

from memo_habitat.utils.files import append_json_line, read_json_lines, write_json_lines

if TYPE_CHECKING:  # torch takes seconds, and whoever reads a run's progress imports this
    from torch import Tensor


class ProgressFile:
    """JSON lines, one per update; a resumed run drops the lines past where it goes on from."""

    def __init__(self, path: str, resume_at: int) -> None:
        self._path = Path(path)
        kept = [row for row in read_progress(self._path) if row["steps"] <= resume_at]
        write_json_lines(self._path, kept)

    def append(self, row: dict[str, Any]) -> None:
        """Write one row."""
        append_json_line(self._path, row)


def read_progress(path: Path) -> list[dict[str, Any]]:
    """Rows of a progress file; a last line cut off by a kill is left out."""
    return list(read_json_lines(path))


class MeasureSums(NamedTuple):
    """A measure summed over the episodes so far."""

    total: Tensor  # [N, 1]
    episodes: Tensor  # [N, 1] their number
    newest: Tensor  # [] mean over those that ended last and had a number


def leave_out_undefined(
    sums: Mapping[str, Tensor], before: Mapping[str, MeasureSums]
) -> dict[str, MeasureSums]:
    """Leave episodes in which a measure was no number out of its mean: else it never is again.

    Where an environment had one since the last update, its episodes since then count in place as
    much as those of the others on average, or where none of theirs ended as much as the newest. A
    measure that never was a number is none in `sums`.

    Args:
        sums: Habitat's running sums by measure, [N, 1], over all episodes so far; and "count".
        before: what this returned at the last update; empty at first.

    Returns:
        What to go on from, finite.
    """
    count, found = sums["count"], {}
    for name, total in sums.items():
        nothing = total.new_zeros(total.shape)
        then = before.get(name, MeasureSums(nothing, nothing, total.new_tensor(math.nan)))
        ended, good = count - then.episodes, total.isfinite()
        mean = (total - then.total)[good].sum() / ended[good].sum()
        if not mean.isfinite():
            mean = then.newest
        total[~good] = (then.total + mean * ended)[~good]
        found[name] = MeasureSums(total.where(total.isfinite(), then.total), count.clone(), mean)
    return found


def ended_in_window(window: Mapping[str, Sequence[Tensor]]) -> dict[str, Any]:
    """Number and mean measures of the episodes that ended in the window of Habitat's statistics.

    Habitat keeps the running sums of the last updates: what ended since is their difference, and
    with a single one all of it. Of what was never a number the mean is None.
    """
    ended = {
        name: float((sums[-1] - sums[0] if len(sums) > 1 else sums[0]).sum())
        for name, sums in window.items()
    }
    count = max(ended.pop("count"), 1.0)
    means = {n: total / count if math.isfinite(total) else None for n, total in ended.items()}
    return {"episodes": count, "metrics": means}


def share_done(baselines: Mapping[str, Any], steps: float, updates: float) -> float:
    """Part of the training of a config's `habitat_baselines` that is done, 1 at its end."""
    goal, done = baselines["total_num_steps"], steps
    if goal == -1:  # of the two goals one is always -1
        goal, done = baselines["num_updates"], updates
    return min(1.0, done / float(goal))


def steps_bar(done: int, total: float, description: str = "train") -> tqdm[Any]:
    """Environment steps with rate and time left; on the terminal of the first worker alone."""
    from habitat_baselines.rl.ddppo.ddp_utils import rank0_only

    return tqdm(
        total=int(total),
        initial=done,
        unit="step",
        unit_scale=True,
        desc=description,
        disable=not (rank0_only() and sys.stderr.isatty()),
        dynamic_ncols=True,
    )
