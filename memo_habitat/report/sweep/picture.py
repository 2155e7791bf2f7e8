"""The learning curves as a picture of their own, for a README or a paper."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from memo_habitat.errors import UserError
from memo_habitat.report.plots import Curve, axes_style, range_of_curves, short_number

PICTURES = ("curve.png", "curve.svg")
# The page's series colours on a light ground.
_COLORS = (
    *("#8a919c", "#2f9468", "#2764c9", "#d1672a", "#8b4fc0"),
    *("#b8962e", "#c23d66", "#2b8fa8", "#5d6b1f", "#a14a8a"),
)
_INK, _FAINT = "#1d2127", "#dcdfe3"


def write_pictures(
    folder: Path, curves: Mapping[str, Curve], lines: Mapping[str, Curve], title: str
) -> None:
    """Write the curves, by the name that the legend gives them, as PNG and SVG.

    Args:
        folder: where to.
        curves: the learning curves.
        lines: references, dashed and named at their right end.
        title: what was trained.
    """
    with rc_context(axes_style(_INK, _FAINT, 10)):  # type: ignore[arg-type]
        figure = Figure(figsize=(7.6, 4.2), dpi=160, layout="constrained", facecolor="white")
        axes = figure.add_subplot()
        for name, curve in curves.items():
            color = _COLORS[curve.color]
            axes.plot(curve.x, curve.y, color=color, linewidth=2, label=name)
            if curve.low is not None and curve.high is not None:
                axes.fill_between(curve.x, curve.low, curve.high, color=color, alpha=0.15, lw=0)
        for name, line in lines.items():
            _draw_line(axes, name, line)
        _finish(axes, [*curves.values(), *lines.values()], title)
        for name in PICTURES:
            metadata = {"Date": None} if name.endswith(".svg") else None
            try:
                figure.savefig(folder / name, metadata=metadata)
            except OSError as error:
                raise UserError(
                    f"cannot write {folder / name} ({error.strerror or error}); make its folder "
                    "writable"
                ) from error


def _draw_line(axes: Axes, name: str, line: Curve) -> None:
    color = _COLORS[line.color]
    axes.plot(line.x, line.y, color=color, linewidth=1.3, linestyle=(0, (5, 3)))
    axes.annotate(
        f"{name} {line.y[-1]:.1f}",
        (line.x[-1], line.y[-1]),
        xytext=(0, 3),
        textcoords="offset points",
        ha="right",
        va="bottom",
        color=color,
        fontsize=9,
    )


def _finish(axes: Axes, drawn: list[Curve], title: str) -> None:
    axes.set_ylim(range_of_curves(drawn, 0.12))
    axes.set_xlim(left=0)
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel("environment steps")
    axes.set_ylabel("return per trial in training")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, handlelength=1.4)
