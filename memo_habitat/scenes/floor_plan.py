"""Floor plans: rooms, the openings between them, and how both are drawn at random."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

T = TypeVar("T")


class RandomStream:
    """A stream of random choices named by a key.

    Only ``random.Random.random`` is used, because Python promises its sequence for a given integer
    seed; the streams of NumPy's generators may change from one release to the next.
    """

    def __init__(self, *key: object) -> None:
        digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
        self._random = random.Random(int.from_bytes(digest[:8], "big"))

    def unit(self) -> float:
        """Uniform in [0, 1)."""
        return self._random.random()

    def uniform(self, low: float, high: float) -> float:
        """Uniform in [low, high] on a grid of 0.01, so that sums stay short decimals."""
        return round(low + (high - low) * self.unit(), 2)

    def integer(self, low: int, high: int) -> int:
        """Uniform integer in [low, high]."""
        return low + int(self.unit() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.unit() < probability

    def choice(self, items: Sequence[T]) -> T:
        """One of the items."""
        return items[int(self.unit() * len(items))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """A copy in random order."""
        left = list(items)
        return [left.pop(int(self.unit() * len(left))) for _ in range(len(left))]


WALL = 0.12
"""Thickness of inner walls, m."""
CEILING = 2.5
DOOR_HEIGHT = 2.05
DOOR_CLEAR = 0.75
"""Depth of the floor on both sides of a door that stays free, m."""


@dataclass(frozen=True)
class Rect:
    """An axis-aligned rectangle of the floor, m."""

    x0: float
    z0: float
    x1: float
    z1: float

    @property
    def width(self) -> float:
        """Extent along X, m."""
        return self.x1 - self.x0

    @property
    def depth(self) -> float:
        """Extent along Z, m."""
        return self.z1 - self.z0

    @property
    def centre(self) -> tuple[float, float]:
        """Middle (x, z), m."""
        return (self.x0 + self.x1) / 2, (self.z0 + self.z1) / 2

    def grown(self, margin: float) -> Rect:
        """The rectangle with ``margin`` added on all sides."""
        m = margin
        return Rect(self.x0 - m, self.z0 - m, self.x1 + m, self.z1 + m)

    def overlaps(self, other: Rect) -> bool:
        """Whether the interiors share a point; touching by less than 1 mm does not count."""
        return (
            min(self.x1, other.x1) - max(self.x0, other.x0) > 1e-3
            and min(self.z1, other.z1) - max(self.z0, other.z0) > 1e-3
        )

    def contains(self, other: Rect) -> bool:
        """Whether the other rectangle lies within this one (tolerance 1 mm)."""
        return (
            other.x0 >= self.x0 - 1e-3
            and other.z0 >= self.z0 - 1e-3
            and other.x1 <= self.x1 + 1e-3
            and other.z1 <= self.z1 + 1e-3
        )


@dataclass(frozen=True)
class Room:
    """One room: its use and its floor between the walls' faces."""

    name: str
    kind: str
    floor: Rect


@dataclass(frozen=True)
class Door:
    """An opening through a wall; ``threshold`` is the floor inside the wall.

    Attributes:
        along_x: the agent walks through it in the direction of X.
    """

    threshold: Rect
    along_x: bool

    def clear_zone(self) -> Rect:
        """The floor at and before both sides of the door that furniture leaves free."""
        t, c = self.threshold, DOOR_CLEAR
        return Rect(t.x0 - c, t.z0, t.x1 + c, t.z1) if self.along_x else Rect(
            t.x0, t.z0 - c, t.x1, t.z1 + c
        )  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """All rooms and doors of a house."""

    rooms: tuple[Room, ...]
    doors: tuple[Door, ...]

    def mapped(self, change: Callable[[Rect], Rect], swap: bool = False) -> Plan:
        """The plan with every rectangle changed; ``swap`` tells that X and Z change places."""
        rooms = tuple(replace(room, floor=change(room.floor)) for room in self.rooms)
        doors = tuple(Door(change(d.threshold), d.along_x != swap) for d in self.doors)
        return Plan(rooms, doors)


def studio_plan(rng: RandomStream) -> Plan:
    """One room of 4 to 6 m by 4 to 6 m."""
    width, depth = rng.uniform(4.2, 6.0), rng.uniform(4.2, 6.0)
    return _centred(Plan((Room("studio", "studio", Rect(0, 0, width, depth)),), ()))


def apartment_plan(rng: RandomStream) -> Plan:
    """A corridor with two to four rooms on either side and sometimes a large room at its end."""
    end_room = rng.chance(0.6)
    near = rng.integer(2, 3 if end_room else 4)
    far = max(2, min(near + rng.integer(-1, 1), 3 if end_room else 4))
    length = round(max(near, far) * rng.uniform(3.3, 3.8), 2)
    corridor_width = rng.uniform(1.4, 1.7)
    corridor = Rect(0, 0, length, corridor_width)
    floors: list[Rect] = []
    doors: list[Door] = []
    depths = rng.uniform(3.2, 4.2), rng.uniform(3.2, 4.2)
    for number, depth, first in ((near, depths[0], -WALL - depths[0]), (far, depths[1], None)):
        z0 = corridor_width + WALL if first is None else first
        wall_z = corridor_width if first is None else -WALL
        row = [Rect(x0, z0, x1, z0 + depth) for x0, x1 in partition(rng, length, number)]
        for floor in row:
            doors.append(door_between(rng, (floor.x0, floor.x1), wall_z, along_x=False))
        for left, _right in itertools.pairwise(row):
            if rng.chance(0.3):
                doors.append(door_between(rng, (left.z0, left.z1), left.x1, along_x=True))
        floors += row
    if end_room:
        x0 = length + WALL
        end = Rect(x0, floors[0].z0, x0 + rng.uniform(3.6, 4.6), floors[-1].z1)
        doors.append(door_between(rng, (0, corridor_width), length, along_x=True))
        floors.append(end)
    kinds = _room_kinds(rng, floors)
    rooms = [Room("corridor", "corridor", corridor)]
    rooms += [
        Room(f"{k}_{i}", k, floor) for i, (k, floor) in enumerate(zip(kinds, floors, strict=True))
    ]
    return turned(rng, Plan(tuple(rooms), tuple(doors)))


def partition(rng: RandomStream, length: float, number: int) -> list[tuple[float, float]]:
    """Cut [0, length] into rooms at least 2.7 m wide with walls between them."""
    least = 2.7
    spare = length - WALL * (number - 1) - least * number
    shares = [0.3 + rng.unit() for _ in range(number)]
    widths = [least + spare * share / sum(shares) for share in shares]
    cuts, x = [], 0.0
    for width in widths[:-1]:
        cuts.append((round(x, 2), round(x + width, 2)))
        x = cuts[-1][1] + WALL
    return [(round(a, 2), b) for a, b in [*cuts, (x, length)]]


def door_between(rng: RandomStream, span: tuple[float, float], wall: float, along_x: bool) -> Door:
    """A door of about a metre somewhere in ``span`` of the wall that begins at ``wall``."""
    margin = min(0.35, (span[1] - span[0] - 1.0) / 2)
    width = min(rng.uniform(0.95, 1.15), span[1] - span[0] - 2 * margin)
    first = rng.uniform(span[0] + margin, span[1] - margin - width)
    a, b = round(first, 2), round(first + width, 2)
    if along_x:
        return Door(Rect(wall, a, wall + WALL, b), True)
    return Door(Rect(a, wall, b, wall + WALL), False)


def _room_kinds(rng: RandomStream, floors: list[Rect]) -> list[str]:
    """Uses of the rooms: the largest is the living room, the smallest the bathroom."""
    order = sorted(range(len(floors)), key=lambda i: (floors[i].width * floors[i].depth, i))
    kinds = [""] * len(floors)
    kinds[order[0]], kinds[order[-1]] = "bathroom", "living"
    rest = ["kitchen", "bedroom", *rng.shuffled(["bedroom", "office", "bedroom", "dining"])]
    for i, kind in zip(rng.shuffled(order[1:-1]), rest, strict=False):
        kinds[i] = kind
    return kinds


def turned(rng: RandomStream, plan: Plan) -> Plan:
    """The plan mirrored or with its axes swapped at random, then centred."""
    if rng.chance(0.5):
        plan = plan.mapped(lambda r: Rect(-r.x1, r.z0, -r.x0, r.z1))
    if rng.chance(0.5):
        plan = plan.mapped(lambda r: Rect(r.z0, r.x0, r.z1, r.x1), swap=True)
    return _centred(plan)


def _centred(plan: Plan) -> Plan:
    """The plan shifted so that the middle of its bounding box is near the origin."""
    x = round(sum(f(r.floor.centre[0] for r in plan.rooms) for f in (min, max)) / 2, 2)
    z = round(sum(f(r.floor.centre[1] for r in plan.rooms) for f in (min, max)) / 2, 2)

    def shift(r: Rect) -> Rect:
        return Rect(*(round(v, 4) for v in (r.x0 - x, r.z0 - z, r.x1 - x, r.z1 - z)))

    return plan.mapped(shift)
