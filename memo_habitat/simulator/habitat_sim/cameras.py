"""Cameras beside those that are observed: they count pixels, and find lines of sight."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import habitat_sim
import magnum as mn
import numpy as np

from memo_habitat.simulator.embree.camera_rig import rotation_about

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


# Lines of sight ----------------------------------------------------------------------------------
#
# By what the renderer shows: collision shapes are often hulls, which fill the space below a table
# and between the boards of a shelf.

_DEPTH, _CLOSE_UP = "memo_habitat_depth_probe", "memo_habitat_close_up"
#: Pixels along an edge of the depth images, each of which spans 90 degrees: a pixel is 1.6 cm wide
#: at the 2 m from which an instance counts as seen.
_DEPTH_SIZE = 256
_CLOSE_UP_SIZE, _CLOSE_UP_DEG = 64, 30.0
#: Places from which it is checked that the object really shows.
_CHECKS = 8
#: What lies less than this before the eye does not hide it, m: depth images are in pixels.
_MARGIN = 0.01
#: Far from every house, m.
_AWAY = 1.0e4


#: [3, 3] each: from the frame of a camera (looks along -Z, Y up) to the world's, for the six faces
#: of a cube.
_FACES = [
    np.rint(rotation_about(axis, turn * math.pi / 2))
    for axis, turn in ((1, 0), (1, 1), (1, 2), (1, 3), (0, 1), (0, 3))
]


class SightProbe:
    """Two cameras of its own in the present house, moved to where they are needed."""

    def __init__(self, sim: Any) -> None:
        """Put them into the scene; `close` takes them out before the house is left."""
        self._sim = sim
        node = sim.get_active_scene_graph().get_root_node().create_child()
        kinds = habitat_sim.SensorType
        self._depth = _camera(sim, node, _DEPTH, kinds.DEPTH, _DEPTH_SIZE, 90.0)
        self._close_up = _camera(
            sim, node, _CLOSE_UP, kinds.SEMANTIC, _CLOSE_UP_SIZE, _CLOSE_UP_DEG
        )

    def close(self) -> None:
        """Free the cameras and their images, which the scene graph of a left house keeps."""
        for camera in (self._depth, self._close_up):
            self._sim.remove_sensor(camera.uuid)

    def sees(self, eyes: np.ndarray, target: Any, center: np.ndarray) -> np.ndarray:
        """[P] bool: whether nothing is between each of the eyes [P, 3] m and the centre [3] m of
        the object `target`.

        A line is as free from its one end as from the other: looking out from the object, six
        images serve all eyes.
        """
        seen = np.ones(len(eyes), dtype=np.bool_)
        ways, is_open = eyes - center, np.ones(len(eyes), dtype=np.bool_)
        before = target.transformation
        target.translation = mn.Vector3(0.0, _AWAY, 0.0)  # it does not hide itself
        try:
            for face in _FACES:
                x, y, z = (ways @ face).T
                inside = is_open & (-z > 0.0) & (np.abs(x) <= -z) & (np.abs(y) <= -z)
                if not inside.any():
                    continue
                is_open &= ~inside
                depth = self._look(self._depth, center, face)
                column = ((1.0 - x[inside] / z[inside]) / 2 * _DEPTH_SIZE).astype(int)
                row = ((1.0 + y[inside] / z[inside]) / 2 * _DEPTH_SIZE).astype(int)
                hit = depth[np.minimum(row, _DEPTH_SIZE - 1), np.minimum(column, _DEPTH_SIZE - 1)]
                seen[inside] = (hit == 0.0) | (hit >= -z[inside] - _MARGIN)
        finally:
            target.transformation = before
        # The renderer draws no face from behind, so that what is closed up in a cupboard can be
        # looked out of: it must show from at least one of the places.
        found = np.flatnonzero(seen)
        some = found[:: max(len(found) // _CHECKS, 1)]
        if not any(self._shows(eyes[index], target, center) for index in some.tolist()):
            seen[:] = False
        return seen

    def _shows(self, eye: np.ndarray, target: Any, center: np.ndarray) -> bool:
        back = (eye - center) / max(float(np.linalg.norm(eye - center)), 1e-9)
        right = np.cross([0.0, 1.0, 0.0] if abs(back[1]) < 0.99 else [0.0, 0.0, 1.0], back)
        right /= np.linalg.norm(right)
        rotation = np.stack([right, np.cross(back, right), back], axis=1)
        return bool((self._look(self._close_up, eye, rotation) == target.semantic_id).any())

    def _look(self, camera: Any, eye: np.ndarray, rotation: np.ndarray) -> np.ndarray:
        """The image of a camera from a place [3] m, turned by [3, 3]."""
        columns = [[*rotation[:, k].tolist(), 0.0] for k in range(3)]
        camera.node.transformation = mn.Matrix4([*columns, [*map(float, eye), 1.0]])
        return np.asarray(self._sim.render_sensors([camera])[camera.uuid])


def _camera(sim: Any, node: Any, uuid: str, kind: Any, size: int, hfov_deg: float) -> Any:
    spec = habitat_sim.CameraSensorSpec()
    spec.uuid, spec.sensor_type, spec.resolution = uuid, kind, [size, size]
    spec.position, spec.hfov = [0.0, 0.0, 0.0], hfov_deg
    return sim.create_sensor(spec, node)
