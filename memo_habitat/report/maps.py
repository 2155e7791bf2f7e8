"""Top-down maps with an episode's path and targets, as inline SVG."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from memo_habitat.evaluation.records import EpisodeRecord
from memo_habitat.report.load import HouseMap

# m of the surroundings shown around what is drawn.
_MARGIN = 0.4
# RGBA of ground and of what cannot be stood on: translucent greys suit light and dark pages.
_FREE = (127, 127, 127, 30)
_TAKEN = (127, 127, 127, 120)


def png_source(image: Image.Image) -> str:
    """`image` as the source of an <img> or <image>."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _bounds(record: EpisodeRecord, house: HouseMap | None) -> tuple[float, float, float, float]:
    """(x, z, width, height) in m of what the picture shows."""
    points = [*record.path, *((goal[0], goal[2]) for goal in record.goal_positions)]
    if house is not None and house.free.any():
        rows, columns = np.nonzero(house.free)
        x, z = house.origin
        for row, column in ((rows.min(), columns.min()), (rows.max() + 1, columns.max() + 1)):
            points.append((x + column * house.resolution, z + row * house.resolution))
    if not points:
        points = [(0.0, 0.0)]
    corners = np.array(points, dtype=float)
    low, high = corners.min(axis=0) - _MARGIN, corners.max(axis=0) + _MARGIN
    return float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1])


def _ground(house: HouseMap, bounds: tuple[float, float, float, float]) -> str:
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
    for goal in record.goal_positions:
        if success_distance is not None:
            parts.append(
                f'<circle cx="{goal[0]:.3f}" cy="{goal[2]:.3f}" r="{success_distance:.3f}" '
                f'class="reach" stroke-width="{0.5 * unit:.3f}"/>'
            )
        side = 3.4 * unit
        parts.append(
            f'<rect x="{goal[0] - side / 2:.3f}" y="{goal[2] - side / 2:.3f}" width="{side:.3f}" '
            f'height="{side:.3f}" class="goal" stroke-width="{0.6 * unit:.3f}" '
            f'transform="rotate(45 {goal[0]:.3f} {goal[2]:.3f})"/>'
        )
    if record.path:
        line = " ".join(f"{px:.3f},{pz:.3f}" for px, pz in record.path)
        parts.append(
            f'<polyline points="{line}" class="path" style="stroke: var(--series-{color})" '
            f'stroke-width="{1.1 * unit:.3f}"/>'
        )
        (sx, sz), (ex, ez) = record.path[0], record.path[-1]
        outcome = "found" if record.success else "missed"
        parts.append(
            f'<circle cx="{sx:.3f}" cy="{sz:.3f}" r="{1.9 * unit:.3f}" class="start" '
            f'stroke-width="{0.9 * unit:.3f}"/>'
        )
        parts.append(
            f'<circle cx="{ex:.3f}" cy="{ez:.3f}" r="{1.9 * unit:.3f}" class="end {outcome}"/>'
        )
    return (
        f'<svg class="map" viewBox="{x:.3f} {z:.3f} {width:.3f} {height:.3f}" role="img">'
        f"{''.join(parts)}</svg>"
    )
