"""Small flat-shaded meshes with a colour per face, built from boxes and turned profiles."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

Point = tuple[float, float, float]
Colour = tuple[int, int, int]

QUANTUM = 4
"""Decimals kept of every coordinate (0.1 mm): rounding hides how a machine rounds its sines."""


def circle(sides: int, offset: float = 0.0) -> list[tuple[float, float]]:
    """Points of the unit circle; rounded, so that they are the same on every machine."""
    angles = [2 * math.pi * (i + offset) / sides for i in range(sides)]
    return [(round(math.cos(a), 9), round(math.sin(a), 9)) for a in angles]


@dataclass
class Mesh:
    """Triangles in metres, Y up, counter-clockwise seen from outside; vertices are not shared."""

    positions: list[Point] = field(default_factory=list)
    colours: list[Colour] = field(default_factory=list)
    triangles: list[tuple[int, int, int]] = field(default_factory=list)

    def polygon(self, corners: Sequence[Point], colour: Colour) -> None:
        """Add a convex polygon with corners in counter-clockwise order."""
        first = len(self.positions)
        self.positions += [tuple(round(c, QUANTUM) for c in p) for p in corners]  # type: ignore[misc]
        self.colours += [colour] * len(corners)
        self.triangles += [(first, first + i, first + i + 1) for i in range(1, len(corners) - 1)]

    def box(self, low: Point, high: Point, colour: Colour) -> None:
        """Add an axis-aligned box."""
        (x0, y0, z0), (x1, y1, z1) = low, high
        faces = (
            ((x0, y0, z1), (x1, y0, z1), (x1, y1, z1), (x0, y1, z1)),
            ((x1, y0, z0), (x0, y0, z0), (x0, y1, z0), (x1, y1, z0)),
            ((x1, y0, z1), (x1, y0, z0), (x1, y1, z0), (x1, y1, z1)),
            ((x0, y0, z0), (x0, y0, z1), (x0, y1, z1), (x0, y1, z0)),
            ((x0, y1, z1), (x1, y1, z1), (x1, y1, z0), (x0, y1, z0)),
            ((x0, y0, z0), (x1, y0, z0), (x1, y0, z1), (x0, y0, z1)),
        )
        for corners in faces:
            self.polygon(corners, colour)

    def turned(
        self,
        profile: Sequence[tuple[float, float, Colour]],
        centre: tuple[float, float] = (0.0, 0.0),
        sides: int = 10,
    ) -> None:
        """Add a solid of revolution about the vertical line through ``centre`` (x, z).

        Args:
            profile: rows of (radius, height, colour of the band that begins there), bottom first;
                the ends are closed with discs.
        """
        ring = circle(sides, 0.5)
        cx, cz = centre

        def at(radius: float, y: float) -> list[Point]:
            return [(cx + radius * c, y, cz - radius * s) for c, s in ring]

        for (r0, y0, colour), (r1, y1, _) in itertools.pairwise(profile):
            low, high = at(r0, y0), at(r1, y1)
            for i in range(sides):
                j = (i + 1) % sides
                corners = [low[i]] + ([low[j]] if r0 > 0 else [])
                corners += [high[j]] + ([high[i]] if r1 > 0 else [])
                if len(corners) > 2:
                    self.polygon(corners, colour)
        (bottom_r, bottom_y, bottom_c), (top_r, top_y, top_c) = profile[0], profile[-1]
        if bottom_r > 0:
            self.polygon(at(bottom_r, bottom_y)[::-1], bottom_c)
        if top_r > 0:
            self.polygon(at(top_r, top_y), top_c)

    def ball(self, centre: Point, radius: float, colour: Colour, sides: int = 10) -> None:
        """Add a ball made of four bands."""
        x, y, z = centre
        rows = [(0.0, -1.0), (0.71, -0.71), (1.0, 0.0), (0.71, 0.71), (0.0, 1.0)]
        self.turned([(r * radius, y + h * radius, colour) for r, h in rows], (x, z), sides)

    def bounds(self) -> tuple[Point, Point]:
        """Lowest and highest corner of the bounding box, m."""
        columns = list(zip(*self.positions, strict=True))
        low, high = tuple(map(min, columns)), tuple(map(max, columns))
        return low, high  # type: ignore[return-value]

    def moved(self, offset: Point) -> Mesh:
        """A copy shifted by ``offset``."""
        shifted = [
            tuple(round(c + d, QUANTUM) for c, d in zip(p, offset, strict=True))
            for p in self.positions
        ]
        return Mesh(shifted, list(self.colours), list(self.triangles))  # type: ignore[arg-type]

    def centred(self) -> tuple[Mesh, Point]:
        """A copy with the middle of its bounding box at the origin, and where that middle was."""
        low, high = self.bounds()
        middle = tuple(round((a + b) / 2, QUANTUM) for a, b in zip(low, high, strict=True))
        x, y, z = middle
        return self.moved((-x, -y, -z)), (x, y, z)

    def normals(self) -> np.ndarray:
        """Unit normal of each vertex's face, [V, 3] float32."""
        points = np.asarray(self.positions, dtype=np.float64)
        normals = np.zeros_like(points)
        for a, b, c in self.triangles:
            normal = np.cross(points[b] - points[a], points[c] - points[a])
            length = math.sqrt(float(np.sum(normal * normal)))
            if length > 0:
                normals[[a, b, c]] = np.round(normal / length, QUANTUM)
        return normals.astype(np.float32)
