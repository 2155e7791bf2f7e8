"""Plots as inline SVG whose colours come from the page, and as pictures of their own."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from memo_habitat.report.episodes import Bucket
from memo_habitat.report.statistics import FloatArray, mean_curve
from memo_habitat.report.text import amount, percent, short_bytes, short_number
from memo_habitat.utils.files import atomic_path


class _Palette(NamedTuple):
    """Colours: of text, of lines in the background, and of series by their number."""

    ink: str
    faint: str
    series: tuple[str, ...]


# Stand-ins that matplotlib writes into the SVG, and `_svg` replaces by the page's variables: so
# one drawing follows light and dark.
_PAGE = _Palette("#010203", "#040506", tuple(f"#0a0b{number:02x}" for number in range(11)))
# The page's colours on a light ground.
_PAPER = _Palette(
    "#1d2127",
    "#dcdfe3",
    (
        *("#8a919c", "#2f9468", "#2764c9", "#d1672a", "#8b4fc0"),
        *("#b8962e", "#c23d66", "#2b8fa8", "#5d6b1f", "#a14a8a", "#3d434c"),
    ),
)
PICTURES = ("curve.png", "curve.svg")


class Curve(NamedTuple):
    """A line of a plot."""

    x: Sequence[float]  # [P] positions
    y: Sequence[float]  # [P] values
    color: int  # number of the page's series colour
    low: Sequence[float] | None = None  # [P] lower end of a band; None without one
    high: Sequence[float] | None = None  # [P] upper end
    dashed: bool = False  # whether it is a reference, not a measurement
    marked: bool = False  # whether its points are marked


class Layer(NamedTuple):
    """One of several areas on top of each other."""

    name: str  # what it shows, for the legend
    y: Sequence[float]  # [P] heights
    color: int  # number of the page's series colour
    alpha: float = 0.85  # its opacity


def curve_of_buckets(buckets: Sequence[Bucket], color: int) -> Curve:
    """A marked line through the middles of `buckets`, with the band of their intervals."""
    whole = all(bucket.high - bucket.low == 1 for bucket in buckets)
    return Curve(
        [b.high if whole else (b.low + b.high) / 2 for b in buckets],
        [bucket.estimate.mean for bucket in buckets],
        color,
        [bucket.estimate.low for bucket in buckets],
        [bucket.estimate.high for bucket in buckets],
        marked=True,
    )


def curve_over_seeds(x: FloatArray, values: FloatArray, color: int, marked: bool = False) -> Curve:
    """The mean of one curve per seed, `values` [S, P], with a band where there are several."""
    mean, low, high = (ends.tolist() for ends in mean_curve(values))
    if len(values) < 2:
        return Curve(x.tolist(), mean, color, marked=marked)
    return Curve(x.tolist(), mean, color, low, high, marked=marked)


def rates(curves: Sequence[Curve], x_label: str, least: float = 0.1) -> Markup:
    """Shares from 0 to 1 over `x_label`, as SVG; the axis reaches to `least` at least."""
    with rc_context(_PAGE_STYLE):
        axes = _axes(x_label)
        for curve in curves:
            _draw(axes, curve, _PAGE)
        highest = [np.nanmax([0.0, *curve.y, *(curve.high or [])]) for curve in curves]
        top = min(1.02, max(least, 1e-4, 1.15 * max([0.0, *map(float, highest)])))
        axes.set_ylim(0, top)
        axes.set_xlim(left=0)
        decimals = 0 if top > 0.13 else 1 if top > 0.013 else 2  # ticks at 2.5 % and less
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=decimals, symbol=" %"))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        return _svg(axes, curves, lambda value: f"{percent(value)} %")


def amounts(
    curves: Sequence[Curve], x_label: str, unit: str = "", wide: bool = False, bands: bool = False
) -> Markup:
    """Values of any size over `x_label`, as SVG; the vertical axis holds 0.

    The unit "B" writes bytes. `wide` takes the whole width of the page. `bands` shows all of the
    bands; those over few seeds may be very wide.
    """
    if wide:
        # Letters shrink with a drawing: phones show another one, and not this one.
        narrow = _amounts(curves, x_label, unit, False, bands)
        drawn = _amounts(curves, x_label, unit, True, bands)
        both = ((drawn, "on-wide"), (narrow, "on-narrow"))
        return Markup("\n").join(
            Markup(str(svg).replace("<svg ", f'<svg class="{name}" ', 1)) for svg, name in both
        )
    return _amounts(curves, x_label, unit, False, bands)


def _amounts(curves: Sequence[Curve], x_label: str, unit: str, wide: bool, bands: bool) -> Markup:
    with rc_context(_PAGE_STYLE):
        axes = _axes(x_label, wide)
        for curve in curves:
            _draw(axes, curve, _PAGE)
        axes.set_xlim(left=0)
        axes.set_ylim(_range_of_curves(curves, 0.1, bands))
        locator = MaxNLocator(5)
        if unit == "B":
            locator = _BinaryLocator(axes.get_ylim()[1])
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short_bytes(value)))
        elif all(abs(value) >= 10 for value in axes.get_ylim() if value):
            axes.yaxis.set_major_formatter(_NUMBERS)
        axes.yaxis.set_major_locator(locator)
        return _svg(axes, curves, short_bytes if unit == "B" else amount)


def stacked(x: Sequence[float], layers: Sequence[Layer], x_label: str) -> Markup:
    """Shares that add up to 1 over `x_label`, the first layer at the bottom, as SVG."""
    with rc_context(_PAGE_STYLE):
        axes, low = _axes(x_label), np.zeros(len(x))
        for layer in layers:
            high, color = low + np.asarray(layer.y), _PAGE.series[layer.color]
            look: dict[str, Any] = {"color": color, "alpha": layer.alpha, "linewidth": 0}
            axes.fill_between(x, low, high, label=layer.name, **look)
            low = high
        axes.set_ylim(0, 1)
        axes.set_xlim(left=0)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
        above: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1)}
        axes.legend(**above, ncols=len(layers), frameon=False, handlelength=1, borderaxespad=0.2)
        return _svg(axes)


def write_pictures(
    folder: Path, curves: Mapping[str, Curve], lines: Mapping[str, Curve], title: str
) -> None:
    """Write learning curves, by the name that the legend gives them, as PNG and SVG.

    `lines` are references, dashed and named at their right end; `title` says what was trained.
    """
    with rc_context(_style(_PAPER, 10)):
        figure = Figure(figsize=(7.6, 4.2), dpi=160, layout="constrained", facecolor="white")
        axes = figure.add_subplot()
        for name, curve in curves.items():
            _draw(axes, curve, _PAPER, name)
        for name, line in lines.items():
            _draw(axes, line, _PAPER)
            axes.annotate(
                f"{name} {line.y[-1]:.1f}",
                (line.x[-1], line.y[-1]),
                xytext=(0, 3),
                textcoords="offset points",
                ha="right",
                va="bottom",
                color=_PAPER.series[line.color],
                fontsize=9,
            )
        axes.set_ylim(_range_of_curves([*curves.values(), *lines.values()], 0.12))
        axes.set_xlim(left=0)
        axes.set_title(title, loc="left", fontsize=11)
        axes.set_xlabel("environment steps")
        axes.set_ylabel("return per trial in training")
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.xaxis.set_major_formatter(_NUMBERS)
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, handlelength=1.4)
        for name in PICTURES:
            kind = Path(name).suffix[1:]
            with atomic_path(folder / name) as path:
                metadata = {"Date": None} if kind == "svg" else None
                figure.savefig(path, format=kind, metadata=metadata)


def value_range(
    values: Iterable[float], lows: Iterable[float], margin: float = 0.0
) -> tuple[float, float]:
    """Both ends of an axis that holds 0 and all values; those that are NaN are left out.

    Lower ends of intervals count only where some value is below 0 itself: an interval of two seeds
    reaches far below 0 even where nothing can be negative, and would press the rest together.
    `margin` is the share of either end that is added to it.
    """
    known = [0.0, *(value for value in values if not np.isnan(value))]
    if min(known) < 0:
        known += [low for low in lows if not np.isnan(low)]
    low, high = (1 + margin) * min(known), (1 + margin) * max(known)
    return (low, high) if low < high else (0.0, 1.0)


def _style(palette: _Palette, font_size: float) -> Any:
    """Settings of matplotlib: a horizontal grid and no frame."""
    ink, faint = palette.ink, palette.faint
    return {
        "svg.hashsalt": "memo-habitat",  # so that the same plot has the same bytes
        "font.size": font_size,
        "text.color": ink,
        "axes.labelcolor": ink,
        "axes.edgecolor": faint,
        **{f"axes.spines.{side}": False for side in ("top", "right", "left")},
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.axisbelow": True,
        "grid.color": faint,
        "grid.linewidth": 0.7,
        **{f"{axis}tick.color": faint for axis in "xy"},
        **{f"{axis}tick.labelcolor": ink for axis in "xy"},
        "ytick.major.size": 0,
        "lines.linewidth": 1.8,
        "lines.solid_capstyle": "round",
    }


_PAGE_STYLE = _style(_PAGE, 9) | {"svg.fonttype": "none"}
_NUMBERS = FuncFormatter(lambda value, _: short_number(value))


def _axes(x_label: str, wide: bool = False) -> Axes:
    """What a figure of the page is drawn in."""
    axes = Figure(figsize=(8.6, 3.4) if wide else (4.8, 2.9), layout="constrained").add_subplot()
    axes.set_xlabel(x_label)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(_NUMBERS)
    return axes


def _svg(
    axes: Axes, curves: Sequence[Curve] = (), write: Callable[[float], str] = amount
) -> Markup:
    """The figure, with the page's variables in the place of colours and fonts.

    The marked points of `curves` tell their values, as `write` does, to who points at them.
    """
    buffer = io.StringIO()
    figure: Any = axes.figure
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    # Names of groups would be there twice with several plots on a page, and nothing refers to them.
    svg = re.sub(r'<g id="[A-Za-z0-9]+_\d+"', "<g", svg)
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'width="[\d.]+pt" height="[\d.]+pt" ', "", svg, count=1)
    svg = re.sub(r"(font: [\d.]+px) [^;\"]+", r"\1 inherit", svg)
    svg = svg.replace("font: 9px inherit", "font-size: 9px")
    svg = svg.replace("</svg>", f"{_tips(axes, curves, write)}</svg>")
    svg = svg.replace(_PAGE.ink, "currentColor").replace(_PAGE.faint, "var(--rule)")
    svg = re.sub(r"#0a0b([0-9a-f]{2})", lambda m: f"var(--series-{int(m[1], 16)})", svg)
    return Markup(svg)


def _tips(axes: Axes, curves: Sequence[Curve], write: Callable[[float], str]) -> str:
    """Unseen circles over the marked points, with position, value and interval as their titles."""
    # Of the drawing on paper, in points and from the bottom; an SVG counts from the top.
    figure: Any = axes.figure
    scale, height = 72 / figure.dpi, 72 * figure.get_figheight()
    found = []
    for curve in curves:
        for index, (x, y) in enumerate(zip(curve.x, curve.y, strict=True) if curve.marked else ()):
            if not math.isfinite(y):
                continue
            text = f"{axes.get_xlabel()} {short_number(x)}: {write(y)}"
            if curve.low is not None and curve.high is not None and math.isfinite(curve.low[index]):
                text += f" [{write(curve.low[index])}, {write(curve.high[index])}]"
            left, bottom = scale * axes.transData.transform((x, y))
            place = f'cx="{left:.1f}" cy="{height - bottom:.1f}" r="6" fill="transparent"'
            found.append(f'<circle class="tip" {place}><title>{text}</title></circle>')
    return "".join(found)


def _draw(axes: Axes, curve: Curve, palette: _Palette, label: str | None = None) -> None:
    color = palette.series[curve.color]
    style: dict[str, Any] = {"color": color, "label": label}
    if curve.dashed:
        style.update(linestyle=(0, (4, 3)), linewidth=1.2)
    if curve.marked:
        style.update(marker="o", markersize=3.6)
    if curve.low is not None and curve.high is not None:
        axes.fill_between(curve.x, curve.low, curve.high, color=color, alpha=0.15, linewidth=0)
    axes.plot(curve.x, curve.y, **style)


def _range_of_curves(
    curves: Sequence[Curve], margin: float, bands: bool = False
) -> tuple[float, float]:
    values = [value for curve in curves for value in curve.y]
    values += [value for curve in curves if bands for value in curve.high or ()]
    return value_range(values, [low for curve in curves for low in curve.low or ()], margin)


class _BinaryLocator(MaxNLocator):
    """Ticks at round numbers of the binary unit that the largest value is written in."""

    def __init__(self, highest: float) -> None:
        super().__init__(5)
        self._unit = next((u for u in (2**30, 2**20, 2**10) if highest >= u), 1)

    def tick_values(self, vmin: float, vmax: float) -> Any:
        """Ticks between two byte counts."""
        return np.asarray(super().tick_values(vmin / self._unit, vmax / self._unit)) * self._unit
