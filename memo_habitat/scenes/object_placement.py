"""Arrangements: which small objects a house holds, and where each of them rests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from memo_habitat.scenes.floor_plan import RandomStream, Rect
from memo_habitat.scenes.furniture_layout import CELL, House, RoomLayout, free_cells
from memo_habitat.scenes.mesh import circle
from memo_habitat.scenes.objects import ALL_OBJECTS, SMALL_OBJECTS, SmallObject

GAP = 0.05
"""Least distance between a small object and anything beside it, m."""
YAWS = circle(24)
"""Cosine and sine of the turns about +Y that objects are given (15 degrees apart)."""
ON_FLOOR = 0.3
"""Share of the objects that are tried on the floor first."""


@dataclass(frozen=True)
class PlacedObject:
    """A small object at rest.

    Attributes:
        position: middle of its bounding box before it is turned (x, y, z), m.
        yaw: index into ``YAWS``.
        receptacle: what it rests on, ``TEMPLATE_:NNNN|surface_N`` or ``floor|ROOM``.
        room: index of the room.
        footprint: the rectangle that it covers seen from above.
        support: the rectangle on which it rests, and ``support_y`` its height, m.
    """

    shape: SmallObject
    position: tuple[float, float, float]
    yaw: int
    receptacle: str
    room: int
    footprint: Rect
    support: Rect
    support_y: float

    def transform(self) -> list[list[float]]:
        """The 4x4 row-major transform from the object's frame to the world."""
        c, s = YAWS[self.yaw]
        x, y, z = self.position
        return [[c, 0.0, s, x], [0.0, 1.0, 0.0, y], [0.0 - s, 0.0, c, z], [0.0, 0.0, 0.0, 1.0]]


@dataclass(frozen=True)
class SupportSurface:
    """A rectangle in a room on which small objects may stand."""

    room: int
    name: str
    rect: Rect
    y: float
    clear: float


def extents(shape: SmallObject, yaw: int) -> tuple[float, float, float, float]:
    """Lowest x and z and highest x and z of the turned object about its middle, m."""
    c, s = YAWS[yaw]
    xs = [x * c + z * s for x, _, z in shape.mesh.positions]
    zs = [-x * s + z * c for x, _, z in shape.mesh.positions]
    return min(xs), min(zs), max(xs), max(zs)


def support_surfaces(layouts: Sequence[RoomLayout]) -> list[SupportSurface]:
    """All surfaces of the furniture in a house; instances are counted over the whole house."""
    places: list[SupportSurface] = []
    counts: dict[str, int] = {}
    for index, layout in enumerate(layouts):
        for piece in layout.placed:
            name = piece.template.name
            number = counts.get(name, 0)
            counts[name] = number + 1
            for i, surface in enumerate(piece.template.surfaces):
                label = f"{name}_:{number:04d}|surface_{i}"
                rect = piece.surface(surface)
                places.append(SupportSurface(index, label, rect, surface.y, surface.clear))
    return places


def _chosen(
    rng: RandomStream, vocabulary: Sequence[str], instances: int, categories: int
) -> list[str]:
    """Categories of the instances to place: each at least once, none more than three times."""
    kinds = rng.shuffled(vocabulary)[:categories]
    names = list(kinds)
    while len(names) < instances:
        name = rng.choice(kinds)
        if names.count(name) < 3:
            names.append(name)
    return names


class ObjectPlacer:
    """Places small objects one by one in a furnished house."""

    def __init__(self, rng: RandomStream, layouts: Sequence[RoomLayout]) -> None:
        self.rng = rng
        self.layouts = layouts
        self.places = support_surfaces(layouts)
        self.items: list[PlacedObject] = []

    def place(self, category: str, tries: int = 30) -> bool:
        """Place one object of the category; False where no spot was found."""
        shape = ALL_OBJECTS[category]
        for _ in range(tries):
            room = self.rng.integer(0, len(self.layouts) - 1)
            on_floor = self.rng.chance(ON_FLOOR)
            # A random spot on the floor is mostly in the way or taken, so several are looked at.
            for _ in range(20 if on_floor else 1):
                item = self._on_floor(shape, room) if on_floor else self._on_surface(shape, room)
                if item is not None:
                    self.items.append(item)
                    return True
        return False

    def _spot(self, rect: Rect, shape: SmallObject, yaw: int) -> tuple[float, float, Rect] | None:
        """A random position at which the turned object lies within the rectangle."""
        x0, z0, x1, z1 = extents(shape, yaw)
        spare_x, spare_z = rect.width - (x1 - x0), rect.depth - (z1 - z0)
        if spare_x < 0 or spare_z < 0:
            return None
        x = round(rect.x0 - x0 + self.rng.unit() * spare_x, 3)
        z = round(rect.z0 - z0 + self.rng.unit() * spare_z, 3)
        return x, z, Rect(x + x0, z + z0, x + x1, z + z1)

    def _on_surface(self, shape: SmallObject, room: int) -> PlacedObject | None:
        places = [p for p in self.places if p.room == room and p.clear >= 2 * shape.half[1] + 0.01]
        if not places:
            return None
        pieces = sorted({p.name.split("|")[0] for p in places})
        piece = self.rng.choice(pieces)  # else book cases with their many cells would get most
        place = self.rng.choice([p for p in places if p.name.split("|")[0] == piece])
        yaw = self.rng.integer(0, len(YAWS) - 1)
        spot = self._spot(place.rect, shape, yaw)
        if spot is None:
            return None
        x, z, footprint = spot
        beside = [i.footprint for i in self.items if i.receptacle == place.name]
        if any(footprint.grown(GAP).overlaps(other) for other in beside):
            return None
        y = round(place.y + shape.half[1], 4)
        return PlacedObject(
            shape, (x, y, z), yaw, place.name, room, footprint, place.rect, place.y
        )  # fmt: skip

    def _on_floor(self, shape: SmallObject, room: int) -> PlacedObject | None:
        layout, yaw = self.layouts[room], self.rng.integer(0, len(YAWS) - 1)
        floor = layout.room.floor
        spot = self._spot(floor.grown(-GAP), shape, yaw)
        if spot is None:
            return None
        x, z, footprint = spot
        if floor.grown(-0.35).contains(footprint):
            return None  # in the middle of the floor it would be in the way
        around = footprint.grown(GAP)
        others = [i.footprint for i in self.items if i.support_y == 0.0]
        blocked = [p.footprint for p in layout.placed] + layout.doors + others
        if any(around.overlaps(other) for other in blocked):
            return None
        here = [i.footprint for i in self.items if i.support_y == 0.0 and i.room == room]
        if not layout.connected([*here, footprint]):
            return None
        position = (x, round(shape.half[1], 4), z)
        label = f"floor|{layout.room.name}"
        return PlacedObject(shape, position, yaw, label, room, footprint, floor, 0.0)


def place_objects(
    rng: RandomStream,
    layouts: Sequence[RoomLayout],
    vocabulary: Sequence[str],
    instances: int,
    categories: int,
) -> list[PlacedObject] | None:
    """One arrangement, or None where not everything found a place."""
    placer = ObjectPlacer(rng, layouts)
    for category in _chosen(rng, vocabulary, instances, categories):
        if not placer.place(category):
            return None
    return sorted(placer.items, key=lambda item: (item.shape.category, item.position))


@dataclass(frozen=True)
class Arrangement:
    """Small objects in a house and where the agent begins: position [m], heading index (30 deg)."""

    items: list[PlacedObject]
    start: tuple[float, float]
    heading: int


def sample_arrangement(
    house: House,
    instances: int,
    categories: int,
    vocabulary: Sequence[str] = tuple(SMALL_OBJECTS),
) -> Arrangement | None:
    """A further arrangement of the house, or None where not everything found a place."""
    items = place_objects(house.rng, house.layouts, vocabulary, instances, categories)
    if items is None:
        return None
    start = free_point(house, items)
    return Arrangement(items, start, house.rng.integer(0, 11))


def free_point(house: House, items: Sequence[PlacedObject] = ()) -> tuple[float, float]:
    """A random point (x, z) on the connected floor, clear of everything by an agent's radius."""
    rooms = range(len(house.layouts))
    areas = [house.layouts[i].room.floor for i in rooms]
    while True:
        room = house.rng.choice(rooms)
        layout, floor = house.layouts[room], areas[room]
        low = [i.footprint for i in items if i.room == room and i.support_y == 0.0]
        free = free_cells(floor, [p.footprint for p in layout.placed] + low)
        labels, _ = ndimage.label(free)
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        rows, columns = np.nonzero(labels == sizes.argmax())
        if sizes.max() > 0:
            i = house.rng.integer(0, len(rows) - 1)
            x = floor.x0 + (int(columns[i]) + 0.5) * CELL
            z = floor.z0 + (int(rows[i]) + 0.5) * CELL
            return round(x, 3), round(z, 3)
