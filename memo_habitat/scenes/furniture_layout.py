"""Placing furniture in a room so that doors, fronts and one connected floor stay free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from memo_habitat.scenes.floor_plan import Plan, RandomStream, Rect, Room
from memo_habitat.scenes.furniture import CATALOGUE, Template
from memo_habitat.scenes.mesh import TexturedMesh

CELL = 0.05
"""Cell of the grid on which a room's free floor is kept connected, m."""
AGENT_RADIUS = 0.27
"""Half-width kept passable, m: the widest agent (0.2) and what the simulator's cells add."""
SIDES = ("-z", "-x", "+z", "+x")
"""Walls in the order of quarter turns that make a template look away from them."""
QUARTERS = ((1, 0), (0, 1), (-1, 0), (0, -1))
"""Cosine and sine of the quarter turns."""
GAP = 0.03
"""Between a piece and its wall or its neighbour along the wall, m."""
MAX_FULLNESS = 0.42
"""Share of a room's floor that furniture may cover."""
ATTEMPTS = 60
"""To find a place for one line of a room's recipe."""


@dataclass(frozen=True)
class PlacedFurniture:
    """A template standing in a room, its middle over (x, z), turned by quarter turns about +Y.

    Attributes:
        loose: nothing before its front need stay free (chairs, tables).
    """

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


@dataclass
class RoomLayout:
    """A room with the furniture placed so far."""

    room: Room
    doors: list[Rect]
    placed: list[PlacedFurniture] = field(default_factory=list)

    def floor_parts(self, extra: Sequence[Rect] = ()) -> tuple[np.ndarray, int]:
        """Connected parts of the floor where an agent's middle may be, with ``extra`` in its way.

        Returns:
            labels [Z, X] of cells of ``CELL`` over the room's floor (0: not free), and the label of
            the largest part (0: there is none).
        """
        floor = self.room.floor
        x = floor.x0 + (np.arange(int(floor.width / CELL + 0.5)) + 0.5) * CELL
        z = floor.z0 + (np.arange(int(floor.depth / CELL + 0.5)) + 0.5) * CELL
        f = floor.grown(-AGENT_RADIUS)
        free = ((z >= f.z0) & (z <= f.z1))[:, None] & ((x >= f.x0) & (x <= f.x1))
        for rect in [*(piece.footprint for piece in self.placed), *extra]:
            o = rect.grown(AGENT_RADIUS)
            free &= ~(((z > o.z0) & (z < o.z1))[:, None] & ((x > o.x0) & (x < o.x1)))
        labels, _ = ndimage.label(free)
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        return labels, int(sizes.argmax())

    def connected(self, extra: Sequence[Rect] = ()) -> bool:
        """Whether nearly all free floor, and every door, is connected."""
        labels, main = self.floor_parts(extra)
        # A nook behind a table may be cut off, but no more.
        if main == 0 or (labels == main).sum() < 0.95 * (labels > 0).sum():
            return False
        floor = self.room.floor
        for door in self.doors:
            x0, x1 = (int(max(0.0, v - floor.x0) / CELL) for v in (door.x0, door.x1))
            z0, z1 = (int(max(0.0, v - floor.z0) / CELL) for v in (door.z0, door.z1))
            if not (labels[z0:z1, x0:x1] == main).any():
                return False
        return True

    def fits(self, group: Sequence[PlacedFurniture]) -> bool:
        """Whether the group may be added as it stands."""
        floor = self.room.floor
        taken = [p.footprint for p in self.placed]
        new = [p.footprint for p in group]
        if sum(r.width * r.depth for r in taken + new) > MAX_FULLNESS * floor.width * floor.depth:
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

    def at_wall(
        self, template: Template, side: str, along: float, gap: float = GAP
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


# How each line of a recipe is placed: a layout, the random stream and the names of templates give
# the pieces of one group, which stands as a whole or not at all.


def _wall_row(layout: RoomLayout, rng: RandomStream, names: Sequence[str]) -> list[PlacedFurniture]:
    """Templates side by side along a random wall, often from a corner."""
    pieces = [CATALOGUE[name] for name in names]
    side = rng.choice(SIDES)
    low, high = layout.span(side)
    spare = high - low - sum(p.width + GAP for p in pieces) - 2 * GAP
    if spare < 0:
        return []
    place = rng.choice((0.0, 1.0)) if rng.chance(0.45) else rng.unit()
    here = low + GAP + round(place * spare, 2)
    row = []
    for piece in pieces:
        row.append(layout.at_wall(piece, side, here + piece.width / 2))
        here += piece.width + GAP
    return row


def _any(layout: RoomLayout, rng: RandomStream, names: Sequence[str]) -> list[PlacedFurniture]:
    """One of the templates at a wall."""
    return _wall_row(layout, rng, [rng.choice(names)])


def _all(layout: RoomLayout, rng: RandomStream, names: Sequence[str]) -> list[PlacedFurniture]:
    """All templates in a row along a wall."""
    return _wall_row(layout, rng, rng.shuffled(names))


def _bed(layout: RoomLayout, rng: RandomStream, names: Sequence[str]) -> list[PlacedFurniture]:
    """A bed, with a night stand on one side of it."""
    return _all(layout, rng, [rng.choice(names), "nightstand_a"])


def _desk(layout: RoomLayout, rng: RandomStream, names: Sequence[str]) -> list[PlacedFurniture]:
    """A desk at a wall and its chair."""
    row = _any(layout, rng, names)
    chair = CATALOGUE[rng.choice(("chair_a", "chair_b"))]
    return row + [_before(piece, chair, 0.04, rng.uniform(-0.2, 0.2)) for piece in row]


def _lounge(layout: RoomLayout, rng: RandomStream, names: Sequence[str]) -> list[PlacedFurniture]:
    """A sofa at a wall and a coffee table before it."""
    row = _any(layout, rng, names)
    low = CATALOGUE[rng.choice(("coffee_table_a", "coffee_table_b"))]
    return row + [_before(piece, low, 0.45) for piece in row]


def _before(
    piece: PlacedFurniture, template: Template, gap: float, aside: float = 0.0
) -> PlacedFurniture:
    """Another template before the front of a piece, looking at it."""
    x, z = piece.to_world(aside, (piece.template.depth + template.depth) / 2 + gap)
    return PlacedFurniture(template, round(x, 3), round(z, 3), (piece.turns + 2) % 4, loose=True)


def _dining(layout: RoomLayout, rng: RandomStream, names: Sequence[str]) -> list[PlacedFurniture]:
    """A table standing free and two to four chairs around it."""
    top, f = CATALOGUE[rng.choice(names)], layout.room.floor
    turns = rng.integer(0, 1)
    x = f.centre[0] + rng.uniform(-0.3, 0.3) * f.width
    z = f.centre[1] + rng.uniform(-0.3, 0.3) * f.depth
    middle = PlacedFurniture(top, round(x, 2), round(z, 2), turns, loose=True)
    seat = CATALOGUE[rng.choice(("chair_a", "chair_b"))]
    group = [middle]
    for turn in rng.shuffled(range(4))[: rng.integer(2, 4)]:
        reach = (top.depth if turn % 2 == 0 else top.width) / 2 + seat.depth / 2 + 0.04
        c, s = QUARTERS[turn]
        x, z = middle.to_world(reach * s, reach * c)
        facing = (turns + turn + 2) % 4
        group.append(PlacedFurniture(seat, round(x, 3), round(z, 3), facing, loose=True))
    return group


def _divider(layout: RoomLayout, rng: RandomStream, names: Sequence[str]) -> list[PlacedFurniture]:
    """A screen standing out from a wall into the room."""
    screen, side = CATALOGUE[rng.choice(names)], rng.choice(SIDES)
    low, high = layout.span(side)
    along = low + rng.uniform(0.3, 0.7) * (high - low)
    at = layout.at_wall(screen, side, along, (screen.width - screen.depth) / 2 + GAP)
    return [PlacedFurniture(screen, at.x, at.z, (at.turns + 1) % 4, loose=True)]


_BEDS, _DESKS = ("bed_a", "bed_b", "bed_c"), ("desk_a", "desk_b")
_SOFAS, _CHAIRS = ("sofa_a", "sofa_b"), ("recliner_a", "recliner_b")
_CASES = ("bookcase_a", "bookcase_b")
_LOW = ("sideboard_a", "sideboard_b", "dresser_a", "dresser_b")
_TALL = ("wardrobe_a", "wardrobe_b")
_TABLES = ("dining_table_a", "dining_table_b", "round_table_a")
_GREEN = ("plant_a", "plant_b", "lamp_a")
_KITCHEN = ("counter_a", "sink_a", "stove_a", "fridge_a")

RECIPES = {
    "studio": (
        (_bed, _BEDS), (_desk, _DESKS), (_any, _CASES), (_lounge, _SOFAS), (_dining, _TABLES),
        (_any, _LOW), (_any, _TALL), (_any, _GREEN), (_divider, ("divider_a",)),
    ),
    "living": (
        (_lounge, _SOFAS), (_any, ("television_a",)), (_any, _CASES), (_any, _CHAIRS),
        (_dining, _TABLES), (_any, _LOW), (_any, _GREEN), (_divider, ("divider_a",)),
        (_any, _CHAIRS), (_any, _GREEN),
    ),
    "bedroom": ((_bed, _BEDS), (_any, _TALL), (_any, _LOW), (_desk, _DESKS), (_any, _GREEN)),
    "kitchen": ((_all, _KITCHEN), (_dining, _TABLES), (_any, ("counter_a",)), (_any, _LOW)),
    "bathroom": (
        (_any, ("bathtub_a",)), (_any, ("toilet_a",)), (_any, ("console_a",)),
        (_any, ("dresser_b",)), (_any, ("sideboard_b",)),
    ),
    "office": (
        (_desk, _DESKS), (_any, _CASES), (_any, _LOW), (_any, _CHAIRS), (_any, _CASES),
        (_any, _GREEN),
    ),
    "dining": ((_dining, _TABLES), (_any, _LOW), (_any, _CASES), (_any, _GREEN), (_any, _LOW)),
    "corridor": ((_any, ("console_a",)), (_any, ("plant_a",))),
}  # fmt: skip
"""What each kind of room is given, most important first; what does not fit is left out."""


def layout_room(rng: RandomStream, plan: Plan, room: Room) -> RoomLayout:
    """The room with as much of its recipe as fits."""
    doors = [d.clear_zone() for d in plan.doors]
    layout = RoomLayout(room, [d for d in doors if d.overlaps(room.floor)])
    for place, names in RECIPES[room.kind]:
        for _ in range(ATTEMPTS):
            group = place(layout, rng, names)
            if group and layout.fits(group):
                layout.placed += group
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
