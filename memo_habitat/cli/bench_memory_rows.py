"""The rows of `bench memory` as people read them: lines of a table, Markdown tables, a plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

VARIANTS = ("memo", "memo_kv", "fct", "rmt", "ac", "no_iea", "lstm")
RATIOS = "the median over the repeats of each repeat's own ratio, not the ratio of two medians"
Row = dict[str, Any]
#: Heading, field, width and format of the table's columns.
_COLUMNS = (
    ("variant", "variant", 9, "s"),
    ("steps", "steps", 7, "d"),
    ("batch", "batch", 6, "d"),
    ("precision", "precision", 10, "s"),
    ("train s", "train_seconds", 9, ".3f"),
    ("/ fct", "train_ratio_to_fct", 7, ".3f"),
    ("peak MB", "peak_train_bytes", 9, "MB"),
    ("act ms", "act_ms", 8, ".2f"),
    ("/ fct", "act_ratio_to_fct", 7, ".3f"),
    ("refresh s", "refresh_seconds", 10, ".3f"),
    ("cache MB", "cache_bytes", 10, "MB"),
    ("/ fct", "cache_ratio_to_fct", 7, ".3f"),
)
#: Of each Markdown table what tells one size from another, and its columns, once for each size.
_TRAINED = (
    ("s", "train_seconds", ".4g"),
    ("/ fct", "train_ratio_to_fct", ".3f"),
    ("peak MB", "peak_train_bytes", "MB"),
)
_ACTED = (("ms", "act_ms", ".4g"), ("/ fct", "act_ratio_to_fct", ".3f"))
_HELD = (
    ("MB", "cache_bytes", "MB"),
    ("/ fct", "cache_ratio_to_fct", ".3f"),
    ("anew, s", "refresh_seconds", ".3g"),
)
_TABLES = (("T={steps}, B={batch}", _TRAINED), ("{steps:,} steps", _ACTED), ("{steps:,}", _HELD))


def heading() -> str:
    """The line above the table."""
    return "  ".join(f"{name:>{width}}" for name, _, width, _ in _COLUMNS)


def table_line(row: Row) -> str:
    """A row of the table; what was not measured in it is a dash."""
    return "  ".join(f"{_cell(row[field], form):>{size}}" for _, field, size, form in _COLUMNS)


def markdown(rows: Sequence[Row]) -> str:
    """The rows as tables of training passes, acting steps and caches, the reference among them."""
    tables = [
        _table([row for row in rows if row[columns[0][1]] is not None], columns, size)
        for size, columns in _TABLES
    ]
    return "\n".join(table for table in tables if table)


def _table(rows: Sequence[Row], columns: Sequence[tuple[str, str, str]], size: str) -> str:
    """One line for each variant and precision; the columns once for each size."""
    if not rows:
        return ""
    sizes = list(dict.fromkeys(size.format(**row) for row in rows))
    names = [""]
    for one in sizes:
        names += [f"{one}: {columns[0][0]}", *(name for name, *_ in columns[1:])]
    lines = [names, ["---"] * len(names)]
    for variant, precision in dict.fromkeys((row["variant"], row["precision"]) for row in rows):
        cells = [f"`{variant}`" if precision == "float32" else f"`{variant}`, {precision}"]
        for row in rows:
            if (row["variant"], row["precision"]) == (variant, precision):
                cells += [_cell(row[field], form) for _, field, form in columns]
        lines.append(cells)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines).replace("|  |", "| |")


def _cell(value: Any, form: str) -> str:
    if value is None:
        return "-"
    if form == "MB":
        return f"{value / 1e6:.1f}" if value >= 1e5 else f"{value / 1e6:.1g}"
    return f"{value:{form}}"


def draw(rows: Sequence[Row], path: Path) -> None:
    """Write the plot: acting over the trial and training, two panels for each precision."""
    from matplotlib.figure import Figure

    precisions = list(dict.fromkeys(row["precision"] for row in rows))
    variants = [name for name in VARIANTS if any(row["variant"] == name for row in rows)]
    figure = Figure(figsize=(10.5, 3.9 * len(precisions)), layout="constrained")
    panels = figure.subplots(len(precisions), 2, squeeze=False)
    for precision, (left, right) in zip(precisions, panels, strict=True):
        chosen = [row for row in rows if row["precision"] == precision]
        _draw_acting(left, [row for row in chosen if row["act_ms"] is not None], variants)
        _draw_training(right, [row for row in chosen if row["train_seconds"] is not None], variants)
        left.set_title(f"acting, {precision}")
        right.set_title(f"training, {precision}")
    lines = next(labelled for labelled in (left, right) if labelled.get_legend_handles_labels()[0])
    figure.legend(
        *lines.get_legend_handles_labels(), loc="outside upper center", ncols=len(variants)
    )
    figure.savefig(path, dpi=130, metadata={"Software": None})


def _draw_acting(axes: Axes, rows: Sequence[Row], variants: Sequence[str]) -> None:
    from matplotlib.ticker import LogFormatter

    axes.set_xlabel("steps of the trial")
    axes.set_ylabel("ms per step")
    if not rows:
        return
    for variant in variants:
        own = [row for row in rows if row["variant"] == variant]
        axes.plot(
            [row["steps"] for row in own],
            [row["act_ms"] for row in own],
            color=_colour(variant),
            marker="o",
            markersize=4,
            label=variant,
        )
    steps = sorted({row["steps"] for row in rows})
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(steps, [str(value) for value in steps])
    axes.yaxis.set_major_formatter(LogFormatter())
    axes.yaxis.set_minor_formatter(LogFormatter())
    axes.grid(True, which="both", alpha=0.25)
    axes.set_ylabel(f"ms per step of {rows[0]['batch']} environments")


def _draw_training(axes: Axes, rows: Sequence[Row], variants: Sequence[str]) -> None:
    axes.set_ylabel("seconds, forward and backward")
    sizes = list(dict.fromkeys((row["steps"], row["batch"]) for row in rows))
    width = 0.8 / len(variants)
    for number, variant in enumerate(variants):
        own = [row for row in rows if row["variant"] == variant]
        places = [place + (number - (len(variants) - 1) / 2) * width for place in range(len(own))]
        bars = axes.bar(
            places,
            [row["train_seconds"] for row in own],
            width,
            color=_colour(variant),
            label=variant,
        )
        ratios = [f"{row['train_ratio_to_fct']:.2f}" for row in own]
        axes.bar_label(bars, ratios, fontsize=7, padding=1)
    axes.set_xticks(range(len(sizes)), [f"T = {steps}, B = {batch}" for steps, batch in sizes])
    axes.set_xlabel("above the bars: ratio to fct")


def _colour(variant: str) -> str:
    """The same in every plot, whichever variants are in it."""
    return f"C{VARIANTS.index(variant)}"
