"""The figures of a sweep's report: learning curves, and the course of a trial by episode."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from memo_habitat.report import plots
from memo_habitat.report.figures import REFERENCE_COLORS, Figure
from memo_habitat.report.load import Evaluation
from memo_habitat.report.plots import Curve, curve_over_seeds
from memo_habitat.report.statistics import FloatArray
from memo_habitat.report.summary import amount
from memo_habitat.report.sweep.learning import SMOOTHING, on_one_axis, smooth, smoothing_width
from memo_habitat.report.sweep.runs import Sweep
from memo_habitat.report.sweep.summary import Variant
from memo_habitat.report.trials import EpisodeCourse, episode_course

BAND = "Band: 95 % interval over seeds (Student’s t); none with a single seed."
# Agents of a figure: name, number of the page's colour, evaluations.
Agents = Sequence[tuple[str, int, Sequence[Evaluation]]]


def learning_curves(sweep: Sweep, variants: Sequence[Variant]) -> dict[str, Curve]:
    """By variant, the smoothed return of training: mean over seeds, with a band."""
    width = smoothing_width([run.progress for run in sweep.runs])
    found = {}
    for variant in variants:
        axis, values = on_one_axis([smooth(run.progress, width) for run in variant.runs])
        if len(axis):
            found[variant.name] = curve_over_seeds(axis, values, variant.color)
    return found


def reference_lines(sweep: Sweep, last: float) -> dict[str, Curve]:
    """By reference agent, a dashed line at its mean return per trial."""
    return {
        name: Curve([0.0, last], [sweep.reference_return(name)] * 2, color, dashed=True)
        for name, color in REFERENCE_COLORS.items()
        if name in sweep.references
    }


def learning_figure(sweep: Sweep, variants: Sequence[Variant]) -> Figure | None:
    """Return per trial over the course of training; None where no trial has ended."""
    curves = learning_curves(sweep, variants)
    if not curves:
        return None
    last = max(curve.x[-1] for curve in curves.values())
    lines = reference_lines(sweep, last)
    dashed = f" Dashed: {' and '.join(lines)} on the held-out layouts." if lines else ""
    svg = plots.amounts([*curves.values(), *lines.values()], "environment steps", wide=True)
    text = (
        f"Return per trial in training, sampled actions; mean over seeds. {BAND} Smoothed: each "
        f"point is the mean over the trials in a window of {100 * SMOOTHING:.0f} % of the longest "
        f"training, half of it before the point.{dashed}"
    )
    return Figure("Learning curves", Markup(svg), text, wide=True)


def episode_figures(agents: Agents) -> list[Figure]:
    """Length, reward and success of the trials' first, second, ... episodes."""
    courses = {
        name: (color, [episode_course(evaluation.episodes) for evaluation in evaluations])
        for name, color, evaluations in agents
        if evaluations
    }
    if not courses:
        return []
    left_out = f"Only episodes that every trial has finished. {BAND}"
    kinds = (
        ("Steps of an episode", "length", "Fewer steps from one episode to the next: what was "
         "found out in the first ones is used in the later ones. One that fails takes all steps "
         "that it may."),
        ("Steps of a successful episode", "length_found", "Over those that reached the target."),
        ("Reward of an episode", "reward", "Mean over trials."),
        ("Success by episode", "success", "Share of the trials."),
    )  # fmt: skip
    return [
        _episode_figure(courses, title, column, f"{text} {left_out}")
        for title, column, text in kinds
    ]


def _episode_figure(
    courses: dict[str, tuple[int, list[EpisodeCourse]]], title: str, column: str, text: str
) -> Figure:
    curves, rows = [], []
    for name, (color, own) in courses.items():
        values = _aligned([getattr(course, column) for course in own])
        if not values.size or np.isnan(values).all():
            continue
        curve = curve_over_seeds(np.arange(1.0, values.shape[1] + 1), values, color, marked=True)
        curves.append(curve)
        low, high = (ends or [np.nan] * len(curve.y) for ends in (curve.low, curve.high))
        for number, mean, bottom, top in zip(curve.x, curve.y, low, high, strict=True):
            interval = "" if np.isnan(bottom) else f"[{amount(bottom)}, {amount(top)}]"
            rows.append((name, f"{number:.0f}", amount(mean), interval, str(len(own))))
    draw = plots.rates if column == "success" else plots.amounts
    columns = ("agent", "episode", title.lower(), "95 % interval", "seeds")
    svg = Markup(draw(curves, "episode of the trial"))
    return Figure(title, svg, text, columns, tuple(rows))


def _aligned(rows: Sequence[FloatArray]) -> FloatArray:
    """Rows of different length as one array, cut to the shortest."""
    shortest = min(len(row) for row in rows)
    return np.array([row[:shortest] for row in rows])
