"""The report's figures of what the memory attends to, for evaluations that were inspected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from memo_habitat.evaluation.attention import Stretch
from memo_habitat.report import plots
from memo_habitat.report.load import Evaluation
from memo_habitat.report.plots import Curve, Layer, curve_over_seeds
from memo_habitat.report.summary import Headline, percent

# Series colours of the page: 0 random, 1 oracle, from 2 on what was trained, then again from 2.
REFERENCE_COLORS = {"random": 0, "oracle": 1}
_FIRST_TRAINED, _NUM_TRAINED = 2, 8


def trained_color(number: int) -> int:
    """Number of the page's colour for the trained agent `number`, counted from 0."""
    return _FIRST_TRAINED + number % _NUM_TRAINED


@dataclass(frozen=True)
class Series:
    """An evaluation with its place in the page.

    Attributes:
        evaluation: what was evaluated.
        color: number of its colour.
        row: its headline numbers.
    """

    evaluation: Evaluation
    color: int
    row: Headline


@dataclass(frozen=True)
class Figure:
    """A picture with its title and definition.

    Attributes:
        title: what is shown.
        svg: the picture.
        text: definition of what is shown.
        columns: head of the table of its numbers.
        rows: the numbers as text; empty shows no table.
        wide: whether it takes the whole width of the page.
    """

    title: str
    svg: Markup
    text: str
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    wide: bool = False


_AXIS = "step of the trial"


def reward_figures(
    agents: Sequence[tuple[int, Sequence[Evaluation]]], note: str = ""
) -> list[Figure]:
    """Reward collected by each step of the trial, and how fast it comes in along the trial.

    Args:
        agents: number of the page's colour, and evaluations of equally trained agents; curves are
            the mean over those, with a band where there are several.
        note: what is to be said of the band.
    """
    earned, rates = [], []
    for color, evaluations in agents:
        rewards = [found for found in (e.rewards() for e in evaluations) if found is not None]
        rewards = [r for r in rewards if np.array_equal(r.ends, rewards[0].ends)]
        if not rewards:
            continue
        steps, middles = rewards[0].cumulative()[0], rewards[0].rate()[0]
        sums = np.array([r.cumulative()[1] for r in rewards])
        earned.append(curve_over_seeds(steps, sums, color))
        speeds = np.array([r.rate()[1] for r in rewards])
        rates.append(curve_over_seeds(middles, speeds, color, marked=True))
    if not earned:
        return []
    return [
        Figure(
            "Reward along the trial",
            Markup(plots.amounts(earned, _AXIS)),
            "Sum of the trial’s rewards up to each step, mean over trials. A line that bends "
            f"upwards: the agent gets faster as the trial goes on. {note}".rstrip(),
        ),
        Figure(
            "Reward per step",
            Markup(plots.amounts(rates, _AXIS)),
            f"Reward per step in each tenth of the trial, mean over trials. {note}".rstrip(),
        ),
    ]


_LATE = 0.75  # part of the trial from which on attention is told by age
_FAINTER = 0.45  # opacity of summaries beside raw steps of the same colour
_SINK_COLOR = 0

Inspected = Sequence[tuple[Series, list[Stretch]]]


def attention_figures(series: Sequence[Series]) -> list[Figure]:
    """Figures of the evaluations that were inspected; none where none was."""
    found = [(s, s.evaluation.attention()) for s in series]
    found = [(s, stretches) for s, stretches in found if stretches]
    if not found:
        return []
    by_age = _by_age(found)
    return [
        *(_shares(s, stretches, alone=len(found) == 1) for s, stretches in found),
        *([by_age] if by_age else []),
        _effective_context(found),
    ]


def _shares(series: Series, stretches: list[Stretch], alone: bool) -> Figure:
    """Sink, summaries and raw steps, stacked, of one agent."""
    layers = [
        Layer("raw steps", [part.steps for part in stretches], series.color),
        Layer("summaries", [part.summaries for part in stretches], series.color, _FAINTER),
        Layer("sink", [part.sink for part in stretches], _SINK_COLOR, _FAINTER),
    ]
    layers = [layer for layer in layers if any(layer.y)]
    rows = [
        (_span(part), *(percent(value) for value in (part.sink, part.summaries, part.steps)))
        for part in stretches
    ]
    return Figure(
        "Attention" if alone else f"Attention of {series.evaluation.label}",
        Markup(plots.stacked(_middles(stretches), layers, _AXIS)),
        "Share of the attention, mean over layers, heads and the steps looked at. Raw steps: those "
        "of the current segment, or of all that is kept where there are no summaries.",
        (_AXIS, "sink %", "summaries %", "raw steps %"),
        tuple(rows),
    )


def _by_age(found: Inspected) -> Figure | None:
    """Share on single summaries, late in the trial; None where no agent has any."""
    curves, rows = [], []
    for s, stretches in found:
        end = stretches[-1].trial_step_end
        late = Stretch("", 0, end)
        for part in stretches:
            if part.trial_step_end > _LATE * end:
                late.merge(part)
        if late.by_age:
            curves.append(Curve(range(len(late.by_age)), late.by_age, s.color, marked=True))
        for age, share in enumerate(late.by_age):
            steps = f"{late.observed_by_age[age]:,}"
            rows.append((s.evaluation.label, f"{age}", percent(share, 2), steps))
    if not curves:
        return None
    return Figure(
        "Attention to single summaries",
        Markup(plots.rates(curves, "age of the summary (0: the newest)", least=0.0)),
        "Share of the attention on all tokens of one summary, in the last quarter of the trial; "
        "mean over the steps looked at that had a summary of that age.",
        ("agent", "age", "attention %", "steps looked at"),
        tuple(rows),
    )


def _effective_context(found: Inspected) -> Figure:
    """Tokens that are attended to beside those in use; bytes beside full context's."""
    curves, rows = [], []
    for s, stretches in found:
        x = _middles(stretches)
        in_use = [part.context_tokens for part in stretches]
        curves.append(Curve(x, [part.effective_context for part in stretches], s.color))
        curves.append(Curve(x, in_use, s.color, dashed=True))
        for part in stretches:
            amounts = (f"{part.effective_context:,.1f}", f"{part.context_tokens:,.0f}")
            kv = (plots.short_bytes(part.kv_bytes), plots.short_bytes(part.full_context_kv_bytes))
            rows.append((s.evaluation.label, _span(part), *amounts, *kv))
    return Figure(
        "Effective context",
        Markup(plots.amounts(curves, _AXIS)),
        "exp(entropy) of each head’s attention over the tokens, the sink left out: on how many "
        "tokens it would be spread if it were spread evenly. Mean over layers, heads and the steps "
        "looked at. Dashed: tokens in use.",
        ("agent", _AXIS, "effective", "tokens in use", "keys and values", "full context’s"),
        tuple(rows),
    )


def _middles(stretches: Sequence[Stretch]) -> list[float]:
    return [(part.trial_step_start + part.trial_step_end) / 2 for part in stretches]


def _span(part: Stretch) -> str:
    return f"{part.trial_step_start + 1:,}–{part.trial_step_end:,}"
