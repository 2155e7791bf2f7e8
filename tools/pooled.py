"""Agents of several seeds in a table: targets per 1,000 steps, and how each compares to the first.

python tools/pooled.py "fct=sweep/fct/*/eval/final" "memo=sweep/memo/*/eval/final"

All evaluations are on the same houses.
Intervals: seeds and houses drawn again 10,000 times, with the same houses for both of a comparison.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from memo_habitat.report.breakdown import targets_of_trials
from memo_habitat.report.load import load_evaluation

DRAWS, QUARTERS = 10_000, 4
Rates = NDArray[np.float64]  # [seeds, houses, quarters of a trial]: targets per 1,000 steps

MEASURES: dict[str, Callable[[Rates], float]] = {
    "targets per 1,000 steps": lambda rates: float(rates.mean()),
    "first quarter": lambda rates: float(rates[..., 0].mean()),
    "last quarter": lambda rates: float(rates[..., -1].mean()),
    "last : first": lambda rates: float(rates[..., -1].mean() / rates[..., 0].mean()),
}


def rates_of(folders: list[Path]) -> Rates:
    """One evaluation folder for each seed."""
    seeds = []
    for folder in folders:
        found = load_evaluation(folder, str(folder))
        if not found.is_finished:
            sys.exit(f"{folder}: the evaluation is not finished")
        episodes, edges = found.episodes, np.linspace(0, found.steps, QUARTERS + 1)
        counts = [targets_of_trials(episodes, *part) for part in itertools.pairwise(edges)]
        per_1000 = 1000.0 * QUARTERS / found.steps * np.stack(counts, axis=1)
        houses = range(episodes.houses.max() + 1)
        seeds.append([per_1000[episodes.houses == house].mean(axis=0) for house in houses])
    return np.array(seeds)


def interval(measure: Callable[..., float], *agents: Rates) -> str:
    """The measure of these agents, and its 95 % interval."""
    generator = np.random.default_rng(0)
    drawn = []
    for _ in range(DRAWS):
        houses = generator.integers(0, agents[0].shape[1], agents[0].shape[1])
        seeds = (generator.integers(0, len(rates), len(rates)) for rates in agents)
        pairs = zip(agents, seeds, strict=True)
        drawn.append(measure(*(rates[own][:, houses] for rates, own in pairs)))
    low, high = np.percentile(drawn, [2.5, 97.5])
    return f"{measure(*agents):.2f} [{low:.2f}, {high:.2f}]"


def _share(measure: Callable[[Rates], float], own: Rates, other: Rates) -> float:
    return measure(own) / measure(other)


def _within(pattern: str) -> str:
    return str(Path(pattern).relative_to(Path(pattern).parents[-1]))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("agents", nargs="+", metavar="NAME=PATTERN")
    rates = {}
    for given in parser.parse_args().agents:
        name, _, pattern = given.partition("=")
        rates[name] = rates_of(sorted(Path(pattern).parents[-1].glob(_within(pattern))))
    against = next(iter(rates))
    print("| agent | seeds |", " | ".join(MEASURES), f"| of {against} | of its last quarter |")
    print("|---" * (len(MEASURES) + 4) + "|")
    whole, last = (MEASURES[name] for name in ("targets per 1,000 steps", "last quarter"))
    for name, own in rates.items():
        cells = [interval(measure, own) for measure in MEASURES.values()]
        for measure in (whole, last) if name != against else ():
            cells.append(interval(partial(_share, measure), own, rates[against]))
        print(f"| {name} | {len(own)} |", " | ".join([*cells, *[""] * (6 - len(cells))]), "|")


if __name__ == "__main__":
    main()
