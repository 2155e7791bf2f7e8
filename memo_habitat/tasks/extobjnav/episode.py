"""One episode: an arrangement of small objects in a house, and its target and start once drawn."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import attr
import numpy as np
from habitat.datasets.rearrange.rearrange_dataset import RearrangeEpisode

from memo_habitat.tasks.extobjnav.goals import Pose, quaternion_of

if TYPE_CHECKING:
    from memo_habitat.tasks.extobjnav.trial import Trial


@dataclass
class Progress:
    """Running account of one episode, brought up to date once per step.

    Attributes:
        start_distance: geodesic distance (m) to the nearest viewpoint at the episode's start.
        start_position: `[3]` m.
        first_step: step of the trial at which the episode began.
        distance: the same distance now.
        previous_distance: the same distance one step ago.
        path_length: metres travelled.
        steps: steps taken.
        collisions: steps that ran into something.
        stopped: the agent called stop.
        success: it did so where that counts.
        path: (x, z) in m of the start and of each step's end.
    """

    start_distance: float
    start_position: np.ndarray
    first_step: int
    distance: float = field(init=False)
    previous_distance: float = field(init=False)
    path_length: float = 0.0
    steps: int = 0
    collisions: int = 0
    stopped: bool = False
    success: bool = False
    path: list[tuple[float, float]] = field(init=False)

    def __post_init__(self) -> None:
        """Begin at the start pose."""
        self.distance = self.previous_distance = self.start_distance
        self._position = np.asarray(self.start_position, dtype=np.float64)
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
        self._position = np.array(position, dtype=np.float64)
        self.path.append((float(position[0]), float(position[2])))
        self.previous_distance, self.distance = self.distance, distance
        self.steps += 1
        self.collisions += int(collided)


OBJECT_CONFIG_SUFFIX = ".object_config.json"
_SCENE_SUFFIX = ".scene_instance.json"


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

    def for_trial(self, trial: Trial, episode_index: int) -> ExtObjNavEpisode:
        """Return a new episode of `trial` with this arrangement, which the copy shares."""
        episode = copy.copy(self)
        episode.trial = trial
        episode.episode_index = episode_index
        return episode

    def set_task(self, target_category: str, start: Pose) -> None:
        """Write the target and the start pose that the task drew."""
        self.target_category = target_category
        self.start_position = [float(x) for x in np.asarray(start.position)]
        self.start_rotation = quaternion_of(start.heading)
