"""Evaluations side by side: a table in Markdown, and targets per 1,000 steps along the trial.

python tools/along_trial.py memo=runs/a/eval/latest "memo --forget"=runs/a/eval/latest-forget \
    --picture along_trial.png
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from memo_habitat.report.breakdown import quarters, targets_along_trial
from memo_habitat.report.load import Evaluation, load_evaluation
from memo_habitat.report.statistics import Estimate


def table(evaluations: Mapping[str, Evaluation]) -> str:
    """One line each, as the report counts them."""
    head = "agent, trials, targets per 1,000 steps, first quarter, last quarter, last : first"
    names = [*head.split(", "), "success, %", "SPL, %"]
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for name, found in evaluations.items():
        episodes, part = found.episodes, quarters(found.episodes, found.steps)
        column = episodes.columns
        rate = 1000.0 * column["success"].sum() / column["num_steps"].sum()
        success, spl = 100.0 * column["success"].mean(), 100.0 * np.nanmean(column["spl"])
        cells = [name, str(len(episodes.trial_names)), f"**{rate:.1f}**"]
        cells += [_cell(part.first, 1), _cell(part.last, 1), _cell(part.ratio, 2)]
        lines.append(f"| {' | '.join([*cells, f'{success:.0f}', f'{spl:.0f}'])} |")
    return "\n".join(lines)


def _cell(estimate: Estimate, digits: int) -> str:
    low, high = (f"{x:.{digits}f}" for x in (estimate.low, estimate.high))
    return f"{estimate.mean:.{digits}f} [{low}, {high}]"


def draw(evaluations: Mapping[str, Evaluation], path: Path, every: int) -> None:
    """Lines with intervals over houses, a point for every so many steps (0: as the report)."""
    figure = Figure(figsize=(8.4, 4.2), dpi=150, layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    for name, found in evaluations.items():
        asked = found.steps // every if every else 0
        parts = targets_along_trial(found.episodes, found.steps, asked)
        x = [(part.low + part.high) / 2 for part in parts]
        rate = [part.estimate for part in parts]
        (line,) = axes.plot(x, [e.mean for e in rate], label=name, linewidth=2)
        axes.fill_between(
            x, [e.low for e in rate], [e.high for e in rate], color=line.get_color(), alpha=0.12
        )
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("step of the trial")
    axes.set_ylabel("targets per 1,000 steps")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    figure.savefig(path)


def main() -> None:
    """Read, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("evaluations", nargs="+", metavar="NAME=FOLDER")
    parser.add_argument("--picture", type=Path, help="file to draw")
    parser.add_argument("--every", type=int, default=0, help="steps of a point of the picture")
    arguments = parser.parse_args()
    named = dict(each.split("=", 1) for each in arguments.evaluations)
    found = {name: load_evaluation(Path(folder), name) for name, folder in named.items()}
    print(table(found))
    if arguments.picture:
        draw(found, arguments.picture, arguments.every)


if __name__ == "__main__":
    main()
