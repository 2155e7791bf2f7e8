"""What a perfect detector, or one that misses things, would report of the small objects in view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

#: Numbers per category; see `write_detections`.
WIDTH = 6
#: Metres that make 1: of places relative to the agent, and in the trial's frame.
AGENT_SCALE, TRIAL_SCALE = 5.0, 10.0


@dataclass(frozen=True)
class DetectorOptions:
    """What counts as detected.

    Attributes:
        range: farthest horizontal distance, m.
        min_pixels: fewest pixels of the instance in the camera.
        miss_probability: chance that an instance in view is missed at a step.
        reach: farthest horizontal distance (m) at which a stop succeeds.
    """

    range: float = 5.0
    min_pixels: int = 10
    miss_probability: float = 0.0
    reach: float = 2.0

    @classmethod
    def of(cls, config: Any) -> DetectorOptions:
        """The options of a task's node."""
        return cls(
            config.detection_range,
            config.min_visible_pixels,
            config.detection_miss_probability,
            config.success_distance,
        )


@dataclass(frozen=True)
class Detections:
    """What is detected from one pose.

    Attributes:
        table: `[C, 6]` float32, see `write_detections`.
        within_reach: `[C]` bool: stopping here succeeds by the instance reported.
    """

    table: np.ndarray
    within_reach: np.ndarray

    @property
    def seen(self) -> np.ndarray:
        """`[C]` bool: which categories are detected."""
        return self.table[:, 0] > 0.0


@njit(cache=True, nogil=True)
def _mixed(value):  # type: ignore[no-untyped-def]
    """A 64-bit number scrambled (the finaliser of SplitMix64, Steele et al. 2014)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@njit(cache=True, nogil=True)
def is_missed(key, step, instance, probability):  # type: ignore[no-untyped-def]
    """Whether the detector misses an instance at a step of an episode.

    A function of its arguments alone, so that neither what else is asked nor how many
    environments there are changes a draw. key: uint64, drawn once per episode.
    """
    if probability <= 0.0:
        return False
    mixed = _mixed(np.uint64(key) + np.uint64(step) * np.uint64(0x9E3779B97F4A7C15))
    mixed = _mixed(mixed + np.uint64(instance + 1) * np.uint64(0xD1B54A32D192ED03))
    return (mixed >> np.uint64(11)) * 2.0**-53 < probability


@njit(cache=True, nogil=True)
def stop_succeeds(  # type: ignore[no-untyped-def]
    position, candidates, pixels, positions, is_target, min_pixels, reach
):
    """Whether a stop would succeed by one of the instances `candidates` [J].

    Args:
        position: [3] m, of the agent.
        candidates: [J] indices of instances.
        pixels: [J] how many pixels show each.
        positions: [I, 3] m of all instances.
        is_target: bool [I].
        min_pixels: fewest that count as seeing it.
        reach: farthest horizontal distance, m.
    """
    for j in range(len(candidates)):
        i = candidates[j]
        x = positions[i, 0] - position[0]
        z = positions[i, 2] - position[2]
        if is_target[i] and pixels[j] >= min_pixels and np.hypot(x, z) <= reach:
            return True
    return False


@njit(cache=True, nogil=True)
def write_detections(  # type: ignore[no-untyped-def]
    position, heading, origin, origin_heading, candidates, pixels, positions, categories,
    limit, min_pixels, image_pixels, miss, reach, table, within_reach,
):  # fmt: skip
    """Write the nearest detected instance of each category.

    A row of `table` is 1, forward and left of the agent (m / 5), forward and left in the trial's
    frame (m / 10), and the share of the image that the instance fills; zeros where no instance of
    the category is detected.

    Args:
        position, heading: of the agent, [3] m and rad.
        origin, origin_heading: of the trial's frame.
        candidates: [J] indices of the instances looked for.
        pixels: [J] how many pixels show each.
        positions: [I, 3] m of all instances.
        categories: [I] their rows.
        limit: farthest horizontal distance, m.
        min_pixels: fewest that count.
        image_pixels: pixels of the whole image.
        miss: (key, step, probability) for `is_missed`.
        reach: m within which a stop succeeds.
        table: [C, 6] float32, written.
        within_reach: [C] bool, written.
    """
    table[:] = 0.0
    within_reach[:] = False
    nearest = np.full(len(table), np.inf)
    for j in range(len(candidates)):
        i = candidates[j]
        if pixels[j] < min_pixels or is_missed(miss[0], miss[1], i, miss[2]):
            continue
        x = positions[i, 0] - position[0]
        z = positions[i, 2] - position[2]
        distance = np.hypot(x, z)
        c = categories[i]
        if distance > limit or distance >= nearest[c]:
            continue
        nearest[c] = distance
        sin = np.sin(heading)
        cos = np.cos(heading)
        table[c, 0] = 1.0
        table[c, 1] = (-sin * x - cos * z) / AGENT_SCALE
        table[c, 2] = (-cos * x + sin * z) / AGENT_SCALE
        x = positions[i, 0] - origin[0]
        z = positions[i, 2] - origin[2]
        sin = np.sin(origin_heading)
        cos = np.cos(origin_heading)
        table[c, 3] = (-sin * x - cos * z) / TRIAL_SCALE
        table[c, 4] = (-cos * x + sin * z) / TRIAL_SCALE
        table[c, 5] = pixels[j] / image_pixels
        within_reach[c] = distance <= reach
