"""Episodes seen from above, as inline SVG: on a house's map, or on a grid where they play again.

Not by matplotlib: a path of a thousand points is one element here, units are metres or cells, and
a grid's episode is animated. The drawings are the macros of `templates/seen_from_above.svg.j2`.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup
from PIL import Image

from memo_habitat.evaluation.records import EpisodeRecord
from memo_habitat.report.load import Evaluation
from memo_habitat.report.text import TEMPLATES
from memo_habitat.simulator.interface import TopDownMap

# m of the surroundings shown around what is drawn.
_MARGIN = 0.4
# RGBA of ground and of what cannot be stood on: translucent greys suit light and dark pages.
_FREE = (127, 127, 127, 30)
_TAKEN = (127, 127, 127, 120)


def _draw(macro: str, **values: Any) -> Markup:
    module = TEMPLATES.get_template("seen_from_above.svg.j2").module
    drawn: Markup = getattr(module, macro)(**values)
    return drawn


def png_source(image: Image.Image) -> str:
    """`image` as the source of an <img> or <image>."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def draw_map(
    record: EpisodeRecord, house: TopDownMap | None, success_distance: float | None, color: int
) -> Markup:
    """An episode seen from above; one unit of the drawing is a metre.

    Args:
        record: the episode, with its path.
        house: where an agent can stand; None draws the path alone.
        success_distance: m around each target within which a stop counts; None draws no circle.
        color: number of the page's series colour for the path.
    """
    view, ground = view_of([*record.path, *((x, z) for x, _, z in record.goal_positions)], house)
    return _draw(
        "map", record=record, view=view, ground=ground, reach=success_distance, color=color
    )


def view_of(
    points: Sequence[Sequence[float]], house: TopDownMap | None
) -> tuple[list[float], dict[str, Any] | None]:
    """The viewBox (x, z, width, height in m) that shows points and house, and the house's image."""
    shown = [tuple(point) for point in points]
    if house is not None and house.free.any():
        cells = np.argwhere(house.free)[:, ::-1]  # columns lie along x, rows along z
        ends = np.array([cells.min(axis=0), cells.max(axis=0) + 1])
        shown += (house.origin + ends * house.resolution).tolist()
    corners = np.array(shown or [(0.0, 0.0)], dtype=float)
    low, high = corners.min(axis=0) - _MARGIN, corners.max(axis=0) + _MARGIN
    ground = None if house is None else _ground(house, low, high)
    return [*low, *(high - low)], ground


def _ground(house: TopDownMap, low: np.ndarray, high: np.ndarray) -> dict[str, Any]:
    """The part of the map between the corners (x, z) as an image, and its place in m."""
    size, (x, z) = house.resolution, house.origin
    left, top = np.floor((low - house.origin) / size).astype(int)
    columns, rows = np.ceil((high - low) / size).astype(int) + 1
    pixels = np.full((rows, columns, 4), _TAKEN, dtype=np.uint8)
    row, column = (np.argwhere(house.free) - (top, left)).T
    inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
    pixels[row[inside], column[inside]] = _FREE
    return {
        "source": png_source(Image.fromarray(pixels, "RGBA")),
        **{"x": x + left * size, "y": z + top * size},
        **{"width": columns * size, "height": rows * size},
    }


# On a grid --------------------------------------------------------------------------------------

_TRIALS = 2
_EPISODES = (0, 2)
# s for a step of the agent when an episode is played again, and steps that its end is shown for.
_STEP_SECONDS, _PAUSE = 0.18, 6


class GridTrial(NamedTuple):
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
            found.append(GridTrial(name, tuple((one, draw_grid(one, color)) for one in chosen)))
    return found


def draw_grid(record: EpisodeRecord, color: int) -> Markup:
    """An episode on its grid, z upwards; one unit of the drawing is a cell."""

    def cells(points: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
        rows = record.grid_shape[1]
        return [(point[0] + 0.5, rows - 0.5 - point[-1]) for point in points]

    way, waypoints = cells(record.path), cells(record.waypoint_positions)
    held = 0  # steps after which all waypoints were visited in order; all of them where not
    for point in waypoints:
        # Each takes a step of its own: one on the start's cell is not visited by starting there.
        held = next((i for i in range(held + 1, len(way)) if way[i] == point), len(way) - 1)
    shown = [*way, *[way[-1]] * _PAUSE]
    return _draw(
        "grid",
        record=record,
        color=color,
        **{"way": way, "waypoints": waypoints, "goals": cells(record.goal_positions)},
        **{"held": held, "shown": shown, "seconds": _STEP_SECONDS * (len(shown) - 1)},
    )
