"""Panoptic cameras beside those that are observed: they count what each pixel shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import habitat_sim
import magnum as mn
import numpy as np

_SUFFIX = "_panoptic_twin"
#: What two cameras have in common that see the same.
_VIEW = ("hfov", "position", "orientation", "near", "far")


def add_panoptic_twins(specs: list[Any]) -> dict[str, str]:
    """Give every pinhole camera in `specs` a semantic one with the same view, and share those that
    see the same; they are added to the list.

    Returns:
        The uuid of the semantic camera by that of the camera.
    """
    twins: dict[str, str] = {}
    kept: dict[tuple[Any, ...], str] = {}
    pinhole = habitat_sim.SensorSubType.PINHOLE
    cameras = [spec for spec in specs if spec.sensor_subtype == pinhole]
    # Those that are there already come first: a twin of them would be drawn beside them.
    semantic = habitat_sim.SensorType.SEMANTIC
    for spec in sorted(cameras, key=lambda spec: spec.sensor_type != semantic):
        view = (*map(int, spec.resolution), *(_numbers(spec, name) for name in _VIEW))
        if view not in kept:
            if spec.sensor_type != semantic:
                specs.append(twin := _twin(spec))
                kept[view] = twin.uuid
            else:
                kept[view] = spec.uuid
        twins[spec.uuid] = kept[view]
    return twins


def _twin(spec: Any) -> Any:
    twin = habitat_sim.CameraSensorSpec()
    twin.uuid = f"{spec.uuid}{_SUFFIX}"
    twin.sensor_type = habitat_sim.SensorType.SEMANTIC
    twin.resolution = spec.resolution
    for name in _VIEW:
        setattr(twin, name, getattr(spec, name))
    return twin


def _numbers(spec: Any, name: str) -> tuple[float, ...]:
    value = getattr(spec, name)
    try:
        return tuple(float(number) for number in value)
    except TypeError:
        return (float(value),)


def tilt_cameras(sensors: Mapping[str, Any], tilt_rad: float) -> None:
    """Turn cameras up by `tilt_rad` from how they are mounted, about their own x axis.

    Set from level each time, not turned on by as much: the picture after looking down and up again
    is the very same.
    """
    for sensor in sensors.values():
        sensor.set_transformation_from_spec()
        sensor.node.rotate_x_local(mn.Rad(tilt_rad))


def pixels_of(image: Any, ids: Sequence[int]) -> Any:
    """[I] int64: pixels of a panoptic image [H, W] that show each of `ids`."""
    counts = np.bincount(image.ravel(), minlength=max(ids) + 1)
    return counts[np.asarray(ids, dtype=np.int64)].astype(np.int64)
