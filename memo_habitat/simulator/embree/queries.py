"""What the task (`interface.TaskSimulator`) and Habitat's own code ask of a house's floor."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from memo_habitat.simulator.agent import first_action, instance_with, possible_turns
from memo_habitat.simulator.embree.camera_rig import CameraRig, Pose
from memo_habitat.simulator.embree.motion import distances_ahead, try_step
from memo_habitat.simulator.embree.navgrid import ON_FLOOR
from memo_habitat.simulator.embree.scene import Arrangement, Scene
from memo_habitat.simulator.interface import ActionSizes, Instance, TopDownMap


class TaskQueries:
    """What every agent answers by its pose, house and arrangement, wherever those are kept; see
    `TaskSimulator` for what each method means."""

    scene: Scene
    arrangement: Arrangement
    _rig: CameraRig
    _pose: Pose
    # Of the config, read once: every look into an OmegaConf node takes microseconds.
    _sizes: ActionSizes
    _sliding: bool

    @property
    def action_sizes(self) -> ActionSizes:
        """As configured."""
        return self._sizes

    @property
    def instances(self) -> tuple[Instance, ...]:
        """The small objects of the arrangement."""
        return self.arrangement.instances

    def agent_pose(self) -> tuple[np.ndarray, float]:
        """Floor point [3] m and heading in rad."""
        position, heading, _ = self._pose
        return position.copy(), heading

    def semantic_annotations(self) -> SimpleNamespace:
        """The small objects as Habitat-Sim's semantic scene has them; it has no regions here."""
        names = sorted({instance.category for instance in self.instances})
        objects = []
        for instance, (low, high) in zip(self.instances, self.arrangement.bounds, strict=True):
            category = SemanticCategory(instance.category, names.index(instance.category))
            box = SimpleNamespace(center=(low + high) / 2, sizes=high - low)
            objects.append(SemanticObject(instance.name, instance.id, category, box))
        categories = [SemanticCategory(name, row) for row, name in enumerate(names)]
        return SimpleNamespace(objects=objects, categories=categories, levels=[], regions=[])

    def sample_floor_point(self, rng: np.random.Generator) -> np.ndarray:
        """[3] m, uniform on the largest island."""
        return self.scene.grid.sample(rng, island=0)

    def floor_points_near(self, center: np.ndarray, radius: float, spacing: float) -> np.ndarray:
        """[P, 3] m: grid points of the largest island within the radius."""
        center = np.asarray(center)
        low, high = np.ceil((center - radius) / spacing), np.floor((center + radius) / spacing) + 1
        cells = np.mgrid[low[0] : high[0], low[2] : high[2]]
        x, z = (axis.ravel() * spacing for axis in cells)
        near = np.hypot(x - center[0], z - center[2]) <= radius
        points = np.stack([x[near], np.zeros(near.sum()), z[near]], axis=1)
        points = points[self.scene.grid.island_at(points) == 1]
        if len(points):
            points[:, 1] = self.scene.grid.world(self.scene.grid.grid(points))[:, 1]
        return points

    def sees_instance(self, eyes: np.ndarray, instance_id: int) -> np.ndarray:
        """[P] bool: the instance is the first thing on the line from each eye to its centre."""
        geometry = self.arrangement.geometry
        target = instance_with(instance_id, self.instances).position
        origins = np.ascontiguousarray(np.asarray(eyes).reshape(-1, 3), dtype=np.float32)
        if not len(origins):
            return np.zeros(0, dtype=bool)
        hits = geometry.cast(origins, np.ascontiguousarray(target - origins, dtype=np.float32))
        begin, end = geometry.ranges[instance_id]
        # A hollow or ring-shaped thing may have nothing at its centre: then the line is free when
        # nothing else comes before the centre.
        free = (hits.triangle < 0) | (hits.distance >= 1.0)
        return np.asarray(((hits.triangle >= begin) & (hits.triangle < end)) | free)

    def distance_to(self, position: np.ndarray, goals: np.ndarray) -> float:
        """Geodesic distance in m to the nearest goal."""
        return self.scene.geodesics.distance(np.asarray(position), np.asarray(goals))

    @property
    def camera_uuids(self) -> tuple[str, ...]:
        """The agent's cameras."""
        return tuple(self._rig.sensors)

    def image_size(self, sensor: str) -> tuple[int, int]:
        """Height and width of a camera's image."""
        spec = self._rig.camera(sensor).spec
        return spec.height, spec.width

    def visible_pixels(self, instance_ids: Sequence[int] | np.ndarray, sensor: str) -> np.ndarray:
        """[I] int64: pixels of each instance in a camera's image from here."""
        geometry = self.arrangement.geometry
        for identity in instance_ids:
            if identity not in geometry.ranges:
                instance_with(identity, self.instances)
        return self._rig.camera(sensor).count(geometry, self._pose, instance_ids)

    def next_best_action(self, goals: np.ndarray) -> str | None:
        """The action that leads to the nearest goal."""
        return self._action_towards(np.asarray(goals, dtype=np.float64), self._sizes.step / 2)

    def _action_towards(self, goals: np.ndarray, reach: float) -> str | None:
        """The first action of the best sequence "turn k times one way, then step"; None when a goal
        [G, 3] m is within `reach` m, when no step comes nearer to one that is within a step, or
        when none can be reached."""
        geodesics, step, turn = self.scene.geodesics, self._sizes.step, self._sizes.turn
        position, heading, _ = self._pose
        left = geodesics.distance(position, goals)
        if left <= reach or not math.isfinite(left):
            return None
        turns = possible_turns(turn)
        headings, field = heading + turns * turn, geodesics.field(goals)[:3]
        floor_map = self.scene.grid.floor_map
        ahead = distances_ahead(position, headings, step, self._sliding, floor_map, field)
        return first_action(turns, ahead, left, step)

    def top_down_map(self, resolution: float) -> TopDownMap:
        """The largest island from above."""
        grid = self.scene.grid
        rows, columns = (
            max(math.ceil(size * grid.cell / resolution), 1) for size in grid.islands.shape
        )
        x = grid.origin[0] + (np.arange(columns) + 0.5) * resolution
        z = grid.origin[1] + (np.arange(rows) + 0.5) * resolution
        xs, zs = np.meshgrid(x, z)
        points = np.stack([xs.ravel(), np.zeros(xs.size), zs.ravel()], axis=1)
        free = (grid.island_at(points) == 1).reshape(rows, columns)
        return TopDownMap(free, grid.origin, resolution)


class GreedyFollower:
    """What Habitat's `ShortestPathFollower` asks of the simulator: actions towards one goal."""

    def __init__(self, choose: Callable[[np.ndarray, float], str | None], keys: Any, radius: float):
        """`choose(goals, reach)` gives an action's name or None; `keys` maps names (and "stop")
        to what `next_action_along` returns; `radius` m around the goal counts as arrived."""
        self._choose, self._keys, self._radius = choose, keys, radius

    def next_action_along(self, goal: Any) -> Any:
        """The key of the next action towards a point [3]."""
        goals = np.asarray(goal, dtype=np.float64).reshape(1, 3)
        return self._keys[self._choose(goals, self._radius) or "stop"]

    def reset(self) -> None:
        """Nothing is remembered between actions."""


class HitRecord(NamedTuple):
    """What Habitat-Sim's pathfinder says of an obstacle."""

    hit_pos: np.ndarray  # [3] m
    hit_normal: np.ndarray  # [3], of unit length, from the obstacle
    hit_dist: float  # m


class SemanticCategory(NamedTuple):
    """A category, with Habitat-Sim's methods."""

    label: str
    row: int

    def name(self, mapping: str = "") -> str:
        """Its name."""
        return self.label

    def index(self, mapping: str = "") -> int:  # type: ignore[override]
        """Its place among the categories in the house, sorted by name."""
        return self.row


class SemanticObject(NamedTuple):
    """A small object, with the attributes that Habitat-Sim's have."""

    id: str  # its name
    semantic_id: int  # its id in panoptic images
    category: SemanticCategory
    aabb: SimpleNamespace  # center and sizes, [3] m


class PathFinder:
    """A facade over a house's grid and distance fields with Habitat-Sim's names."""

    def __init__(self, scene: Scene, rng: np.random.Generator) -> None:
        self._grid, self._geodesics = scene.grid, scene.geodesics
        self._rng = rng

    @property
    def is_loaded(self) -> bool:
        """Whether there is something to navigate on: always."""
        return True

    @property
    def navigable_area(self) -> float:
        """Area of all islands, m2."""
        return float(np.count_nonzero(self._grid.islands)) * self._grid.cell**2

    @property
    def num_islands(self) -> int:
        """Connected parts of the floor."""
        return len(self._grid.radii)

    def island_area(self, island_index: int = -1) -> float:
        """Area in m2 of an island, 0 the largest; of all of them for -1."""
        if island_index < 0:
            return self.navigable_area
        cells = np.count_nonzero(self._grid.islands == island_index + 1)
        return float(cells) * self._grid.cell**2

    def seed(self, seed: int) -> None:
        """Restarts the sequence of random points."""
        self._rng = np.random.default_rng(seed)

    def get_bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest corner [3] m of the navigable grid."""
        grid = self._grid
        rows, columns = grid.islands.shape
        heights = grid.floor[grid.islands > 0]
        low = np.array([grid.origin[0], heights.min(), grid.origin[1]])
        high = low + np.array([columns * grid.cell, 0.0, rows * grid.cell])
        high[1] = heights.max()
        return low, high

    def is_navigable(self, point: Any, max_y_delta: float = ON_FLOOR) -> bool:
        """Whether the agent can stand at the point [3], at most `max_y_delta` m off the floor."""
        return bool(self._grid.island_at(np.asarray(point), max_y_delta)[0])

    def snap_point(self, point: Any, island_index: int = -1) -> np.ndarray:
        """The navigable point [3] nearest to `point` (NaN where there is none within 4 m)."""
        place = self._grid.snap(point, 4.0, max(island_index + 1, 0))
        return np.full(3, np.nan) if place is None else self._grid.world(place)[0]

    def get_island(self, point: Any) -> int:
        """Index of the island under a point: 0 is the largest, -1 none."""
        return int(self._grid.island_at(np.asarray(point), ON_FLOOR)[0]) - 1

    def island_radius(self, point: Any) -> float:
        """Distance in m from the middle of the point's island to its farthest cell; 0 off it."""
        island = self.get_island(point)
        return float(self._grid.radii[island]) if island >= 0 else 0.0

    def get_random_navigable_point(self, max_tries: int = 10, island_index: int = -1) -> np.ndarray:
        """A point [3] m drawn uniformly from one island, or from all of them."""
        return self._grid.sample(self._rng, island_index)

    def get_random_navigable_point_near(
        self, circle_center: Any, radius: float, max_tries: int = 100, island_index: int = -1
    ) -> np.ndarray:
        """A point [3] m drawn uniformly within `radius` m of a centre, NaN where there is none."""
        center, grid = np.asarray(circle_center, dtype=np.float64), self._grid
        wanted = grid.islands > 0 if island_index < 0 else grid.islands == island_index + 1
        cells = np.argwhere(wanted) + self._rng.random((np.count_nonzero(wanted), 2))
        points = grid.world(cells)
        near = np.flatnonzero(np.hypot(*(points - center)[:, [0, 2]].T) <= radius)
        return points[self._rng.choice(near)] if len(near) else np.full(3, np.nan)

    def closest_obstacle_surface_point(self, pt: Any, max_search_radius: float = 2.0) -> HitRecord:
        """The nearest place [3] m of what is in the way, the direction from it, and how far it is;
        infinitely far where there is none within the radius."""
        grid, point = self._grid, np.asarray(pt, dtype=np.float64)
        here = grid.grid(point)[0]
        free = np.pad(grid.clearance > 0.0, 1)  # beyond the grid's edge there is no floor
        blocked = np.argwhere(~free) - 1
        # The nearest point of each blocked cell.
        offsets = np.clip(here, blocked, blocked + 1) - here
        distances = grid.cell * np.hypot(*offsets.T)
        nearest = int(distances.argmin())
        distance = float(distances[nearest])
        if distance > max_search_radius:
            return HitRecord(np.full(3, np.nan), np.zeros(3), math.inf)
        row, column = grid.cell * offsets[nearest]
        away = np.array([-column, 0.0, -row]) / max(distance, 1e-9)
        return HitRecord(point + np.array([column, 0.0, row]), away, distance)

    def distance_to_closest_obstacle(self, point: Any, max_search_radius: float = 2.0) -> float:
        """Distance in m from a point [3] to what is in the way there, at most the radius."""
        grid = self._grid
        row, column = np.floor(grid.grid(point)[0]).astype(int)
        if not (0 <= row < grid.islands.shape[0] and 0 <= column < grid.islands.shape[1]):
            return 0.0
        return min(float(grid.clearance[row, column]), max_search_radius)

    def get_topdown_view(self, meters_per_pixel: float, height: float, eps: float = 0.5) -> Any:
        """[Z, X] bool: where one can stand within `eps` m of `height`, over `get_bounds`."""
        grid = self._grid
        cells = []
        for count in grid.islands.shape:
            pixels = max(math.ceil(count * grid.cell / meters_per_pixel), 1)
            middles = (np.arange(pixels) + 0.5) * meters_per_pixel / grid.cell
            cells.append(np.minimum(middles.astype(int), count - 1))
        return ((grid.islands > 0) & (np.abs(grid.floor - height) <= eps))[np.ix_(*cells)]

    def find_path(self, path: Any) -> bool:
        """Fills `geodesic_distance` and `points` of a path object that has `requested_start` and
        `requested_end` or `requested_ends`; returns whether there is a way."""
        ends = getattr(path, "requested_ends", None)
        goals = np.asarray(path.requested_end if ends is None else ends, dtype=np.float64)
        goals = goals.reshape(-1, 3)
        start = np.asarray(path.requested_start, dtype=np.float64)
        path.geodesic_distance = self._geodesics.distance(start, goals)
        path.points = list(self._geodesics.path(start, goals))
        return math.isfinite(path.geodesic_distance)

    def try_step(self, start: Any, end: Any) -> np.ndarray:
        """Where a move from `start` to `end` ([3] m) comes to, sliding along walls."""
        return try_step(self._grid, start, end, sliding=True)

    def try_step_no_sliding(self, start: Any, end: Any) -> np.ndarray:
        """Where a move from `start` to `end` ([3] m) comes to, stopping at walls."""
        return try_step(self._grid, start, end, sliding=False)
