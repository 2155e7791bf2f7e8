"""What is sought, from where it counts as found, and how a step and an episode are scored.

Measures and rewards are functions of numbers, or of arrays of them: one per environment.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memo_habitat.simulator.interface import Instance, TaskSimulator
from memo_habitat.utils.compiled import compiled

Array = NDArray[np.floating[Any]]
#: One number, or one per environment.
Numbers = Any


@dataclass(frozen=True)
class Pose:
    """Where the agent stands.

    Attributes:
        position: `[3]` m, world frame, the floor point under the agent.
        heading: rad about the world's +Y axis; 0 looks along -Z, counter-clockwise is positive.
    """

    position: Array
    heading: float


def wrap_angle(angle: float) -> float:
    """Return `angle` (rad) in the half-open interval (-pi, pi]."""
    # Exact, unlike a modulus, and in [-pi, pi]: only the lower end is to be mended.
    wrapped = math.remainder(angle, 2.0 * math.pi)
    return math.pi if wrapped == -math.pi else wrapped


def heading_to(position: Array, target: Array) -> float:
    """Heading (rad) that looks from `position` `[3]` towards `target` `[3]`, seen from above."""
    return math.atan2(
        -(float(target[0]) - float(position[0])), -(float(target[2]) - float(position[2]))
    )


def pitch_to(eye: Array, target: Array) -> float:
    """Elevation (rad, up is positive) of `target` `[3]` as seen from `eye` `[3]`."""
    return math.atan2(
        float(target[1]) - float(eye[1]),
        math.hypot(float(target[0]) - float(eye[0]), float(target[2]) - float(eye[2])),
    )


def horizontal_distance(position: Array, points: Array) -> Array:
    """Distances (m) `[P]` in the floor plane from `position` `[3]` to `points` `[P, 3]`."""
    return np.hypot(points[:, 0] - position[0], points[:, 2] - position[2])


def quaternion_of(heading: float) -> list[float]:
    """Unit quaternion `[x, y, z, w]` that turns the agent by `heading` (rad) about +Y."""
    return [0.0, math.sin(heading / 2.0), 0.0, math.cos(heading / 2.0)]


def in_frame(origin: Pose, position: Array) -> tuple[float, float]:
    """Coordinates (m) of `position` `[3]` in the frame of `origin`: (forward, left).

    Forward is where the origin's heading looks, left is a quarter turn counter-clockwise from it,
    so that the frame and headings counted counter-clockwise fit together.
    """
    x = float(position[0]) - float(origin.position[0])
    z = float(position[2]) - float(origin.position[2])
    forward, left = turned(x, z, origin.heading)
    return forward, left


@compiled
def turned(x, z, heading):  # type: ignore[no-untyped-def]
    """An offset (x, z) in the world as (forward, left) of `heading`, or (forward, left) as (x, z).

    Both in m. It mirrors as it turns, so that the one is the inverse of the other.
    """
    sin, cos = np.sin(heading), np.cos(heading)
    return -sin * x - cos * z, -cos * x + sin * z


@dataclass(frozen=True)
class RewardWeights:
    """What a step earns.

    Attributes:
        distance_reward: per metre by which the geodesic distance to the nearest viewpoint shrinks.
        slack_reward: per step.
        success_reward: once, at the successful stop.
    """

    distance_reward: float
    slack_reward: float
    success_reward: float


def spl(success: Numbers, start_distance: Numbers, path_length: Numbers) -> Numbers:
    """Success weighted by path length: success x d / max(d, p); d = 0 gives the success itself.

    Args:
        success: whether the episode succeeded.
        start_distance: d, geodesic distance (m) to the nearest viewpoint at the start.
        path_length: p, metres travelled.

    Source: Anderson et al., "On Evaluation of Embodied Navigation Agents", 2018.
    """
    return success * _path_efficiency(start_distance, path_length)


def soft_spl(start_distance: Numbers, distance_left: Numbers, path_length: Numbers) -> Numbers:
    """SPL whose success is replaced by the progress made, max(0, 1 - distance_left / d).

    With d = 0 there was no way to go: the progress is 1 where the agent still is at a viewpoint
    and 0 where it left.
    """
    is_away = np.greater(start_distance, 0.0)
    with np.errstate(over="ignore"):
        share_left = distance_left / np.where(is_away, start_distance, 1.0)
    progress = np.where(is_away, np.maximum(0.0, 1.0 - share_left), np.less_equal(distance_left, 0))
    return progress * _path_efficiency(start_distance, path_length)


def step_reward(
    previous_distance: Numbers, distance: Numbers, success: Numbers, weights: RewardWeights
) -> Numbers:
    """Reward of one step: decrease of the geodesic distance (m), slack, and the success bonus."""
    return (
        weights.distance_reward * (previous_distance - distance)
        + weights.slack_reward
        + weights.success_reward * success
    )


def _path_efficiency(start_distance: Numbers, path_length: Numbers) -> Numbers:
    is_away = np.greater(start_distance, 0.0)
    longest = np.maximum(np.where(is_away, start_distance, 1.0), path_length)
    return np.where(is_away, start_distance / longest, 1.0)


@dataclass(frozen=True)
class GoalOptions:
    """What makes a floor point a viewpoint.

    Attributes:
        radius: farthest horizontal distance to the instance, m.
        spacing: edge of the grid of candidates, m.
        eye_height: height of the eye above the floor, m.
    """

    radius: float
    spacing: float
    eye_height: float

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
    positions: Array
    viewpoints: Array

    @property
    def reachable(self) -> bool:
        """Whether any instance has a viewpoint."""
        return len(self.viewpoints) > 0


def find_goals(simulator: TaskSimulator, options: GoalOptions) -> dict[str, CategoryGoals]:
    """Return the goals of every category that the current arrangement places, sorted by name.

    A viewpoint of an instance is a navigable point of the largest island on a fixed grid, within
    `options.radius` horizontally, with a free straight line from the eye to the instance.
    """
    instances: dict[str, list[Instance]] = {}
    for instance in simulator.instances:
        instances.setdefault(instance.category, []).append(instance)
    goals = {}
    for category, placed in sorted(instances.items()):
        viewpoints = [viewpoints_of(simulator, instance, options) for instance in placed]
        points = np.unique(np.concatenate(viewpoints), axis=0)
        points.setflags(write=False)  # simulators keep a distance field for this very array
        positions = np.stack([np.asarray(instance.position, float) for instance in placed])
        goals[category] = CategoryGoals(category, tuple(placed), positions, points)
    return goals


def viewpoints_of(simulator: TaskSimulator, instance: Instance, options: GoalOptions) -> Array:
    """Return the viewpoints `[P, 3]` m of one instance; `[0, 3]` where it has none."""
    points = simulator.floor_points_near(instance.position, options.radius, options.spacing)
    points = np.asarray(points, dtype=np.float64).reshape(-1, 3)
    if not len(points):
        return points
    eyes = points + np.array([0.0, options.eye_height, 0.0])
    return points[np.asarray(simulator.sees_instance(eyes, instance.id), dtype=bool)]
