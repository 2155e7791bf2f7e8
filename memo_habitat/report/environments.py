"""What an evaluation asks of a vector environment, and how trials are scheduled in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from memo_habitat.report.plan import TrialKey

Observation = dict[str, Any]
StepResult = tuple[Observation, float, bool, dict[str, Any]]


class TrialVectorEnv(Protocol):
    """The part of `habitat.VectorEnv` that an evaluation uses.

    Workers reset themselves when an episode ends: the observation that comes with `done` is the
    next episode's first. By `call_at` every environment answers

    - `arrangements()`: list of (house, arrangement) it can play, in the data set's order;
    - `schedule_trials(trials, seed)`: from the next reset on play these (house, arrangement,
      repetition) triples, one after the other and from the first again when all are played,
      with `seed` in the place of the environment's own, so that a trial does not depend on
      the worker that plays it;
    - `top_down_map(resolution)`: mapping with `free` bool [Z, X] (where the agent can stand),
      `origin` (x, z) in m of the outer corner of cell [0, 0] and `resolution` in m per cell, of
      the present house.
    """

    @property
    def num_envs(self) -> int:
        """How many environments there are."""
        ...

    def reset(self) -> list[Observation]:
        """Reset all of them; their first observations."""
        ...

    def async_step_at(self, index_env: int, action: int) -> None:
        """Begin a step of one of them."""
        ...

    def wait_step_at(self, index_env: int) -> StepResult:
        """The result of the step begun."""
        ...

    def call_at(
        self, index: int, function_name: str, function_args: dict[str, Any] | None = None
    ) -> Any:
        """Call a method of one of them by name."""
        ...


def arrangements(envs: TrialVectorEnv) -> list[list[tuple[str, str]]]:
    """For every environment the (house, arrangement) pairs it can play."""
    return [
        [(str(house), str(arrangement)) for house, arrangement in envs.call_at(i, "arrangements")]
        for i in range(envs.num_envs)
    ]


def schedule(envs: TrialVectorEnv, dealt: Sequence[Iterable[TrialKey]], seed: int) -> None:
    """Tell every environment which trials to play from its next reset on."""
    for index, trials in enumerate(dealt):
        chosen = [tuple(trial) for trial in trials]
        if chosen:
            envs.call_at(index, "schedule_trials", {"trials": chosen, "seed": seed})


def top_down_map(envs: TrialVectorEnv, index: int, resolution: float) -> Mapping[str, Any]:
    """Map of the house that environment `index` is in."""
    answer: Mapping[str, Any] = envs.call_at(index, "top_down_map", {"resolution": resolution})
    return answer


def step_some(
    envs: TrialVectorEnv, indices: Sequence[int], actions: Sequence[int]
) -> list[StepResult]:
    """Step the environments `indices` at the same time and leave the others alone.

    Args:
        envs: the vector environment.
        indices: which to step.
        actions: one for each environment of `envs`; those of the others are not used.
    """
    for index in indices:
        envs.async_step_at(index, actions[index])
    return [envs.wait_step_at(index) for index in indices]
