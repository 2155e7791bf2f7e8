"""The small objects to search for: one shape and colour pattern per category.

At 64x64 pixels and 90 degrees of view, an object of 0.3 m at 2 m is about five pixels wide, so
colours carry most of the difference: saturated, and in bands of at least a third of the height.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from memo_habitat.scenes.mesh import Colour, Mesh

RED, ORANGE, YELLOW, LIME = (230, 20, 25), (255, 120, 0), (255, 220, 0), (150, 255, 20)
GREEN, CYAN, BLUE, PURPLE = (0, 150, 50), (0, 220, 225), (25, 55, 240), (125, 30, 200)
MAGENTA, PINK, BLACK = (255, 0, 170), (255, 140, 190), (15, 15, 18)


@dataclass(frozen=True)
class SmallObject:
    """A category of small objects; its mesh is centred on the origin.

    Attributes:
        half: half of the extents of its bounding box (x, y, z), m.
    """

    category: str
    mesh: Mesh

    @property
    def half(self) -> tuple[float, float, float]:
        """Half of the extents of the bounding box (x, y, z), m."""
        x, y, z = self.mesh.bounds()[1]
        return x, y, z


def _revolved(*rows: tuple[float, float, Colour]) -> Callable[[Mesh], None]:
    return lambda mesh: mesh.revolve(rows)


def _ball(mesh: Mesh) -> None:
    mesh.sphere((0, 0, 0), 0.17, RED, sides=12)


def _duck(mesh: Mesh) -> None:
    mesh.revolve(
        [(0.1, 0.0, YELLOW), (0.18, 0.07, YELLOW), (0.16, 0.18, YELLOW), (0, 0.21, YELLOW)]
    )
    mesh.sphere((0.0, 0.28, 0.05), 0.11, YELLOW, sides=8)
    mesh.box((-0.05, 0.23, 0.12), (0.05, 0.28, 0.2), ORANGE)


def _mug(mesh: Mesh) -> None:
    mesh.revolve([(0.14, 0.0, CYAN), (0.14, 0.3, CYAN), (0.0, 0.27, CYAN)])
    mesh.box((0.13, 0.06, -0.03), (0.22, 0.1, 0.03), CYAN)
    mesh.box((0.13, 0.2, -0.03), (0.22, 0.24, 0.03), CYAN)
    mesh.box((0.18, 0.1, -0.03), (0.22, 0.2, 0.03), CYAN)


def _pig(mesh: Mesh) -> None:
    for x in (-0.07, 0.07):
        for z in (-0.1, 0.08):
            mesh.box((x - 0.03, 0, z - 0.03), (x + 0.03, 0.1, z + 0.03), PINK)
    mesh.box((-0.13, 0.08, -0.17), (0.13, 0.3, 0.12), PINK)
    mesh.box((-0.08, 0.14, 0.12), (0.08, 0.28, 0.2), PINK)


def _blocks(mesh: Mesh) -> None:
    mesh.box((-0.14, 0.0, -0.14), (0.14, 0.19, 0.14), BLUE)
    mesh.box((-0.13, 0.19, -0.13), (0.13, 0.37, 0.13), YELLOW)


def _gift(mesh: Mesh) -> None:
    mesh.box((-0.15, 0.0, -0.15), (0.15, 0.28, 0.15), GREEN)
    for a, b in ((0.055, 0.155), (0.155, 0.055)):
        mesh.box((-a, 0.0, -b), (a, 0.285, b), RED)
    mesh.box((-0.08, 0.285, -0.04), (0.08, 0.36, 0.04), RED)


def _rocket(mesh: Mesh) -> None:
    mesh.revolve(
        [(0.12, 0.0, BLUE), (0.13, 0.24, ORANGE), (0.0, 0.4, ORANGE)],
    )
    mesh.box((-0.17, 0.0, -0.025), (0.17, 0.12, 0.025), ORANGE)
    mesh.box((-0.025, 0.0, -0.17), (0.025, 0.12, 0.17), ORANGE)


def _kettle(mesh: Mesh) -> None:
    mesh.revolve([(0.16, 0.0, BLACK), (0.17, 0.1, BLACK), (0.1, 0.24, BLACK), (0.0, 0.27, BLACK)])
    mesh.box((-0.025, 0.25, -0.025), (0.025, 0.32, 0.025), BLACK)
    mesh.box((0.13, 0.1, -0.03), (0.22, 0.2, 0.03), BLACK)


_SHAPES: Mapping[str, Callable[[Mesh], None]] = {
    "black_kettle": _kettle,
    "black_yellow_barrel": _revolved(
        (0.15, 0.0, BLACK),
        (0.16, 0.12, YELLOW),
        (0.16, 0.24, BLACK),
        (0.15, 0.36, BLACK),
    ),
    "blue_box": lambda mesh: mesh.box((-0.15, 0, -0.15), (0.15, 0.28, 0.15), BLUE),
    "blue_yellow_blocks": _blocks,
    "cyan_magenta_hourglass": _revolved(
        (0.16, 0.0, CYAN), (0.16, 0.04, CYAN), (0.05, 0.18, MAGENTA), (0.16, 0.32, MAGENTA),
        (0.16, 0.36, MAGENTA),
    ),
    "cyan_mug": _mug,
    "cyan_red_mushroom": _revolved(
        (0.09, 0.0, CYAN), (0.09, 0.19, CYAN), (0.18, 0.19, RED), (0.15, 0.31, RED),
        (0.0, 0.36, RED),
    ),
    "green_bottle": _revolved(
        (0.14, 0.0, GREEN), (0.14, 0.23, GREEN), (0.06, 0.3, GREEN), (0.06, 0.4, GREEN)
    ),
    "green_red_gift": _gift,
    "lime_pear": _revolved(
        (0.1, 0.0, LIME), (0.18, 0.09, LIME), (0.16, 0.19, LIME), (0.09, 0.29, LIME),
        (0.0, 0.36, LIME),
    ),
    "magenta_lampshade": _revolved(
        (0.1, 0.0, MAGENTA), (0.1, 0.03, MAGENTA), (0.03, 0.04, MAGENTA), (0.03, 0.12, MAGENTA),
        (0.18, 0.12, MAGENTA), (0.09, 0.36, MAGENTA),
    ),
    "orange_cone": _revolved(
        (0.17, 0.0, ORANGE), (0.17, 0.04, ORANGE), (0.13, 0.04, ORANGE), (0.03, 0.4, ORANGE)
    ),
    "orange_blue_rocket": _rocket,
    "pink_pig": _pig,
    "purple_green_cactus": _revolved(
        (0.11, 0.0, PURPLE), (0.15, 0.17, PURPLE), (0.1, 0.17, LIME), (0.1, 0.33, LIME),
        (0.0, 0.39, LIME),
    ),
    "purple_vase": _revolved(
        (0.08, 0.0, PURPLE), (0.15, 0.14, PURPLE), (0.07, 0.27, PURPLE), (0.12, 0.35, PURPLE)
    ),
    "red_ball": _ball,
    "red_blue_drum": _revolved(
        (0.15, 0.0, RED), (0.15, 0.11, BLUE), (0.15, 0.22, RED), (0.15, 0.33, RED)
    ),
    "yellow_duck": _duck,
    "yellow_green_pineapple": _revolved(
        (0.09, 0.0, YELLOW), (0.14, 0.08, YELLOW), (0.11, 0.22, YELLOW), (0.04, 0.23, GREEN),
        (0.12, 0.38, GREEN), (0.0, 0.33, GREEN),
    ),
}  # fmt: skip


def _build(category: str, shapes: Mapping[str, Callable[[Mesh], None]] = _SHAPES) -> SmallObject:
    mesh = Mesh()
    shapes[category](mesh)
    return SmallObject(category, mesh.centred()[0])


SMALL_OBJECTS: dict[str, SmallObject] = {category: _build(category) for category in sorted(_SHAPES)}
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
_COLOURS: dict[str, Colour] = {
    "red": RED, "cyan": CYAN, "yellow": YELLOW, "purple": PURPLE, "blue": BLUE, "lime": LIME,
    "pink": PINK, "black": BLACK,
}  # fmt: skip
_PAIRS = (("red", "cyan"), ("yellow", "purple"), ("blue", "lime"), ("pink", "black"))


def _in_colours(profile: str, *pair: str) -> Callable[[Mesh], None]:
    return _revolved(*((r, height, _COLOURS[pair[i]]) for r, height, i in _PROFILES[profile]))


_ALL_SHAPES = {
    **_SHAPES,
    **{f"{a}_{b}_{name}": _in_colours(name, a, b) for name in _PROFILES for a, b in _PAIRS},
}
ALL_OBJECTS: dict[str, SmallObject] = {
    category: _build(category, _ALL_SHAPES) for category in sorted(_ALL_SHAPES)
}
"""All 40 categories, in alphabetical order."""
