"""What a perfect detector, or one that misses things, would report of the small objects in view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from memo_habitat.tasks.extobjnav.goals import turned
from memo_habitat.utils.compiled import compiled

#: Numbers per category; see `write_detections`.
WIDTH = 6
#: Metres that make 1: of places relative to the agent, and in the trial's frame.
AGENT_SCALE, TRIAL_SCALE = 5.0, 10.0


class Detector(NamedTuple):
    """What counts as detected; a tuple, so that kernels take it as it is.

    Attributes:
        range: farthest horizontal distance, m.
        min_pixels: fewest pixels of the instance in the camera.
        reach: farthest horizontal distance (m) at which a stop succeeds.
        miss_probability: chance that an instance in view is missed at a step.
        image_pixels: pixels of the camera's whole image.
    """

    range: float
    min_pixels: int
    reach: float
    miss_probability: float
    image_pixels: int

    @classmethod
    def of(cls, config: Any, image_size: tuple[int, int]) -> Detector:
        """That of a task's node, with images of this height and width in pixels."""
        return cls(
            config.detection_range,
            config.min_visible_pixels,
            config.success_distance,
            config.detection_miss_probability,
            image_size[0] * image_size[1],
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


@compiled
def _mixed(value):  # type: ignore[no-untyped-def]
    """A 64-bit number scrambled (the finaliser of SplitMix64, Steele et al. 2014)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@compiled
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


@compiled
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


@compiled
def _forward_left(frame, point):  # type: ignore[no-untyped-def]
    """`goals.in_frame` for kernels: m forward and left of the frame (position [3], heading)."""
    origin, heading = frame
    return turned(point[0] - origin[0], point[2] - origin[2], heading)


@compiled
def write_detections(pose, frame, in_view, instances, detector, moment, out):  # type: ignore[no-untyped-def]
    """Write the nearest detected instance of each category.

    A row of `table` is 1, forward and left of the agent (m / 5), forward and left in the trial's
    frame (m / 10), and the share of the image that the instance fills; zeros where no instance of
    the category is detected.

    Args:
        pose: (position [3] m, heading rad) of the agent.
        frame: the same of the trial's frame.
        in_view: ([J] indices of the instances looked for, [J] how many pixels show each).
        instances: ([I, 3] m, places of all instances, [I] rows of their categories).
        detector: a `Detector`.
        moment: (key, step) for `is_missed`.
        out: (table [C, 6] float32, within_reach [C] bool), written.
    """
    candidates, pixels = in_view
    positions, categories = instances
    key, step = moment
    table, within_reach = out
    table[:] = 0.0
    within_reach[:] = False
    nearest = np.full(len(table), np.inf)
    for j in range(len(candidates)):
        i = candidates[j]
        if pixels[j] < detector.min_pixels or is_missed(key, step, i, detector.miss_probability):
            continue
        distance = np.hypot(positions[i, 0] - pose[0][0], positions[i, 2] - pose[0][2])
        c = categories[i]
        # Of two equally near the first is kept, so that a row does not flicker.
        if distance > detector.range or distance >= nearest[c]:
            continue
        nearest[c] = distance
        table[c, 0] = 1.0
        forward, left = _forward_left(pose, positions[i])
        table[c, 1] = forward / AGENT_SCALE
        table[c, 2] = left / AGENT_SCALE
        forward, left = _forward_left(frame, positions[i])
        table[c, 3] = forward / TRIAL_SCALE
        table[c, 4] = left / TRIAL_SCALE
        table[c, 5] = pixels[j] / detector.image_pixels
        within_reach[c] = distance <= detector.reach
