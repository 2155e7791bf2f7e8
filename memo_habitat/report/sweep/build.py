"""Writes the report on a sweep: one HTML file, three CSV files and the learning curves' picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from memo_habitat.report.build import REPORT_FILE, write_page
from memo_habitat.report.figures import REFERENCE_COLORS, Figure, reward_figures
from memo_habitat.report.grids import GridTrial, grid_trials
from memo_habitat.report.html import environment
from memo_habitat.report.load import Evaluation
from memo_habitat.report.plots import value_range
from memo_habitat.report.statistics import Estimate
from memo_habitat.report.sweep.figures import (
    BAND,
    episode_figures,
    learning_curves,
    learning_figure,
    reference_lines,
)
from memo_habitat.report.sweep.picture import write_pictures
from memo_habitat.report.sweep.runs import Sweep, load_sweep, played_alike
from memo_habitat.report.sweep.summary import (
    Variant,
    baseline,
    first_episode,
    gain_of_later_episodes,
    summarise,
)
from memo_habitat.report.sweep.tables import (
    CURVES_FILE,
    EPISODES_FILE,
    RESULTS_FILE,
    SHARES,
    Result,
    results,
    write_curves,
    write_episodes,
    write_results,
)
from memo_habitat.report.trials import return_per_trial

# What later episodes are compared in with the first, and how the page calls it.
_GAINS = {"num_steps": "Steps", "reward": "Reward", "success": "Success rate"}


@dataclass(frozen=True)
class Agent:
    """A variant or a reference agent with its place in the page.

    Attributes:
        name: how it is called.
        color: number of its colour.
        evaluations: one per seed.
    """

    name: str
    color: int
    evaluations: tuple[Evaluation, ...]


def write_sweep_report(sweep: Path | Sweep) -> Path:
    """Write report.html, the CSV files and the curves' picture into a sweep's folder.

    A sweep may be reported while it runs: the page says what is missing.

    Args:
        sweep: its folder, or what was loaded from there.

    Returns:
        where the page is.

    Raises:
        UserError: no sweep is there, no run of it has made progress, or nothing can be written.
    """
    if isinstance(sweep, Path):
        sweep = load_sweep(sweep)
    folder = sweep.folder
    rows = results(sweep)
    variants = summarise(sweep, rows)
    write_results(folder / RESULTS_FILE, rows)
    write_curves(folder / CURVES_FILE, sweep)
    write_episodes(folder / EPISODES_FILE, sweep)
    curves = learning_curves(sweep, variants)
    if curves:
        last = max(curve.x[-1] for curve in curves.values())
        title = str(sweep.info.get("config", folder.resolve().name))
        write_pictures(folder, curves, reference_lines(sweep, last), title)
    return write_page(folder / REPORT_FILE, render(sweep, rows, variants))


def render(sweep: Sweep, rows: Sequence[Result], variants: Sequence[Variant]) -> str:
    """The page."""
    references = {
        name: return_per_trial(evaluation.episodes) for name, evaluation in sweep.references.items()
    }
    agents = _agents(sweep, variants)
    page: str = (
        environment()
        .get_template("sweep.html.j2")
        .render(
            sweep=sweep,
            rows=rows,
            variants=variants,
            references=references,
            reference_colors=REFERENCE_COLORS,
            agents=agents,
            alike=played_alike([evaluation for a in agents for evaluation in a.evaluations]),
            baseline=baseline(sweep),
            shares=SHARES,
            span=_span(references, variants),
            learning=[
                figure for figure in [learning_figure(sweep, variants)] if figure is not None
            ],
            course=_course(agents),
            gains=_gains(agents),
            gain_titles=list(_GAINS.values()),
            cells=_cells(sweep, variants),
        )
    )
    return page


def _agents(sweep: Sweep, variants: Sequence[Variant]) -> list[Agent]:
    """Everybody that was evaluated: random, the variants, oracle."""
    evaluated = [Agent(v.name, v.color, tuple(v.evaluations)) for v in variants if v.evaluations]
    ends = {
        name: Agent(name, REFERENCE_COLORS[name], (evaluation,))
        for name, evaluation in sweep.references.items()
    }
    before, after = ([ends[name]] if name in ends else [] for name in ("random", "oracle"))
    return [*before, *evaluated, *after]


def _course(agents: Sequence[Agent]) -> list[Figure]:
    return [
        *reward_figures([(a.color, a.evaluations) for a in agents], f"Mean over seeds. {BAND}"),
        *episode_figures([(a.name, a.color, a.evaluations) for a in agents]),
    ]


def _gains(agents: Sequence[Agent]) -> list[tuple[Agent, list[tuple[float, Estimate]]]]:
    """By agent: mean over first episodes, and later ones' difference to it, of every measure."""
    return [
        (
            agent,
            [
                (
                    first_episode(agent.evaluations, metric),
                    gain_of_later_episodes(agent.evaluations, metric),
                )
                for metric in _GAINS
            ],
        )
        for agent in agents
    ]


def _cells(sweep: Sweep, variants: Sequence[Variant]) -> list[tuple[str, int, list[GridTrial]]]:
    """Heading, colour and drawn trials of each variant's best seed, and of the references."""
    chosen = [
        (f"{v.name}, seed {v.best.seed}", v.color, v.best.evaluation)
        for v in variants
        if v.best is not None
    ]
    chosen += [(name, REFERENCE_COLORS[name], e) for name, e in sweep.references.items()]
    drawn = [(name, color, grid_trials(e, color)) for name, color, e in chosen if e is not None]
    return [(name, color, trials) for name, color, trials in drawn if trials]


def _span(references: dict[str, Estimate], variants: Sequence[Variant]) -> tuple[float, float]:
    """Both ends of the bars' axis."""
    held_out = [variant.held_out for variant in variants]
    known = references.values()
    shown = [end for found in known for end in (found.mean, found.high)]
    lows = [*(found.low for found in known), *(found.low for found in held_out)]
    return value_range([*shown, *(found.mean for found in held_out)], lows)
