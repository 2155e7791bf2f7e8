"""The shell of a house as a mesh: floors, walls with openings, ceilings, windows and pictures.

Faces look into the rooms only. A ceiling is a face that looks down, so it is no floor for an agent
above it, and a renderer that hides back faces looks into the house from above.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from memo_habitat.scenes import textures
from memo_habitat.scenes.floor_plan import CEILING, DOOR_HEIGHT, WALL, Draw, Plan, Rect, Room
from memo_habitat.scenes.mesh import Mesh, Part, Point

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
class _Skin:
    """Quads that share one texture."""

    texture: np.ndarray
    mesh: Mesh = field(default_factory=Mesh)
    uv: list[tuple[float, float]] = field(default_factory=list)

    def quad(self, origin: Point, u: Point, v: Point, stretch: bool = False) -> None:
        """Add the parallelogram origin, +u, +u+v, +v; its face looks along u x v.

        The texture repeats every ``textures.TILE`` metres, or is stretched once over the quad.
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
            w, h = w / textures.TILE, h / textures.TILE
        else:
            w, h = 1.0, 1.0
        # Row 0 of an image is its top, and glTF's v runs downwards from there.
        self.uv += [(0.0, h), (w, h), (w, 0.0), (0.0, 0.0)]


def _add(a: Point, b: Point) -> Point:
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


class _Shell:
    """Collects the quads of a house by texture."""

    def __init__(self) -> None:
        self.skins: dict[bytes, _Skin] = {}

    def skin(self, texture: np.ndarray) -> _Skin:
        """The skin with this texture."""
        return self.skins.setdefault(texture.tobytes(), _Skin(texture))

    def parts(self) -> list[Part]:
        """The primitives of the stage."""
        return [Part(skin.mesh, skin.uv, skin.texture) for skin in self.skins.values()]


def _floor(shell: _Shell, rect: Rect, texture: np.ndarray, stretch: bool = False) -> None:
    shell.skin(texture).quad(
        (rect.x0, 0.0, rect.z1), (rect.width, 0.0, 0.0), (0.0, 0.0, -rect.depth), stretch
    )


def _ceiling(shell: _Shell, rect: Rect, height: float, texture: np.ndarray) -> None:
    shell.skin(texture).quad(
        (rect.x0, height, rect.z0), (rect.width, 0.0, 0.0), (0.0, 0.0, rect.depth)
    )


@dataclass(frozen=True)
class _Face:
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


def room_faces(floor: Rect) -> dict[str, _Face]:
    """The four wall faces: ``-z`` is the wall at the lowest z, and so on."""
    r = floor
    return {
        "-z": _Face((r.x0, r.z0), (1, 0), r.width),
        "+z": _Face((r.x1, r.z1), (-1, 0), r.width),
        "-x": _Face((r.x0, r.z1), (0, -1), r.depth),
        "+x": _Face((r.x1, r.z0), (0, 1), r.depth),
    }


def _wall(shell: _Shell, face: _Face, panels: list[Panel], texture: np.ndarray) -> None:
    """The wall's face with its panels; panels do not overlap along the wall."""

    def quad(a: float, b: float, low: float, high: float, image: np.ndarray, fit: bool) -> None:
        if b - a > 1e-6 and high - low > 1e-6:
            (x, z), (dx, dz) = face.start, face.along
            shell.skin(image).quad(
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


def _decorate(draw: Draw, plan: Plan, room: Room, walls: dict[str, list[Panel]]) -> None:
    """Hang a window into some outer walls and pictures on some others, away from the doors."""
    outer = _outer_sides(plan, room)
    for side, face in room_faces(room.floor).items():
        axis = 0 if face.along[0] else 1
        low = min(face.start[axis], face.start[axis] + face.along[axis] * face.length)
        if walls[side] or face.length < 1.9:
            continue
        window = side in outer and draw.chance(0.7) and room.kind != "corridor"
        width = draw.uniform(1.0, 1.7) if window else draw.uniform(0.5, 0.9)
        first = round(low + draw.uniform(0.1, face.length - width - 0.1), 2)
        if window:
            image = textures.window_texture(draw)
            walls[side].append(Panel(first, first + width, 0.9, 2.1, image))
        elif draw.chance(0.6):
            image = textures.picture_texture(draw)
            walls[side].append(Panel(first, first + width, 1.4, 1.95, image))


def _front_door(draw: Draw, plan: Plan, walls: dict[str, list[Panel]]) -> None:
    """A closed door out of the first room, in an outer wall where there is space."""
    room = plan.rooms[0]
    for side in draw.shuffled(_outer_sides(plan, room)):
        face = room_faces(room.floor)[side]
        if not walls[side] and face.length > 1.2:
            axis = 0 if face.along[0] else 1
            low = min(face.start[axis], face.start[axis] + face.along[axis] * face.length)
            first = round(low + draw.uniform(0.1, face.length - 1.05), 2)
            walls[side].append(Panel(first, first + 0.95, 0.0, 2.0, textures.door_texture(draw)))
            return


def _threshold(shell: _Shell, plan: Plan, number: int) -> None:
    """Floor, jambs and lintel inside a wall."""
    door, trim = plan.doors[number], textures.trim_texture()
    t = door.threshold
    _floor(shell, t, trim)
    _ceiling(shell, t, DOOR_HEIGHT, trim)
    up = (0.0, DOOR_HEIGHT, 0.0)
    skin = shell.skin(trim)
    if door.along_x:
        skin.quad((t.x0, 0.0, t.z0), (t.width, 0.0, 0.0), up)
        skin.quad((t.x1, 0.0, t.z1), (-t.width, 0.0, 0.0), up)
    else:
        skin.quad((t.x0, 0.0, t.z1), (0.0, 0.0, -t.depth), up)
        skin.quad((t.x1, 0.0, t.z0), (0.0, 0.0, t.depth), up)


def _rug(draw: Draw, room: Room) -> Rect | None:
    """The floor of a rug in the middle of some rooms."""
    f = room.floor
    if room.kind in (*WET, "corridor") or not draw.chance(0.7):
        return None
    w, d = round(f.width * draw.uniform(0.35, 0.5), 2), round(f.depth * draw.uniform(0.3, 0.5), 2)
    x, z = round(f.centre[0] - w / 2, 2), round(f.centre[1] - d / 2, 2)
    return Rect(x, z, round(x + w, 2), round(z + d, 2))


def stage_parts(draw: Draw, plan: Plan) -> list[Part]:
    """The textured primitives of a house's shell."""
    shell = _Shell()
    for number, room in enumerate(plan.rooms):
        wet, f = room.kind in WET, room.floor
        floor, wall = textures.floor_texture(draw, wet), textures.wall_texture(draw, wet)
        rug = _rug(draw, room)
        if rug is None:
            _floor(shell, f, floor)
        else:
            _floor(shell, rug, textures.rug_texture(draw), stretch=True)
            for strip in (
                Rect(f.x0, f.z0, f.x1, rug.z0),
                Rect(f.x0, rug.z1, f.x1, f.z1),
                Rect(f.x0, rug.z0, rug.x0, rug.z1),
                Rect(rug.x1, rug.z0, f.x1, rug.z1),
            ):
                _floor(shell, strip, floor)
        _ceiling(shell, f, CEILING, textures.ceiling_texture())
        walls = openings(plan, room)
        if number == 0:
            _front_door(draw, plan, walls)
        _decorate(draw, plan, room, walls)
        for side, face in room_faces(f).items():
            _wall(shell, face, walls[side], wall)
    for number in range(len(plan.doors)):
        _threshold(shell, plan, number)
    return shell.parts()
