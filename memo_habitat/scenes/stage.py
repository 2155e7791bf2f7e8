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


def ceiling_texture() -> np.ndarray:
    """Plain off-white, [8, 8, 3] uint8."""
    return np.full((8, 8, 3), (236, 235, 231), dtype=np.uint8)


def trim_texture() -> np.ndarray:
    """The paint of door frames, [8, 8, 3] uint8."""
    return np.full((8, 8, 3), (214, 208, 198), dtype=np.uint8)


def rug_texture(rng: RandomStream) -> np.ndarray:
    """A rug with a border, stretched once over its floor, [H, W, 3] uint8."""
    hue = rng.unit()
    image = _finish(_colour(hue, 0.22, 0.55), _noise(rng, 0.15))
    image[2:-2, 2:-2] = _finish(_colour(hue, 0.14, 0.78), _noise(rng, 0.15))[2:-2, 2:-2]
    for step in range(4, 12, 4):
        image[step : step + 1, step:-step] = image[-step - 1 : -step, step:-step] = image[0, 0]
        image[step:-step, step : step + 1] = image[step:-step, -step - 1 : -step] = image[0, 0]
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
    image = _finish(
        _colour(0.08, 0.12 + 0.2 * rng.unit(), 0.5 + 0.3 * rng.unit()), _noise(rng, 0.04)
    )
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


WET = ("bathroom", "kitchen")


class _Stage:
    """Collects the quads of a house by texture."""

    def __init__(self) -> None:
        self._parts: dict[bytes, TexturedMesh] = {}

    def quad(
        self, texture: np.ndarray, origin: Point, u: Point, v: Point, stretch: bool = False
    ) -> None:
        """Add the parallelogram origin, +u, +u+v, +v; its face looks along u x v.

        The texture repeats every ``TILE`` metres, or is stretched once over the quad.
        """
        part = self._parts.setdefault(texture.tobytes(), TexturedMesh(Mesh(), [], texture))
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

    def wall(self, face: _WallFace, panels: list[_Panel], texture: np.ndarray) -> None:
        """A wall's face with its panels, which do not overlap along the wall."""
        (x, z), (dx, dz) = face.start, face.along

        def quad(
            image: np.ndarray, a: float, b: float, low: float, high: float, fit: bool = False
        ) -> None:
            if b - a > 1e-6 and high - low > 1e-6:
                origin, u = (x + dx * a, low, z + dz * a), (dx * (b - a), 0.0, dz * (b - a))
                self.quad(image, origin, u, (0.0, high - low, 0.0), fit)

        here = 0.0
        spans = [(*face.interval(panel), panel) for panel in panels]
        for a, b, panel in sorted(spans, key=lambda span: span[:2]):
            quad(texture, here, a, 0.0, CEILING)
            quad(texture, a, b, 0.0, panel.bottom)
            quad(texture, a, b, panel.top, CEILING)
            if panel.texture is not None:
                quad(panel.texture, a, b, panel.bottom, panel.top, fit=True)
            here = b
        quad(texture, here, face.length, 0.0, CEILING)

    def threshold(self, door: Door) -> None:
        """Floor, jambs and lintel inside a wall."""
        t, trim, up = door.threshold, trim_texture(), (0.0, DOOR_HEIGHT, 0.0)
        self.floor(t, trim)
        self.ceiling(t, DOOR_HEIGHT, trim)
        if door.along_x:
            self.quad(trim, (t.x0, 0.0, t.z0), (t.width, 0.0, 0.0), up)
            self.quad(trim, (t.x1, 0.0, t.z1), (-t.width, 0.0, 0.0), up)
        else:
            self.quad(trim, (t.x0, 0.0, t.z1), (0.0, 0.0, -t.depth), up)
            self.quad(trim, (t.x1, 0.0, t.z0), (0.0, 0.0, t.depth), up)

    def parts(self) -> list[TexturedMesh]:
        """The primitives of the stage."""
        return list(self._parts.values())


def _add(a: Point, b: Point) -> Point:
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


@dataclass(frozen=True)
class _Panel:
    """A rectangle cut out of a wall's face, from ``first`` to ``last`` in world X or Z (m);
    without a texture it is an opening."""

    first: float
    last: float
    bottom: float
    top: float
    texture: np.ndarray | None = None


@dataclass(frozen=True)
class _WallFace:
    """One wall face of a room: ``start`` is its left end seen from inside, ``along`` a unit."""

    start: tuple[float, float]
    along: tuple[int, int]
    length: float

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


def _wall_faces(r: Rect) -> dict[str, _WallFace]:
    """A room's four wall faces: ``-z`` is the wall at the lowest z, and so on."""
    return {
        "-z": _WallFace((r.x0, r.z0), (1, 0), r.width),
        "+z": _WallFace((r.x1, r.z1), (-1, 0), r.width),
        "-x": _WallFace((r.x0, r.z1), (0, -1), r.depth),
        "+x": _WallFace((r.x1, r.z0), (0, 1), r.depth),
    }


def _behind_walls(f: Rect) -> dict[str, Rect]:
    """What lies behind each wall of a room, two walls deep."""
    deep = 2 * WALL
    return {
        "-z": Rect(f.x0, f.z0 - deep, f.x1, f.z0),
        "+z": Rect(f.x0, f.z1, f.x1, f.z1 + deep),
        "-x": Rect(f.x0 - deep, f.z0, f.x0, f.z1),
        "+x": Rect(f.x1, f.z0, f.x1 + deep, f.z1),
    }


def _openings(plan: Plan, room: Room) -> dict[str, list[_Panel]]:
    """The doors in each of the room's walls."""
    found: dict[str, list[_Panel]] = {}
    for side, behind in _behind_walls(room.floor).items():
        here = [d for d in plan.doors if d.along_x == (side[1] == "x")]
        thresholds = [d.threshold for d in here if behind.contains(d.threshold)]
        spans = [(t.z0, t.z1) if side[1] == "x" else (t.x0, t.x1) for t in thresholds]
        found[side] = [_Panel(*span, 0.0, DOOR_HEIGHT) for span in spans]
    return found


def _outer_sides(plan: Plan, room: Room) -> list[str]:
    """The room's walls with nothing behind them."""
    others = [other.floor for other in plan.rooms if other is not room]
    sides = _behind_walls(room.floor).items()
    return [side for side, behind in sides if not any(behind.overlaps(o) for o in others)]


def _decorate(rng: RandomStream, plan: Plan, room: Room, walls: dict[str, list[_Panel]]) -> None:
    """Hang a window into some outer walls and pictures on some others, away from the doors."""
    outer = _outer_sides(plan, room)
    for side, face in _wall_faces(room.floor).items():
        if walls[side] or face.length < 1.9:
            continue
        window = side in outer and rng.chance(0.7) and room.kind != "corridor"
        width = rng.uniform(1.0, 1.7) if window else rng.uniform(0.5, 0.9)
        first = round(face.low + rng.uniform(0.1, face.length - width - 0.1), 2)
        if window:
            walls[side].append(_Panel(first, first + width, 0.9, 2.1, window_texture(rng)))
        elif rng.chance(0.6):
            walls[side].append(_Panel(first, first + width, 1.4, 1.95, picture_texture(rng)))


def _front_door(rng: RandomStream, plan: Plan, walls: dict[str, list[_Panel]]) -> None:
    """A closed door out of the first room, in an outer wall where there is space."""
    room = plan.rooms[0]
    for side in rng.shuffled(_outer_sides(plan, room)):
        face = _wall_faces(room.floor)[side]
        if not walls[side] and face.length > 1.2:
            first = round(face.low + rng.uniform(0.1, face.length - 1.05), 2)
            walls[side].append(_Panel(first, first + 0.95, 0.0, 2.0, door_texture(rng)))
            return


def _rug(rng: RandomStream, room: Room) -> Rect | None:
    """The floor of a rug in the middle of some rooms."""
    f = room.floor
    if room.kind in (*WET, "corridor") or not rng.chance(0.7):
        return None
    w, d = round(f.width * rng.uniform(0.35, 0.5), 2), round(f.depth * rng.uniform(0.3, 0.5), 2)
    x, z = round(f.centre[0] - w / 2, 2), round(f.centre[1] - d / 2, 2)
    return Rect(x, z, round(x + w, 2), round(z + d, 2))


def stage_parts(rng: RandomStream, plan: Plan) -> list[TexturedMesh]:
    """The textured primitives of a house's stage."""
    stage = _Stage()
    for number, room in enumerate(plan.rooms):
        wet, f = room.kind in WET, room.floor
        floor, wall = floor_texture(rng, wet), wall_texture(rng, wet)
        rug = _rug(rng, room)
        if rug is None:
            stage.floor(f, floor)
        else:
            stage.floor(rug, rug_texture(rng), stretch=True)
            for strip in (
                Rect(f.x0, f.z0, f.x1, rug.z0),
                Rect(f.x0, rug.z1, f.x1, f.z1),
                Rect(f.x0, rug.z0, rug.x0, rug.z1),
                Rect(rug.x1, rug.z0, f.x1, rug.z1),
            ):
                stage.floor(strip, floor)
        stage.ceiling(f, CEILING, ceiling_texture())
        walls = _openings(plan, room)
        if number == 0:
            _front_door(rng, plan, walls)
        _decorate(rng, plan, room, walls)
        for side, face in _wall_faces(f).items():
            stage.wall(face, walls[side], wall)
    for door in plan.doors:
        stage.threshold(door)
    return stage.parts()
