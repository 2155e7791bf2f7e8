"""Viewpoints: from where an instance counts as found, and which categories can be found at all."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np

from memo_habitat.simulator.interface import Instance, TaskSimulator


@dataclass(frozen=True)
class GoalOptions:
    """What makes a floor point a viewpoint.

    Attributes:
        radius: farthest horizontal distance to the instance, m.
        spacing: edge of the grid of candidates, m.
        eye_height: height of the eye above the floor, m.
    """

    radius: float = 2.0
    spacing: float = 0.1
    eye_height: float = 1.2

    @classmethod
    def of(cls, config: Any) -> GoalOptions:
        """The options of a task's node."""
        return cls(config.success_distance, config.viewpoint_spacing, config.eye_height)


@dataclass(frozen=True)
class CategoryGoals:
    """Where a category can be found in one arrangement.

    Attributes:
        category: its name.
        instances: every instance of it that is placed.
        positions: `[I, 3]` m, their centres.
        viewpoints: `[G, 3]` m, floor points from which some instance is in reach and in view;
            always the same array for one arrangement, so that a distance field can be kept for it.
    """

    category: str
    instances: tuple[Instance, ...]
    positions: np.ndarray
    viewpoints: np.ndarray

    @property
    def reachable(self) -> bool:
        """Whether any instance has a viewpoint."""
        return len(self.viewpoints) > 0


def find_goals(simulator: TaskSimulator, options: GoalOptions) -> dict[str, CategoryGoals]:
    """Return the goals of every category that the current arrangement places, sorted by name.

    A viewpoint of an instance is a navigable point of the largest island on a fixed grid, within
    `options.radius` horizontally, with a free straight line from the eye to the instance.
    """
    viewpoints: dict[str, list[np.ndarray]] = {}
    instances: dict[str, list[Instance]] = {}
    for instance in simulator.instances:
        instances.setdefault(instance.category, []).append(instance)
        viewpoints.setdefault(instance.category, []).append(
            viewpoints_of(simulator, instance, options)
        )
    goals = {}
    for category in sorted(instances):
        points = np.unique(np.concatenate(viewpoints[category]), axis=0)
        points.setflags(write=False)
        goals[category] = CategoryGoals(
            category=category,
            instances=tuple(instances[category]),
            positions=np.stack([np.asarray(i.position, float) for i in instances[category]]),
            viewpoints=points,
        )
    return goals


def viewpoints_of(simulator: TaskSimulator, instance: Instance, options: GoalOptions) -> np.ndarray:
    """Return the viewpoints `[P, 3]` m of one instance; `[0, 3]` where it has none."""
    points = simulator.floor_points_near(instance.position, options.radius, options.spacing)
    points = np.asarray(points, dtype=np.float64).reshape(-1, 3)
    if not len(points):
        return points
    eyes = points + np.array([0.0, options.eye_height, 0.0])
    return points[np.asarray(simulator.sees_instance(eyes, instance.id), dtype=bool)]


class GoalCache:
    """Keeps the goals of the arrangements used last, since they take a search to find."""

    def __init__(self, size: int) -> None:
        """Keep at most `size` arrangements."""
        self._size = size
        self._kept: OrderedDict[Hashable, dict[str, CategoryGoals]] = OrderedDict()

    def get(
        self, key: Hashable, find: Callable[[], dict[str, CategoryGoals]]
    ) -> dict[str, CategoryGoals]:
        """Return the goals kept under `key`, calling `find` where there are none."""
        if key not in self._kept:
            self._kept[key] = find()
            while len(self._kept) > self._size:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]
