"""The shell of a house as a mesh: floors, walls with openings, ceilings, windows and pictures.

Faces look into the rooms only. A ceiling is a face that looks down, so it is no floor for an agent
above it, and a renderer that hides back faces looks into the house from above.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

from memo_habitat.scenes.floor_plan import (
    CEILING,
    DOOR_HEIGHT,
    WALL,
    Door,
    Plan,
    RandomStream,
    Rect,
    Room,
)
from memo_habitat.scenes.mesh import Mesh, Point, TexturedMesh

SIDE = 32
"""Pixels along each side of a texture."""
TILE = 1.28
"""Metres that one repetition covers (4 cm a pixel)."""
OFF_WHITE = np.full((8, 8, 3), (236, 235, 231), dtype=np.uint8)
"""Of ceilings."""
TRIM = np.full((8, 8, 3), (214, 208, 198), dtype=np.uint8)
"""Of door frames."""
WET = ("bathroom", "kitchen")
"""Rooms with tiles and without rugs."""

Shade = tuple[float, float, float]


def _colour(hue: float, saturation: float, value: float) -> Shade:
    r, g, b = colorsys.hsv_to_rgb(hue, saturation, value)
    return 255 * r, 255 * g, 255 * b


def _finish(base: Shade, light: np.ndarray) -> np.ndarray:
    """The base colour times a brightness per pixel [H, W], as [H, W, 3] uint8."""
    image = np.asarray(base)[None, None, :] * light[:, :, None]
    return np.clip(np.floor(image + 0.5), 0, 255).astype(np.uint8)


def _noise(rng: RandomStream, amount: float) -> np.ndarray:
    values = [1.0 + amount * (rng.unit() - 0.5) for _ in range(SIDE * SIDE)]
    return np.asarray(values).reshape(SIDE, SIDE)


def floor_texture(rng: RandomStream, wet: bool) -> np.ndarray:
    """Planks, tiles or carpet, [H, W, 3] uint8; ``wet`` rooms have tiles."""
    kind = "tiles" if wet else rng.choice(("planks", "planks", "carpet", "tiles"))
    light = _noise(rng, 0.06)
    if kind == "planks":
        for row in range(0, SIDE, 4):
            seam = rng.integer(0, SIDE - 1)
            light[row : row + 4] *= 0.9 + 0.2 * rng.unit()
            light[row : row + 4, seam] *= 0.75
            light[row] *= 0.85
        base = _colour(0.08 + 0.03 * rng.unit(), 0.2 + 0.2 * rng.unit(), 0.5 + 0.35 * rng.unit())
    elif kind == "tiles":
        contrast = 0.8 + 0.2 * rng.unit()
        for row in range(0, SIDE, 8):
            for column in range(0, SIDE, 8):
                if (row + column) % 16:
                    light[row : row + 8, column : column + 8] *= contrast
        light[::8] *= 0.8
        light[:, ::8] *= 0.8
        base = _colour(rng.unit(), 0.02 + 0.12 * rng.unit(), 0.55 + 0.3 * rng.unit())
    else:
        light = _noise(rng, 0.22)
        base = _colour(rng.unit(), 0.04 + 0.12 * rng.unit(), 0.45 + 0.35 * rng.unit())
    return _finish(base, light)


def wall_texture(rng: RandomStream, wet: bool) -> np.ndarray:
    """Paint, striped paper or tiles in a pale colour, [H, W, 3] uint8."""
    kind = "tiles" if wet else rng.choice(("paint", "paint", "stripes", "panels"))
    light = _noise(rng, 0.03)
    if kind == "stripes":
        width = rng.choice((2, 4, 8))
        for column in range(0, SIDE, 2 * width):
            light[:, column : column + width] *= 0.9
    elif kind == "tiles":
        light[::8] *= 0.86
        light[:, ::8] *= 0.86
    elif kind == "panels":
        light[:, ::16] *= 0.82
        light[:, 1::16] *= 0.92
    base = _colour(rng.unit(), 0.03 + 0.11 * rng.unit(), 0.78 + 0.22 * rng.unit())
    return _finish(base, light)


def rug_texture(rng: RandomStream) -> np.ndarray:
    """A rug with a border, stretched once over its floor, [H, W, 3] uint8."""
    hue = rng.unit()
    image = _finish(_colour(hue, 0.22, 0.55), _noise(rng, 0.15))
    image[2:-2, 2:-2] = _finish(_colour(hue, 0.14, 0.78), _noise(rng, 0.15))[2:-2, 2:-2]
    for step in range(4, 12, 4):
        image[[step, -step - 1], step:-step] = image[step:-step, [step, -step - 1]] = image[0, 0]
    return image


def window_texture(rng: RandomStream) -> np.ndarray:
    """A window with a white frame and a pale sky, [H, W, 3] uint8."""
    light = np.linspace(1.0, 0.86, SIDE)[:, None].repeat(SIDE, axis=1)
    image = _finish(_colour(0.56, 0.06 + 0.14 * rng.unit(), 0.97), light)
    for bar in (slice(0, 2), slice(15, 17), slice(30, 32)):
        image[bar], image[:, bar] = 244, 244
    return image


def door_texture(rng: RandomStream) -> np.ndarray:
    """A closed door with two fillings and a handle, [H, W, 3] uint8."""
    wood = _colour(0.08, 0.12 + 0.2 * rng.unit(), 0.5 + 0.3 * rng.unit())
    image = _finish(wood, _noise(rng, 0.04))
    for top, bottom in ((3, 14), (18, 29)):
        image[top:bottom, 6:26] = image[top:bottom, 6:26] // 8 * 7
    image[15:17, 27:30] = 60
    return image


def picture_texture(rng: RandomStream) -> np.ndarray:
    """A framed picture of a few muted blocks, [H, W, 3] uint8."""
    image = np.full((16, 16, 3), 48, dtype=np.uint8)
    image[1:-1, 1:-1] = 232
    for _ in range(4):
        x, y = rng.integer(2, 9), rng.integer(2, 9)
        shade = _colour(rng.unit(), 0.3, 0.3 + 0.5 * rng.unit())
        image[y : y + 5, x : x + 5] = np.floor(shade).astype(np.uint8)
    return image


@dataclass(frozen=True)
class _Panel:
    """A rectangle cut out of a wall's face, from ``first`` to ``last`` in world X or Z (m);
    without a texture it is an opening."""

    first: float
    last: float
    bottom: float
    top: float
    texture: np.ndarray | None = None


@dataclass
class _Wall:
    """A wall's face seen from inside a room, with what is cut out of it."""

    start: tuple[float, float]  # left end (x, z), m
    along: tuple[int, int]  # from there to the right, a unit vector
    length: float
    is_outer: bool
    panels: list[_Panel]

    @property
    def low(self) -> float:
        """Its lower end in world X or Z, m."""
        axis = 0 if self.along[0] else 1
        return min(self.start[axis], self.start[axis] + self.along[axis] * self.length)

    def interval(self, panel: _Panel) -> tuple[float, float]:
        """The panel's interval measured from ``start``."""
        axis = 0 if self.along[0] else 1
        ends = [(end - self.start[axis]) * self.along[axis] for end in (panel.first, panel.last)]
        return min(ends), max(ends)


def _walls(plan: Plan, room: Room) -> list[_Wall]:
    """A room's four walls with their doors."""
    f, deep = room.floor, 2 * WALL
    others = [other.floor for other in plan.rooms if other is not room]
    walls = []
    for start, along, length, behind in (
        ((f.x0, f.z0), (1, 0), f.width, Rect(f.x0, f.z0 - deep, f.x1, f.z0)),
        ((f.x1, f.z1), (-1, 0), f.width, Rect(f.x0, f.z1, f.x1, f.z1 + deep)),
        ((f.x0, f.z1), (0, -1), f.depth, Rect(f.x0 - deep, f.z0, f.x0, f.z1)),
        ((f.x1, f.z0), (0, 1), f.depth, Rect(f.x1, f.z0, f.x1 + deep, f.z1)),
    ):
        along_x = along[0] == 0  # how one walks through its doors
        here = [d.threshold for d in plan.doors if d.along_x == along_x]
        spans = [(t.z0, t.z1) if along_x else (t.x0, t.x1) for t in here if behind.contains(t)]
        doors = [_Panel(*span, 0.0, DOOR_HEIGHT) for span in spans]
        is_outer = not any(behind.overlaps(other) for other in others)
        walls.append(_Wall(start, along, length, is_outer, doors))
    return walls


class _Stage:
    """Collects the quads of a house by texture."""

    def __init__(self) -> None:
        self.parts: dict[bytes, TexturedMesh] = {}

    def quad(
        self, texture: np.ndarray, origin: Point, u: Point, v: Point, stretch: bool = False
    ) -> None:
        """Add the parallelogram origin, +u, +u+v, +v; its face looks along u x v.

        The texture repeats every ``TILE`` metres, or is stretched once over the quad.
        """
        # One primitive per texture: readers pay for each material.
        part = self.parts.setdefault(texture.tobytes(), TexturedMesh(Mesh(), [], texture))
        right = _add(origin, u)
        part.mesh.polygon([origin, right, _add(right, v), _add(origin, v)], (255, 255, 255))
        w, h = (1.0, 1.0) if stretch else (sum(map(abs, u)) / TILE, sum(map(abs, v)) / TILE)
        # Row 0 of an image is its top, and glTF's v runs downwards from there.
        part.uv.extend([(0.0, h), (w, h), (w, 0.0), (0.0, 0.0)])

    def floor(self, rect: Rect, texture: np.ndarray, stretch: bool = False) -> None:
        """A face that looks up."""
        u, v = (rect.width, 0.0, 0.0), (0.0, 0.0, -rect.depth)
        self.quad(texture, (rect.x0, 0.0, rect.z1), u, v, stretch)

    def ceiling(self, rect: Rect, height: float, texture: np.ndarray) -> None:
        """A face that looks down."""
        u, v = (rect.width, 0.0, 0.0), (0.0, 0.0, rect.depth)
        self.quad(texture, (rect.x0, height, rect.z0), u, v)

    def wall(self, wall: _Wall, texture: np.ndarray) -> None:
        """A wall's face with its panels, which do not overlap along the wall."""
        (x, z), (dx, dz) = wall.start, wall.along

        def quad(
            image: np.ndarray, a: float, b: float, low: float, high: float, fit: bool = False
        ) -> None:
            if b - a > 1e-6 and high - low > 1e-6:
                origin, u = (x + dx * a, low, z + dz * a), (dx * (b - a), 0.0, dz * (b - a))
                self.quad(image, origin, u, (0.0, high - low, 0.0), fit)

        here = 0.0
        for panel in sorted(wall.panels, key=wall.interval):
            a, b = wall.interval(panel)
            quad(texture, here, a, 0.0, CEILING)
            quad(texture, a, b, 0.0, panel.bottom)
            quad(texture, a, b, panel.top, CEILING)
            if panel.texture is not None:
                quad(panel.texture, a, b, panel.bottom, panel.top, fit=True)
            here = b
        quad(texture, here, wall.length, 0.0, CEILING)

    def threshold(self, door: Door) -> None:
        """Floor, jambs and lintel inside a wall."""
        t, up = door.threshold, (0.0, DOOR_HEIGHT, 0.0)
        self.floor(t, TRIM)
        self.ceiling(t, DOOR_HEIGHT, TRIM)
        if door.along_x:
            self.quad(TRIM, (t.x0, 0.0, t.z0), (t.width, 0.0, 0.0), up)
            self.quad(TRIM, (t.x1, 0.0, t.z1), (-t.width, 0.0, 0.0), up)
        else:
            self.quad(TRIM, (t.x0, 0.0, t.z1), (0.0, 0.0, -t.depth), up)
            self.quad(TRIM, (t.x1, 0.0, t.z0), (0.0, 0.0, t.depth), up)


def _add(a: Point, b: Point) -> Point:
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


def _decorate(rng: RandomStream, room: Room, walls: list[_Wall]) -> None:
    """Hang a window into some outer walls and pictures on some others, away from the doors."""
    for wall in walls:
        if wall.panels or wall.length < 1.9:
            continue
        window = wall.is_outer and rng.chance(0.7) and room.kind != "corridor"
        width = rng.uniform(1.0, 1.7) if window else rng.uniform(0.5, 0.9)
        first = round(wall.low + rng.uniform(0.1, wall.length - width - 0.1), 2)
        if window:
            wall.panels.append(_Panel(first, first + width, 0.9, 2.1, window_texture(rng)))
        elif rng.chance(0.6):
            wall.panels.append(_Panel(first, first + width, 1.4, 1.95, picture_texture(rng)))


def _front_door(rng: RandomStream, walls: list[_Wall]) -> None:
    """A closed door out of the house, in an outer wall where there is space."""
    for wall in rng.shuffled([wall for wall in walls if wall.is_outer]):
        if not wall.panels and wall.length > 1.2:
            first = round(wall.low + rng.uniform(0.1, wall.length - 1.05), 2)
            wall.panels.append(_Panel(first, first + 0.95, 0.0, 2.0, door_texture(rng)))
            return


def _lay_floor(rng: RandomStream, stage: _Stage, room: Room, texture: np.ndarray) -> None:
    """The floor of a room, in some rooms around a rug in its middle."""
    f = room.floor
    if room.kind in (*WET, "corridor") or not rng.chance(0.7):
        stage.floor(f, texture)
        return
    w, d = round(f.width * rng.uniform(0.35, 0.5), 2), round(f.depth * rng.uniform(0.3, 0.5), 2)
    x, z = round(f.centre[0] - w / 2, 2), round(f.centre[1] - d / 2, 2)
    rug = Rect(x, z, round(x + w, 2), round(z + d, 2))
    stage.floor(rug, rug_texture(rng), stretch=True)
    stage.floor(Rect(f.x0, f.z0, f.x1, rug.z0), texture)
    stage.floor(Rect(f.x0, rug.z1, f.x1, f.z1), texture)
    stage.floor(Rect(f.x0, rug.z0, rug.x0, rug.z1), texture)
    stage.floor(Rect(rug.x1, rug.z0, f.x1, rug.z1), texture)


def stage_parts(rng: RandomStream, plan: Plan) -> list[TexturedMesh]:
    """The textured primitives of a house's stage."""
    stage = _Stage()
    for number, room in enumerate(plan.rooms):
        wet = room.kind in WET
        floor_image, wall_image = floor_texture(rng, wet), wall_texture(rng, wet)
        _lay_floor(rng, stage, room, floor_image)
        stage.ceiling(room.floor, CEILING, OFF_WHITE)
        walls = _walls(plan, room)
        if number == 0:
            _front_door(rng, walls)
        _decorate(rng, room, walls)
        for wall in walls:
            stage.wall(wall, wall_image)
    for door in plan.doors:
        stage.threshold(door)
    return list(stage.parts.values())
