"""Episodes that took place on a grid, drawn cell by cell as inline SVG that plays them again."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from memo_habitat.evaluation.records import EpisodeRecord
from memo_habitat.report.load import Evaluation

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
class Picture:
    """An episode and its drawing."""

    record: EpisodeRecord
    svg: Markup


@dataclass(frozen=True)
class GridTrial:
    """Some episodes of one trial, by their number."""

    name: str
    pictures: tuple[Picture, ...]


def grid_trials(evaluation: Evaluation, color: int) -> list[GridTrial]:
    """First, third and last finished episode of an evaluation's first trials; none off grids."""
    names = sorted(evaluation.trials, key=_by_repetition)[:_TRIALS]
    episodes: dict[str, list[EpisodeRecord]] = {name: [] for name in names}
    for record in evaluation.records(names):
        if record.grid_shape and record.path and not record.truncated:
            episodes[record.trial_id].append(record)
    found = []
    for name, own in episodes.items():
        own.sort(key=lambda record: record.episode_index)
        chosen = [own[i] for i in sorted({*_EPISODES, len(own) - 1}) if 0 <= i < len(own)]
        if chosen:
            pictures = (Picture(record, Markup(draw_grid(record, color))) for record in chosen)
            found.append(GridTrial(name, tuple(pictures)))
    return found


def draw_grid(record: EpisodeRecord, color: int) -> str:
    """An episode seen from above, z upwards; one unit of the drawing is a cell.

    Args:
        record: the episode, with its path and the shape of its grid.
        color: number of the page's series colour for the path.
    """
    columns, rows = record.grid_shape

    def cell(x: float, z: float) -> tuple[float, float]:
        return x + 0.5, rows - 0.5 - z

    way = [cell(*point) for point in record.path]
    lines = [f"M{x} 0V{rows}" for x in range(columns + 1)]
    lines += [f"M0 {y}H{columns}" for y in range(rows + 1)]
    parts = [f'<path class="lines" d="{"".join(lines)}"/>', _frame("start", *way[0], 0.84)]
    parts += [_frame("goal", *cell(goal[0], goal[2]), 0.62) for goal in record.goal_positions]
    waypoints = [cell(point[0], point[2]) for point in record.waypoint_positions]
    held = _steps_to(way, waypoints)
    parts += [_way(way[: held + 1], "way", color), _way(way[held:], "way held", color)]
    parts += [_frame("waypoint", x, y, 0.3) for x, y in waypoints]
    x, y = way[-1]
    outcome = "found" if record.success else "missed"
    parts.append(f'<circle class="end {outcome}" cx="{x:g}" cy="{y:g}" r=".2"/>')
    parts.append(_runner(way))
    return (
        f'<svg class="cells" viewBox="-.05 -.05 {columns + 0.1:g} {rows + 0.1:g}" role="img">'
        f"{''.join(parts)}</svg>"
    )


def _by_repetition(trial: str) -> tuple[str, int, str]:
    """Order of trials by house, then by number: "a/x/10" comes after "a/x/9"."""
    house, arrangement, number = trial.rsplit("/", 2)
    return house, int(number), arrangement


def _steps_to(way: Cells, waypoints: Cells) -> int:
    """Steps after which all waypoints were visited in order; all steps where one was not.

    Each takes a step of its own, so one on the start's cell is not visited by starting there.
    """
    step = 0
    for point in waypoints:
        step = next((i for i in range(step + 1, len(way)) if way[i] == point), len(way) - 1)
    return step


def _frame(name: str, x: float, y: float, side: float) -> str:
    corner = f'x="{x - side / 2:g}" y="{y - side / 2:g}"'
    return f'<rect class="{name}" {corner} width="{side:g}" height="{side:g}"/>'


def _way(way: Cells, name: str, color: int) -> str:
    points = " ".join(f"{x:g},{y:g}" for x, y in way)
    return f'<polyline class="{name}" points="{points}" style="stroke: var(--series-{color})"/>'


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
