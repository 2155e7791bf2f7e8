"""From nothing to the report of an agent that learned, on the bundled studios."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from memo_habitat import launch
from memo_habitat.errors import check_at_least_one

# Sized for fifteen minutes in all on two cores.
TRAIN_STEPS = 150_000
EVAL_TRIALS = 5
EVAL_STEPS = 256


@dataclass(frozen=True)
class Plan:
    """What the quickstart does: environment steps to train, trials and their steps to evaluate."""

    config_name: str = "extobjnav/memo_studio"
    train_steps: int = TRAIN_STEPS
    trials: int = EVAL_TRIALS
    steps: int = EVAL_STEPS
    root: str = "runs"
    overrides: Sequence[str] = ()

    @classmethod
    def of(cls, **given: Any) -> Plan:
        """Return the plan with what is given; None keeps a default.

        Raises:
            UserError: a number that is not positive.
        """
        chosen = {name: value for name, value in given.items() if value is not None}
        for name in ("train_steps", "trials", "steps"):
            check_at_least_one(f"--{name.replace('_', '-')}", chosen.get(name, 1))
        return cls(**chosen)


def run(plan: Plan) -> Iterator[str]:
    """Train, evaluate and report; yields what to tell meanwhile, the report's path last."""
    from memo_habitat.report.build import summarise, write_report

    overrides = [f"habitat_baselines.total_num_steps={plan.train_steps}", *plan.overrides]
    folder, config = launch.start_training(plan.config_name, overrides, plan.root)
    yield f"1/3 train {plan.config_name} for {plan.train_steps} steps into {folder.path}"
    if not launch.train(folder, config):
        raise KeyboardInterrupt
    trials = f"{plan.trials} trials of {plan.steps} steps in every held-out house"
    yield f"2/3 evaluate random, trained and oracle: {trials}"
    for agent in ("random", "checkpoint", "oracle"):
        options = launch.EvalOptions(agent=agent, trials=plan.trials, steps=plan.steps)
        launch.evaluate(folder, options)
    yield summarise([folder.path])
    yield "3/3 write the report"
    yield str(write_report([folder.path], folder.report_file))
