"""One episode: an arrangement of small objects in a house, and its target and start once drawn."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import attr
import numpy as np
from habitat.datasets.rearrange.rearrange_dataset import RearrangeEpisode

from memo_habitat.tasks.extobjnav.goals import Numbers, Pose, quaternion_of, soft_spl, spl

if TYPE_CHECKING:
    from memo_habitat.tasks.extobjnav.trial import Trial


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

    def set_task(self, target_category: str, start: Pose) -> None:
        """Write the target and the start pose that the task drew."""
        self.target_category = target_category
        self.start_position = [float(x) for x in np.asarray(start.position)]
        self.start_rotation = quaternion_of(start.heading)
