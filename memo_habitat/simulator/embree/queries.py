"""The task's questions to the simulator (`interface.TaskSimulator`), answered from the geometry."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from memo_habitat.errors import UserError
from memo_habitat.simulator.embree.camera_rig import Rig
from memo_habitat.simulator.embree.pathfinder import next_best_action, sample_point
from memo_habitat.simulator.embree.scene import Arrangement, House
from memo_habitat.simulator.interface import Instance, TopDownMap


class TaskQueries:
    """Mixed into `EmbreeSim`; see `TaskSimulator` for what each method means."""

    habitat_config: Any
    house: House
    arrangement: Arrangement
    _rig: Rig
    _position: np.ndarray
    _heading: float
    _tilt: float
    _next_start: tuple[np.ndarray, float] | None

    @property
    def instances(self) -> tuple[Instance, ...]:
        """The small objects of the arrangement."""
        return self.arrangement.instances

    def agent_pose(self) -> tuple[np.ndarray, float]:
        """Floor point [3] m and heading in rad."""
        return self._position.copy(), self._heading

    def start_next_episode_at(self, position: np.ndarray, heading: float) -> None:
        """The next reset starts there."""
        self._next_start = (np.array(position, dtype=np.float64).reshape(3), float(heading))

    def sample_floor_point(self, rng: np.random.Generator) -> np.ndarray:
        """[3] m, uniform on the largest island."""
        return sample_point(self.house, rng, island=0)

    def floor_points_near(self, center: np.ndarray, radius: float, spacing: float) -> np.ndarray:
        """[P, 3] m: grid points of the largest island within the radius."""
        axes = [
            np.arange(
                math.ceil((center[axis] - radius) / spacing),
                math.floor((center[axis] + radius) / spacing) + 1,
            )
            * spacing
            for axis in (0, 2)
        ]
        x, z = (values.ravel() for values in np.meshgrid(*axes, indexing="ij"))
        near = np.hypot(x - center[0], z - center[2]) <= radius
        points = np.stack([x[near], np.zeros(near.sum()), z[near]], axis=1)
        points = points[self.house.grid.island_at(points) == 1]
        if len(points):
            points[:, 1] = self.house.grid.world(self.house.grid.grid(points))[:, 1]
        return points

    def sees_instance(self, eyes: np.ndarray, instance_id: int) -> np.ndarray:
        """[P] bool: the instance is the first thing on the line from each eye to its centre."""
        target = self._instance(instance_id).position
        origins = np.ascontiguousarray(np.asarray(eyes).reshape(-1, 3), dtype=np.float32)
        if not len(origins):
            return np.zeros(0, dtype=bool)
        directions = np.ascontiguousarray(target - origins, dtype=np.float32)
        hits = self.arrangement.geometry.cast(origins, directions)
        begin, end = self.arrangement.geometry.ranges[instance_id]
        # A hollow or ring-shaped thing may have nothing at its centre: then the line is free when
        # nothing else comes before the centre.
        free = (hits.triangle < 0) | (hits.distance >= 1.0)
        return np.asarray(((hits.triangle >= begin) & (hits.triangle < end)) | free)

    def distance_to(self, position: np.ndarray, goals: np.ndarray) -> float:
        """Geodesic distance in m to the nearest goal."""
        return self.house.geodesics.distance(np.asarray(position), np.asarray(goals))

    @property
    def camera_uuids(self) -> tuple[str, ...]:
        """The agent's cameras."""
        return tuple(self._rig.sensors)

    def image_size(self, sensor: str) -> tuple[int, int]:
        """Height and width of a camera's image."""
        lens = self._rig.camera(sensor).lens
        return lens.height, lens.width

    def visible_pixels(self, instance_ids: Sequence[int] | np.ndarray, sensor: str) -> np.ndarray:
        """[I] int64: pixels of each instance in a camera's image from here."""
        ranges = self.arrangement.geometry.ranges
        for identity in instance_ids:
            if int(identity) not in ranges:
                self._instance(int(identity))
        return self._rig.camera(sensor).count(
            self.arrangement.geometry, self._position, self._heading, self._tilt, instance_ids
        )

    def next_best_action(self, goals: np.ndarray) -> str | None:
        """The action that leads to the nearest goal."""
        return self._towards(np.asarray(goals, dtype=np.float64), None)

    def _towards(self, goals: np.ndarray, reach: float | None) -> str | None:
        geodesics, mover = self.house.geodesics, self.house.mover
        sliding = bool(self.habitat_config.habitat_sim_v0.allow_sliding)
        return next_best_action(
            self._position,
            self._heading,
            float(self.habitat_config.forward_step_size),
            math.radians(float(self.habitat_config.turn_angle)),
            lambda start, end: mover.step(start, end, sliding),
            lambda point: geodesics.distance(point, goals),
            reach,
        )

    def top_down_map(self, resolution: float) -> TopDownMap:
        """The largest island from above."""
        grid = self.house.grid
        rows, columns = (
            max(math.ceil(size * grid.cell / resolution), 1) for size in grid.islands.shape
        )
        x = grid.origin[0] + (np.arange(columns) + 0.5) * resolution
        z = grid.origin[1] + (np.arange(rows) + 0.5) * resolution
        xs, zs = np.meshgrid(x, z)
        points = np.stack([xs.ravel(), np.zeros(xs.size), zs.ravel()], axis=1)
        free = (grid.island_at(points) == 1).reshape(rows, columns)
        return TopDownMap(free, grid.origin, resolution)

    def _instance(self, instance_id: int) -> Instance:
        for instance in self.arrangement.instances:
            if instance.id == instance_id:
                return instance
        known = [instance.id for instance in self.arrangement.instances]
        raise UserError(f"no instance has the id {instance_id}: the arrangement has {known}")
