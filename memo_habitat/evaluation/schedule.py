"""Which trials an evaluation plays, in which environments, and what it asks of those."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

from memo_habitat.errors import UserError

Observation = dict[str, Any]
StepResult = tuple[Observation, float, bool, dict[str, Any]]


class TrialKey(NamedTuple):
    """One trial: an arrangement of a house, used for the `repetition`-th time (from 0)."""

    house: str
    arrangement_id: str
    repetition: int

    @property
    def id(self) -> str:
        """The name that episode records carry as `trial_id`."""
        return f"{self.house}/{self.arrangement_id}/{self.repetition}"


def trial_seed(trial: str, seed: int) -> int:
    """Seed of all that an agent draws in a trial, from its name and the evaluation's seed."""
    # Hashed: generators of neighbouring seeds begin alike.
    return random.Random(f"actions in {trial} from {seed}").getrandbits(63)


class TrialVectorEnv(Protocol):
    """The part of `habitat.VectorEnv` that an evaluation uses.

    Workers reset themselves when an episode ends: the observation that comes with `done` is the
    next episode's first. By `call_at` every environment answers

    - `arrangements()`: list of (house, arrangement) it can play, in the data set's order;
    - `record_fields()`: measures by uuid and how they are recorded, see `tasks.record_fields`;
    - `schedule_trials(trials, seed)`: from the next reset on play these (house, arrangement,
      repetition) triples, one after the other and from the first again when all are played,
      with `seed` in the place of the environment's own, so that a trial does not depend on
      the worker that plays it;
    - `top_down_map(resolution)`: `simulator.interface.TopDownMap` of the present house,
      `resolution` in m per cell;
    - `top_down_scene()`: for videos, mapping with `position` (x, z) in m, `heading` in rad, `goals`
      list of (x, z), `target`, its name, and `detection_scale`, metres that make 1 in the
      observed detections; None where there is nothing to tell.
    """

    @property
    def num_envs(self) -> int:
        """How many environments there are."""

    def reset(self) -> list[Observation]:
        """Reset all of them; their first observations."""

    def async_step_at(self, index_env: int, action: int) -> None:
        """Begin a step of one of them."""

    def wait_step_at(self, index_env: int) -> StepResult:
        """The result of the step begun."""

    def call_at(
        self, index: int, function_name: str, function_args: dict[str, Any] | None = None
    ) -> Any:
        """Call a method of one of them by name."""


def arrangements(envs: TrialVectorEnv) -> list[list[tuple[str, str]]]:
    """For every environment the (house, arrangement) pairs it can play."""
    return [
        [(str(house), str(arrangement)) for house, arrangement in envs.call_at(i, "arrangements")]
        for i in range(envs.num_envs)
    ]


def planned_trials(pairs: Iterable[tuple[str, str]], trials_per_house: int) -> list[TrialKey]:
    """`trials_per_house` trials of every house, house by house.

    A house's arrangements are used in order, again from the first with the next repetition when
    there are fewer of them than trials, so the same trials are played on any number of workers.
    `pairs` are (house, arrangement) in the data set's order; duplicates are ignored.
    """
    by_house: dict[str, list[str]] = {}
    for house, arrangement in dict.fromkeys(pairs):
        by_house.setdefault(house, []).append(arrangement)
    return [
        TrialKey(house, ids[number % len(ids)], number // len(ids))
        for house, ids in sorted(by_house.items())
        for number in range(trials_per_house)
    ]


def assign_trials(
    trials: Iterable[TrialKey], available: Iterable[Iterable[tuple[str, str]]]
) -> list[list[TrialKey]]:
    """Deal `trials` to environments, each to the least busy one that can play its arrangement.

    Trials are equally long and environments step together, so an even deal is the fastest one.
    `available` are the (house, arrangement) pairs of each environment; returns its trials, in
    order.
    """
    can_play = [frozenset(own) for own in available]
    dealt: list[list[TrialKey]] = [[] for _ in can_play]
    for trial in trials:
        able = [i for i, own in enumerate(can_play) if (trial.house, trial.arrangement_id) in own]
        if not able:
            raise UserError(
                f"no environment holds house '{trial.house}' with arrangement "
                f"'{trial.arrangement_id}'; check habitat.dataset.content_scenes"
            )
        dealt[min(able, key=lambda i: len(dealt[i]))].append(trial)
    return dealt
