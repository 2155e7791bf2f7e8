"""What a training run tells while it runs: a progress bar, and one JSON line an update."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from memo_habitat.utils.files import append_json_line, read_json_lines, write_json_lines

if TYPE_CHECKING:
    from torch import Tensor


class ProgressFile:
    """JSON lines, one per update; a resumed run drops the lines past where it goes on from."""

    def __init__(self, path: str, resume_at: int) -> None:
        self._path = Path(path) if path else None
        if self._path is not None:
            kept = [row for row in read_progress(self._path) if row["steps"] <= resume_at]
            write_json_lines(self._path, kept)

    def append(self, row: dict[str, Any]) -> None:
        """Write one row; nothing where no file is wanted."""
        if self._path is not None:
            append_json_line(self._path, row)


def progress_row(
    steps: int,
    updates: int,
    seconds: float,
    trials: Mapping[str, float] | None,
    episodes: Mapping[str, Sequence[Tensor]],
    learner: Mapping[str, float],
    timers: Mapping[str, float],
) -> dict[str, Any]:
    """What is told of one update.

    Args:
        steps: of all environments so far.
        updates: so far.
        seconds: of training so far, those before an interruption included.
        trials: count and mean return of those that ended with it; None if none did.
        episodes: Habitat's window of running sums, [N, 1] each; `count` is that of episodes.
        learner: means of the update.
        timers: mean time of each of the trainer's timers (s).
    """
    window = {
        k: float((v[-1] - v[0]).sum() if len(v) > 1 else v[0].sum()) for k, v in episodes.items()
    }
    count = max(window.pop("count"), 1.0)
    return {
        "steps": steps,
        "updates": updates,
        "seconds": round(seconds, 3),
        **({} if trials is None else {"trials": trials}),
        "episodes": count,
        "metrics": {k: v / count for k, v in window.items()},
        "learner": learner,
        "timers": timers,
    }


def read_progress(path: Path) -> list[dict[str, Any]]:
    """Rows of a progress file; a last line cut off by a kill is left out."""
    return list(read_json_lines(path))


def share_done(baselines: Mapping[str, Any], steps: float, updates: float) -> float:
    """Part of a training that is done after so many steps and updates, 1 at its end.

    baselines: the config's node `habitat_baselines`, in which one of the two goals is -1.
    """
    goal = baselines["total_num_steps"]
    if goal != -1:
        return min(1.0, steps / float(goal))
    return min(1.0, updates / float(baselines["num_updates"]))


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
