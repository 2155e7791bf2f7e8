"""Puts a report together: one HTML file that needs nothing besides itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from memo_habitat.errors import UserError
from memo_habitat.report import plots
from memo_habitat.report.figures import (
    REFERENCE_COLORS,
    Figure,
    Series,
    attention_figures,
    reward_figures,
    trained_color,
)
from memo_habitat.report.grids import GRIDS_LEAD, grid_trials
from memo_habitat.report.load import Evaluation, Run, first_and_last
from memo_habitat.report.maps import draw_map, png_source
from memo_habitat.report.plots import Curve, curve_of_buckets
from memo_habitat.report.statistics import Bucket, by_episode_index, by_trial_step, up_to_trial_step
from memo_habitat.report.summary import Headline, amount, ends, headline, interval, percent
from memo_habitat.report.trials import targets_along_trial
from memo_habitat.tasks.record_fields import Kind, RecordField
from memo_habitat.utils.provenance import now, package_versions

# Steps of the trial up to which published results are given.
_MARKS = (10_000, 32_000)
_MAP_HOUSES = 2
_STRIPS = 3
# Last part of a progress metric's name -> title of its curve.
_LEARNING = {
    "return": "Return per trial",
    "extobjnav_success": "Success rate",
    "success": "Success rate",
    "spl": "SPL",
    "reward": "Reward per episode",
}


def render(runs: Sequence[Run]) -> str:
    """The report on `runs` as one HTML page."""
    series = _series(runs)
    random = next((s for s in series if s.evaluation.agent == "random"), None)
    oracle = next((s for s in series if s.evaluation.agent == "oracle"), None)
    cells = [(s, grid_trials(s.evaluation, s.color)) for s in series]
    on_grid = any(trials for _, trials in cells)
    page: str = (
        environment()
        .get_template("report.html.j2")
        .render(
            runs=runs,
            series=series,
            rates=_measures(series, "rate"),
            others=_measures(series, "length", "count", "quantity"),
            conditions={f.title: f.text for f in _measures(series, "condition")},
            own_returns=[field for field in _measures(series, "return") if field.name != "reward"],
            times_random=lambda row: _ratio(row, random, on_grid),
            of_oracle=lambda row: _ratio(row, oracle, on_grid),
            has_random=random is not None and len(series) > 1,
            has_oracle=oracle is not None and len(series) > 1,
            span=_span(series),
            course=_course(series, on_grid),
            marks=_marks(series),
            context=_context(series),
            memory_figures=_memory_figures(series),
            attention=attention_figures(series),
            learning=_learning(runs),
            cells=cells,
            on_grid=on_grid,
            maps=[
                (s, [] if trials else _maps(s, _success_distance(runs, s.evaluation)))
                for s, trials in cells
            ],
            strips=[(s, _strips(s.evaluation)) for s in series],
        )
    )
    return page


def environment() -> Environment:
    """Where the templates are, and the filters and values that all of them use."""
    found = Environment(
        loader=PackageLoader("memo_habitat.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(
        percent=percent,
        interval=interval,
        amount=amount,
        ends=ends,
        bytes=plots.short_bytes,
        number=plots.short_number,
    )
    found.globals.update(
        grids_lead=GRIDS_LEAD, made=now(), versions=package_versions(), isnan=math.isnan
    )
    return found


def _series(runs: Sequence[Run]) -> list[Series]:
    found, trained = [], 0
    for evaluation in [e for run in runs for e in run.evaluations]:
        color = REFERENCE_COLORS.get(evaluation.agent)
        if color is None:
            color = trained_color(trained)
            trained += 1
        found.append(Series(evaluation, color, headline(evaluation)))
    return found


def _measures(series: Sequence[Series], *kinds: Kind) -> list[RecordField]:
    """What any of the evaluations measured of these kinds, each once, in order."""
    fields = (field for s in series for field in s.evaluation.episodes.measures(*kinds))
    return list({field.name: field for field in fields}.values())


def _title(series: Sequence[Series], metric: str) -> str:
    return next(f.title for f in _measures(series, "rate") if f.name == metric)


def _ratio(row: Headline, reference: Series | None, on_grid: bool) -> float:
    """Success rate, or on a grid return, as a multiple of the reference's; NaN without any."""
    if reference is None or reference.row is row:
        return math.nan
    ours, theirs = (
        found.returns["reward"].mean if on_grid else found.estimates["success"].mean
        for found in (row, reference.row)
    )
    return ours / theirs if theirs > 0 else math.nan


def _span(series: Sequence[Series]) -> tuple[float, float]:
    """Both ends of the interval bars' axis: from 0 to the next tenth above everything shown."""
    ends = [
        value
        for s in series
        for field in s.evaluation.episodes.measures("rate")
        for found in [s.row.estimates[field.name]]
        for value in (found.mean, found.high)
        if not math.isnan(value)
    ]
    return 0.0, min(1.0, max(0.1, math.ceil(10 * max(ends, default=1.0) - 1e-9) / 10))


def _bucket_figure(
    series: Sequence[Series],
    metric: str,
    title: str,
    axis: str,
    text: str,
    buckets_of: Callable[[Evaluation], list[Bucket]],
) -> Figure:
    curves, rows = [], []
    for s in series:
        buckets = buckets_of(s.evaluation)
        curves.append(curve_of_buckets(buckets, s.color))
        for bucket in buckets:
            found = bucket.estimate
            low = int(bucket.low) + 1
            where = f"{low:,}" if bucket.high - bucket.low <= 1 else f"{low:,}–{bucket.high:,.0f}"
            counts = (f"{found.episodes:,}", f"{found.trials}")
            rows.append((s.evaluation.label, where, percent(found.mean), interval(found), *counts))
    columns = ("agent", axis, f"{_title(series, metric)} %", "95 % interval", "episodes", "trials")
    return Figure(title, Markup(plots.rates(curves, axis)), text, columns, tuple(rows))


def _course(series: Sequence[Series], on_grid: bool) -> list[Figure]:
    """Success and SPL along the trial, by step and by episode, and rewards."""
    figures = [_targets(series)]
    # On a grid episodes last about a tenth of the trial: by the step at which they end, those that
    # end early would look better.
    for metric in () if on_grid else ("success", "spl"):
        figures.append(
            _bucket_figure(
                series,
                metric,
                f"{_title(series, metric)} by trial step",
                "step of the trial",
                "Mean over the episodes that ended in each tenth of the trial, drawn at its "
                "middle. Band: 95 % interval, resampled over trials.",
                lambda e, m=metric: by_trial_step(e.episodes.finished(), m, e.steps),  # type: ignore[misc]
            )
        )
    for metric in ("success", "spl"):
        figures.append(
            _bucket_figure(
                series,
                metric,
                f"{_title(series, metric)} by episode",
                "episode of the trial",
                "Mean over the trials' first, second, … episodes; numbers that fewer than half "
                "of the trials reach are left out. Band: 95 % interval, resampled over trials.",
                lambda e, m=metric: by_episode_index(e.episodes.finished(), m),  # type: ignore[misc]
            )
        )
    return [*figures, *reward_figures([(s.color, [s.evaluation]) for s in series])]


def _targets(series: Sequence[Series]) -> Figure:
    """Targets found per 1,000 steps along the trial."""
    curves, rows = [], []
    for s in series:
        buckets = targets_along_trial(s.evaluation.episodes, s.evaluation.steps)
        curves.append(curve_of_buckets(buckets, s.color))
        for bucket in buckets:
            found = bucket.estimate
            where = f"{bucket.low + 1:,.0f}–{bucket.high:,.0f}"
            trials = f"{found.trials}"
            rows.append((s.evaluation.label, where, amount(found.mean), ends(found), trials))
    axis = "step of the trial"
    return Figure(
        "Targets per 1,000 steps along the trial",
        Markup(plots.amounts(curves, axis, wide=True)),
        "Targets found in each thousand steps of the trial (each tenth of a shorter one), per "
        "1,000 steps, mean over trials. Rising: what was seen before helps to find what is asked "
        "for now. Band: 95 % interval, resampled over trials.",
        ("agent", axis, "targets per 1,000 steps", "95 % interval", "trials"),
        tuple(rows),
        wide=True,
    )


def _marks(series: Sequence[Series]) -> list[tuple[Series, list[Bucket], list[Bucket]]]:
    """Success and SPL over the episodes that ended by the published marks, for long trials."""
    found = []
    for s in series:
        steps = [mark for mark in _MARKS if mark <= s.evaluation.steps]
        if steps:
            episodes = s.evaluation.episodes.finished()
            columns = [up_to_trial_step(episodes, metric, steps) for metric in ("success", "spl")]
            found.append((s, columns[0], columns[1]))
    return found


def _context(series: Sequence[Series]) -> list[tuple[Series, dict[str, float]]]:
    """Context at the trials' ends, mean over trials, of agents with memory."""
    found = []
    for s in series:
        episodes = s.evaluation.episodes
        last = episodes.select(episodes.end >= s.evaluation.steps)
        tokens = last.columns["context_tokens"]
        if len(last) and not np.isnan(tokens).any():
            names = ("context_tokens", "kv_bytes", "full_context_kv_bytes")
            values = {name: float(last.columns[name].mean()) for name in names}
            values["fewer"] = values["full_context_kv_bytes"] / max(1.0, values["kv_bytes"])
            found.append((s, values))
    return found


def _memory_figures(series: Sequence[Series]) -> list[Figure]:
    """Context and process memory along the first trial of every agent with memory."""
    traces = {}
    for s in series:
        points = next(iter(s.evaluation.trace().values()), [])
        if points:
            traces[s.color] = points
    if not traces:
        return []
    x = {color: [p["trial_step"] for p in points] for color, points in traces.items()}

    def curves(name: str) -> list[Curve]:
        return [Curve(x[c], [p[name] for p in points], c) for c, points in traces.items()]

    longest = max(traces, key=lambda color: x[color][-1])
    full = [p["full_context_kv_bytes"] for p in traces[longest]]
    axis = "step of the trial"
    note = "One trial of each agent; dashed: every step of the trial kept."
    tokens = [*curves("context_tokens"), Curve(x[longest], x[longest], longest, dashed=True)]
    kv_bytes = [*curves("kv_bytes"), Curve(x[longest], full, longest, dashed=True)]
    figures = [
        Figure(
            "Context tokens",
            Markup(plots.amounts(tokens, axis)),
            f"Tokens that the next step can attend to. {note}",
        ),
        Figure(
            "Keys and values",
            Markup(plots.amounts(kv_bytes, axis, "B")),
            f"Bytes of the keys and values of these tokens over all layers, for one "
            f"environment. {note}",
        ),
    ]
    if all(p.get("process_bytes") for points in traces.values() for p in points):
        figures.append(
            Figure(
                "Process memory",
                Markup(plots.amounts(curves("process_bytes"), axis, "B")),
                "Resident memory of the evaluating process, workers not included.",
            )
        )
    return figures


def _learning(runs: Sequence[Run]) -> list[Figure]:
    """Training curves from progress.jsonl."""
    figures = []
    for suffix, title in _LEARNING.items():
        curves = []
        for number, run in enumerate(run for run in runs if run.progress):
            # Not every update has every metric: trials may take several.
            names = dict.fromkeys(key for line in run.progress for key in line)
            name = next((k for k in names if k.rsplit("/", 1)[-1] == suffix), None)
            points = [
                (line["steps"], line[name])
                for line in run.progress
                if name and "steps" in line and isinstance(line.get(name), int | float)
            ]
            if len(points) > 1:
                x, y = zip(*points, strict=True)
                curves.append(Curve(x, y, trained_color(number)))
        if curves:
            draw = plots.amounts if suffix in ("reward", "return") else plots.rates
            svg = draw(curves, "environment steps")
            text = (
                "Mean over the trials that ended in each update; updates without any have no point."
                if suffix == "return"
                else "Mean over the latest training episodes, at every update."
            )
            figures.append(Figure(f"{title} in training", Markup(svg), text))
    return figures


def _success_distance(runs: Sequence[Run], evaluation: Evaluation) -> float | None:
    """Metres within which a stop counts, from the run's config; None if it does not say."""
    run = next(run for run in runs if evaluation in run.evaluations)
    try:
        value: Any = yaml.safe_load(run.config)
    except yaml.YAMLError as error:
        raise UserError(
            f"{run.folder / 'config.yaml'} is no YAML ({str(error).splitlines()[0]}); restore or "
            "delete it"
        ) from error
    for key in ("habitat", "task", "success_distance"):
        value = value.get(key) if isinstance(value, dict) else None
    return float(value) if isinstance(value, int | float) else None


def _maps(series: Series, success_distance: float | None) -> list[dict[str, Any]]:
    """First and last finished episode of a trial in each of the first houses."""
    evaluation = series.evaluation
    records = first_and_last(evaluation, _MAP_HOUSES, lambda record: not record.truncated)
    return [
        {
            "record": record,
            "svg": Markup(
                draw_map(record, evaluation.house_map(record.house), success_distance, series.color)
            ),
        }
        for record in records
    ]


def _strips(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Filmed episodes with their frames as image sources, successes and longer ones first."""
    chosen = sorted(
        evaluation.film_strips(), key=lambda strip: (-strip["success"], -len(strip["files"]))
    )[:_STRIPS]
    return [{**strip, "frames": [_source(file) for file in strip["files"]]} for strip in chosen]


def _source(file: Path) -> Markup:
    try:
        with Image.open(file) as image:
            return Markup(png_source(image.convert("RGB")))
    except OSError as error:
        raise UserError(f"cannot read the frame {file} ({error}); delete it") from error
