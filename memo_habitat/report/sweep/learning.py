"""Learning curves: smoothed returns of training, and how soon they reach a level."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from memo_habitat.report.statistics import FloatArray
from memo_habitat.report.sweep.runs import Progress

# A point is the mean over this share of the longest training, half of it before the point.
SMOOTHING = 0.05
# A training's final return is the mean over its last updates, this share of all.
FINAL = 0.1
_POINTS = 200


def final_return(progress: Progress) -> float:
    """Mean return of the trials that ended in the last tenth of the updates; NaN without any.

    Where none ended there, because a trial takes many updates, those of the last update that has
    any count.
    """
    ended = progress.ended()
    if not len(ended.steps):
        return np.nan
    count = max(1, round(FINAL * progress.updates))
    late = progress.trials[-count:] > 0
    if not late.any():
        return float(ended.returns[-1])
    returns, trials = progress.returns[-count:][late], progress.trials[-count:][late]
    return float(np.average(returns, weights=trials))


def smooth(progress: Progress, width: float) -> tuple[FloatArray, FloatArray]:
    """Moving average of the return over the trials that ended within `width` steps.

    Args:
        progress: of a training.
        width: environment steps, half of them before each point; fewer at both ends.

    Returns:
        Environment steps [P] and mean return [P], one for each update in which trials ended.
    """
    ended = progress.ended()
    low = np.searchsorted(ended.steps, ended.steps - width / 2, "left")
    high = np.searchsorted(ended.steps, ended.steps + width / 2, "right")
    sums = np.concatenate([[0.0], np.cumsum(ended.trials * ended.returns)])
    counts = np.concatenate([[0.0], np.cumsum(ended.trials)])
    return ended.steps, (sums[high] - sums[low]) / (counts[high] - counts[low])


def smoothing_width(progresses: Sequence[Progress]) -> float:
    """Environment steps that a point of the curves of these trainings is a mean over."""
    return SMOOTHING * max(progress.steps[-1] for progress in progresses)


def on_one_axis(
    curves: Sequence[tuple[FloatArray, FloatArray]],
) -> tuple[FloatArray, FloatArray]:
    """Environment steps [P], and the curves [S, P] there; NaN where one has not begun or got to."""
    curves = [(steps, values) for steps, values in curves if len(steps)]
    if not curves:
        return np.zeros(0), np.zeros((0, 0))
    first, last = min(s[0] for s, _ in curves), max(s[-1] for s, _ in curves)
    axis = np.linspace(first, last, _POINTS)
    rows = [np.interp(axis, s, v, left=np.nan, right=np.nan) for s, v in curves]
    return axis, np.array(rows)


def steps_to(steps: FloatArray, values: FloatArray, level: float) -> float:
    """Environment steps at which the curve first reaches `level`; NaN if it does not."""
    reached = np.flatnonzero(values >= level)
    return float(steps[reached[0]]) if len(reached) else np.nan
