"""The shell of a house as a mesh: floors, walls with openings, ceilings, windows and pictures.

Faces look into the rooms only. A ceiling is a face that looks down, so it is no floor for an agent
above it, and a renderer that hides back faces looks into the house from above.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass, field

import numpy as np

from memo_habitat.scenes.floor_plan import (
    CEILING,
    DOOR_HEIGHT,
    WALL,
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


@dataclass(frozen=True)
class Panel:
    """A rectangle cut out of a wall's face; without a texture it is an opening.

    Attributes:
        first, last: interval along the wall, m, in world X or Z.
    """

    first: float
    last: float
    bottom: float
    top: float
    texture: np.ndarray | None = None


@dataclass
class _TexturedQuads:
    """Quads that share one texture."""

    texture: np.ndarray
    mesh: Mesh = field(default_factory=Mesh)
    uv: list[tuple[float, float]] = field(default_factory=list)

    def quad(self, origin: Point, u: Point, v: Point, stretch: bool = False) -> None:
        """Add the parallelogram origin, +u, +u+v, +v; its face looks along u x v.

        The texture repeats every ``TILE`` metres, or is stretched once over the quad.
        """
        corners = [
            origin,
            _add(origin, u),
            _add(_add(origin, u), v),
            _add(origin, v),
        ]
        self.mesh.polygon(corners, (255, 255, 255))
        w, h = sum(abs(c) for c in u), sum(abs(c) for c in v)
        if not stretch:
            w, h = w / TILE, h / TILE
        else:
            w, h = 1.0, 1.0
        # Row 0 of an image is its top, and glTF's v runs downwards from there.
        self.uv += [(0.0, h), (w, h), (w, 0.0), (0.0, 0.0)]


def _add(a: Point, b: Point) -> Point:
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


class _StageBuilder:
    """Collects the quads of a house by texture."""

    def __init__(self) -> None:
        self.by_texture: dict[bytes, _TexturedQuads] = {}

    def quads(self, texture: np.ndarray) -> _TexturedQuads:
        """The skin with this texture."""
        return self.by_texture.setdefault(texture.tobytes(), _TexturedQuads(texture))

    def parts(self) -> list[TexturedMesh]:
        """The primitives of the stage."""
        return [TexturedMesh(skin.mesh, skin.uv, skin.texture) for skin in self.by_texture.values()]


def _floor(stage: _StageBuilder, rect: Rect, texture: np.ndarray, stretch: bool = False) -> None:
    stage.quads(texture).quad(
        (rect.x0, 0.0, rect.z1), (rect.width, 0.0, 0.0), (0.0, 0.0, -rect.depth), stretch
    )


def _ceiling(stage: _StageBuilder, rect: Rect, height: float, texture: np.ndarray) -> None:
    stage.quads(texture).quad(
        (rect.x0, height, rect.z0), (rect.width, 0.0, 0.0), (0.0, 0.0, rect.depth)
    )


@dataclass(frozen=True)
class _WallFace:
    """One wall face of a room: ``start`` is its left end seen from inside, ``along`` a unit."""

    start: tuple[float, float]
    along: tuple[int, int]
    length: float

    def interval(self, panel: Panel) -> tuple[float, float]:
        """The panel's interval measured from ``start``."""
        axis = 0 if self.along[0] else 1
        ends = [
            (value - self.start[axis]) * self.along[axis] for value in (panel.first, panel.last)
        ]
        return min(ends), max(ends)


def room_faces(floor: Rect) -> dict[str, _WallFace]:
    """The four wall faces: ``-z`` is the wall at the lowest z, and so on."""
    r = floor
    return {
        "-z": _WallFace((r.x0, r.z0), (1, 0), r.width),
        "+z": _WallFace((r.x1, r.z1), (-1, 0), r.width),
        "-x": _WallFace((r.x0, r.z1), (0, -1), r.depth),
        "+x": _WallFace((r.x1, r.z0), (0, 1), r.depth),
    }


def _wall(stage: _StageBuilder, face: _WallFace, panels: list[Panel], texture: np.ndarray) -> None:
    """The wall's face with its panels; panels do not overlap along the wall."""

    def quad(a: float, b: float, low: float, high: float, image: np.ndarray, fit: bool) -> None:
        if b - a > 1e-6 and high - low > 1e-6:
            (x, z), (dx, dz) = face.start, face.along
            stage.quads(image).quad(
                (x + dx * a, low, z + dz * a),
                (dx * (b - a), 0.0, dz * (b - a)),
                (0.0, high - low, 0.0),
                fit,
            )

    here = 0.0
    for (a, b), panel in sorted(((face.interval(p), p) for p in panels), key=lambda item: item[0]):
        quad(here, a, 0.0, CEILING, texture, False)
        quad(a, b, 0.0, panel.bottom, texture, False)
        quad(a, b, panel.top, CEILING, texture, False)
        if panel.texture is not None:
            quad(a, b, panel.bottom, panel.top, panel.texture, True)
        here = b
    quad(here, face.length, 0.0, CEILING, texture, False)


def openings(plan: Plan, room: Room) -> dict[str, list[Panel]]:
    """The doors in each of the room's walls."""
    found: dict[str, list[Panel]] = {side: [] for side in room_faces(room.floor)}
    f = room.floor
    for door in plan.doors:
        t = door.threshold
        if door.along_x and f.z0 <= t.z0 and t.z1 <= f.z1:
            for side, gap in (("-x", abs(t.x1 - f.x0)), ("+x", abs(t.x0 - f.x1))):
                if gap < 1e-3:
                    found[side].append(Panel(t.z0, t.z1, 0.0, DOOR_HEIGHT))
        if not door.along_x and f.x0 <= t.x0 and t.x1 <= f.x1:
            for side, gap in (("-z", abs(t.z1 - f.z0)), ("+z", abs(t.z0 - f.z1))):
                if gap < 1e-3:
                    found[side].append(Panel(t.x0, t.x1, 0.0, DOOR_HEIGHT))
    return found


def _outer_sides(plan: Plan, room: Room) -> list[str]:
    """The room's walls with nothing behind them."""
    f = room.floor
    strips = {
        "-z": Rect(f.x0, f.z0 - 2 * WALL, f.x1, f.z0),
        "+z": Rect(f.x0, f.z1, f.x1, f.z1 + 2 * WALL),
        "-x": Rect(f.x0 - 2 * WALL, f.z0, f.x0, f.z1),
        "+x": Rect(f.x1, f.z0, f.x1 + 2 * WALL, f.z1),
    }
    others = [other.floor for other in plan.rooms if other is not room]
    return [s for s, strip in strips.items() if not any(strip.overlaps(o) for o in others)]


def _decorate(rng: RandomStream, plan: Plan, room: Room, walls: dict[str, list[Panel]]) -> None:
    """Hang a window into some outer walls and pictures on some others, away from the doors."""
    outer = _outer_sides(plan, room)
    for side, face in room_faces(room.floor).items():
        axis = 0 if face.along[0] else 1
        low = min(face.start[axis], face.start[axis] + face.along[axis] * face.length)
        if walls[side] or face.length < 1.9:
            continue
        window = side in outer and rng.chance(0.7) and room.kind != "corridor"
        width = rng.uniform(1.0, 1.7) if window else rng.uniform(0.5, 0.9)
        first = round(low + rng.uniform(0.1, face.length - width - 0.1), 2)
        if window:
            image = window_texture(rng)
            walls[side].append(Panel(first, first + width, 0.9, 2.1, image))
        elif rng.chance(0.6):
            image = picture_texture(rng)
            walls[side].append(Panel(first, first + width, 1.4, 1.95, image))


def _front_door(rng: RandomStream, plan: Plan, walls: dict[str, list[Panel]]) -> None:
    """A closed door out of the first room, in an outer wall where there is space."""
    room = plan.rooms[0]
    for side in rng.shuffled(_outer_sides(plan, room)):
        face = room_faces(room.floor)[side]
        if not walls[side] and face.length > 1.2:
            axis = 0 if face.along[0] else 1
            low = min(face.start[axis], face.start[axis] + face.along[axis] * face.length)
            first = round(low + rng.uniform(0.1, face.length - 1.05), 2)
            walls[side].append(Panel(first, first + 0.95, 0.0, 2.0, door_texture(rng)))
            return


def _threshold(stage: _StageBuilder, plan: Plan, number: int) -> None:
    """Floor, jambs and lintel inside a wall."""
    door, trim = plan.doors[number], trim_texture()
    t = door.threshold
    _floor(stage, t, trim)
    _ceiling(stage, t, DOOR_HEIGHT, trim)
    up = (0.0, DOOR_HEIGHT, 0.0)
    skin = stage.quads(trim)
    if door.along_x:
        skin.quad((t.x0, 0.0, t.z0), (t.width, 0.0, 0.0), up)
        skin.quad((t.x1, 0.0, t.z1), (-t.width, 0.0, 0.0), up)
    else:
        skin.quad((t.x0, 0.0, t.z1), (0.0, 0.0, -t.depth), up)
        skin.quad((t.x1, 0.0, t.z0), (0.0, 0.0, t.depth), up)


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
    stage = _StageBuilder()
    for number, room in enumerate(plan.rooms):
        wet, f = room.kind in WET, room.floor
        floor, wall = floor_texture(rng, wet), wall_texture(rng, wet)
        rug = _rug(rng, room)
        if rug is None:
            _floor(stage, f, floor)
        else:
            _floor(stage, rug, rug_texture(rng), stretch=True)
            for strip in (
                Rect(f.x0, f.z0, f.x1, rug.z0),
                Rect(f.x0, rug.z1, f.x1, f.z1),
                Rect(f.x0, rug.z0, rug.x0, rug.z1),
                Rect(rug.x1, rug.z0, f.x1, rug.z1),
            ):
                _floor(stage, strip, floor)
        _ceiling(stage, f, CEILING, ceiling_texture())
        walls = openings(plan, room)
        if number == 0:
            _front_door(rng, plan, walls)
        _decorate(rng, plan, room, walls)
        for side, face in room_faces(f).items():
            _wall(stage, face, walls[side], wall)
    for number in range(len(plan.doors)):
        _threshold(stage, plan, number)
    return stage.parts()
