"""The report's figures of the reward along the trial."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from memo_habitat.report import plots
from memo_habitat.report.figures import Figure
from memo_habitat.report.plots import curve_over_seeds
from memo_habitat.report.runs import Evaluation

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
