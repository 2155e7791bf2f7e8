"""How numbers are written: in the pages, whose templates are here, and in the terminal's table."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import zip_longest

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from memo_habitat.report.episodes import REPEATED
from memo_habitat.report.load import Evaluation
from memo_habitat.report.statistics import Estimate
from memo_habitat.utils.provenance import package_versions


def percent(value: float, digits: int = 1, sign: bool = False) -> str:
    """0.613 as "61.3"; an en dash where there is no number."""
    if math.isnan(value):
        return "–"
    return f"{100 * value:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def amount(value: float, sign: bool = False) -> str:
    """54.234 as "54.2", three digits at least; an en dash where there is no number."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞"
    digits = 2 if abs(value) < 10 else 1
    value = round(value, digits) + 0.0  # no minus before a zero
    return f"{value:{'+' if sign else ''},.{digits}f}".replace("-", "−")


def interval(found: Estimate, percents: bool = False, sign: bool = False) -> str:
    """Both ends of an interval, "[52.1, 56.3]"; empty where there is none."""
    if math.isnan(found.low):
        return ""
    ends = (percent(v, sign=sign) if percents else amount(v, sign) for v in (found.low, found.high))
    return f"[{', '.join(ends)}]"


def short_number(value: float) -> str:
    """1234567 as 1.23M; whole below ten thousand."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            divisor = 1e3 if unit == "k" else size
            return f"{value / divisor:.3g}{unit}"
    return f"{value:,.0f}"


def short_bytes(value: float) -> str:
    """Bytes in binary units."""
    for size, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if abs(value) >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f} B"


def summary_table(evaluations: Sequence[Evaluation]) -> str:
    """The headline numbers with intervals for the terminal, one line per evaluation."""
    rows = [["agent", "return/trial", "targets/1k steps", "success %", "SPL %", "episodes"]]
    for evaluation in evaluations:
        numbers = evaluation.headline
        rows.append(_row(evaluation.label, numbers.estimates, numbers.returns, numbers.targets))
        for split in numbers.splits:
            # What the records say themselves; what is worked out of them is in the report.
            if split.episodes and split.condition != REPEATED:
                label = f"  {split.condition.name}: {'yes' if split.holds else 'no'}"
                rows.append(_row(label, split.estimates, {}, split.targets))
    widths = [max(len(row[column].rstrip()) for row in rows) for column in range(len(rows[0]))]
    rows.insert(1, ["-" * width for width in widths])
    lines = [
        "  ".join(cell.rstrip().ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    drawn = {(len(np.unique(e.episodes.groups)), e.episodes.resampled) for e in evaluations}
    counts = " or ".join(f"{count} {of}" for count, of in sorted(drawn))
    note = f"[ ] 95 % interval, resampled over {counts}"
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


_TABLE = re.compile(r'<table( class="stacked")?>(.*?)</table>', re.DOTALL)
_HEAD = re.compile(r"<th\b([^>]*)>(.*?)</th>", re.DOTALL)


def label_cells(page: str) -> str:
    """`page` with the heads of its tables' columns beside every cell, as attributes.

    On a phone, whose width holds two columns, the style sheet writes them in front of the cells
    and stacks these. A head of several columns is put in front of theirs.
    """

    def labelled(table: re.Match[str]) -> str:
        head, body = table[2].split("<tbody>", 1)
        labels: list[str] = []
        for row in re.findall(r"<tr>(.*?)</tr>", head, re.DOTALL):
            above, labels = labels, []
            for attributes, text in _HEAD.findall(row):
                span = re.search(r'colspan="(\d+)"', attributes)
                labels += [" ".join(re.sub("<[^>]*>", " ", text).split())] * int(
                    span[1] if span else 1
                )
            labels = [": ".join(filter(None, both)) for both in zip_longest(above, labels)]
        rows = []
        for row in body.split("<tr>"):
            first, *cells = row.split("<td")
            named = zip_longest(cells, labels[: len(cells)], fillvalue="")
            rows.append(first + "".join(f'<td data-label="{label}"{cell}' for cell, label in named))
        return f"<table{table[1] or ''} data-rows>{head}<tbody>{'<tr>'.join(rows)}</table>"

    return _TABLE.sub(labelled, page)


TEMPLATES = Environment(
    loader=PackageLoader("memo_habitat.report", "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters.update(
    percent=percent,
    amount=amount,
    interval=interval,
    bytes=short_bytes,
    number=short_number,
    m="{:.3f}".format,  # metres, to the millimetre
    g="{:g}".format,
)
TEMPLATES.globals.update(isnan=math.isnan, versions=package_versions())
