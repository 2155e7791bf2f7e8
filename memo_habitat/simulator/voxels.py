"""Solid spans of every vertical column of a triangle soup, as Recast rasterises them."""

from __future__ import annotations

import numpy as np
from numba import njit


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
