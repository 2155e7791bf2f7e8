"""Positions and headings on the floor: the trial's frame, angles, and distances within a plane."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]


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
