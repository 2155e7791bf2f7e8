"""Headline numbers of evaluations, and the same as a table for the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from memo_habitat.report.load import Evaluation
from memo_habitat.report.statistics import METRICS, Estimate, estimate, gain_within_trial
from memo_habitat.report.trials import return_per_trial

# The third rate would make lines of more than 100 columns.
_IN_TERMINAL = ("success", "spl")
TITLES = {"success": "Success rate", "spl": "SPL", "soft_spl": "Soft SPL"}


class HasEnds(Protocol):
    """An interval."""

    @property
    def low(self) -> float:
        """Its lower end; NaN where there is none."""
        ...

    @property
    def high(self) -> float:
        """Its upper end."""
        ...


@dataclass(frozen=True)
class Headline:
    """One row of the headline table.

    Attributes:
        evaluation: whose numbers.
        estimates: name of the metric -> mean and interval over the finished episodes.
        counting_cut: success rate when cut-off episodes count as failures.
        cut: number of episodes that the trial's end cut off.
        gain: success in the trial's second half less that in its first.
        returns: sum of a trial's rewards, cut-off episodes included; mean over trials.
    """

    evaluation: Evaluation
    estimates: dict[str, Estimate]
    counting_cut: float
    cut: int
    gain: Estimate
    returns: Estimate


def headline(evaluation: Evaluation) -> Headline:
    """The headline numbers of one evaluation."""
    everything = evaluation.episodes
    finished = everything.finished()
    successes = float(finished.columns["success"].sum())
    return Headline(
        evaluation,
        {metric: estimate(finished, metric) for metric in METRICS},
        successes / len(everything),
        len(everything) - len(finished),
        gain_within_trial(finished, "success", evaluation.steps),
        return_per_trial(everything),
    )


def percent(value: float, digits: int = 1, sign: bool = False) -> str:
    """0.613 as "61.3"; an en dash where there is no number."""
    if math.isnan(value):
        return "–"
    return f"{100 * value:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def interval(found: Estimate, sign: bool = False) -> str:
    """Both ends of an interval in percent, "[55.0, 67.2]"; empty where there is none."""
    if math.isnan(found.low):
        return ""
    return f"[{percent(found.low, sign=sign)}, {percent(found.high, sign=sign)}]"


def amount(value: float, sign: bool = False) -> str:
    """54.234 as "54.2", three digits at least; an en dash where there is no number."""
    if math.isnan(value):
        return "–"
    digits = 2 if abs(value) < 10 else 1
    value = round(value, digits) + 0.0  # no minus before a zero
    return f"{value:{'+' if sign else ''},.{digits}f}".replace("-", "−")


def ends(found: HasEnds, sign: bool = False) -> str:
    """Both ends of an interval of amounts, "[52.1, 56.3]"; empty where there is none."""
    if math.isnan(found.low):
        return ""
    return f"[{amount(found.low, sign)}, {amount(found.high, sign)}]"


def summary_table(evaluations: Sequence[Evaluation]) -> str:
    """Returns and rates with intervals as a table for the terminal, one line per evaluation."""
    rates = [f"{TITLES[metric]} %" for metric in _IN_TERMINAL]
    rows = [("agent", "return per trial", *rates, "episodes", "trials")]
    for evaluation in evaluations:
        numbers = headline(evaluation)
        cells = [f"{amount(numbers.returns.mean):>5} {ends(numbers.returns)}".rstrip()]
        for metric in _IN_TERMINAL:
            found = numbers.estimates[metric]
            cells.append(f"{percent(found.mean):>5} {interval(found):<14}".rstrip())
        success = numbers.estimates["success"]
        rows.append((evaluation.label, *cells, f"{success.episodes:,}", str(success.trials)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for number, row in enumerate(rows):
        shown = [
            cell.rjust(width) if column > 1 + len(_IN_TERMINAL) else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(shown).rstrip())
        if number == 0:
            lines.append("  ".join("-" * width for width in widths))
    lines.append("[ ] 95 % interval, resampled over trials")
    return "\n".join(lines)
