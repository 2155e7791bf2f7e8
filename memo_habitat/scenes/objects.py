"""The small objects to search for: one shape and colour pattern per category.

At 64x64 pixels and 90 degrees of view, an object of 0.3 m at 2 m is about five pixels wide, so
colours carry most of the difference: saturated, and in bands of at least a third of the height.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memo_habitat.scenes.mesh import Band, Colour, Mesh, Point

RED, ORANGE, YELLOW, LIME = (230, 20, 25), (255, 120, 0), (255, 220, 0), (150, 255, 20)
GREEN, CYAN, BLUE, PURPLE = (0, 150, 50), (0, 220, 225), (25, 55, 240), (125, 30, 200)
MAGENTA, PINK, BLACK = (255, 0, 170), (255, 140, 190), (15, 15, 18)


@dataclass(frozen=True)
class SmallObject:
    """A category of small objects; its mesh is centred on the origin."""

    category: str
    mesh: Mesh

    @property
    def half(self) -> Point:
        """Half of the extents of the bounding box (x, y, z), m."""
        return self.mesh.bounds()[1]


def _object(
    category: str,
    profile: Sequence[Band] = (),
    boxes: Sequence[tuple[Point, Point, Colour]] = (),
    ball: tuple[Point, float, Colour, int] | None = None,
) -> SmallObject:
    """A turned profile, with boxes (low, high, colour) and a ball (see `Mesh.sphere`) added."""
    mesh = Mesh()
    if profile:
        mesh.revolve(profile)
    if ball:
        mesh.sphere(*ball)
    for box in boxes:
        mesh.box(*box)
    return SmallObject(category, mesh.centred()[0])


def _sorted(objects: Sequence[SmallObject]) -> dict[str, SmallObject]:
    return {shape.category: shape for shape in sorted(objects, key=lambda shape: shape.category)}


SMALL_OBJECTS = _sorted([
    _object("black_kettle",
        [(0.16, 0.0, BLACK), (0.17, 0.1, BLACK), (0.1, 0.24, BLACK), (0.0, 0.27, BLACK)],
        [((-0.025, 0.25, -0.025), (0.025, 0.32, 0.025), BLACK),
         ((0.13, 0.1, -0.03), (0.22, 0.2, 0.03), BLACK)]),
    _object("black_yellow_barrel",
        [(0.15, 0.0, BLACK), (0.16, 0.12, YELLOW), (0.16, 0.24, BLACK), (0.15, 0.36, BLACK)]),
    _object("blue_box", boxes=[((-0.15, 0, -0.15), (0.15, 0.28, 0.15), BLUE)]),
    _object("blue_yellow_blocks", boxes=[
        ((-0.14, 0.0, -0.14), (0.14, 0.19, 0.14), BLUE),
        ((-0.13, 0.19, -0.13), (0.13, 0.37, 0.13), YELLOW)]),
    _object("cyan_magenta_hourglass",
        [(0.16, 0.0, CYAN), (0.16, 0.04, CYAN), (0.05, 0.18, MAGENTA), (0.16, 0.32, MAGENTA),
         (0.16, 0.36, MAGENTA)]),
    _object("cyan_mug",
        [(0.14, 0.0, CYAN), (0.14, 0.3, CYAN), (0.0, 0.27, CYAN)],
        [((0.13, 0.06, -0.03), (0.22, 0.1, 0.03), CYAN),
         ((0.13, 0.2, -0.03), (0.22, 0.24, 0.03), CYAN),
         ((0.18, 0.1, -0.03), (0.22, 0.2, 0.03), CYAN)]),
    _object("cyan_red_mushroom",
        [(0.09, 0.0, CYAN), (0.09, 0.19, CYAN), (0.18, 0.19, RED), (0.15, 0.31, RED),
         (0.0, 0.36, RED)]),
    _object("green_bottle",
        [(0.14, 0.0, GREEN), (0.14, 0.23, GREEN), (0.06, 0.3, GREEN), (0.06, 0.4, GREEN)]),
    _object("green_red_gift", boxes=[
        ((-0.15, 0.0, -0.15), (0.15, 0.28, 0.15), GREEN),
        ((-0.055, 0.0, -0.155), (0.055, 0.285, 0.155), RED),
        ((-0.155, 0.0, -0.055), (0.155, 0.285, 0.055), RED),
        ((-0.08, 0.285, -0.04), (0.08, 0.36, 0.04), RED)]),
    _object("lime_pear",
        [(0.1, 0.0, LIME), (0.18, 0.09, LIME), (0.16, 0.19, LIME), (0.09, 0.29, LIME),
         (0.0, 0.36, LIME)]),
    _object("magenta_lampshade",
        [(0.1, 0.0, MAGENTA), (0.1, 0.03, MAGENTA), (0.03, 0.04, MAGENTA), (0.03, 0.12, MAGENTA),
         (0.18, 0.12, MAGENTA), (0.09, 0.36, MAGENTA)]),
    _object("orange_blue_rocket",
        [(0.12, 0.0, BLUE), (0.13, 0.24, ORANGE), (0.0, 0.4, ORANGE)],
        [((-0.17, 0.0, -0.025), (0.17, 0.12, 0.025), ORANGE),
         ((-0.025, 0.0, -0.17), (0.025, 0.12, 0.17), ORANGE)]),
    _object("orange_cone",
        [(0.17, 0.0, ORANGE), (0.17, 0.04, ORANGE), (0.13, 0.04, ORANGE), (0.03, 0.4, ORANGE)]),
    _object("pink_pig", boxes=[
        *(((x - 0.03, 0, z - 0.03), (x + 0.03, 0.1, z + 0.03), PINK)
          for x in (-0.07, 0.07) for z in (-0.1, 0.08)),
        ((-0.13, 0.08, -0.17), (0.13, 0.3, 0.12), PINK),
        ((-0.08, 0.14, 0.12), (0.08, 0.28, 0.2), PINK)]),
    _object("purple_green_cactus",
        [(0.11, 0.0, PURPLE), (0.15, 0.17, PURPLE), (0.1, 0.17, LIME), (0.1, 0.33, LIME),
         (0.0, 0.39, LIME)]),
    _object("purple_vase",
        [(0.08, 0.0, PURPLE), (0.15, 0.14, PURPLE), (0.07, 0.27, PURPLE), (0.12, 0.35, PURPLE)]),
    _object("red_ball", ball=((0, 0, 0), 0.17, RED, 12)),
    _object("red_blue_drum",
        [(0.15, 0.0, RED), (0.15, 0.11, BLUE), (0.15, 0.22, RED), (0.15, 0.33, RED)]),
    _object("yellow_duck",
        [(0.1, 0.0, YELLOW), (0.18, 0.07, YELLOW), (0.16, 0.18, YELLOW), (0, 0.21, YELLOW)],
        [((-0.05, 0.23, 0.12), (0.05, 0.28, 0.2), ORANGE)],
        ((0.0, 0.28, 0.05), 0.11, YELLOW, 8)),
    _object("yellow_green_pineapple",
        [(0.09, 0.0, YELLOW), (0.14, 0.08, YELLOW), (0.11, 0.22, YELLOW), (0.04, 0.23, GREEN),
         (0.12, 0.38, GREEN), (0.0, 0.33, GREEN)]),
])  # fmt: skip
"""The 20 categories of small homes, in alphabetical order."""

# Large homes have more: profiles (radius and height in m, which of two colours), each in four pairs
# of colours.
_PROFILES: dict[str, tuple[tuple[float, float, int], ...]] = {
    "bell": ((0.17, 0.0, 0), (0.15, 0.05, 0), (0.1, 0.24, 0), (0.03, 0.3, 1), (0.05, 0.36, 1)),
    "goblet": ((0.12, 0.0, 1), (0.03, 0.04, 1), (0.03, 0.18, 0), (0.15, 0.24, 0), (0.16, 0.38, 0)),
    "lantern": ((0.14, 0.0, 1), (0.14, 0.05, 1), (0.11, 0.05, 0), (0.11, 0.28, 0), (0.15, 0.29, 1),
                (0.0, 0.4, 1)),
    "spool": ((0.17, 0.0, 0), (0.17, 0.06, 0), (0.09, 0.07, 1), (0.09, 0.25, 1), (0.17, 0.26, 0),
              (0.17, 0.32, 0)),
    "tower": ((0.17, 0.0, 0), (0.17, 0.12, 0), (0.12, 0.13, 1), (0.12, 0.25, 1), (0.07, 0.26, 0),
              (0.07, 0.39, 0)),
}  # fmt: skip
_PAIRS = {
    "red_cyan": (RED, CYAN),
    "yellow_purple": (YELLOW, PURPLE),
    "blue_lime": (BLUE, LIME),
    "pink_black": (PINK, BLACK),
}
ALL_OBJECTS = _sorted(
    [*SMALL_OBJECTS.values()]
    + [
        _object(f"{pair}_{name}", [(radius, height, colours[i]) for radius, height, i in profile])
        for name, profile in _PROFILES.items()
        for pair, colours in _PAIRS.items()
    ]
)
"""All 40 categories, in alphabetical order."""
