"""The figures of reports: along trials, memory, attention, and learning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from memo_habitat.evaluation.attention import TrialBin
from memo_habitat.report import plots
from memo_habitat.report.breakdown import targets_along_trial
from memo_habitat.report.episodes import (
    FEWEST_HOUSES,
    Bucket,
    Headline,
    by_episode_index,
    by_trial_step,
    episode_course,
)
from memo_habitat.report.load import Evaluation
from memo_habitat.report.plots import Curve, Layer, curve_of_buckets, curve_over_seeds
from memo_habitat.report.statistics import Estimate, FloatArray, mean_with_interval
from memo_habitat.report.text import amount, interval, percent, short_bytes

# Series colours of the page: from 2 on what was trained, then again from 2. In the order in which
# agents are shown, those that were trained after random.
REFERENCE_COLORS = {"random": 0, "forward": 0, "perfect_memory": 10, "oracle": 1}
_FIRST_TRAINED, _NUM_TRAINED = 2, 8
_STEP, _EPISODE = "step of the trial", "episode of the trial"
_FEW = f"(over trials where there are fewer than {FEWEST_HOUSES})"
OVER_HOUSES = f"Band: 95 % interval, resampled over houses {_FEW}."
OVER_SEEDS = "Band: 95 % interval over seeds (Student’s t); none with a single seed."
OVER_SEEDS_OR_HOUSES = (
    "Band: 95 % interval over seeds (Student’s t); of a single seed, and of agents without "
    f"training, resampled over houses {_FEW}."
)


def trained_color(number: int) -> int:
    """Number of the page's colour for the trained agent `number`, counted from 0."""
    return _FIRST_TRAINED + number % _NUM_TRAINED


@dataclass(frozen=True)
class ShownAgent:
    """An agent with its place in the page."""

    name: str  # how it is called
    color: int  # number of its colour
    evaluations: tuple[Evaluation, ...]  # one per seed it was trained with

    @property
    def evaluation(self) -> Evaluation:
        """The first one."""
        return self.evaluations[0]

    @property
    def row(self) -> Headline:
        """The headline numbers of the first one."""
        return self.evaluation.headline


class Figure(NamedTuple):
    """A picture with its title and definition."""

    title: str  # what is shown
    svg: Markup  # the picture
    text: str  # definition of what is shown
    columns: tuple[str, ...] = ()  # head of the table of its numbers
    rows: tuple[tuple[str, ...], ...] = ()  # the numbers as text; empty shows no table
    wide: bool = False  # whether it takes the whole width of the page


# Functions of a user's own: what they make of the agents is drawn behind the course of the trial.
# A module that `habitat_baselines.plugins` names appends to it when it is imported.
EXTRA_FIGURES: list[Callable[[Sequence[ShownAgent]], list[Figure]]] = []


def extra_figures(agents: Sequence[ShownAgent]) -> list[Figure]:
    """What the functions of `EXTRA_FIGURES` make of the agents."""
    return [figure for own in EXTRA_FIGURES for figure in own(agents)]


# Along the trial --------------------------------------------------------------------------------


def targets_figure(agents: Sequence[ShownAgent], band: str = OVER_HOUSES) -> Figure:
    """Targets per 1,000 steps along the trial, and what is to be said of the band."""
    return _bucket_figure(
        agents,
        "Targets per 1,000 steps along the trial",
        _STEP,
        "Targets found in each part of the trial, per 1,000 of its steps; an episode counts where "
        f"it ends. Rising: what was seen before helps to find what is asked for now. {band}",
        lambda e: targets_along_trial(e.episodes, e.steps),
    )


def rate_figures(agents: Sequence[ShownAgent], by_step: bool) -> list[Figure]:
    """Success and SPL along the trial: by episode, and by step where that is asked for."""
    numbered = (
        "Mean over the trials’ first, second, … episodes; numbers that fewer than half of the "
        f"trials reach are left out. {OVER_HOUSES}"
    )
    ended = (
        "Mean over the episodes that ended in each tenth of the trial, drawn at its middle. "
        f"{OVER_HOUSES}"
    )
    names = _measured(agents, "success", "spl")
    steps = [_measure_figure(agents, name, ended, by_step, True) for name in names if by_step]
    return [*steps, *(_measure_figure(agents, name, numbered, False, True) for name in names)]


def amount_figures(agents: Sequence[ShownAgent]) -> list[Figure]:
    """Steps and length of the way by the number of the episode in its trial."""
    text = (
        "Mean over the trials’ first, second, … episodes, found or not; numbers that fewer than "
        f"half of the trials reach are left out. {OVER_HOUSES}"
    )
    names = _measured(agents, "num_steps", "path_length")
    return [_measure_figure(agents, name, text) for name in names]


def _measured(agents: Sequence[ShownAgent], *names: str) -> list[str]:
    """Those of the measures that any agent's episodes have."""
    known = {name for agent in agents for name in agent.evaluation.episodes.fields}
    return [name for name in names if name in known]


def _measure_figure(
    agents: Sequence[ShownAgent], name: str, text: str, by_step: bool = False, share: bool = False
) -> Figure:
    """A measure of the agents that have it, by the episode's number or the step of its end."""
    own = [agent for agent in agents if name in agent.evaluation.episodes.fields]
    field = own[0].evaluation.episodes.fields[name]

    def buckets(evaluation: Evaluation) -> list[Bucket]:
        finished = evaluation.episodes.finished()
        if by_step:
            return by_trial_step(finished, name, evaluation.steps)
        return by_episode_index(finished, name)

    unit = ", m" if field.unit == "m" else ""
    title = f"{field.title}{unit} by {'step' if by_step else 'episode'}"
    return _bucket_figure(own, title, _STEP if by_step else _EPISODE, text, buckets, share, False)


def _bucket_figure(
    agents: Sequence[ShownAgent],
    title: str,
    axis: str,
    text: str,
    buckets_of: Callable[[Evaluation], list[Bucket]],
    percents: bool = False,
    wide: bool = True,
) -> Figure:
    """A figure of means over episodes; over seeds of those where agents have several."""
    curves, rows = [], []
    for agent in agents:
        seeds = [buckets_of(evaluation) for evaluation in agent.evaluations]
        curve = curve_of_buckets(seeds[0], agent.color)
        if len(seeds) > 1:
            shared = min(map(len, seeds))  # evaluations may not be finished
            means = np.array([[b.estimate.mean for b in buckets[:shared]] for buckets in seeds])
            curve = curve_over_seeds(np.array(curve.x[:shared]), means, agent.color, marked=True)
        curves.append(curve)
        for bucket in seeds[0] if len(seeds) == 1 else ():
            found, low = bucket.estimate, int(bucket.low) + 1
            where = f"{low:,}" if bucket.high - bucket.low <= 1 else f"{low:,}–{bucket.high:,.0f}"
            mean = percent(found.mean) if percents else amount(found.mean)
            counts = (f"{found.values:,}", f"{found.groups}")
            rows.append((agent.name, where, mean, interval(found, percents), *counts))
    if percents:
        svg = plots.rates(curves, axis)
    else:
        svg = plots.amounts(curves, axis, wide=wide, bands=True)
    mean = "mean, %" if percents else "mean"
    columns = ("agent", axis, mean, "95 % interval", "values", "houses or trials")
    return Figure(title, svg, text, columns, tuple(rows), wide=wide)


def reward_figures(agents: Sequence[ShownAgent], note: str = "") -> list[Figure]:
    """Reward collected by each step of the trial, and how fast it comes in along the trial.

    Curves are the mean over an agent's evaluations, with a band over them, of which `note` tells,
    where there are several, else over houses.
    """
    earned: list[Curve] = []
    rates: list[Curve] = []
    for agent in agents:
        rewards = [found for e in agent.evaluations if (found := e.rewards()) is not None]
        rewards = [r for r in rewards if np.array_equal(r.ends, rewards[0].ends)]
        if len(rewards) == 1 and not note:
            earned.append(_over_groups(agent, [r.cumulative() for r in rewards[0].by_trial()]))
            rates.append(_over_groups(agent, [r.rate() for r in rewards[0].by_trial()], True))
        elif rewards:
            steps, sums = zip(*(r.cumulative() for r in rewards), strict=True)
            earned.append(curve_over_seeds(steps[0], np.array(sums), agent.color))
            middles, speeds = zip(*(r.rate() for r in rewards), strict=True)
            rates.append(curve_over_seeds(middles[0], np.array(speeds), agent.color, marked=True))
    texts = (
        "Sum of the trial’s rewards up to each step, mean over trials. A line that bends upwards: "
        "the agent gets faster as the trial goes on.",
        "Reward per step in each tenth of the trial, mean over trials.",
    )
    return [
        Figure(title, plots.amounts(curves, _STEP, bands=not note), f"{text} {note or OVER_HOUSES}")
        for title, curves, text in zip(
            ("Reward along the trial", "Reward per step"), (earned, rates), texts, strict=True
        )
        if curves
    ]


def _over_groups(
    agent: ShownAgent, trials: Sequence[tuple[FloatArray, FloatArray]], marked: bool = False
) -> Curve:
    """The mean of one curve (positions [P], values [P]) a trial, with its interval."""
    episodes = agent.evaluation.episodes
    group = dict(zip(episodes.trial_names, episodes.trial_groups, strict=True))
    groups = np.array([group[trial] for trial in sorted(agent.evaluation.trials)])
    values = np.array([own for _, own in trials]).T
    found = [mean_with_interval(at, groups, bounds=None) for at in values]
    mean, low, high = ([getattr(e, name) for e in found] for name in ("mean", "low", "high"))
    return Curve(trials[0][0].tolist(), mean, agent.color, low, high, marked=marked)


# Columns of an `EpisodeCourse`, titles of their figures, and what is to be said of them.
_COURSES = {
    "length": (
        "Steps of an episode",
        "Fewer steps from one episode to the next: what was found out in the first ones is used in "
        "the later ones. One that fails takes all steps that it may.",
    ),
    "length_found": ("Steps of a successful episode", "Over those that reached the target."),
    "reward": ("Reward of an episode", "Mean over trials."),
    "success": ("Success by episode", "Share of the trials."),
}


def course_figures(agents: Sequence[ShownAgent]) -> list[Figure]:
    """Length, reward and success of the trials' first, second, ... episodes, over seeds."""
    courses = [(a, [episode_course(e.episodes) for e in a.evaluations]) for a in agents]
    figures = []
    for column, (title, text) in _COURSES.items() if courses else ():
        curves, rows = [], []
        for agent, own in courses:
            shortest = min(len(course.length) for course in own)
            values = np.array([getattr(course, column)[:shortest] for course in own])
            if not values.size or np.isnan(values).all():
                continue
            axis = np.arange(1.0, shortest + 1)
            curve = curve_over_seeds(axis, values, agent.color, marked=True)
            curves.append(curve)
            low, high = (ends or [np.nan] * shortest for ends in (curve.low, curve.high))
            for number, mean, bottom, top in zip(curve.x, curve.y, low, high, strict=True):
                both = interval(Estimate(mean, bottom, top, len(own), len(own)))
                rows.append((agent.name, f"{number:.0f}", amount(mean), both, str(len(own))))
        draw = plots.rates if column == "success" else plots.amounts
        text = f"{text} Only episodes that every trial has finished. {OVER_SEEDS}"
        columns = ("agent", "episode", title.lower(), "95 % interval", "seeds")
        figures.append(Figure(title, draw(curves, _EPISODE), text, columns, tuple(rows)))
    return figures


# Memory -----------------------------------------------------------------------------------------


def context_figures(agents: Sequence[ShownAgent]) -> list[Figure]:
    """Context and process memory along the first trial of every agent with memory."""
    traces = [(a.color, next(iter(a.evaluation.trace().values()), [])) for a in agents]
    traces = [(color, points) for color, points in traces if points]
    if not traces:
        return []

    def curves(name: str) -> list[Curve]:
        return [
            Curve([p.trial_step for p in points], [getattr(p, name) for p in points], color)
            for color, points in traces
        ]

    color, longest = max(traces, key=lambda trace: trace[1][-1].trial_step)
    steps = [point.trial_step for point in longest]
    full = [point.full_context_kv_bytes for point in longest]
    tokens = [*curves("context_tokens"), Curve(steps, steps, color, dashed=True)]
    kv_bytes = [*curves("kv_bytes"), Curve(steps, full, color, dashed=True)]
    note = "One trial of each agent; dashed: every step of the trial kept."
    text = f"Tokens that the next step can attend to. {note}"
    figures = [Figure("Context tokens", plots.amounts(tokens, _STEP), text)]
    text = (
        f"Bytes of the keys and values of these tokens over all layers, for one environment. {note}"
    )
    figures.append(Figure("Keys and values", plots.amounts(kv_bytes, _STEP, "B"), text))
    if all(point.process_bytes for _, points in traces for point in points):
        svg = plots.amounts(curves("process_bytes"), _STEP, "B")
        text = "Resident memory of the evaluating process, workers not included."
        figures.append(Figure("Process memory", svg, text))
    return figures


_LATE = 0.75  # part of the trial from which on attention is told by age
_FAINTER = 0.45  # opacity of summaries beside raw steps of the same colour
_SINK_COLOR = 0


def attention_figures(agents: Sequence[ShownAgent]) -> list[Figure]:
    """Figures of the evaluations that were inspected; none where none was."""
    found = [(a, bins) for a in agents if (bins := a.evaluation.attention())]
    if not found:
        return []
    shares = [
        _shares("Attention" if len(found) == 1 else f"Attention of {agent.name}", agent.color, bins)
        for agent, bins in found
    ]
    return [*shares, *_by_age(found), _effective_context(found)]


def _shares(title: str, color: int, bins: list[TrialBin]) -> Figure:
    """Sink, summaries and raw steps, stacked, of one agent."""
    layers = [
        Layer("raw steps", [part.steps for part in bins], color),
        Layer("summaries", [part.summaries for part in bins], color, _FAINTER),
        Layer("sink", [part.sink for part in bins], _SINK_COLOR, _FAINTER),
    ]
    return Figure(
        title,
        plots.stacked(_middles(bins), [layer for layer in layers if any(layer.y)], _STEP),
        "Share of the attention, mean over layers, heads and the steps looked at. Raw steps: those "
        "of the current segment, or of all that is kept where there are no summaries.",
        (_STEP, "sink %", "summaries %", "raw steps %"),
        tuple((_span(p), *map(percent, (p.sink, p.summaries, p.steps))) for p in bins),
    )


def _by_age(found: Sequence[tuple[ShownAgent, list[TrialBin]]]) -> list[Figure]:
    """Share on single summaries, late in the trial; nothing where no agent has any."""
    curves, rows = [], []
    for agent, bins in found:
        end = bins[-1].trial_step_end
        late = TrialBin(trial_id="", trial_step_start=0, trial_step_end=end)
        for part in bins:
            if part.trial_step_end > _LATE * end:
                late.merge(part)
        if late.by_age:
            curves.append(Curve(range(len(late.by_age)), late.by_age, agent.color, marked=True))
        for age, (share, count) in enumerate(zip(late.by_age, late.observed_by_age, strict=True)):
            rows.append((agent.name, f"{age}", percent(share, 2), f"{count:,}"))
    if not curves:
        return []
    text = (
        "Share of the attention on all tokens of one summary, in the last quarter of the trial; "
        "mean over the steps looked at that had a summary of that age."
    )
    svg = plots.rates(curves, "age of the summary (0: the newest)", least=0.0)
    columns = ("agent", "age", "attention %", "steps looked at")
    return [Figure("Attention to single summaries", svg, text, columns, tuple(rows))]


def _effective_context(found: Sequence[tuple[ShownAgent, list[TrialBin]]]) -> Figure:
    """Tokens that are attended to beside those in use; bytes beside full context's."""
    curves, rows = [], []
    for agent, bins in found:
        x, in_use = _middles(bins), [part.context_tokens for part in bins]
        curves.append(Curve(x, [part.effective_context for part in bins], agent.color))
        curves.append(Curve(x, in_use, agent.color, dashed=True))
        for part in bins:
            tokens = (f"{part.effective_context:,.1f}", f"{part.context_tokens:,.0f}")
            kv = (short_bytes(part.kv_bytes), short_bytes(part.full_context_kv_bytes))
            rows.append((agent.name, _span(part), *tokens, *kv))
    text = (
        "exp(entropy) of each head’s attention over the tokens, the sink left out: on how many "
        "tokens it would be spread if it were spread evenly. Mean over layers, heads and the steps "
        "looked at. Dashed: tokens in use."
    )
    columns = ("agent", _STEP, "effective", "tokens in use", "keys and values", "full context’s")
    return Figure("Effective context", plots.amounts(curves, _STEP), text, columns, tuple(rows))


def _middles(bins: Sequence[TrialBin]) -> list[float]:
    return [(part.trial_step_start + part.trial_step_end) / 2 for part in bins]


def _span(part: TrialBin) -> str:
    return f"{part.trial_step_start + 1:,}–{part.trial_step_end:,}"
