"""The numbers of a report for other programs: JSON, CSV, and a LaTeX table."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from memo_habitat.report.breakdown import all_quarters, by_category, by_house, by_trial_step
from memo_habitat.report.comparison import compare
from memo_habitat.report.figures import ShownAgent
from memo_habitat.report.load import Evaluation
from memo_habitat.report.statistics import Estimate, over_seeds

TARGETS = "targets_per_1000_steps"


class Row(NamedTuple):
    """One number with its interval."""

    agent: str  # as the report calls it
    of: str  # which episodes: "all", or such as "category=mug", "trial_step=1–1,000"
    measure: str  # its name in records, or `TARGETS`
    unit: str  # empty for rates, which are from 0 to 1
    mean: float  # NaN where there is none
    low: float  # lower end of the 95 % interval; NaN where there is none
    high: float  # upper end
    values: int  # how many values the mean is over
    groups: int  # how many houses or trials were resampled


def rows_of(agents: Sequence[ShownAgent]) -> list[Row]:
    """All numbers of the evaluations of `agents`, those of each seed apart."""
    return [row for agent in agents for e in agent.evaluations for row in _rows(e)]


def _rows(evaluation: Evaluation) -> Iterator[Row]:
    episodes, numbers = evaluation.episodes, evaluation.headline

    def row(of: str, measure: str, found: Estimate) -> Row:
        unit = episodes.fields[measure].unit if measure in episodes.fields else ""
        ends = (found.mean, found.low, found.high)
        return Row(evaluation.label, of, measure, unit, *ends, found.values, found.groups)

    yield row("all", TARGETS, numbers.targets)
    for name, found in {**numbers.returns, **numbers.estimates}.items():
        yield row("all", name, found)
    yield row("second half less first", "success", numbers.gain)
    for q in all_quarters(episodes, evaluation.steps):
        of = "" if q.condition is None else f" {q.key}"
        for which, found in (("first", q.first), ("last", q.last), ("last/first", q.ratio)):
            yield row(f"{which} quarter{of}", TARGETS, found)
    for split in numbers.splits:
        of = f"{split.condition.name}={str(split.holds).lower()}"
        yield row(of, TARGETS, split.targets)
        for name, found in split.estimates.items():
            yield row(of, name, found)
    parts = {
        "category": by_category(episodes),
        "house": by_house(episodes),
        "trial_step": by_trial_step(episodes, evaluation.steps),
    }
    for kind, own in parts.items():
        for part in own:
            yield row(f"{kind}={part.label}", TARGETS, part.targets)
            for name, found in part.estimates.items():
                yield row(f"{kind}={part.label}", name, found)


def csv_text(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A file of comma-separated values, numbers to ten digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    for row in rows:
        writer.writerow(f"{value:.10g}" if isinstance(value, float) else value for value in row)
    return text.getvalue()


def as_csv(agents: Sequence[ShownAgent]) -> str:
    """A line for each number."""
    return csv_text(Row._fields, rows_of(agents))


def as_json(agents: Sequence[ShownAgent]) -> str:
    """The same, and the comparisons of agents; null where there is no number."""
    compared = [
        {
            **{"agent": pair.ours, "less": pair.theirs, "measure": pair.measure},
            **{key: _known(getattr(pair.found.difference, key)) for key in ("mean", "low", "high")},
            **{"p": _known(pair.found.p), "p_holm": _known(pair.adjusted)},
            **{"groups": pair.found.difference.groups, "left_out": list(pair.found.left_out)},
        }
        for pair in compare([(e.label, e) for agent in agents for e in agent.evaluations])
    ]
    numbers = [
        {name: _known(value) for name, value in row._asdict().items()} for row in rows_of(agents)
    ]
    return json.dumps({"numbers": numbers, "comparisons": compared}, indent=1, ensure_ascii=False)


def as_latex(agents: Sequence[ShownAgent]) -> str:
    """The headline numbers as a `tabular` of the package booktabs, intervals in brackets.

    Of an agent that was trained with several seeds: means over these, with intervals over them.
    """
    evaluations = [evaluation for agent in agents for evaluation in agent.evaluations]
    rates = {field.name: field.title for e in evaluations for field in e.episodes.measures("rate")}
    head = ["Agent", "Targets per 1,000 steps", *(f"{title}, %" for title in rates.values())]
    lines = [
        rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
        r"\toprule",
        " & ".join(map(_escaped, head)) + r" \\",
        r"\midrule",
    ]
    for agent in agents:
        rows = [evaluation.headline for evaluation in agent.evaluations]
        found = [[row.estimates.get(name) for row in rows] for name in rates]
        cells = [_cell([row.targets for row in rows], 1.0), *(_cell(own, 100.0) for own in found)]
        lines.append(" & ".join([_escaped(agent.name), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _cell(seeds: Sequence[Estimate | None], scale: float) -> str:
    known = [found for found in seeds if found is not None]
    found = known[0] if len(known) == 1 else over_seeds([one.mean for one in known])
    if math.isnan(found.mean):
        return "--"
    mean, low, high = (f"{scale * end:.1f}" for end in (found.mean, found.low, found.high))
    return f"${mean}$" if math.isnan(found.low) else rf"${mean}$ {{\scriptsize $[{low}, {high}]$}}"


def _escaped(text: str) -> str:
    return "".join(rf"\{sign}" if sign in "&%$#_{}" else sign for sign in text)


def _known(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value
