"""Writes the report on a sweep: one HTML file, four CSV files and the learning curves' picture."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from memo_habitat.errors import UserError
from memo_habitat.report import SEARCHER, plots
from memo_habitat.report.episodes import return_per_trial, targets_per_1000_steps
from memo_habitat.report.figures import (
    OVER_SEEDS,
    OVER_SEEDS_OR_HOUSES,
    REFERENCE_COLORS,
    Figure,
    ShownAgent,
    course_figures,
    extra_figures,
    reward_figures,
    targets_figure,
    trained_color,
)
from memo_habitat.report.html import REPORT_FILE
from memo_habitat.report.maps import GridTrial, grid_trials
from memo_habitat.report.plots import Curve, curve_over_seeds, value_range, write_pictures
from memo_habitat.report.statistics import Estimate
from memo_habitat.report.sweep_data import Sweep, load_sweep, same_layouts
from memo_habitat.report.sweep_tables import (
    SHARES,
    SMOOTHING,
    Result,
    Variant,
    baseline,
    gain_of_later_episodes,
    on_one_axis,
    quarters_over_seeds,
    results,
    smooth,
    smoothing_width,
    variants_of,
    write_tables,
)
from memo_habitat.report.text import TEMPLATES, label_cells
from memo_habitat.trainer.run_dir import RunFolder
from memo_habitat.utils.files import atomic_write
from memo_habitat.utils.provenance import now

# What later episodes are compared in with the first, and how the page calls it.
_GAINS = {"num_steps": "Steps", "reward": "Reward", "success": "Success rate"}


def write_sweep_report(sweep: Path | Sweep) -> Path:
    """Write report.html, the CSV files and the curves' picture into a sweep's folder.

    A sweep may be reported while it runs: the page, whose path is returned, says what is missing.

    Raises:
        UserError: no sweep is there, no run of it has made progress, a plugin of their config is
            missing, or nothing can be written.
    """
    if isinstance(sweep, Path):
        sweep = load_sweep(sweep)
    _import_plugins(sweep)
    rows = results(sweep)
    variants = variants_of(sweep, rows)
    write_tables(sweep, rows)
    curves, lines = _learning_curves(sweep, variants)
    if curves:
        title = str(sweep.info.get("config", sweep.folder.resolve().name))
        write_pictures(sweep.folder, curves, lines, title)
    learning = [_learning_figure(curves, lines)] if curves else []
    out = sweep.folder / REPORT_FILE
    atomic_write(out, label_cells(_render(sweep, rows, variants, learning)))
    return out


def _import_plugins(sweep: Sweep) -> None:
    """Those of the first run whose config can be read: all runs have the same."""
    from memo_habitat.register import import_plugins

    for run in sweep.runs:
        with contextlib.suppress(UserError):  # the job of that run tells of it
            config = RunFolder(run.folder).config()
            break
    else:
        return
    import_plugins(config)


def _learning_curves(
    sweep: Sweep, variants: Sequence[Variant]
) -> tuple[dict[str, Curve], dict[str, Curve]]:
    """Smoothed returns of training by variant, over seeds; reference agents as dashed lines."""
    width = smoothing_width([run.progress for run in sweep.runs])
    curves = {}
    for variant in variants:
        axis, values = on_one_axis([smooth(run.progress, width) for run in variant.runs])
        if len(axis):
            curves[variant.name] = curve_over_seeds(axis, values, variant.color)
    last = max((curve.x[-1] for curve in curves.values()), default=0.0)
    lines = {
        name: Curve([0.0, last], [sweep.reference_return(name)] * 2, color, dashed=True)
        for name, color in REFERENCE_COLORS.items()
        if name in sweep.references
    }
    return curves, lines


def _learning_figure(curves: dict[str, Curve], lines: dict[str, Curve]) -> Figure:
    dashed = f" Dashed: {' and '.join(lines)} on the held-out layouts." if lines else ""
    svg = plots.amounts([*curves.values(), *lines.values()], "environment steps", wide=True)
    text = (
        f"Return per trial in training, sampled actions; mean over seeds. {OVER_SEEDS} Smoothed: "
        f"each point is the mean over the trials in a window of {100 * SMOOTHING:.0f} % of the "
        f"longest training, half of it before the point.{dashed}"
    )
    return Figure("Learning curves", svg, text, wide=True)


def _render(
    sweep: Sweep, rows: Sequence[Result], variants: Sequence[Variant], learning: list[Figure]
) -> str:
    references = {name: return_per_trial(e.episodes) for name, e in sweep.references.items()}
    agents = agents_of(sweep)
    cells = _cells(sweep, variants)
    played = [evaluation for agent in agents for evaluation in agent.evaluations]
    page: str = TEMPLATES.get_template("sweep.html.j2").render(
        made=now(),
        sweep=sweep,
        rows=rows,
        variants=variants,
        references=references,
        reference_targets={
            name: targets_per_1000_steps(e.episodes, e.steps)
            for name, e in sweep.references.items()
        },
        reference_colors=REFERENCE_COLORS,
        agents=agents,
        alike=all(e.trials == played[0].trials and same_layouts(e, played[0]) for e in played),
        baseline=baseline(sweep),
        shares=SHARES,
        span=_span(references, variants),
        learning=learning,
        on_grid=bool(cells),
        targets=targets_figure(agents, OVER_SEEDS_OR_HOUSES) if agents else None,
        quarters=[(agent, quarters_over_seeds(agent.evaluations)) for agent in agents],
        course=[
            *reward_figures(agents, f"Mean over seeds. {OVER_SEEDS}"),
            *course_figures(agents),
            *extra_figures(agents),
        ]
        if agents
        else [],
        gains=[
            (agent, [gain_of_later_episodes(agent.evaluations, metric) for metric in _GAINS])
            for agent in agents
        ],
        gain_titles=list(_GAINS.values()),
        cells=cells,
    )
    return page


def agents_of(sweep: Sweep) -> list[ShownAgent]:
    """Everybody that was evaluated: random, the variants, perfect_memory, oracle."""
    agents = [
        ShownAgent(name, trained_color(number), evaluations)
        for number, name in enumerate(sweep.variants)
        if (evaluations := sweep.evaluations_of(name))
    ]
    ends = {
        name: ShownAgent(name, REFERENCE_COLORS[name], (evaluation,))
        for name, evaluation in sweep.references.items()
    }
    before, after = ("random",), (SEARCHER, "oracle")
    of = [[ends[name] for name in names if name in ends] for names in (before, after)]
    return [*of[0], *agents, *of[1]]


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
    known = references.values()
    held_out = [variant.over_seeds("held_out_return") for variant in variants]
    shown = [end for found in known for end in (found.mean, found.high)]
    lows = [found.low for found in (*known, *held_out)]
    return value_range([*shown, *(found.mean for found in held_out)], lows)
