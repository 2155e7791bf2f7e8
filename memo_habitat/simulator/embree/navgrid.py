"""Where a cylinder can stand: a grid computed from the geometry, with its connected islands."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy import ndimage

from memo_habitat.errors import UserError
from memo_habitat.utils.compiled import compiled


@compiled
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


@compiled
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
        triangle[:3] = corners[t]
        first_row = max(int(np.floor((triangle[:3, 2].min() - origin[1]) / cell)), 0)
        last_row = min(int(np.floor((triangle[:3, 2].max() - origin[1]) / cell)), rows - 1)
        for row in range(first_row, last_row + 1):
            z = origin[1] + row * cell
            n = _clip(triangle, 3, 2, z, True, scratch)
            n = _clip(scratch, n, 2, z + cell, False, strip)
            if n == 0:
                continue
            first = max(int(np.floor((strip[:n, 0].min() - origin[0]) / cell)), 0)
            last = min(int(np.floor((strip[:n, 0].max() - origin[0]) / cell)), columns - 1)
            for column in range(first, last + 1):
                x = origin[0] + column * cell
                m = _clip(strip, n, 0, x, True, scratch)
                m = _clip(scratch, m, 0, x + cell, False, piece)
                if m == 0:
                    continue
                if total < out.shape[0]:
                    out[total, 0] = row * columns + column
                    # The innermost loop of loading a house: slower with min() and max().
                    low = high = piece[0, 1]
                    for i in range(1, m):
                        low = min(low, piece[i, 1])
                        high = max(high, piece[i, 1])
                    out[total, 1] = low
                    out[total, 2] = high
                    out[total, 3] = slope[t]
                total += 1
    return total


@compiled
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


@compiled
def nearest_free(floor_map, point, reach, island):  # type: ignore[no-untyped-def]
    """Grid coordinates (row, column) of the free place nearest to a world point [3] m: the point
    itself when it is free, else the middle of a cell within `reach` m; (-1, -1) where there is
    none.

    island: only this one; 0 = any.
    """
    islands, _, _, origin, cell = floor_map
    rows, columns = islands.shape
    row = (point[2] - origin[1]) / cell
    column = (point[0] - origin[0]) / cell
    if 0.0 <= row < rows and 0.0 <= column < columns:
        here = islands[int(row), int(column)]
        if here != 0 and (island == 0 or here == island):
            return row, column
    near = int(np.ceil(reach / cell)) + 1
    best, best_row, best_column = np.inf, -1.0, -1.0
    # Also false for points that are not numbers.
    if -near < row < rows + near and -near < column < columns + near:
        for i in range(max(int(row) - near, 0), min(int(row) + near + 1, rows)):
            for j in range(max(int(column) - near, 0), min(int(column) + near + 1, columns)):
                if islands[i, j] != 0 and (island == 0 or islands[i, j] == island):
                    gap = np.hypot(i + 0.5 - row, j + 0.5 - column)
                    if gap < best:
                        best, best_row, best_column = gap, i + 0.5, j + 0.5
    return (best_row, best_column) if best * cell <= reach else (-1.0, -1.0)


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

    @cached_property
    def floor_map(self) -> tuple[Any, ...]:
        """What kernels take: islands, floor, unit directions (row, column) away from obstacles
        [Z, X, 2], origin and cell."""
        # Plain tuples to all kernels: Numba takes a microsecond more to recognise a named one, and
        # its cache on disk cannot be read once the class has another name.
        # Obstacles are smoothed over a few cells: the normal of an oblique wall, not of a stair.
        smooth = ndimage.gaussian_filter(self.clearance.astype(np.float64), 1.5, mode="nearest")
        away = np.stack(np.gradient(smooth), axis=-1)
        away /= np.maximum(np.linalg.norm(away, axis=-1, keepdims=True), 1e-12)
        return self.islands, self.floor, away, self.origin, self.cell

    @cached_property
    def radii(self) -> np.ndarray:
        """[I] m: farthest cell of each island, largest first, from the middle of its cells."""
        radii = []
        for label, (rows, columns) in enumerate(ndimage.find_objects(self.islands), start=1):
            cells = np.argwhere(self.islands[rows, columns] == label)
            cells = cells + (rows.start, columns.start) + 0.5
            points = cells[:, ::-1] * self.cell + self.origin
            radii.append(np.linalg.norm(points - points.mean(axis=0), axis=1).max())
        return np.array(radii)

    @cached_property
    def _cells(self) -> dict[int, np.ndarray]:
        return {}

    def sample(self, rng: np.random.Generator, island: int = -1) -> np.ndarray:
        """A point [3] m drawn uniformly from island `island` (0 the largest; -1: from all)."""
        if island not in self._cells:
            wanted = self.islands == island + 1 if island >= 0 else self.islands > 0
            self._cells[island] = np.flatnonzero(wanted)
        cells = self._cells[island]
        row, column = divmod(int(cells[rng.integers(len(cells))]), self.islands.shape[1])
        return self.world(np.array([row, column]) + rng.uniform(0.0, 1.0, size=2))[0]

    def grid(self, points: np.ndarray) -> np.ndarray:
        """Grid coordinates of world points: [P, 3] m -> [P, 2] float (row, column)."""
        points = np.asarray(points, dtype=np.float64).reshape(-1, 3)
        return (points[:, [2, 0]] - self.origin[::-1]) / self.cell

    def world(self, grid: np.ndarray) -> np.ndarray:
        """World points on the floor of grid coordinates: [P, 2] -> [P, 3] m."""
        grid = np.asarray(grid, dtype=np.float64).reshape(-1, 2)
        row, column = np.clip(grid.astype(int), 0, np.array(self.islands.shape) - 1).T
        x = self.origin[0] + grid[:, 1] * self.cell
        z = self.origin[1] + grid[:, 0] * self.cell
        return np.stack([x, self.floor[row, column], z], axis=1)

    def island_at(self, points: np.ndarray, y_tolerance: float = math.inf) -> np.ndarray:
        """[P] int: the island under each world point [P, 3]; 0 where the agent cannot stand or
        the point is more than `y_tolerance` m away from the floor there."""
        points = np.asarray(points, dtype=np.float64).reshape(-1, 3)
        cells = np.floor(self.grid(points)).astype(int)
        inside = ((cells >= 0) & (cells < self.islands.shape)).all(axis=1)
        row, column = np.where(inside[:, None], cells, 0).T
        if math.isfinite(y_tolerance):
            inside &= np.abs(points[:, 1] - self.floor[row, column]) <= y_tolerance
        return np.where(inside, self.islands[row, column], 0)

    def snap(self, point: np.ndarray, reach: float, island: int = 0) -> np.ndarray | None:
        """Grid coordinates [2] as `nearest_free`; None when there is none."""
        place = nearest_free(self.floor_map, np.array(point, dtype=np.float64), reach, island)
        return np.array(place) if place[0] >= 0.0 else None


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
        np.where(walkable, floor, np.inf),
        footprint=ndimage.generate_binary_structure(2, 1),
        mode="constant",
        cval=np.inf,
    )
    walkable &= np.nan_to_num(floor) - np.where(walkable, lowest, 0.0) <= shape.max_climb
    # A cell's obstacle may begin at its near edge, and the agent stand at its own: two half cells.
    clearance = ndimage.distance_transform_edt(np.pad(walkable, 1))[1:-1, 1:-1] * shape.cell
    free = clearance >= shape.radius + shape.cell - 1e-9
    islands = _islands(free, shape)
    if not islands.any():
        raise UserError(
            f"nothing is navigable in {source} for an agent of radius {shape.radius:g} m and "
            f"height {shape.height:g} m (islands under {shape.min_island_area:g} m2 do not count): "
            "check the floor (Y up, metres) or set habitat.simulator.agents.*.radius and .height "
            "smaller"
        )
    clearance = np.maximum(clearance - shape.cell / 2, 0.0).astype(np.float32)
    return NavGrid(islands, floor, clearance, (float(origin[0]), float(origin[1])), shape.cell)


def _floors(corners: np.ndarray, shape: AgentShape) -> tuple[np.ndarray, np.ndarray]:
    """Height of the place to stand in every column [Z, X] m (NaN: none), and (x, z) origin."""
    corners = np.asarray(corners, dtype=np.float64)
    flat = corners.reshape(-1, 3)
    cell = shape.cell
    # Cell middles lie on multiples of the cell, so that faces on round numbers do not fall on
    # the border of two cells, where rounding would decide.
    low = np.floor(flat[:, [0, 2]].min(axis=0) / cell) - 1.5
    high = np.ceil(flat[:, [0, 2]].max(axis=0) / cell) + 1.5
    columns, rows = (int(count) for count in np.rint(high - low))
    if rows * columns > 50_000_000:
        raise UserError(
            f"a house of {rows * cell:.0f} m by {columns * cell:.0f} m is too large for cells of "
            f"{cell:g} m: check its units, or set habitat.simulator.navigation_cell larger"
        )
    origin = low * cell
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.maximum(np.linalg.norm(normal, axis=1), 1e-12)
    gentle = normal[:, 1] / length >= math.cos(shape.max_slope)
    size = (rows, columns)
    # Mostly enough for floor, ceiling and a table; else the count says how many there are.
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
