"""Episodes, trials (one house with one fixed arrangement), and the iterator that deals them out."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import PurePath
from typing import Any

import attr
import numpy as np
from habitat.core.dataset import EpisodeIterator
from habitat.datasets.rearrange.rearrange_dataset import RearrangeEpisode

from memo_habitat.errors import UserError
from memo_habitat.tasks.extobjnav.goals import Numbers, Pose, quaternion_of, soft_spl, spl

OBJECT_CONFIG_SUFFIX = ".object_config.json"
_SCENE_SUFFIX = ".scene_instance.json"
_SEED_RANGE = 2**64


@dataclass
class Account:
    """What is counted of an episode; of N episodes that run together every field is an array [N].

    Attributes:
        start_distance: geodesic distance (m) to the nearest viewpoint at the episode's start.
        distance: the same distance now.
        previous_distance: the same distance one step ago.
        path_length: metres travelled.
        steps: steps taken.
        collisions: steps that ran into something.
        collided: 1 where the last step did, else 0.
        success: 1.0 after a stop where it counts, else 0.0.
        seen_earlier: 1.0 where the target's category was detected in the trial before the episode
            began, else 0.0.
        stopped: 1.0 after a stop, else 0.0.
        near: 1.0 where that was within reach of an instance, seen or not, else 0.0.
    """

    start_distance: Numbers
    distance: Numbers
    previous_distance: Numbers
    path_length: Numbers
    steps: Numbers
    collisions: Numbers
    collided: Numbers
    success: Numbers
    seen_earlier: Numbers
    stopped: Numbers
    near: Numbers

    @classmethod
    def of_many(cls, count: int) -> Account:
        """Zeros for `count` episodes; what is counted is int64, all else float64."""
        integers = ("steps", "collisions", "collided")
        return cls(
            **{
                f.name: np.zeros(count, np.int64 if f.name in integers else float)
                for f in fields(cls)
            }
        )

    def one(self, index: int) -> Account:
        """That of one of many episodes, in Python's own numbers."""
        return Account(**{name: values[index].item() for name, values in vars(self).items()})

    @property
    def spl(self) -> Numbers:
        """Success weighted by path length."""
        return spl(self.success, self.start_distance, self.path_length)

    @property
    def soft_spl(self) -> Numbers:
        """Progress weighted by path length."""
        return soft_spl(self.start_distance, self.distance, self.path_length)


class Progress(Account):
    """Running account of one episode, brought up to date once per step.

    Attributes:
        path: (x, z) in m of the start and of each step's end.
    """

    def __init__(
        self, start_distance: float, start_position: np.ndarray, seen_earlier: bool
    ) -> None:
        """Begin at a start position [3] m."""
        distances = start_distance, start_distance, start_distance
        super().__init__(*distances, 0.0, 0, 0, 0, 0.0, float(seen_earlier), 0.0, 0.0)
        self._position = np.array(start_position, dtype=np.float64)
        self.path = [(float(self._position[0]), float(self._position[2]))]

    def advance(self, position: np.ndarray, distance: float, collided: bool) -> None:
        """Account for one step.

        Args:
            position: `[3]` m, where the step ended.
            distance: geodesic distance (m) to the nearest viewpoint there.
            collided: whether the step ran into something.
        """
        moved = position - self._position
        self.path_length += float(np.sqrt(moved @ moved))
        # A copy: a simulator may write its next position into the same array.
        self._position = np.array(position, dtype=np.float64)
        self.path.append((float(position[0]), float(position[2])))
        self.previous_distance, self.distance = self.distance, distance
        self.steps += 1
        self.collided = int(collided)
        self.collisions += self.collided


def house_of(scene_id: str) -> str:
    """Name of the house: the scene's file name without folders and extensions."""
    path = PurePath(scene_id)
    if path.name.endswith(_SCENE_SUFFIX):
        return path.name[: -len(_SCENE_SUFFIX)]
    return path.stem


def category_of(object_config: str) -> str:
    """Category of an object: its object-config file name without `.object_config.json`."""
    return PurePath(object_config).name[: -len(OBJECT_CONFIG_SUFFIX)]


@attr.s(auto_attribs=True, kw_only=True)
class ExtObjNavEpisode(RearrangeEpisode):
    """An entry of the data set, and the same with a target and a start within a trial.

    Attributes:
        extra: fields of the file that the published form does not name, as they were read.
        trial: the trial this episode belongs to; None for an entry of the data set.
        episode_index: its place in the trial, from 0.
        target_category: what to find; None until the task has reset.
    """

    extra: dict[str, Any] = attr.Factory(dict)
    trial: Trial | None = None
    episode_index: int = 0
    target_category: str | None = None

    @property
    def categories(self) -> list[str]:
        """Categories of the objects placed, sorted, each once."""
        return sorted({category_of(name) for name, _ in self.rigid_objs})

    def set_task(self, target_category: str, start: Pose) -> None:
        """Write the target and the start pose that the task drew."""
        self.target_category = target_category
        self.start_position = [float(x) for x in np.asarray(start.position)]
        self.start_rotation = quaternion_of(start.heading)


@dataclass
class Trial:
    """One house with one arrangement, in which episodes are played back to back.

    Attributes:
        arrangement: the entry of the data set; shared, never changed.
        repetition: how often the iterator has used this arrangement before.
        seed: the environment's seed.
        steps: steps taken so far.
        over: no further step belongs to this trial.
        episodes: episodes dealt out so far.
        categories_seen: what the detector has reported so far, by the task's account.
        origin: first start pose, the origin of the trial's frame; None before the first episode.
    """

    arrangement: ExtObjNavEpisode
    repetition: int
    seed: int
    steps: int = 0
    over: bool = False
    episodes: int = 0
    origin: Pose | None = None
    categories_seen: set[str] = field(default_factory=set)

    @property
    def trial_id(self) -> str:
        """`<house>/<arrangement>/<repetition>`, unique within a data set and split."""
        house = house_of(self.arrangement.scene_id)
        return f"{house}/{self.arrangement.episode_id}/{self.repetition}"

    def generator(self, episode_index: int) -> np.random.Generator:
        """Generator of everything random in the trial's episode `episode_index`.

        It depends on the seed, the house, the arrangement, the repetition and the index alone, so
        that neither the order of the trials nor what the agent did in earlier episodes changes a
        draw, nor the folder in which the data lie.
        """
        house = house_of(self.arrangement.scene_id)
        name = f"{house}\n{self.arrangement.episode_id}".encode()
        # NumPy takes no negative seed; Python's own hash would differ from process to process.
        entropy = [self.seed % _SEED_RANGE, zlib.crc32(name), self.repetition, episode_index]
        return np.random.default_rng(entropy)

    def next_episode(self) -> ExtObjNavEpisode:
        """Deal out the next episode; the task draws its target and start when it resets."""
        # The objects are shared: only target and start of the copy are written.
        episode = copy.copy(self.arrangement)
        episode.trial, episode.episode_index = self, self.episodes
        self.episodes += 1
        return episode


class TrialIterator(EpisodeIterator):
    """Deals out episodes of one trial until it is over, then goes to the next arrangement.

    The order is a function of the seed alone (and of which pass over the data this is), never of
    global random state. Options follow Habitat's `environment.iterator_options`; those that limit
    how long one scene is kept have no meaning here, because the trial's length does that.
    """

    def __init__(
        self,
        arrangements: Sequence[ExtObjNavEpisode],
        *,
        cycle: bool = True,
        shuffle: bool = False,
        group_by_scene: bool = False,
        num_episode_sample: int = -1,
        seed: int | None = None,
        **ignored: Any,
    ) -> None:
        """Prepare to iterate.

        Args:
            arrangements: entries of the data set, each used for whole trials.
            cycle: begin again after the last arrangement, with the repetition raised by one.
            shuffle: another order in every pass; else the data set's order.
            group_by_scene: keep the arrangements of one house next to each other.
            num_episode_sample: use only that many arrangements, drawn without replacement; -1: all.
            seed: the environment's seed; None counts as 0.
            ignored: options of Habitat's iterator without a meaning for trials.
        """
        unknown = set(ignored) - {
            "max_scene_repeat_episodes",
            "max_scene_repeat_steps",
            "step_repetition_range",
        }
        if unknown:
            raise UserError(
                f"unknown option(s) {sorted(unknown)} in habitat.environment.iterator_options;"
                " remove them"
            )
        self.seed = 0 if seed is None else int(seed)
        self.cycle = cycle
        self.shuffle = shuffle
        self.group_by_scene = group_by_scene
        self.episodes = self._sampled(list(arrangements), num_episode_sample)
        self._trials_begun = 0
        self.trial: Trial | None = None
        self._queue: list[Trial] = []

    def __next__(self) -> ExtObjNavEpisode:
        """Return the next episode of the running trial, or the first one of the next trial."""
        if self.trial is None or self.trial.over:
            self.trial = self._begin_trial()
        return self.trial.next_episode()

    def step_taken(self) -> None:
        """Nothing: the task counts the trial's steps."""

    def _begin_trial(self) -> Trial:
        if self._queue:
            return self._queue.pop(0)
        repetition, place = divmod(self._trials_begun, len(self.episodes))
        if repetition > 0 and not self.cycle:
            raise StopIteration
        self._trials_begun += 1
        arrangement = self.episodes[self._order(repetition)[place]]
        return Trial(arrangement=arrangement, repetition=repetition, seed=self.seed)

    def _order(self, repetition: int) -> list[int]:
        order = list(range(len(self.episodes)))
        if self.shuffle:
            generator = np.random.default_rng([self.seed % _SEED_RANGE, repetition])
            order = [int(i) for i in generator.permutation(len(order))]
        if self.group_by_scene:
            first_seen: dict[str, int] = {}
            for index in order:
                first_seen.setdefault(self.episodes[index].scene_id, len(first_seen))
            order.sort(key=lambda index: first_seen[self.episodes[index].scene_id])
        return order

    def _sampled(self, arrangements: list[ExtObjNavEpisode], count: int) -> list[ExtObjNavEpisode]:
        if not arrangements:
            raise UserError("the data set has no episodes; check habitat.dataset.data_path")
        if count < 0:
            return arrangements
        if not 0 < count <= len(arrangements):
            raise UserError(
                f"iterator_options.num_episode_sample={count} is not between 1 and the"
                f" {len(arrangements)} arrangements of the data set"
            )
        generator = np.random.default_rng([self.seed % _SEED_RANGE, len(arrangements), count])
        chosen = sorted(generator.choice(len(arrangements), count, replace=False))
        return [arrangements[int(i)] for i in chosen]

    def skip_trials(self, count: int) -> None:
        """Begin with the next episode the trial that comes after `count` whole ones."""
        self._trials_begun, self.trial = count, None

    # Habitat's means to jump inside its queue, in terms of trials.

    def set_next_episode_by_index(self, episode_index: int) -> None:
        """Begin a trial of arrangement `episode_index` with the next episode."""
        if not 0 <= episode_index < len(self.episodes):
            raise UserError(f"arrangement {episode_index} is not in 0..{len(self.episodes) - 1}")
        self.trial = Trial(self.episodes[episode_index], repetition=0, seed=self.seed)

    def set_next_episode_by_id(self, episode_id: str) -> None:
        """Begin a trial of the first arrangement called `episode_id` with the next episode."""
        for index, arrangement in enumerate(self.episodes):
            if arrangement.episode_id == episode_id:
                self.set_next_episode_by_index(index)
                return
        raise UserError(f"no arrangement is called {episode_id!r} in this data set")

    def play(self, trials: Sequence[tuple[str, str, int]]) -> None:
        """Play these trials next, from the next episode on, before the usual order goes on.

        Args:
            trials: (house, arrangement id, repetition) of each.
        """
        known = {(house_of(a.scene_id), a.episode_id): a for a in self.episodes}
        unknown = [f"{house}/{name}" for house, name, _ in trials if (house, name) not in known]
        if unknown:
            raise UserError(
                f"no arrangement {', '.join(unknown)} in this environment's data set; check"
                " habitat.dataset.content_scenes"
            )
        self._queue = [
            Trial(known[house, name], repetition, self.seed) for house, name, repetition in trials
        ]
        self.trial = None
