"""Success, SPL, soft SPL and reward as functions of numbers, or of arrays of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    sin, cos = math.sin(origin.heading), math.cos(origin.heading)
    return -sin * x - cos * z, -cos * x + sin * z


@dataclass(frozen=True)
class RewardWeights:
    """What a step earns.

    Attributes:
        distance_reward: per metre by which the geodesic distance to the nearest viewpoint shrinks.
        slack_reward: per step.
        success_reward: once, at the successful stop.
    """

    distance_reward: float = 1.0
    slack_reward: float = -0.003
    success_reward: float = 2.0

    @classmethod
    def of(cls, config: Any) -> RewardWeights:
        """The weights of a reward measure's node."""
        return cls(config.distance_reward, config.slack_reward, config.success_reward)


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


def is_distance(value: float) -> bool:
    """Whether `value` can be a distance: a finite number that is not negative."""
    return math.isfinite(value) and value >= 0.0


def _path_efficiency(start_distance: Numbers, path_length: Numbers) -> Numbers:
    is_away = np.greater(start_distance, 0.0)
    longest = np.maximum(np.where(is_away, start_distance, 1.0), path_length)
    return np.where(is_away, start_distance / longest, 1.0)
