"""Placing furniture in a room so that doors, fronts and one connected floor stay free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from memo_habitat.scenes.floor_plan import Plan, RandomStream, Rect, Room
from memo_habitat.scenes.furniture import CATALOGUE, Surface, Template
from memo_habitat.scenes.mesh import TexturedMesh

CELL = 0.05
"""Cell of the grid on which a room's free floor is kept connected, m."""
AGENT_RADIUS = 0.27
"""Half-width kept passable, m: the widest agent (0.2) and what the simulator's cells add."""
SIDES = ("-z", "-x", "+z", "+x")
"""Walls in the order of quarter turns that make a template look away from them."""
QUARTERS = ((1, 0), (0, 1), (-1, 0), (0, -1))
"""Cosine and sine of the quarter turns."""


@dataclass(frozen=True)
class PlacedFurniture:
    """A template standing in a room, its middle over (x, z), turned by quarter turns about +Y."""

    template: Template
    x: float
    z: float
    turns: int
    loose: bool = False

    def to_world(self, x: float, z: float) -> tuple[float, float]:
        """A point of the template's frame in the house's frame."""
        c, s = QUARTERS[self.turns]
        return round(self.x + x * c + z * s, 4), round(self.z - x * s + z * c, 4)

    def rect(self, low: tuple[float, float], high: tuple[float, float]) -> Rect:
        """A rectangle of the template's frame in the house's frame."""
        (xa, za), (xb, zb) = self.to_world(*low), self.to_world(*high)
        return Rect(min(xa, xb), min(za, zb), max(xa, xb), max(za, zb))

    @property
    def footprint(self) -> Rect:
        """The floor under it."""
        w, d = self.template.width / 2, self.template.depth / 2
        return self.rect((-w, -d), (w, d))

    @property
    def access(self) -> Rect:
        """The floor before its front that others leave free."""
        w, d = self.template.width / 2, self.template.depth / 2
        return self.rect((-w, d), (w, d + self.template.access))

    def surface(self, surface: Surface) -> Rect:
        """One of its resting places."""
        return self.rect(surface.low, surface.high)


def free_cells(floor: Rect, obstacles: Sequence[Rect]) -> np.ndarray:
    """Where an agent's middle may be, bool [Z, X] of cells of ``CELL`` over the room's floor."""
    columns = int(floor.width / CELL + 0.5)
    rows = int(floor.depth / CELL + 0.5)
    x = floor.x0 + (np.arange(columns) + 0.5) * CELL
    z = floor.z0 + (np.arange(rows) + 0.5) * CELL
    inner = floor.grown(-AGENT_RADIUS)
    free = ((z >= inner.z0) & (z <= inner.z1))[:, None] & ((x >= inner.x0) & (x <= inner.x1))[None]
    for rect in obstacles:
        o = rect.grown(AGENT_RADIUS)
        free &= ~(((z > o.z0) & (z < o.z1))[:, None] & ((x > o.x0) & (x < o.x1))[None])
    return free


@dataclass
class RoomLayout:
    """A room with the furniture placed so far."""

    room: Room
    doors: list[Rect]
    placed: list[PlacedFurniture] = field(default_factory=list)
    fullness: float = 0.42

    def connected(self, extra: Sequence[Rect] = ()) -> bool:
        """Whether nearly all free floor, and every door, is connected."""
        obstacles = [p.footprint for p in self.placed] + list(extra)
        free = free_cells(self.room.floor, obstacles)
        labels, count = ndimage.label(free)
        if count == 0:
            return False
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        main = int(sizes.argmax())
        if sizes[main] < 0.95 * sizes.sum():
            return False
        for door in self.doors:
            inside = self._cells(labels, door)
            if not inside.size or not (inside == main).any():
                return False
        return True

    def _cells(self, grid: np.ndarray, rect: Rect) -> np.ndarray:
        f = self.room.floor
        x0, x1 = (int(max(0.0, v - f.x0) / CELL) for v in (rect.x0, rect.x1))
        z0, z1 = (int(max(0.0, v - f.z0) / CELL) for v in (rect.z0, rect.z1))
        return grid[z0:z1, x0:x1]

    def fits(self, group: Sequence[PlacedFurniture]) -> bool:
        """Whether the group may be added as it stands."""
        floor = self.room.floor
        taken = [p.footprint for p in self.placed]
        new = [p.footprint for p in group]
        if sum(r.width * r.depth for r in taken + new) > self.fullness * floor.width * floor.depth:
            return False
        for piece, rect in zip(group, new, strict=True):
            if not floor.contains(rect) or any(rect.overlaps(door) for door in self.doors):
                return False
            if any(rect.grown(0.02).overlaps(other) for other in taken):
                return False
            if not piece.loose:
                if any(rect.overlaps(p.access) for p in self.placed):
                    return False
                if piece.template.access and not floor.grown(0.01).contains(piece.access):
                    return False
                if any(piece.access.overlaps(other) for other in taken):
                    return False
        return self.connected(new)

    def add(self, group: Sequence[PlacedFurniture]) -> bool:
        """Add the group where it fits."""
        if group and self.fits(group):
            self.placed += group
            return True
        return False

    def at_wall(
        self, template: Template, side: str, along: float, gap: float = 0.03
    ) -> PlacedFurniture:
        """The template with its back to a wall, its middle at ``along`` of the wall's axis."""
        f, back = self.room.floor, template.depth / 2 + gap
        x, z = {
            "-z": (along, f.z0 + back),
            "+z": (along, f.z1 - back),
            "-x": (f.x0 + back, along),
            "+x": (f.x1 - back, along),
        }[side]
        return PlacedFurniture(template, round(x, 3), round(z, 3), SIDES.index(side))

    def span(self, side: str) -> tuple[float, float]:
        """The interval of a wall along its axis."""
        f = self.room.floor
        return (f.x0, f.x1) if side[1] == "z" else (f.z0, f.z1)


def _front(
    piece: PlacedFurniture, template: Template, gap: float, aside: float = 0.0
) -> PlacedFurniture:
    """Another template before the front of a piece, looking at it."""
    distance = (piece.template.depth + template.depth) / 2 + gap
    x, z = piece.to_world(aside, distance)
    return PlacedFurniture(template, round(x, 3), round(z, 3), (piece.turns + 2) % 4, loose=True)


def _wall_row(layout: RoomLayout, rng: RandomStream, names: Sequence[str]) -> list[PlacedFurniture]:
    """Templates side by side along a random wall, often from a corner."""
    pieces = [CATALOGUE[name] for name in names]
    side = rng.choice(SIDES)
    low, high = layout.span(side)
    total = sum(p.width + 0.03 for p in pieces)
    spare = high - low - total - 0.06
    if spare < 0:
        return []
    place = rng.choice((0.0, 1.0)) if rng.chance(0.45) else rng.unit()
    here = low + 0.03 + round(place * spare, 2)
    row = []
    for piece in pieces:
        row.append(layout.at_wall(piece, side, here + piece.width / 2))
        here += piece.width + 0.03
    return row


def _bed(layout: RoomLayout, rng: RandomStream, names: Sequence[str]) -> list[PlacedFurniture]:
    """A bed, with a night stand on one side of it."""
    row = [rng.choice(names), "nightstand_a"]
    return _wall_row(layout, rng, rng.shuffled(row))


def _desk(layout: RoomLayout, rng: RandomStream, names: Sequence[str]) -> list[PlacedFurniture]:
    """A desk at a wall and its chair."""
    row = _wall_row(layout, rng, [rng.choice(names)])
    chair = CATALOGUE[rng.choice(("chair_a", "chair_b"))]
    return row + [_front(piece, chair, 0.04, rng.uniform(-0.2, 0.2)) for piece in row]


def _lounge(layout: RoomLayout, rng: RandomStream, names: Sequence[str]) -> list[PlacedFurniture]:
    """A sofa at a wall and a coffee table before it."""
    row = _wall_row(layout, rng, [rng.choice(names)])
    low = CATALOGUE[rng.choice(("coffee_table_a", "coffee_table_b"))]
    return row + [_front(piece, low, 0.45) for piece in row]


def _dining(layout: RoomLayout, rng: RandomStream, names: Sequence[str]) -> list[PlacedFurniture]:
    """A table standing free and two to four chairs around it."""
    top, f = CATALOGUE[rng.choice(names)], layout.room.floor
    turns = rng.integer(0, 1)
    x = f.centre[0] + rng.uniform(-0.3, 0.3) * f.width
    z = f.centre[1] + rng.uniform(-0.3, 0.3) * f.depth
    middle = PlacedFurniture(top, round(x, 2), round(z, 2), turns, loose=True)
    seat = CATALOGUE[rng.choice(("chair_a", "chair_b"))]
    quarter = rng.shuffled(range(4))[: rng.integer(2, 4)]
    group = [middle]
    for turn in quarter:
        reach = (top.depth if turn % 2 == 0 else top.width) / 2 + seat.depth / 2 + 0.04
        c, s = QUARTERS[turn]
        sx, sz = middle.to_world(reach * s, reach * c)
        facing = (turns + turn + 2) % 4
        group.append(PlacedFurniture(seat, round(sx, 3), round(sz, 3), facing, loose=True))
    return group


def _divider(layout: RoomLayout, rng: RandomStream, names: Sequence[str]) -> list[PlacedFurniture]:
    """A screen standing out from a wall into the room."""
    screen, side = CATALOGUE[rng.choice(names)], rng.choice(SIDES)
    low, high = layout.span(side)
    along = low + rng.uniform(0.3, 0.7) * (high - low)
    gap = (screen.width - screen.depth) / 2 + 0.03
    at = layout.at_wall(screen, side, along, gap)
    return [PlacedFurniture(screen, at.x, at.z, (at.turns + 1) % 4, loose=True)]


_HOW = {
    "wall": lambda layout, rng, names: _wall_row(layout, rng, [rng.choice(names)]),
    "row": lambda layout, rng, names: _wall_row(layout, rng, rng.shuffled(names)),
    "bed": _bed,
    "desk": _desk,
    "lounge": _lounge,
    "dining": _dining,
    "divider": _divider,
}

_BEDS, _DESKS = ("bed_a", "bed_b", "bed_c"), ("desk_a", "desk_b")
_SOFAS, _CHAIRS = ("sofa_a", "sofa_b"), ("recliner_a", "recliner_b")
_CASES = ("bookcase_a", "bookcase_b")
_LOW = ("sideboard_a", "sideboard_b", "dresser_a", "dresser_b")
_TALL = ("wardrobe_a", "wardrobe_b")
_TABLES = ("dining_table_a", "dining_table_b", "round_table_a")
_GREEN = ("plant_a", "plant_b", "lamp_a")
_KITCHEN = ("counter_a", "sink_a", "stove_a", "fridge_a")

RECIPES: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "studio": (
        ("bed", _BEDS), ("desk", _DESKS), ("wall", _CASES), ("lounge", _SOFAS), ("dining", _TABLES),
        ("wall", _LOW), ("wall", _TALL), ("wall", _GREEN), ("divider", ("divider_a",)),
    ),
    "living": (
        ("lounge", _SOFAS), ("wall", ("television_a",)), ("wall", _CASES), ("wall", _CHAIRS),
        ("dining", _TABLES), ("wall", _LOW), ("wall", _GREEN), ("divider", ("divider_a",)),
        ("wall", _CHAIRS), ("wall", _GREEN),
    ),
    "bedroom": (
        ("bed", _BEDS), ("wall", _TALL), ("wall", _LOW), ("desk", _DESKS), ("wall", _GREEN),
    ),
    "kitchen": (
        ("row", _KITCHEN), ("dining", _TABLES), ("wall", ("counter_a",)), ("wall", _LOW),
    ),
    "bathroom": (
        ("wall", ("bathtub_a",)), ("wall", ("toilet_a",)), ("wall", ("console_a",)),
        ("wall", ("dresser_b",)), ("wall", ("sideboard_b",)),
    ),
    "office": (
        ("desk", _DESKS), ("wall", _CASES), ("wall", _LOW), ("wall", _CHAIRS), ("wall", _CASES),
        ("wall", _GREEN),
    ),
    "dining": (
        ("dining", _TABLES), ("wall", _LOW), ("wall", _CASES), ("wall", _GREEN), ("wall", _LOW),
    ),
    "corridor": (("wall", ("console_a",)), ("wall", ("plant_a",))),
}  # fmt: skip
"""What each kind of room is given, most important first; what does not fit is left out."""

ATTEMPTS = 60


def layout_room(rng: RandomStream, plan: Plan, room: Room) -> RoomLayout:
    """The room with as much of its recipe as fits."""
    doors = [d.clear_zone() for d in plan.doors]
    layout = RoomLayout(room, [d for d in doors if d.overlaps(room.floor)])
    for how, names in RECIPES[room.kind]:
        for _ in range(ATTEMPTS):
            if layout.add(_HOW[how](layout, rng, names)):
                break
    return layout


@dataclass(frozen=True)
class House:
    """A furnished house; ``rng`` goes on from the stream that made it."""

    name: str
    plan: Plan
    stage: list[TexturedMesh]
    layouts: list[RoomLayout]
    rng: RandomStream
