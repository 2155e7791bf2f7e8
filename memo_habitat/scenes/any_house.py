"""Small objects placed in a house of any origin, and checked with the simulator that will run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import ConvexHull, QhullError

from memo_habitat.errors import UserError
from memo_habitat.scenes.files import rigid_objects
from memo_habitat.scenes.floor_plan import RandomStream, Rect
from memo_habitat.scenes.object_placement import (
    GAP,
    ON_FLOOR,
    TRIES,
    YAWS,
    Arrangement,
    PlacedObject,
    SupportSurface,
    draw_categories,
    in_order,
    turned_rect,
)
from memo_habitat.scenes.surfaces import (
    Receptacle,
    Surface,
    find_surfaces,
    free_ahead,
    height_below,
    levels,
    rests,
)
from memo_habitat.simulator.embree.geometry import Geometry
from memo_habitat.simulator.embree.templates import OBJECT, object_soup, read_template
from memo_habitat.simulator.interface import TaskSimulator
from memo_habitat.tasks.extobjnav.goals import GoalOptions, viewpoints_of

HEIGHTS = (0.15, 1.6)
"""Of surfaces above the floor on which objects are put, m."""
FLOOR_SAMPLES = 200
MAX_SIZE = 0.6
"""Longest edge of what counts as a small object, m."""
MIN_VIEWPOINTS = 10
"""Viewpoints that make an object count as reachable; the task itself asks for one."""
SPOTS = 8
"""Looked at in one try to place an object."""
ROUNDS = 6
"""In which objects that turn out to be out of reach are placed elsewhere."""
OUT_OF_THE_WAY = 1.0
"""Farthest distance to a wall or furniture of objects on the floor, m."""


@dataclass(frozen=True)
class AnyObject:
    """A small object of any origin.

    Attributes:
        category: name of its config.
        outline: (x, z) of the corners of what it covers, from its origin, m.
        low, high: its lowest and highest point from its origin, m.
    """

    category: str
    outline: tuple[tuple[float, float], ...]
    low: float
    high: float

    @classmethod
    def read(cls, category: str, config: Path, defaults: dict[str, Any] | None) -> AnyObject:
        """Of an object config and the defaults of the data set that it will stand in.

        Raises:
            UserError: its files, or that it is no small object.
        """
        soup, origin = object_soup(read_template(config, OBJECT, defaults))
        points = soup.corners.reshape(-1, 3) - origin
        low, high = points.min(axis=0), points.max(axis=0)
        size = float((high - low).max())
        if not 0.0 < size <= MAX_SIZE:
            raise UserError(
                f"{config}: it is {size:.2f} m long; small objects have up to {MAX_SIZE} m: set "
                "its scale"
            )
        flat = points[:, [0, 2]]
        try:
            flat = flat[ConvexHull(flat).vertices]
        except QhullError:  # a sheet that stands upright: both ends of a line
            flat = flat[np.lexsort(flat.T)[[0, -1]]]
        corners = flat.astype(float)
        return cls(category, tuple(map(tuple, corners.tolist())), float(low[1]), float(high[1]))

    @property
    def height(self) -> float:
        """From its lowest point to its highest, m."""
        return self.high - self.low


class AnyHouse:
    """A house in which objects can be placed.

    Geometry says where something can stand, the simulator where the agent can be and what it sees.
    """

    def __init__(
        self,
        geometry: Geometry,
        names: Sequence[str],
        receptacles: Sequence[Receptacle],
        simulator: TaskSimulator,
        arrange: Callable[[Sequence[object]], None],
        goals: GoalOptions,
        rng: RandomStream,
    ) -> None:
        """Look for surfaces.

        Args:
            geometry: of the house without small objects.
            names: of its parts; the first is the building.
            receptacles: where its makers want small objects to be; all surfaces where there are
                none.
            simulator: that has entered the house.
            arrange: puts objects, given as episodes list them, into the simulator.
            goals: what makes a viewpoint.
            rng: of everything random.
        """
        self._geometry, self._simulator, self._arrange = geometry, simulator, arrange
        self._goals, self._rng = goals, rng
        # Simulators draw by NumPy's generator.
        self._points = np.random.default_rng(rng.integer(0, 2**31 - 1))
        floor = [simulator.sample_floor_point(self._points)[1] for _ in range(FLOOR_SAMPLES)]
        found = find_surfaces(levels(geometry), names, min(floor) + HEIGHTS[0], receptacles)
        self.surfaces = [surface for surface in found if self._is_in_reach(surface)]

    def _is_in_reach(self, surface: Surface) -> bool:
        """Whether the agent can come near it, and it is neither floor nor ceiling there."""
        middle = surface.points[len(surface.points) // 2]
        near = self._simulator.floor_points_near(middle, self._goals.radius, 0.25)
        if not len(near):
            return False
        away = np.hypot(near[:, 0] - middle[0], near[:, 2] - middle[2])
        height = middle[1] - near[int(away.argmin()), 1]
        return HEIGHTS[0] <= height <= HEIGHTS[1]

    def sample_arrangement(
        self, shapes: Sequence[AnyObject], instances: int, categories: int
    ) -> Arrangement | None:
        """An arrangement in which every object can be reached, or None where there was none."""
        known = {shape.category: shape for shape in shapes}
        names = draw_categories(self._rng, list(known), instances, categories)
        items: list[PlacedObject] = []
        for _ in range(ROUNDS):
            for name in names:
                item = self._place(known[name], items)
                if item is None:
                    return None
                items.append(item)
            items = in_order(items)
            self._arrange(rigid_objects(items))
            # Instances come in the order of the list.
            seen = [
                len(viewpoints_of(self._simulator, instance, self._goals)) >= MIN_VIEWPOINTS
                for instance in self._simulator.instances
            ]
            names = [
                item.shape.category
                for item, is_seen in zip(items, seen, strict=True)
                if not is_seen
            ]
            if not names:
                x, y, z = (
                    round(float(v), 3) for v in self._simulator.sample_floor_point(self._points)
                )
                return Arrangement(items, (x, y, z), self._rng.integer(0, 11))
            items = [item for item, is_seen in zip(items, seen, strict=True) if is_seen]
        return None

    def _place(self, shape: AnyObject, items: Sequence[PlacedObject]) -> PlacedObject | None:
        """The object at a random place, apart from others."""
        for _ in range(TRIES):
            on_floor = not self.surfaces or self._rng.chance(ON_FLOOR)
            # A random spot is mostly in the way or taken, so several are looked at.
            for left in reversed(range(SPOTS)):
                yaw = self._rng.integer(0, len(YAWS) - 1)
                own = turned_rect(shape.outline, yaw)
                spot = self._on_floor(own, anywhere=not left) if on_floor else self._on_surface()
                item = self._stand(shape, yaw, own, *spot) if spot else None
                if item is not None and not any(_touch(item, other) for other in items):
                    return item
        return None

    def _on_surface(self) -> tuple[str, np.ndarray]:
        """A random point of a random surface."""
        # First the piece, else shelves with their many boards would get most.
        piece = self._rng.choice(sorted({surface.piece for surface in self.surfaces}))
        surface = self._rng.choice([s for s in self.surfaces if s.piece == piece])
        return surface.name, surface.points[self._rng.integer(0, len(surface.points) - 1)]

    def _on_floor(self, own: Rect, anywhere: bool) -> tuple[str, np.ndarray] | None:
        """A point beside a wall or furniture, if that is near, or else anywhere or nowhere."""
        point = self._simulator.sample_floor_point(self._points)
        # A navmesh may lie above the floor.
        y = height_below(self._geometry, point, 0.3)
        if y is None:
            return None
        point = np.array([point[0], y, point[2]])
        around, free = free_ahead(self._geometry, point, HEIGHTS[0])
        nearest = int(free.argmin())
        if not free[nearest] <= OUT_OF_THE_WAY:
            return ("floor", point) if anywhere else None
        radius = math.hypot(own.width, own.depth) / 2
        return "floor", point + around[nearest] * (float(free[nearest]) - radius - GAP)

    def _stand(
        self, shape: AnyObject, yaw: int, own: Rect, name: str, point: np.ndarray
    ) -> PlacedObject | None:
        """The object standing at a point, if it is level there and there is room for it."""
        x, z = round(float(point[0]), 3), round(float(point[2]), 3)
        rect = own.moved(x, z)
        xs, zs = np.meshgrid(_ticks(rect.x0, rect.x1), _ticks(rect.z0, rect.z1))
        below = np.stack([xs.ravel(), np.full(xs.size, point[1]), zs.ravel()], axis=1)
        y = rests(self._geometry, below, shape.height + 0.02)
        if y is None:
            return None
        reach = math.hypot(own.width, own.depth) / 2 + 0.01
        for share in (0.2, 0.8):
            middle = np.array([rect.centre[0], y, rect.centre[1]])
            if free_ahead(self._geometry, middle, share * shape.height)[1].min() < reach:
                return None
        support = SupportSurface(0, name, rect, y, math.inf)
        return PlacedObject(shape, (x, round(y - shape.low, 4), z), yaw, support, rect)


def _ticks(low: float, high: float) -> np.ndarray:
    """Coordinates about 2 cm apart from one end to the other."""
    return np.linspace(low, high, max(3, math.ceil((high - low) / 0.02)))


def _touch(item: PlacedObject, other: PlacedObject) -> bool:
    """Whether one object comes nearer than GAP to another at the same height, from above."""
    return abs(item.support.y - other.support.y) < MAX_SIZE and (
        item.footprint.grown(GAP).overlaps(other.footprint)
    )
