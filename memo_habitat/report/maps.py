"""Episodes seen from above, as inline SVG: on a house's map, or on a grid where they play again.

Not by matplotlib: a path of a thousand points is one element here, units are metres or cells, and
a grid's episode is animated.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from PIL import Image

from memo_habitat.evaluation.records import EpisodeRecord
from memo_habitat.report.load import Evaluation, HouseMap

# m of the surroundings shown around what is drawn.
_MARGIN = 0.4
# RGBA of ground and of what cannot be stood on: translucent greys suit light and dark pages.
_FREE = (127, 127, 127, 30)
_TAKEN = (127, 127, 127, 120)

Box = tuple[float, float, float, float]


def png_source(image: Image.Image) -> str:
    """`image` as the source of an <img> or <image>."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def draw_map(
    record: EpisodeRecord, house: HouseMap | None, success_distance: float | None, color: int
) -> str:
    """An episode seen from above; one unit of the drawing is a metre.

    Args:
        record: the episode, with its path.
        house: where an agent can stand; None draws the path alone.
        success_distance: m around each target within which a stop counts; None draws no circle.
        color: number of the page's series colour for the path.
    """
    bounds = _bounds(record, house)
    x, z, width, height = bounds
    unit = max(width, height) / 100
    parts = [] if house is None else [_ground(house, bounds)]
    for gx, _, gz in record.goal_positions:
        if success_distance is not None:
            parts.append(
                f'<circle cx="{gx:.3f}" cy="{gz:.3f}" r="{success_distance:.3f}" '
                f'class="reach" stroke-width="{0.5 * unit:.3f}"/>'
            )
        side = 3.4 * unit
        parts.append(
            f'<rect x="{gx - side / 2:.3f}" y="{gz - side / 2:.3f}" width="{side:.3f}" '
            f'height="{side:.3f}" class="goal" stroke-width="{0.6 * unit:.3f}" '
            f'transform="rotate(45 {gx:.3f} {gz:.3f})"/>'
        )
    if record.path:
        line = " ".join(f"{px:.3f},{pz:.3f}" for px, pz in record.path)
        (sx, sz), (ex, ez) = record.path[0], record.path[-1]
        radius, outcome = 1.9 * unit, "found" if record.success else "missed"
        parts += [
            f'<polyline points="{line}" class="path" style="stroke: var(--series-{color})" '
            f'stroke-width="{1.1 * unit:.3f}"/>',
            f'<circle cx="{sx:.3f}" cy="{sz:.3f}" r="{radius:.3f}" class="start" '
            f'stroke-width="{0.9 * unit:.3f}"/>',
            f'<circle cx="{ex:.3f}" cy="{ez:.3f}" r="{radius:.3f}" class="end {outcome}"/>',
        ]
    view = f"{x:.3f} {z:.3f} {width:.3f} {height:.3f}"
    return f'<svg class="map" viewBox="{view}" role="img">{"".join(parts)}</svg>'


def _bounds(record: EpisodeRecord, house: HouseMap | None) -> Box:
    """(x, z, width, height) in m of what the picture shows."""
    points = [*record.path, *((x, z) for x, _, z in record.goal_positions)]
    if house is not None and house.free.any():
        rows, columns = np.nonzero(house.free)
        x, z = house.origin
        for row, column in ((rows.min(), columns.min()), (rows.max() + 1, columns.max() + 1)):
            points.append((x + column * house.resolution, z + row * house.resolution))
    corners = np.array(points or [(0.0, 0.0)], dtype=float)
    low, high = corners.min(axis=0) - _MARGIN, corners.max(axis=0) + _MARGIN
    return float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1])


def _ground(house: HouseMap, bounds: Box) -> str:
    """The part of the map within `bounds` as an <image>."""
    x, z, width, height = bounds
    size = house.resolution
    left, top = (int(np.floor((v - o) / size)) for v, o in zip((x, z), house.origin, strict=True))
    columns, rows = int(np.ceil(width / size)) + 1, int(np.ceil(height / size)) + 1
    pixels = np.full((rows, columns, 4), _TAKEN, dtype=np.uint8)
    row, column = np.nonzero(house.free)
    row, column = row - top, column - left
    inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
    pixels[row[inside], column[inside]] = _FREE
    return (
        f'<image href="{png_source(Image.fromarray(pixels, "RGBA"))}" '
        f'x="{house.origin[0] + left * size:.3f}" y="{house.origin[1] + top * size:.3f}" '
        f'width="{columns * size:.3f}" height="{rows * size:.3f}" class="ground"/>'
    )


# On a grid --------------------------------------------------------------------------------------

GRIDS_LEAD = (
    "First, third and last finished episode of the first two trials, which are the same for all. "
    "Grey frame: start; yellow: the key; brown frame: the door; line: the way, faint until the key "
    "is found; the black disc plays it again, step by step."
)
_TRIALS = 2
_EPISODES = (0, 2)
# s for a step of the agent when an episode is played again, and steps that its end is shown for.
_STEP_SECONDS, _PAUSE = 0.18, 6

Cells = list[tuple[float, float]]


@dataclass(frozen=True)
class GridTrial:
    """Some episodes of one trial, by its name, and their drawings."""

    name: str
    pictures: tuple[tuple[EpisodeRecord, Markup], ...]


def grid_trials(evaluation: Evaluation, color: int) -> list[GridTrial]:
    """First, third and last finished episode of an evaluation's first trials; none off grids."""

    def by_repetition(trial: str) -> tuple[str, int, str]:
        house, arrangement, number = trial.rsplit("/", 2)
        return house, int(number), arrangement  # "a/x/10" comes after "a/x/9"

    names = sorted(evaluation.trials, key=by_repetition)[:_TRIALS]
    episodes: dict[str, list[EpisodeRecord]] = {name: [] for name in names}
    for record in evaluation.records(names):
        if record.grid_shape and record.path and not record.truncated:
            episodes[record.trial_id].append(record)
    found = []
    for name, own in episodes.items():
        own.sort(key=lambda record: record.episode_index)
        chosen = [own[i] for i in sorted({*_EPISODES, len(own) - 1}) if 0 <= i < len(own)]
        if chosen:
            pictures = ((record, Markup(draw_grid(record, color))) for record in chosen)
            found.append(GridTrial(name, tuple(pictures)))
    return found


def draw_grid(record: EpisodeRecord, color: int) -> str:
    """An episode seen from above, z upwards; one unit of the drawing is a cell.

    Args:
        record: the episode, with its path and the shape of its grid.
        color: number of the page's series colour for the path.
    """
    columns, rows = record.grid_shape

    def cells(points: Sequence[Sequence[float]]) -> Cells:
        return [(point[0] + 0.5, rows - 0.5 - point[-1]) for point in points]

    def frame(name: str, place: tuple[float, float], side: float) -> str:
        corner = f'x="{place[0] - side / 2:g}" y="{place[1] - side / 2:g}"'
        return f'<rect class="{name}" {corner} width="{side:g}" height="{side:g}"/>'

    def line(name: str, way: Cells) -> str:
        points = " ".join(f"{x:g},{y:g}" for x, y in way)
        return f'<polyline class="{name}" points="{points}" style="stroke: var(--series-{color})"/>'

    way, waypoints = cells(record.path), cells(record.waypoint_positions)
    held = _steps_to(way, waypoints)
    lines = [f"M{x} 0V{rows}" for x in range(columns + 1)]
    lines += [f"M0 {y}H{columns}" for y in range(rows + 1)]
    x, y = way[-1]
    outcome = "found" if record.success else "missed"
    parts = [
        f'<path class="lines" d="{"".join(lines)}"/>',
        frame("start", way[0], 0.84),
        *(frame("goal", place, 0.62) for place in cells(record.goal_positions)),
        line("way", way[: held + 1]),
        line("way held", way[held:]),
        *(frame("waypoint", place, 0.3) for place in waypoints),
        f'<circle class="end {outcome}" cx="{x:g}" cy="{y:g}" r=".2"/>',
        _runner(way),
    ]
    view = f"-.05 -.05 {columns + 0.1:g} {rows + 0.1:g}"
    return f'<svg class="cells" viewBox="{view}" role="img">{"".join(parts)}</svg>'


def _steps_to(way: Cells, waypoints: Cells) -> int:
    """Steps after which all waypoints were visited in order; all steps where one was not.

    Each takes a step of its own, so one on the start's cell is not visited by starting there.
    """
    step = 0
    for point in waypoints:
        step = next((i for i in range(step + 1, len(way)) if way[i] == point), len(way) - 1)
    return step


def _runner(way: Cells) -> str:
    """A disc that goes along `way` again and again, at rest at the end for a while."""
    shown = [*way, *[way[-1]] * _PAUSE]
    seconds = _STEP_SECONDS * (len(shown) - 1)
    motions = "".join(
        f'<animate attributeName="{name}" dur="{seconds:.2f}s" repeatCount="indefinite" '
        f'values="{";".join(f"{point[axis]:g}" for point in shown)}"/>'
        for axis, name in enumerate(("cx", "cy"))
    )
    x, y = way[0]
    return f'<circle class="runner" cx="{x:g}" cy="{y:g}" r=".26">{motions}</circle>'
