"""Writes the report on runs: one HTML file that needs nothing besides itself."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from omegaconf import OmegaConf
from PIL import Image

from memo_habitat.errors import UserError
from memo_habitat.evaluation.recorder import FilmedEpisode
from memo_habitat.evaluation.records import EpisodeRecord
from memo_habitat.report.breakdown import (
    MEASURES,
    Part,
    all_quarters,
    by_category,
    by_house,
    by_trial_step,
    without_value,
)
from memo_habitat.report.comparison import compare
from memo_habitat.report.episodes import CONTEXT, up_to_trial_step
from memo_habitat.report.figures import (
    REFERENCE_COLORS,
    ShownAgent,
    amount_figures,
    attention_figures,
    context_figures,
    extra_figures,
    rate_figures,
    reward_figures,
    targets_figure,
    trained_color,
)
from memo_habitat.report.learning_figures import checkpoint_figure, learning_figures
from memo_habitat.report.load import Evaluation, Run, first_and_last, load_runs, read_house_map
from memo_habitat.report.maps import draw_map, grid_trials, png_source
from memo_habitat.report.text import TEMPLATES, label_cells, summary_table
from memo_habitat.tasks.record_fields import Kind, RecordField
from memo_habitat.utils.files import atomic_write
from memo_habitat.utils.provenance import now

REPORT_FILE = "report.html"
# Steps of the trial up to which published results are given.
_MARKS = (10_000, 32_000)
# Agents that all are compared with, and how the page calls the column.
_COMPARED = {
    "random": "× random",
    "perfect_memory": "Of perfect memory",
    "oracle": "Of oracle",
}
_MAP_HOUSES = 2
_STRIPS = 3


def write_report(runs: Sequence[Path], out: Path | None = None) -> Path:
    """Write one HTML file about `runs`, folders with evaluations in them; returns where it is.

    By default that is report.html in the run folder, or beside the folder of the first of several.

    Raises:
        UserError: a run is missing or malformed, a plugin of its config is missing, or the report
            cannot be written.
    """
    from memo_habitat.register import import_plugins

    loaded = load_runs(runs)
    for run in loaded:
        import_plugins(run.settings)  # they may add figures
    if out is None:
        out = (loaded[0].folder if len(loaded) == 1 else loaded[0].folder.parent) / REPORT_FILE
    elif out.is_dir():
        out = out / REPORT_FILE
    return write_page(out, render(loaded))


def write_page(out: Path, page: str) -> Path:
    """Write `page` to `out`, a file that --out can name; returns `out`."""
    try:
        atomic_write(out, label_cells(page))
    except UserError as error:
        raise UserError(f"{error}; give another file with --out") from error
    return out


def summarise(runs: Sequence[Path]) -> str:
    """Headline table of all evaluations in `runs`, and what is left out, for the terminal."""
    loaded = load_runs(runs)
    table = summary_table([found for run in loaded for found in run.evaluations])
    return "\n".join([table, *(note for run in loaded for note in run.notes)])


def render(runs: Sequence[Run]) -> str:
    """The report on `runs` as one HTML page."""
    agents = agents_of(runs)
    # Reversed, so that of several runs the first one's references stay.
    references = {a.evaluation.agent: a for a in reversed(agents) if len(agents) > 1}
    cells = [(a, grid_trials(a.evaluation, a.color)) for a in agents]
    on_grid = any(trials for _, trials in cells)

    def ratio(agent: ShownAgent, reference: str) -> float:
        """Targets, or on a grid return, as a multiple of another agent's; NaN without any."""
        other = references.get(reference, agent)
        rows = (agent.row, other.row)
        ours, theirs = ((r.returns["reward"] if on_grid else r.targets).mean for r in rows)
        return ours / theirs if theirs > 0 and agent is not other else math.nan

    def measures(*kinds: Kind) -> list[RecordField]:
        """What any of the evaluations measured of these kinds, each once, in order."""
        fields = (field for a in agents for field in a.evaluation.episodes.measures(*kinds))
        return list({field.name: field for field in fields}.values())

    page: str = TEMPLATES.get_template("report.html.j2").render(
        made=now(),
        runs=runs,
        agents=agents,
        rates=measures("rate"),
        amounts=[
            *measures("length", "count", "quantity"),
            *(field for field in measures("return") if field.name != "reward"),
        ],
        conditions=measures("condition"),
        ratio=ratio,
        marks_of=_COMPARED,
        references=references,
        span=_span(agents),
        targets=targets_figure(agents),
        quarters=[(a, all_quarters(a.evaluation.episodes, a.evaluation.steps)) for a in agents],
        course=[
            # On a grid episodes last about a tenth of the trial: by the step at which they
            # end, those that end early would look better.
            *rate_figures(agents, by_step=not on_grid),
            *([] if on_grid else amount_figures(agents)),
            *reward_figures(agents),
            *extra_figures(agents),
        ],
        failures=measures("failure"),
        part_fields=[f for f in measures("rate", "count", "length") if f.name in MEASURES],
        **_told_apart(agents, on_grid),
        marks=_MARKS,
        up_to=up_to_trial_step,
        context=_context(agents),
        memory_figures=context_figures(agents),
        attention=attention_figures(agents),
        learning=[*learning_figures(runs), *checkpoint_figure(runs)],
        cells=cells,
        on_grid=on_grid,
        maps=[(a, [] if trials else _maps(a, runs)) for a, trials in cells],
        strips=[(a, _strips(a.evaluation)) for a in agents],
    )
    return page


def agents_of(runs: Sequence[Run]) -> list[ShownAgent]:
    """Everybody that was evaluated, in the order of the page."""
    found, trained = [], itertools.count()
    for evaluation in [e for run in runs for e in run.evaluations]:
        color = REFERENCE_COLORS.get(evaluation.agent)
        color = trained_color(next(trained)) if color is None else color
        found.append(ShownAgent(evaluation.label, color, (evaluation,)))
    return found


def _told_apart(agents: Sequence[ShownAgent], on_grid: bool) -> dict[str, Any]:
    """What the template breakdown.html.j2 shows: parts of every agent, and agents in pairs."""
    found: dict[str, list[tuple[ShownAgent, list[Part]]]] = {
        "By step of the trial": [
            (a, by_trial_step(a.evaluation.episodes, a.evaluation.steps)) for a in agents
        ],
        "By category": [(a, by_category(a.evaluation.episodes)) for a in agents],
        "By house": [(a, by_house(a.evaluation.episodes)) for a in agents],
    }
    # On a grid there is one house and one target.
    shown = {} if on_grid else found
    return {
        "breakdowns": [(t, own) for t, own in shown.items() if max(len(p) for _, p in own) > 1],
        "versus": compare([(a.name, a.evaluation) for a in agents]),
        "without_value": [(a, without_value(a.evaluation.episodes)) for a in agents],
    }


def _span(agents: Sequence[ShownAgent]) -> tuple[float, float]:
    """Both ends of the interval bars' axis: from 0 to the next tenth above everything shown."""
    ends = [
        end
        for agent in agents
        for field in agent.evaluation.episodes.measures("rate")
        for end in (agent.row.estimates[field.name].mean, agent.row.estimates[field.name].high)
        if not math.isnan(end)
    ]
    return 0.0, min(1.0, max(0.1, math.ceil(10 * max(ends, default=1.0) - 1e-9) / 10))


def _context(agents: Sequence[ShownAgent]) -> list[tuple[ShownAgent, dict[str, float]]]:
    """Context at the trials' ends, mean over trials, of agents with memory."""
    found = []
    for agent in agents:
        episodes = agent.evaluation.episodes
        last = episodes.select(episodes.end >= agent.evaluation.steps)
        if len(last) and not np.isnan(last.columns["context_tokens"]).any():
            values = {name: float(last.columns[name].mean()) for name in CONTEXT}
            values["fewer"] = values["full_context_kv_bytes"] / max(1.0, values["kv_bytes"])
            found.append((agent, values))
    return found


def _maps(agent: ShownAgent, runs: Sequence[Run]) -> list[tuple[EpisodeRecord, Markup]]:
    """First and last finished episode of a trial in each of the first houses."""
    evaluation = agent.evaluation
    run = next(run for run in runs if evaluation in run.evaluations)
    # m within which a stop counts; not every task says it.
    reach = OmegaConf.select(run.settings, "habitat.task.success_distance")
    shown = first_and_last(evaluation, _MAP_HOUSES, lambda record: not record.truncated)
    maps = [read_house_map(evaluation.folder, record.house) for record in shown]
    return [
        (record, draw_map(record, house, reach, agent.color))
        for record, house in zip(shown, maps, strict=True)
    ]


def _strips(evaluation: Evaluation) -> list[tuple[FilmedEpisode, list[Markup]]]:
    """Filmed episodes with their frames as image sources, successes and longer ones first."""
    films = sorted(evaluation.film_strips(), key=lambda s: (-s[0].success, -len(s[1])))[:_STRIPS]
    return [(film, [_source(file) for file in files]) for film, files in films]


def _source(file: Path) -> Markup:
    try:
        with Image.open(file) as image:
            return Markup(png_source(image.convert("RGB")))
    except OSError as error:
        raise UserError(f"cannot read the frame {file} ({error}); delete it") from error
