"""Floor plans: rooms and the openings between them, and the random draws they are made of."""

from __future__ import annotations

import hashlib
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

    def moved(self, x: float, z: float) -> Rect:
        """The same rectangle elsewhere."""
        return Rect(x + self.x0, z + self.z0, x + self.x1, z + self.z1)

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
        t = self.threshold
        x, z = (DOOR_CLEAR, 0.0) if self.along_x else (0.0, DOOR_CLEAR)
        return Rect(t.x0 - x, t.z0 - z, t.x1 + x, t.z1 + z)


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

    def centred(self) -> Plan:
        """The plan shifted so that the middle of its bounding box is near the origin."""
        x, z = (
            round((min(values) + max(values)) / 2, 2)
            for values in zip(*(room.floor.centre for room in self.rooms), strict=True)
        )
        return self.mapped(
            lambda r: Rect(*(round(v, 4) for v in (r.x0 - x, r.z0 - z, r.x1 - x, r.z1 - z)))
        )

    def turned(self, rng: RandomStream) -> Plan:
        """The plan mirrored or with its axes swapped at random, then centred."""
        plan = self
        if rng.chance(0.5):
            plan = plan.mapped(lambda r: Rect(-r.x1, r.z0, -r.x0, r.z1))
        if rng.chance(0.5):
            plan = plan.mapped(lambda r: Rect(r.z0, r.x0, r.z1, r.x1), swap=True)
        return plan.centred()
