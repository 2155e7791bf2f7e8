"""Headline numbers of evaluations, and the same as a table for the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from memo_habitat.report.episodes import (
    Episodes,
    estimate,
    gain_within_trial,
    return_per_trial,
    targets_per_1000_steps,
)
from memo_habitat.report.load import Evaluation
from memo_habitat.report.statistics import Estimate, ratio_with_interval
from memo_habitat.tasks.record_fields import RecordField


@dataclass(frozen=True)
class Split:
    """The episodes in which a condition held, or did not."""

    condition: RecordField  # its declaration
    holds: bool  # which of the two
    episodes: int  # how many were finished
    share: float  # their part of all episodes of which it is known, from 0 to 1
    targets: Estimate  # successes in 1,000 steps spent on such episodes
    estimates: dict[str, Estimate]  # name of the measure -> mean and interval over these episodes


@dataclass(frozen=True)
class Headline:
    """The headline numbers of one evaluation."""

    # Name of the measure -> mean and interval over the finished episodes.
    estimates: dict[str, Estimate]
    counting_cut: float  # success rate when cut-off episodes count as failures
    cut: int  # number of episodes that the trial's end cut off
    gain: Estimate  # success in the trial's second half less that in its first
    returns: dict[str, Estimate]  # name of a return -> its sum over a trial, mean over trials
    targets: Estimate  # successes in 1,000 steps of a trial
    splits: tuple[Split, ...]  # by condition, where one was recorded


def headline(evaluation: Evaluation) -> Headline:
    """The headline numbers of one evaluation."""
    everything = evaluation.episodes
    finished = everything.finished()
    return Headline(
        _estimates(finished),
        float(finished.columns["success"].sum()) / len(everything),
        len(everything) - len(finished),
        gain_within_trial(finished, "success", evaluation.steps),
        {f.name: return_per_trial(everything, f.name) for f in everything.measures("return")},
        targets_per_1000_steps(everything, evaluation.steps),
        tuple(
            _split(everything, condition, holds)
            for condition in everything.measures("condition")
            for holds in (True, False)
        ),
    )


def _estimates(finished: Episodes) -> dict[str, Estimate]:
    fields = finished.measures("rate", "length", "count", "quantity")
    return {field.name: estimate(finished, field.name) for field in fields}


def _split(everything: Episodes, condition: RecordField, holds: bool) -> Split:
    values = everything.columns[condition.name]
    known = int((~np.isnan(values)).sum())
    own = everything.select(values == float(holds))
    successes, steps = own.columns["success"], own.columns["num_steps"]
    return Split(
        condition,
        holds,
        len(own.finished()),
        len(own) / known if known else np.nan,
        ratio_with_interval(1000 * successes, steps, own.trial),
        _estimates(own.finished()),
    )


def percent(value: float, digits: int = 1, sign: bool = False) -> str:
    """0.613 as "61.3"; an en dash where there is no number."""
    if math.isnan(value):
        return "–"
    return f"{100 * value:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def amount(value: float, sign: bool = False) -> str:
    """54.234 as "54.2", three digits at least; an en dash where there is no number."""
    if math.isnan(value):
        return "–"
    digits = 2 if abs(value) < 10 else 1
    value = round(value, digits) + 0.0  # no minus before a zero
    return f"{value:{'+' if sign else ''},.{digits}f}".replace("-", "−")


def interval(found: Estimate, percents: bool = False, sign: bool = False) -> str:
    """Both ends of an interval, "[52.1, 56.3]"; empty where there is none."""
    if math.isnan(found.low):
        return ""
    ends = (percent(v, sign=sign) if percents else amount(v, sign) for v in (found.low, found.high))
    return f"[{', '.join(ends)}]"


def summary_table(evaluations: Sequence[Evaluation]) -> str:
    """The headline numbers with intervals for the terminal, one line per evaluation."""
    rows = [["agent", "return/trial", "targets/1k steps", "success %", "SPL %", "episodes"]]
    for evaluation in evaluations:
        numbers = headline(evaluation)
        rows.append(_row(evaluation.label, numbers.estimates, numbers.returns, numbers.targets))
        for split in numbers.splits:
            if split.episodes:
                label = f"  {split.condition.name}: {'yes' if split.holds else 'no'}"
                rows.append(_row(label, split.estimates, {}, split.targets))
    widths = [max(len(row[column].rstrip()) for row in rows) for column in range(len(rows[0]))]
    rows.insert(1, ["-" * width for width in widths])
    lines = [
        "  ".join(cell.rstrip().ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    counts = " or ".join(str(n) for n in sorted({len(e.trials) for e in evaluations}))
    note = f"[ ] 95 % interval, resampled over {counts} trials"
    return "\n".join([*(line.rstrip() for line in lines), note])


def _row(
    label: str, estimates: dict[str, Estimate], returns: dict[str, Estimate], targets: Estimate
) -> list[str]:
    def cell(found: Estimate | None, percents: bool = False) -> str:
        if found is None:
            return ""
        mean = percent(found.mean) if percents else amount(found.mean)
        return f"{mean:>5} {interval(found, percents)}"

    # One rate more would make lines of over 100 columns.
    rates = [cell(estimates.get(name), True) for name in ("success", "spl")]
    episodes = f"{estimates['success'].values:>8,}"
    return [label, cell(returns.get("reward")), cell(targets), *rates, episodes]
