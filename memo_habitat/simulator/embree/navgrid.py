"""Where a cylinder can stand: a grid computed from the geometry, with its connected islands."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numba import njit
from scipy import ndimage

from memo_habitat.errors import UserError


@njit(cache=True, nogil=True)
def _clip(polygon, count, axis, limit, keep_above, out):  # type: ignore[no-untyped-def]
    """Cuts a convex polygon [count, 3] at a plane into out; returns the new number of corners."""
    made = 0
    for i in range(count):
        j = (i + 1) % count
        a = polygon[i, axis] - limit
        b = polygon[j, axis] - limit
        if not keep_above:
            a, b = -a, -b
        if a >= 0.0:
            out[made] = polygon[i]
            made += 1
        if (a > 0.0 and b < 0.0) or (a < 0.0 and b > 0.0):
            share = a / (a - b)
            for k in range(3):
                out[made, k] = polygon[i, k] + share * (polygon[j, k] - polygon[i, k])
            made += 1
    return made


@njit(cache=True, nogil=True)
def rasterise(corners, slope, origin, cell, shape, out):  # type: ignore[no-untyped-def]
    """Pieces of triangles per column; returns how many there are (more than `out` holds: the
    rest was only counted).

    corners [T, 3, 3] m; slope [T] bool: gentle enough to stand on; origin (x, z) m; cell m;
    shape (rows along z, columns along x); out [E, 4] float64: column index, lowest y,
    highest y, 1 where one can stand on it.
    """
    rows, columns = shape
    total = 0
    strip = np.empty((12, 3))
    scratch = np.empty((12, 3))
    piece = np.empty((12, 3))
    triangle = np.empty((12, 3))
    for t in range(corners.shape[0]):
        for i in range(3):
            for k in range(3):
                triangle[i, k] = corners[t, i, k]
        z_low = min(triangle[0, 2], triangle[1, 2], triangle[2, 2])
        z_high = max(triangle[0, 2], triangle[1, 2], triangle[2, 2])
        first_row = max(int(np.floor((z_low - origin[1]) / cell)), 0)
        last_row = min(int(np.floor((z_high - origin[1]) / cell)), rows - 1)
        for row in range(first_row, last_row + 1):
            z = origin[1] + row * cell
            n = _clip(triangle, 3, 2, z, True, scratch)
            n = _clip(scratch, n, 2, z + cell, False, strip)
            if n == 0:
                continue
            x_low = strip[0, 0]
            x_high = strip[0, 0]
            for i in range(1, n):
                x_low = min(x_low, strip[i, 0])
                x_high = max(x_high, strip[i, 0])
            first = max(int(np.floor((x_low - origin[0]) / cell)), 0)
            last = min(int(np.floor((x_high - origin[0]) / cell)), columns - 1)
            for column in range(first, last + 1):
                x = origin[0] + column * cell
                m = _clip(strip, n, 0, x, True, scratch)
                m = _clip(scratch, m, 0, x + cell, False, piece)
                if m == 0:
                    continue
                if total < out.shape[0]:
                    low = piece[0, 1]
                    high = piece[0, 1]
                    for i in range(1, m):
                        low = min(low, piece[i, 1])
                        high = max(high, piece[i, 1])
                    out[total, 0] = row * columns + column
                    out[total, 1] = low
                    out[total, 2] = high
                    out[total, 3] = 1.0 if slope[t] else 0.0
                total += 1
    return total


@njit(cache=True, nogil=True)
def lowest_floors(pieces, height, climb, floors, roofed):  # type: ignore[no-untyped-def]
    """The lowest place to stand in every column, into floors [columns] (NaN: none), and whether
    anything is above it, into roofed [columns] bool.

    pieces [E, 4] as from `rasterise`, sorted by column, then lowest y. Pieces that overlap are
    one solid. One can stand on a solid whose highest piece is gentle, or no more than `climb`
    above a gentle one, when the next solid begins at least `height` above it.
    """
    floors[:] = np.nan
    touching = 1e-4
    i = 0
    while i < pieces.shape[0]:
        column = pieces[i, 0]
        found = False
        while i < pieces.shape[0] and pieces[i, 0] == column:
            top = pieces[i, 2]
            gentle_top = top if pieces[i, 3] > 0 else -np.inf
            i += 1
            while i < pieces.shape[0] and pieces[i, 0] == column and pieces[i, 1] <= top + touching:
                top = max(top, pieces[i, 2])
                if pieces[i, 3] > 0:
                    gentle_top = max(gentle_top, pieces[i, 2])
                i += 1
            above = np.inf
            if i < pieces.shape[0] and pieces[i, 0] == column:
                above = pieces[i, 1]
            if not found and top - gentle_top <= climb and above - top >= height:
                floors[int(column)] = top
                roofed[int(column)] = above < np.inf
                found = True


#: A point this far above or below the floor still means that floor, m (as Habitat-Sim's
#: is_navigable and find_path).
ON_FLOOR = 0.5
NEAR_FLOOR = 2.0


@dataclass(frozen=True)
class AgentShape:
    """The cylinder and its legs."""

    radius: float = 0.1  # m
    height: float = 1.5  # m
    max_climb: float = 0.2  # m
    max_slope: float = math.pi / 4  # rad
    cell: float = 0.05  # m, edge of a grid cell
    min_island_area: float = 0.25  # m2, smaller islands are dropped


@dataclass(frozen=True)
class NavGrid:
    """Cells [Z, X] in which the agent's axis may be, one floor level per column.

    Cell [i, j] covers x from origin[0] + j * cell and z from origin[1] + i * cell; a point of
    a free cell is at least the agent's radius away from everything higher than a step.
    """

    islands: np.ndarray  # [Z, X] int32: 0 blocked, 1 the largest island, 2 the next, ...
    floor: np.ndarray  # [Z, X] float64, m; NaN where there is none
    clearance: np.ndarray  # [Z, X] float32, m to the nearest obstacle
    origin: tuple[float, float]  # (x, z) m
    cell: float  # m
    centers: np.ndarray  # [I, 2] (x, z) m: middle of each island's cells, island 1 first
    radii: np.ndarray  # [I] m: distance of each island's farthest cell from its middle

    def cells_of(self, island: int) -> np.ndarray:
        """Flat indices of the cells of island `island` (0 the largest; -1: of all)."""
        if island not in self._cells:
            wanted = self.islands == island + 1 if island >= 0 else self.islands > 0
            self._cells[island] = np.flatnonzero(wanted)
        return self._cells[island]

    @cached_property
    def floor_map(self) -> tuple[np.ndarray, np.ndarray, tuple[float, float], float]:
        """The grid as kernels take it: islands, floor, origin (x, z) and cell."""
        return self.islands, self.floor, self.origin, self.cell

    @cached_property
    def _cells(self) -> dict[int, np.ndarray]:
        return {}

    def grid(self, points: np.ndarray) -> np.ndarray:
        """Grid coordinates of world points: [P, 3] m -> [P, 2] float (row, column)."""
        points = np.asarray(points, dtype=np.float64).reshape(-1, 3)
        return np.stack(
            [
                (points[:, 2] - self.origin[1]) / self.cell,
                (points[:, 0] - self.origin[0]) / self.cell,
            ],
            axis=1,
        )

    def world(self, grid: np.ndarray) -> np.ndarray:
        """World points on the floor of grid coordinates: [P, 2] -> [P, 3] m."""
        grid = np.asarray(grid, dtype=np.float64).reshape(-1, 2)
        row = np.clip(grid[:, 0].astype(int), 0, self.islands.shape[0] - 1)
        column = np.clip(grid[:, 1].astype(int), 0, self.islands.shape[1] - 1)
        x = self.origin[0] + grid[:, 1] * self.cell
        z = self.origin[1] + grid[:, 0] * self.cell
        return np.stack([x, self.floor[row, column], z], axis=1)

    def island_at(self, points: np.ndarray, y_tolerance: float = math.inf) -> np.ndarray:
        """[P] int: the island under each world point [P, 3]; 0 where the agent cannot stand or
        the point is more than `y_tolerance` m away from the floor there."""
        points = np.asarray(points, dtype=np.float64).reshape(-1, 3)
        rows_columns = np.floor(self.grid(points)).astype(int)
        inside = ((rows_columns >= 0) & (rows_columns < self.islands.shape)).all(axis=1)
        row, column = np.where(inside[:, None], rows_columns, 0).T
        island = np.where(inside, self.islands[row, column], 0)
        if math.isfinite(y_tolerance):
            with np.errstate(invalid="ignore"):
                near = np.abs(points[:, 1] - self.floor[row, column]) <= y_tolerance
            island = np.where(near, island, 0)
        return island

    def snap(self, point: np.ndarray, reach: float, island: int = 0) -> np.ndarray | None:
        """Grid coordinates [2] of the free place nearest to a world point [3] m: the point itself
        when it is free, else the middle of a cell within `reach` m; None when there is none.

        island: only this one; 0 = any.
        """
        row = (float(point[2]) - self.origin[1]) / self.cell
        column = (float(point[0]) - self.origin[0]) / self.cell
        if not (math.isfinite(row) and math.isfinite(column)):
            return None
        if 0 <= row < self.islands.shape[0] and 0 <= column < self.islands.shape[1]:
            here = self.islands[int(row), int(column)]
            if here and (not island or here == island):
                return np.array([row, column])
        cells = math.ceil(reach / self.cell) + 1
        top, left = max(int(row) - cells, 0), max(int(column) - cells, 0)
        bottom, right = max(int(row) + cells + 1, 0), max(int(column) + cells + 1, 0)
        window = self.islands[top:bottom, left:right]
        free = np.argwhere(window == island if island else window > 0)
        if not len(free):
            return None
        middles = free + np.array([top + 0.5, left + 0.5])
        gaps = np.hypot(middles[:, 0] - row, middles[:, 1] - column)
        best = int(gaps.argmin())
        return middles[best] if gaps[best] * self.cell <= reach else None


def build_navgrid(corners: np.ndarray, shape: AgentShape, source: str) -> NavGrid:
    """The grid of a house from its triangles [T, 3, 3] m (stage and furniture).

    Args:
        corners: the triangles, wound so that floors face up.
        shape: the agent.
        source: file to name in errors.

    Raises:
        UserError: when the agent can stand nowhere.
    """
    floor, origin = _floors(corners, shape)
    walkable = np.isfinite(floor)
    # A drop of more than a step ends the floor on its upper side.
    lowest = ndimage.grey_erosion(
        np.where(walkable, floor, np.inf), footprint=_CROSS, mode="constant", cval=np.inf
    )
    walkable &= np.nan_to_num(floor) - np.where(walkable, lowest, 0.0) <= shape.max_climb
    # A cell's obstacle may begin at its near edge, and the agent stand at its own: two half cells.
    clearance = ndimage.distance_transform_edt(np.pad(walkable, 1))[1:-1, 1:-1] * shape.cell
    free = clearance >= shape.radius + shape.cell - 1e-9
    islands = _islands(free, shape)
    if not (islands > 0).any():
        raise UserError(
            f"nothing is navigable in {source} for an agent of radius {shape.radius:g} m and "
            f"height {shape.height:g} m (islands under {shape.min_island_area:g} m2 do not count): "
            "check the floor (Y up, metres) or set habitat.simulator.agents.*.radius and .height "
            "smaller"
        )
    count = int(islands.max())
    centers, radii = np.zeros((count, 2)), np.zeros(count)
    for label, (rows, columns) in enumerate(ndimage.find_objects(islands), start=1):
        cells = np.argwhere(islands[rows, columns] == label) + (rows.start, columns.start) + 0.5
        points = cells[:, ::-1] * shape.cell + origin
        centers[label - 1] = points.mean(axis=0)
        radii[label - 1] = np.linalg.norm(points - centers[label - 1], axis=1).max()
    return NavGrid(
        islands,
        floor,
        np.maximum(clearance - shape.cell / 2, 0.0).astype(np.float32),
        (float(origin[0]), float(origin[1])),
        shape.cell,
        centers,
        radii,
    )


_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], dtype=bool)


def _floors(corners: np.ndarray, shape: AgentShape) -> tuple[np.ndarray, np.ndarray]:
    """Height of the place to stand in every column [Z, X] m (NaN: none), and (x, z) origin."""
    corners = np.asarray(corners, dtype=np.float64)
    flat = corners.reshape(-1, 3)
    cell = shape.cell
    # Cell middles lie on multiples of the cell, so that faces on round numbers do not fall on
    # the border of two cells, where rounding would decide.
    low = np.floor(flat[:, [0, 2]].min(axis=0) / cell) - 1.5
    high = np.ceil(flat[:, [0, 2]].max(axis=0) / cell) + 1.5
    columns, rows = np.rint(high - low).astype(int)
    if rows * columns > 50_000_000:
        raise UserError(
            f"a house of {rows * cell:.0f} m by {columns * cell:.0f} m is too large for cells of "
            f"{cell:g} m: check its units, or set habitat.simulator.navigation_cell larger"
        )
    origin = low * cell
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.maximum(np.linalg.norm(normal, axis=1), 1e-12)
    gentle = normal[:, 1] / length >= math.cos(shape.max_slope)
    size = (int(rows), int(columns))
    pieces = np.empty((max(4 * rows * columns, 1024), 4))
    count = rasterise(corners, gentle, origin, cell, size, pieces)
    if count > len(pieces):
        pieces = np.empty((count, 4))
        rasterise(corners, gentle, origin, cell, size, pieces)
    pieces = pieces[:count]
    pieces = pieces[np.lexsort((pieces[:, 1], pieces[:, 0]))]
    floors, roofed = np.empty(rows * columns), np.zeros(rows * columns, dtype=np.bool_)
    lowest_floors(pieces, shape.height, shape.max_climb, floors, roofed)
    # In a house with a ceiling, what lies under the open sky is its roof.
    if 2 * np.count_nonzero(roofed) > np.count_nonzero(np.isfinite(floors)):
        floors[~roofed] = np.nan
    return floors.reshape(size), origin


def _islands(free: np.ndarray, shape: AgentShape) -> np.ndarray:
    """[Z, X] int32 labels by falling area of the 4-connected parts that are large enough."""
    labels, count = ndimage.label(free)
    if not count:
        return np.zeros(free.shape, dtype=np.int32)
    area = np.bincount(labels.ravel(), minlength=count + 1)[1:] * shape.cell**2
    order = np.argsort(-area, kind="stable")
    order = order[area[order] >= shape.min_island_area]
    table = np.zeros(count + 1, dtype=np.int32)
    table[order + 1] = np.arange(1, len(order) + 1)
    return table[labels]
