"""An island of a navigation mesh as triangles: what can be asked of it without Habitat-Sim."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np

from memo_habitat.simulator.interface import TopDownMap
from memo_habitat.utils.compiled import compiled

#: Heights over one place that differ by less belong to one storey, m.
_STOREY = 0.5
#: How far beside a triangle a point still counts as on it, m: two that touch must leave no gap.
_SLACK = 1e-5


@compiled
def _covered(triangles, origin, spacing, out):  # type: ignore[no-untyped-def]
    """Lattice points under triangles; returns how many (more than `out` holds: only counted).

    triangles [T, 3, 3] m; origin (x, z) m of lattice point (0, 0); spacing m; out [E, 3]: row
    (along z), column (along x), height m. A point on a common edge is found once a triangle.
    """
    total = 0
    for t in range(triangles.shape[0]):
        ax, ay, az = triangles[t, 0]
        bx, by, bz = triangles[t, 1]
        cx, cy, cz = triangles[t, 2]
        area = (bx - ax) * (cz - az) - (cx - ax) * (bz - az)
        if area == 0.0:
            continue
        first_row = int(np.ceil((min(az, bz, cz) - _SLACK - origin[1]) / spacing))
        last_row = int(np.floor((max(az, bz, cz) + _SLACK - origin[1]) / spacing))
        first_column = int(np.ceil((min(ax, bx, cx) - _SLACK - origin[0]) / spacing))
        last_column = int(np.floor((max(ax, bx, cx) + _SLACK - origin[0]) / spacing))
        # A barycentric coordinate times this is the distance to the edge opposite, in m.
        ab = abs(area) / np.hypot(bx - ax, bz - az)
        ac = abs(area) / np.hypot(cx - ax, cz - az)
        bc = abs(area) / np.hypot(cx - bx, cz - bz)
        for row in range(first_row, last_row + 1):
            z = origin[1] + row * spacing
            for column in range(first_column, last_column + 1):
                x = origin[0] + column * spacing
                v = ((x - ax) * (cz - az) - (cx - ax) * (z - az)) / area
                w = ((bx - ax) * (z - az) - (x - ax) * (bz - az)) / area
                u = 1.0 - v - w
                if u * bc >= -_SLACK and v * ac >= -_SLACK and w * ab >= -_SLACK:
                    if total < out.shape[0]:
                        out[total, 0] = row
                        out[total, 1] = column
                        out[total, 2] = u * ay + v * by + w * cy
                    total += 1
    return total


class Floor:
    """T triangles [T, 3, 3] m on which an agent can stand, each joined to all others by a way."""

    def __init__(self, triangles: np.ndarray) -> None:
        self.triangles = np.ascontiguousarray(triangles, dtype=np.float64).reshape(-1, 3, 3)
        self._lattices: dict[float, np.ndarray] = {}

    @cached_property
    def _shares(self) -> np.ndarray:
        """[T] in (0, 1]: share of the area, seen from above, of each triangle and those before."""
        (ax, az), (bx, bz), (cx, cz) = self.triangles[:, :, [0, 2]].transpose(1, 2, 0)
        areas = np.abs((bx - ax) * (cz - az) - (cx - ax) * (bz - az))
        shares = np.cumsum(areas)
        return np.asarray(shares / shares[-1])

    def sample(self, rng: np.random.Generator) -> np.ndarray:
        """[3] m, uniform over the floor as seen from above."""
        which, along, across = rng.random(3)
        corners = self.triangles[int(np.searchsorted(self._shares, which, side="right"))]
        root = math.sqrt(along)  # uniform over a triangle
        weights = np.array([1.0 - root, root * (1.0 - across), root * across])
        return np.asarray(weights @ corners)

    def near(self, center: np.ndarray, radius: float, spacing: float) -> np.ndarray:
        """[P, 3] m: floor points at multiples of `spacing` in x and z, at most `radius` from
        `center` horizontally; of several storeys those of each."""
        if spacing not in self._lattices:
            self._lattices[spacing] = self._lattice(spacing)
        points = self._lattices[spacing]
        gaps = np.hypot(points[:, 0] - center[0], points[:, 2] - center[2])
        return points[gaps <= radius]

    def map(self, resolution: float) -> TopDownMap:
        """The floor from above; a cell is free where its middle is."""
        corners = self.triangles[..., [0, 2]].reshape(-1, 2)
        low = np.floor(corners.min(axis=0) / resolution) * resolution
        columns, rows = np.floor((corners.max(axis=0) - low) / resolution).astype(int) + 1
        found = self._points_under((low[0] + resolution / 2, low[1] + resolution / 2), resolution)
        free = np.zeros((rows, columns), dtype=np.bool_)
        free[found[:, 0].astype(int), found[:, 1].astype(int)] = True
        return TopDownMap(free, (float(low[0]), float(low[1])), resolution)

    def _lattice(self, spacing: float) -> np.ndarray:
        """[P, 3] m: all floor points at multiples of `spacing`, each once a storey."""
        found = self._points_under((0.0, 0.0), spacing)
        found = found[np.lexsort(found.T[::-1])]
        if len(found) > 1:
            gaps = np.diff(found, axis=0)
            is_same = (gaps[:, :2] == 0).all(axis=1) & (gaps[:, 2] < _STOREY)
            found = found[np.append(True, ~is_same)]
        return np.stack([found[:, 1] * spacing, found[:, 2], found[:, 0] * spacing], axis=1)

    def _points_under(self, origin: tuple[float, float], spacing: float) -> np.ndarray:
        """[E, 3]: row, column and height of the lattice points on the floor."""
        out = np.empty((0, 3))
        out = np.empty((_covered(self.triangles, origin, spacing, out), 3))
        _covered(self.triangles, origin, spacing, out)
        return out
