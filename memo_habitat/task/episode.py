"""One episode: an arrangement of small objects in a house, and its target and start once drawn."""

from __future__ import annotations

import copy
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import attr
import numpy as np
from habitat.datasets.rearrange.rearrange_dataset import RearrangeEpisode

from memo_habitat.task.geometry import Pose, quaternion_of

if TYPE_CHECKING:
    from memo_habitat.task.trial import Trial

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
