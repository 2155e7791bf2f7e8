"""The catalogue of furniture: shapes made of boxes and turned profiles, shared between houses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from memo_habitat.scenes.mesh import Colour, Mesh, Point

OAK, WALNUT, PINE = (158, 132, 102), (124, 102, 84), (186, 166, 138)
WHITE, GREY, DARK, STEEL = (222, 220, 214), (150, 150, 152), (98, 96, 98), (170, 174, 180)
LINEN, SLATE, SAGE, SAND = (206, 198, 186), (92, 104, 120), (128, 142, 122), (190, 172, 146)
ROSE, CLAY = (178, 150, 148), (148, 112, 96)

OPEN_AIR = 0.6
"""Free height above a surface with nothing over it that a small object could touch, m."""
MARGIN = 0.02
"""What a surface keeps free along its edges, m."""


@dataclass(frozen=True)
class Surface:
    """A horizontal rectangle on which small objects can rest, in the template's own frame.

    Attributes:
        low, high: corners (x, z), m.
        y: height, m.
        clear: free height above it, m.
    """

    low: tuple[float, float]
    high: tuple[float, float]
    y: float
    clear: float


@dataclass
class Template:
    """A piece of furniture standing on y = 0, its back towards -Z, its front towards +Z.

    All lengths in m; x and z are measured from the middle of the footprint.

    Attributes:
        access: depth of the floor before its front that other furniture leaves free.
    """

    name: str
    access: float = 0.6
    mesh: Mesh = field(default_factory=Mesh)
    surfaces: list[Surface] = field(default_factory=list)

    @property
    def width(self) -> float:
        """Extent along X, m."""
        low, high = self.mesh.bounds()
        return round(high[0] - low[0], 4)

    @property
    def depth(self) -> float:
        """Extent along Z, m."""
        low, high = self.mesh.bounds()
        return round(high[2] - low[2], 4)

    def box(self, x: float, y: float, z: float, size: Point, colour: Colour) -> None:
        """Add a box that stands at height y with its middle over (x, z)."""
        w, h, d = size
        self.mesh.box((x - w / 2, y, z - d / 2), (x + w / 2, y + h, z + d / 2), colour)

    def surface(
        self, w: float, d: float, y: float, x: float = 0, z: float = 0, clear: float = OPEN_AIR
    ) -> None:
        """Add a resting place on a board of w x d at height y around (x, z)."""
        low = x - w / 2 + MARGIN, z - d / 2 + MARGIN
        high = x + w / 2 - MARGIN, z + d / 2 - MARGIN
        self.surfaces.append(Surface(low, high, y, clear))

    def legs(self, w: float, d: float, h: float, thick: float, colour: Colour) -> None:
        """Add four legs under a board of w x d."""
        for sx in (-1, 1):
            for sz in (-1, 1):
                x, z = sx * (w - thick) / 2, sz * (d - thick) / 2
                self.box(x, 0, z, (thick, h, thick), colour)


def table(name: str, w: float, d: float, h: float, wood: Colour, access: float = 0.5) -> Template:
    """A board on four legs."""
    t = Template(name, access)
    t.legs(w - 0.06, d - 0.06, h - 0.04, 0.07, wood)
    t.box(0, h - 0.04, 0, (w, 0.04, d), wood)
    t.surface(w, d, h)
    return t


def round_table(name: str, radius: float, h: float, wood: Colour) -> Template:
    """A round board on one foot."""
    t = Template(name, 0.5)
    profile = [(radius * 0.6, 0.0), (radius * 0.6, 0.03), (0.05, 0.06), (0.05, h - 0.04)]
    profile += [(radius, h - 0.04), (radius, h), (0.0, h)]
    t.mesh.revolve([(r, y, wood) for r, y in profile], sides=12)
    t.surface(radius * 1.35, radius * 1.35, h)
    return t


def bed(name: str, w: float, frame: Colour, cover: Colour) -> Template:
    """A bed with head board and pillows; the head is its back."""
    t, length = Template(name, 0.5), 2.05
    t.box(0, 0, 0, (w, 0.28, length), frame)
    t.box(0, 0.28, -length / 2 + 0.04, (w, 0.6, 0.08), frame)
    t.box(0, 0.28, 0.04, (w - 0.04, 0.2, length - 0.1), cover)
    for x in (-w / 4, w / 4) if w > 1.2 else (0.0,):
        t.box(x, 0.48, -length / 2 + 0.3, (0.55, 0.1, 0.36), WHITE)
    t.surface(w, 1.3, 0.48, z=0.35)
    return t


def sofa(name: str, w: float, cloth: Colour, cushion: Colour) -> Template:
    """A sofa or, when narrow, a recliner."""
    t, d = Template(name), 0.9
    t.box(0, 0, 0, (w, 0.3, d), cloth)
    t.box(0, 0.3, -d / 2 + 0.11, (w, 0.52, 0.22), cloth)
    for side in (-1, 1):
        t.box(side * (w / 2 - 0.09), 0.3, 0.11, (0.18, 0.3, d - 0.22), cloth)
    t.box(0, 0.3, 0.11, (w - 0.37, 0.14, d - 0.24), cushion)
    t.surface(w - 0.4, d - 0.26, 0.44, z=0.11)
    return t


def chair(name: str, wood: Colour, seat: Colour) -> Template:
    """A plain chair."""
    t = Template(name, 0.3)
    t.legs(0.42, 0.42, 0.43, 0.04, wood)
    t.box(0, 0.43, 0, (0.44, 0.05, 0.44), seat)
    t.box(0, 0.48, -0.2, (0.44, 0.44, 0.04), wood)
    t.surface(0.44, 0.38, 0.48, z=0.03)
    return t


def shelf(name: str, w: float, cells: int, cell: float, wood: Colour, back: Colour) -> Template:
    """An open book case; small objects stand in its cells and, when it is low, on its top."""
    t, d, board = Template(name), 0.42, 0.03
    h = 0.08 + cells * (cell + board) + board
    for side in (-1, 1):
        t.box(side * (w - board) / 2, 0, 0, (board, h, d), wood)
    t.box(0, 0, -d / 2 + 0.01, (w - 2 * board, h, 0.02), back)
    for i in range(cells + 1):
        y = 0.08 + i * (cell + board)
        t.box(0, y, 0.01, (w - 2 * board, board, d - 0.02), wood)
        if i < cells:
            t.surface(w - 2 * board - 0.02, d - 0.02, y + board, z=0.01, clear=cell)
    if h < 1.3:
        t.surface(w, d, h)
    return t


def cabinet(name: str, size: Point, body: Colour, front: Colour, doors: int = 2) -> Template:
    """A closed cabinet, wardrobe, fridge or kitchen counter with doors and handles."""
    t = Template(name)
    w, h, d = size
    t.box(0, 0, -0.01, (w, h, d - 0.02), body)
    pitch = w / doors
    for i in range(doors):
        x = -w / 2 + (i + 0.5) * pitch
        t.box(x, 0.08, d / 2 - 0.02, (pitch - 0.03, h - 0.14, 0.02), front)
        t.box(x + pitch * 0.32, h * 0.45, d / 2 - 0.005, (0.025, 0.16, 0.01), DARK)
    if h < 1.25:
        t.surface(w, d - 0.02, h, z=-0.01)
    return t


def plant(name: str, h: float) -> Template:
    """A pot plant with dull leaves."""
    t = Template(name, 0.0)
    leaf: Colour = (88, 104, 84)
    t.mesh.revolve([(0.13, 0.0, CLAY), (0.19, 0.32, CLAY), (0.0, 0.32, CLAY)], sides=8)
    t.mesh.revolve([(0.03, 0.3, WALNUT), (0.03, 0.5, WALNUT), (0.0, 0.52, WALNUT)], sides=5)
    middle = (0.45 + h) / 2
    rows = [(0.0, 0.45), (0.22, 0.6), (0.26, middle), (0.15, h - 0.12), (0.0, h)]
    t.mesh.revolve([(r, y, leaf) for r, y in rows], sides=7)
    return t


def lamp(name: str) -> Template:
    """A standing lamp."""
    t = Template(name, 0.0)
    rows = [(0.16, 0.0, DARK), (0.16, 0.03, DARK), (0.02, 0.04, DARK), (0.02, 1.35, DARK)]
    rows += [(0.2, 1.35, LINEN), (0.13, 1.65, LINEN), (0.0, 1.65, LINEN)]
    t.mesh.revolve(rows, sides=8)
    return t


def boxes(
    name: str,
    rows: Sequence[tuple[float, float, float, Point, Colour]],
    surfaces: Sequence[tuple[float, float, float, float, float]] = (),
    access: float = 0.6,
) -> Template:
    """A piece that comes in one form: arguments of `Template.box` and of `Template.surface`."""
    t = Template(name, access)
    for row in rows:
        t.box(*row)
    for surface in surfaces:
        t.surface(*surface)
    return t


_TEMPLATES = (
    table("dining_table_a", 1.4, 0.85, 0.74, OAK),
    table("dining_table_b", 1.1, 0.8, 0.74, WHITE),
    round_table("round_table_a", 0.52, 0.74, WALNUT),
    table("coffee_table_a", 0.9, 0.55, 0.42, WALNUT, 0.4),
    table("coffee_table_b", 0.7, 0.7, 0.4, PINE, 0.4),
    table("desk_a", 1.2, 0.62, 0.74, PINE, 0.8),
    table("desk_b", 1.4, 0.66, 0.74, DARK, 0.8),
    bed("bed_a", 1.6, WALNUT, SLATE),
    bed("bed_b", 1.4, PINE, ROSE),
    bed("bed_c", 0.95, WHITE, SAGE),
    sofa("sofa_a", 2.0, SLATE, GREY),
    sofa("sofa_b", 1.7, SAND, LINEN),
    sofa("recliner_a", 0.95, SAGE, LINEN),
    sofa("recliner_b", 0.95, CLAY, SAND),
    chair("chair_a", OAK, LINEN),
    chair("chair_b", DARK, GREY),
    shelf("bookcase_a", 0.9, 4, 0.42, OAK, SAND),
    shelf("bookcase_b", 1.2, 4, 0.42, WHITE, LINEN),
    shelf("sideboard_a", 1.3, 2, 0.4, WALNUT, CLAY),
    shelf("sideboard_b", 1.0, 2, 0.4, PINE, SAND),
    cabinet("dresser_a", (1.1, 0.8, 0.46), OAK, PINE, 3),
    cabinet("dresser_b", (0.9, 0.9, 0.46), WHITE, LINEN, 2),
    cabinet("nightstand_a", (0.46, 0.5, 0.42), WALNUT, OAK, 1),
    cabinet("console_a", (1.0, 0.8, 0.38), WHITE, GREY, 2),
    cabinet("wardrobe_a", (1.3, 2.1, 0.6), PINE, LINEN, 3),
    cabinet("wardrobe_b", (1.0, 2.0, 0.58), WALNUT, OAK, 2),
    cabinet("counter_a", (1.2, 0.9, 0.6), GREY, WHITE, 3),
    cabinet("fridge_a", (0.65, 1.8, 0.65), STEEL, WHITE, 1),
    boxes("stove_a", [
        (0, 0, 0, (0.6, 0.88, 0.6), STEEL),
        (0, 0.88, -0.03, (0.56, 0.02, 0.5), DARK),
        (0, 0.2, 0.305, (0.48, 0.4, 0.01), DARK),
    ]),
    boxes("sink_a", [
        (0, 0, 0, (0.9, 0.86, 0.6), WHITE),
        (0, 0.86, 0, (0.9, 0.04, 0.6), GREY),
        (-0.2, 0.9, 0.03, (0.42, 0.01, 0.38), STEEL),
        (-0.2, 0.9, -0.24, (0.04, 0.26, 0.04), STEEL),
        (-0.2, 1.14, -0.16, (0.03, 0.03, 0.16), STEEL),
    ], [(0.4, 0.56, 0.9, 0.24, 0)]),
    boxes("television_a", [
        (0, 0.06, 0, (1.6, 0.4, 0.42), WALNUT),
        (0, 0, 0, (1.4, 0.06, 0.3), DARK),
        (0, 0.46, -0.12, (0.3, 0.06, 0.16), DARK),
        (0, 0.52, -0.12, (0.9, 0.52, 0.05), (74, 80, 88)),
    ], [(0.34, 0.4, 0.46, -0.62, 0), (0.34, 0.4, 0.46, 0.62, 0)]),
    boxes("bathtub_a", [  # with a broad rim at one end
        (0, 0, -0.345, (1.6, 0.55, 0.06), WHITE),
        (0, 0, 0.345, (1.6, 0.55, 0.06), WHITE),
        (-0.6, 0, 0, (0.4, 0.55, 0.63), WHITE),
        (0.77, 0, 0, (0.06, 0.55, 0.63), WHITE),
        (0.17, 0, 0, (1.14, 0.14, 0.63), (196, 206, 212)),
    ], [(0.4, 0.7, 0.55, -0.6, 0)]),
    boxes("toilet_a", [
        (0, 0.38, -0.24, (0.4, 0.4, 0.18), WHITE),
        (0, 0, 0.03, (0.26, 0.36, 0.5), WHITE),
        (0, 0.36, 0.05, (0.38, 0.06, 0.5), (200, 200, 198)),
    ], access=0.5),
    plant("plant_a", 1.2),
    plant("plant_b", 1.6),
    lamp("lamp_a"),
    boxes("divider_a", [  # a folding screen that blocks the view
        (-0.5, 0, 0.03, (0.48, 1.7, 0.05), LINEN),
        (0, 0, -0.03, (0.48, 1.7, 0.05), SAND),
        (0.5, 0, 0.03, (0.48, 1.7, 0.05), LINEN),
    ], access=0.5),
)  # fmt: skip

CATALOGUE: dict[str, Template] = {template.name: template for template in _TEMPLATES}
"""Every template by name; no name is part of another, since simulators match parts of names."""
