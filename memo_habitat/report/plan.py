"""Which trials an evaluation plays, and which environment plays which."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from memo_habitat.errors import UserError


class TrialKey(NamedTuple):
    """One trial: an arrangement of a house, used for the `repetition`-th time (from 0)."""

    house: str
    arrangement_id: str
    repetition: int

    @property
    def id(self) -> str:
        """The name that episode records carry as `trial_id`."""
        return f"{self.house}/{self.arrangement_id}/{self.repetition}"


@dataclass(frozen=True)
class EvaluationPlan:
    """What to evaluate.

    Attributes:
        trials_per_house: trials in every held-out house.
        steps_per_trial: environment steps of each.
        seed: from which, with the trial's name, its episodes are drawn.
        deterministic: whether the agent takes its likeliest action instead of sampling.
        stop_action: index of the task's `stop`.
        map_resolution: metres per cell of the saved top-down maps; 0 saves none.
        camera: observation whose frames are saved.
        filmed_trials: how many of the first trials are filmed and traced.
        filmed_episodes: how many of their first episodes are filmed.
        frames_per_episode: frames kept of a filmed episode, evenly spaced.
        inspect_memory: whether to write down where the agent's memory attends.
        inspect_every: one step in so many is looked at for that.
    """

    trials_per_house: int
    steps_per_trial: int
    seed: int = 0
    deterministic: bool = False
    stop_action: int = 0
    map_resolution: float = 0.05
    camera: str = "head_rgb"
    filmed_trials: int = 3
    filmed_episodes: int = 4
    frames_per_episode: int = 8
    inspect_memory: bool = False
    inspect_every: int = 16

    def __post_init__(self) -> None:
        for name in ("trials_per_house", "steps_per_trial", "inspect_every"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; give a whole number from 1 on")


def planned_trials(
    arrangements: Iterable[tuple[str, str]], trials_per_house: int
) -> list[TrialKey]:
    """`trials_per_house` trials of every house, house by house.

    A house's arrangements are used in order, again from the first with the next repetition when
    there are fewer of them than trials, so the same trials are played on any number of workers.

    Args:
        arrangements: (house, arrangement) in the data set's order; duplicates are ignored.
        trials_per_house: trials of each house.
    """
    by_house: dict[str, list[str]] = {}
    for house, arrangement in dict.fromkeys((h, a) for h, a in arrangements):
        by_house.setdefault(house, []).append(arrangement)
    return [
        TrialKey(house, ids[number % len(ids)], number // len(ids))
        for house, ids in sorted(by_house.items())
        for number in range(trials_per_house)
    ]


def assign_trials(
    trials: Sequence[TrialKey], available: Sequence[Iterable[tuple[str, str]]]
) -> list[list[TrialKey]]:
    """Deal `trials` to environments, each to the least busy one that has its arrangement.

    Trials are equally long and environments step together, so an even deal is the fastest one.

    Args:
        trials: what is to be played.
        available: for every environment the (house, arrangement) pairs it can play.

    Returns:
        For every environment its trials, in order.
    """
    can_play = [frozenset((house, arrangement) for house, arrangement in own) for own in available]
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
