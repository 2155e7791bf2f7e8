"""Arrangements: which small objects a house holds, and where each of them rests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from memo_habitat.scenes.floor_plan import RandomStream, Rect
from memo_habitat.scenes.furniture_layout import CELL, House, RoomLayout
from memo_habitat.scenes.mesh import Point, circle
from memo_habitat.scenes.objects import ALL_OBJECTS, SMALL_OBJECTS, SmallObject
from memo_habitat.simulator.interface import instance_names

GAP = 0.05
"""Least distance between a small object and anything beside it, m."""
YAWS = circle(24)
"""Cosine and sine of the turns about +Y that objects are given (15 degrees apart)."""
ON_FLOOR = 0.3
"""Share of the objects that are tried on the floor first."""
EDGE = 0.35
"""How far from a room's walls an object on the floor may reach, m."""
TRIES = 30
"""To find a place for one object."""


@dataclass(frozen=True)
class SupportSurface:
    """A rectangle in a room on which small objects may stand.

    Attributes:
        room: index of the room.
        name: ``TEMPLATE_:NNNN|surface_N`` or ``floor|ROOM``.
        y, clear: its height and the free height above it, m.
    """

    room: int
    name: str
    rect: Rect
    y: float
    clear: float

    @property
    def piece(self) -> str:
        """What it is part of."""
        return self.name.split("|")[0]


class Shape(Protocol):
    """What is known of any small object."""

    @property
    def category(self) -> str:
        """The name of its object config."""


@dataclass(frozen=True)
class PlacedObject:
    """A small object at rest.

    Attributes:
        position: where its origin comes to (x, y, z), m: the middle of its bounding box, or its
            centre of mass.
        yaw: index into ``YAWS``.
        footprint: the rectangle that it covers seen from above.
    """

    shape: Shape
    position: Point
    yaw: int
    support: SupportSurface
    footprint: Rect

    def transform(self) -> list[list[float]]:
        """The 4x4 row-major transform from the object's frame to the world."""
        c, s = YAWS[self.yaw]
        x, y, z = self.position
        return [[c, 0.0, s, x], [0.0, 1.0, 0.0, y], [0.0 - s, 0.0, c, z], [0.0, 0.0, 0.0, 1.0]]


@dataclass(frozen=True)
class Arrangement:
    """Small objects in a house and where the agent begins: position [m], heading index (30 deg)."""

    items: list[PlacedObject]
    start: Point
    heading: int


class ObjectPlacer:
    """Places small objects one by one in a furnished house."""

    def __init__(self, rng: RandomStream, layouts: Sequence[RoomLayout]) -> None:
        self._rng = rng
        self._layouts = layouts
        self._surfaces = _furniture_surfaces(layouts)
        self.items: list[PlacedObject] = []

    def place(self, category: str) -> bool:
        """Place one object of the category; False where no spot was found."""
        shape = ALL_OBJECTS[category]
        for _ in range(TRIES):
            room = self._rng.integer(0, len(self._layouts) - 1)
            on_floor = self._rng.chance(ON_FLOOR)
            # A random spot on the floor is mostly in the way or taken, so several are looked at.
            for _ in range(20 if on_floor else 1):
                item = self._on_floor(shape, room) if on_floor else self._on_surface(shape, room)
                if item is not None:
                    self.items.append(item)
                    return True
        return False

    def _spot(self, shape: SmallObject, support: SupportSurface, rect: Rect) -> PlacedObject | None:
        """The object, turned at random, at a random place of the support within a rectangle."""
        yaw = self._rng.integer(0, len(YAWS) - 1)
        own = turned_rect([(x, z) for x, _, z in shape.mesh.positions], yaw)
        spare_x, spare_z = rect.width - own.width, rect.depth - own.depth
        if spare_x < 0 or spare_z < 0:
            return None
        x = round(rect.x0 - own.x0 + self._rng.unit() * spare_x, 3)
        z = round(rect.z0 - own.z0 + self._rng.unit() * spare_z, 3)
        position = x, round(support.y + shape.half[1], 4), z
        return PlacedObject(shape, position, yaw, support, own.moved(x, z))

    def _on_surface(self, shape: SmallObject, room: int) -> PlacedObject | None:
        height = 2 * shape.half[1] + 0.01
        surfaces = [s for s in self._surfaces if s.room == room and s.clear >= height]
        if not surfaces:
            return None
        # First the piece, else book cases with their many cells would get most.
        piece = self._rng.choice(sorted({s.piece for s in surfaces}))
        surface = self._rng.choice([s for s in surfaces if s.piece == piece])
        item = self._spot(shape, surface, surface.rect)
        beside = [i.footprint for i in self.items if i.support.name == surface.name]
        if item is None or any(item.footprint.grown(GAP).overlaps(other) for other in beside):
            return None
        return item

    def _on_floor(self, shape: SmallObject, room: int) -> PlacedObject | None:
        layout = self._layouts[room]
        floor = layout.room.floor
        support = SupportSurface(room, f"floor|{layout.room.name}", floor, 0.0, np.inf)
        item = self._spot(shape, support, floor.grown(-GAP))
        # In the middle of the floor it would be in the way.
        if item is None or floor.grown(-EDGE).contains(item.footprint):
            return None
        low = [i for i in self.items if i.support.y == 0.0]
        taken = [*(p.footprint for p in layout.placed), *layout.doors, *(i.footprint for i in low)]
        if any(item.footprint.grown(GAP).overlaps(other) for other in taken):
            return None
        here = [i.footprint for i in low if i.support.room == room]
        return item if layout.connected([*here, item.footprint]) else None


def turned_rect(points: Sequence[tuple[float, float]], yaw: int) -> Rect:
    """The rectangle around points (x, z) that are turned by an index into ``YAWS``, m."""
    c, s = YAWS[yaw]
    xs = [x * c + z * s for x, z in points]
    zs = [-x * s + z * c for x, z in points]
    return Rect(min(xs), min(zs), max(xs), max(zs))


def _furniture_surfaces(layouts: Sequence[RoomLayout]) -> list[SupportSurface]:
    """All surfaces of the furniture in a house; pieces are counted over the whole house."""
    found: list[SupportSurface] = []
    placed = [(room, piece) for room, layout in enumerate(layouts) for piece in layout.placed]
    names = instance_names(piece.template.name for _, piece in placed)
    for (room, piece), name in zip(placed, names, strict=True):
        for i, surface in enumerate(piece.template.surfaces):
            rect = piece.rect(surface.low, surface.high)
            label = f"{name}|surface_{i}"
            found.append(SupportSurface(room, label, rect, surface.y, surface.clear))
    return found


def sample_arrangement(
    house: House,
    instances: int,
    categories: int,
    vocabulary: Sequence[str] = tuple(SMALL_OBJECTS),
) -> Arrangement | None:
    """A further arrangement of the house, or None where not everything found a place."""
    names = draw_categories(house.rng, vocabulary, instances, categories)
    placer = ObjectPlacer(house.rng, house.layouts)
    if not all(placer.place(name) for name in names):
        return None
    items = in_order(placer.items)
    x, z = free_point(house, items)
    return Arrangement(items, (x, 0.0, z), house.rng.integer(0, 11))


def draw_categories(
    rng: RandomStream, vocabulary: Sequence[str], instances: int, categories: int
) -> list[str]:
    """The categories of the objects to place: each at least once, none more than three times."""
    kinds = rng.shuffled(vocabulary)[:categories]
    names = list(kinds)
    while len(names) < instances:
        name = rng.choice(kinds)
        if names.count(name) < 3:
            names.append(name)
    return names


def in_order(items: Sequence[PlacedObject]) -> list[PlacedObject]:
    """As episodes list them, whatever the order in which they were placed."""
    return sorted(items, key=lambda item: (item.shape.category, item.position))


def free_point(house: House, items: Sequence[PlacedObject] = ()) -> tuple[float, float]:
    """A random point (x, z) on the connected floor, clear of everything by an agent's radius."""
    while True:
        room = house.rng.integer(0, len(house.layouts) - 1)
        layout = house.layouts[room]
        low = [i.footprint for i in items if i.support.room == room and i.support.y == 0.0]
        labels, main = layout.floor_parts(low)
        if main:
            rows, columns = np.nonzero(labels == main)
            i = house.rng.integer(0, len(rows) - 1)
            x = layout.room.floor.x0 + (int(columns[i]) + 0.5) * CELL
            z = layout.room.floor.z0 + (int(rows[i]) + 0.5) * CELL
            return round(x, 3), round(z, 3)
