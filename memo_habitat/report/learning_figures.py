"""The figures of learning: training curves, and evaluations by checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from memo_habitat.report import plots
from memo_habitat.report.figures import OVER_HOUSES, Figure, trained_color
from memo_habitat.report.load import Evaluation, Run
from memo_habitat.report.plots import Curve

# Measures of training by the last part of their name in progress.jsonl, and titles of their curves.
_LEARNING = {
    "return": "Return per trial",
    "extobjnav_success": "Success rate",
    "success": "Success rate",
    "spl": "SPL",
    "reward": "Reward per episode",
}
# What evaluations of several checkpoints have in common.
_HOW = {
    *("split", "steps_per_trial", "trials_per_house", "houses", "seed", "deterministic"),
    "settings",
}


def learning_figures(runs: Sequence[Run]) -> list[Figure]:
    """Training curves from progress.jsonl."""
    figures = []
    for name, title in _LEARNING.items():
        curves = []
        for number, run in enumerate(run for run in runs if run.progress):
            points = [(row.get("steps"), _measure(row, name)) for row in run.progress]
            # Not every update has every measure: trials may take several.
            known = [(x, y) for x, y in points if x is not None and y is not None]
            if len(known) > 1:
                x, y = zip(*known, strict=True)
                curves.append(Curve(x, y, trained_color(number)))
        if curves:
            draw = plots.amounts if name in ("reward", "return") else plots.rates
            text = "Mean over the latest training episodes, at every update."
            if name == "return":
                text = (
                    "Mean over the trials that ended in each update; updates without any have no "
                    "point."
                )
            svg = draw(curves, "environment steps")
            figures.append(Figure(f"{title} in training", svg, text))
    return figures


def _measure(row: Mapping[str, Any], name: str) -> float | None:
    values = ((row.get(group) or {}).get(name) for group in ("metrics", "trials"))
    return next((value for value in values if isinstance(value, int | float)), None)


def checkpoint_figure(runs: Sequence[Run]) -> list[Figure]:
    """Targets of three or more checkpoints of one run by their training; nothing of fewer."""
    curves: list[Curve] = []
    # In the colours of the training curves; a run without one has none of theirs.
    for number, run in enumerate(sorted(runs, key=lambda run: not run.progress)):
        # Only what was evaluated alike: points with another token budget make no curve.
        alike: dict[str, dict[int, Evaluation]] = {}
        for e in run.evaluations:
            if e.agent == "checkpoint" and e.meta.step is not None and not e.meta.forget:
                key = e.meta.model_dump_json(include=_HOW)
                alike.setdefault(key, {}).setdefault(e.meta.step, e)
        by_step = max(alike.values(), key=len, default={})
        if len(by_step) < 3:
            continue
        steps = sorted(by_step)
        found = [by_step[step].headline.targets for step in steps]
        means, lows, highs = ([getattr(f, n) for f in found] for n in ("mean", "low", "high"))
        color = trained_color(number)
        curves.append(Curve(steps, means, color, low=lows, high=highs, marked=True))
    if not curves:
        return []
    text = (
        "Targets per 1,000 steps in the evaluation of each checkpoint; of a run, those with the "
        f"same trials and settings, of which it has the most. {OVER_HOUSES}"
    )
    svg = plots.amounts(curves, "environment steps of the training", bands=True)
    return [Figure("Targets by checkpoint", svg, text)]
