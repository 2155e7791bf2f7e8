"""Where small objects can stand in any house: level surfaces, found by rays straight down.

The makers of a data set may name receptacles, the regions meant for them. Configs of stages and
objects hold these under `user_defined`, as Habitat-Lab reads them: boxes (`receptacle_aabb_...`)
and meshes (`receptacle_mesh_...`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse
from scipy.spatial import cKDTree

from memo_habitat.errors import UserError
from memo_habitat.simulator.embree.geometry import Geometry, Hits, rotation_matrix
from memo_habitat.simulator.embree.meshes import load_soup
from memo_habitat.simulator.embree.scene_dataset import SceneInstance
from memo_habitat.simulator.embree.templates import OBJECT, Template, numbers, object_soup

STEP = 0.05
"""Between neighbouring rays, m."""
LEVEL = 0.97
"""Least upward part of a surface's unit normal: it slopes by less than 14 degrees."""
FLAT = 0.015
"""Difference in height up to which neighbouring points are one surface, m."""
MIN_CLEAR = 0.08
"""Free height above a point below which nothing is put there, m."""
MIN_POINTS = 9
"""Of a surface: 0.15 by 0.15 m."""
MAX_LAYERS = 40
"""Surfaces above each other that one ray may pass."""
_BOX, _MESH = "receptacle_aabb_", "receptacle_mesh_"
_ABOVE = 0.05
"""How far below a box the surface may lie on which it stands, m."""
_NEAR = 0.1
"""How far from the surface a receptacle's mesh may be, m."""


@dataclass(frozen=True)
class Receptacle:
    """One region of a piece of furniture, or of the building.

    Attributes:
        part: number of the piece in the house; 0 is the building.
        name: of the region.
        to_local: ``[4, 4]``, from the world into the unit box around the origin; unused for meshes.
        mesh: what lies on the surface; None for boxes.
    """

    part: int
    name: str
    to_local: np.ndarray
    mesh: Geometry | None = None

    def holds(self, points: np.ndarray) -> np.ndarray:
        """``[P]`` bool: which points ``[P, 3]`` m of a surface belong to the region."""
        if self.mesh is None:
            return self._is_in_box(points) | self._is_in_box(points + np.array([0.0, _ABOVE, 0.0]))
        origins = (points + np.array([0.0, _NEAR, 0.0])).astype(np.float32)
        hits = _down(self.mesh, origins)
        return np.asarray((hits.triangle >= 0) & (hits.distance <= 2 * _NEAR))

    def _is_in_box(self, points: np.ndarray) -> np.ndarray:
        local = points @ self.to_local[:3, :3].T + self.to_local[:3, 3]
        return np.asarray((np.abs(local) <= 1.0).all(axis=1))


def read_receptacles(house: SceneInstance) -> list[Receptacle]:
    """The receptacles of a house; empty where its makers name none.

    Raises:
        UserError: a malformed one, with config and field.
    """
    # As Habitat-Lab takes them: meshes of a stage are in the world's frame, boxes in that of its
    # file but for scale and origin; those of an object are in the frame of its file.
    turn = np.eye(4)
    scale = house.stage.numbers("scale", (1, 1, 1))
    turn[:3, :3] = house.stage.frame() / scale[:, None]
    found = list(_of(house.stage, 0, turn, np.eye(4)))
    for part, piece in enumerate(house.furniture, start=1):
        # Those of articulated objects belong to links, which are one piece here.
        if piece.template.kind is OBJECT and _user_defined(piece.template):
            matrix = np.eye(4)
            matrix[:3, :3] = piece.template.frame()
            if not piece.asset_local:
                matrix[:3, 3] = -object_soup(piece.template)[1]
            found += _of(piece.template, part, *[piece.transform @ matrix] * 2)
    return found


def _user_defined(template: Template) -> dict[str, Any]:
    fields = template.attributes.get("user_defined", {})
    if not isinstance(fields, dict):
        return {}
    return {key: value for key, value in fields.items() if key.startswith((_BOX, _MESH))}


def _of(
    template: Template, part: int, boxes: np.ndarray, meshes: np.ndarray
) -> Iterator[Receptacle]:
    """Those of a template; the matrices bring boxes and meshes into the world."""
    for key, fields in _user_defined(template).items():
        where = f"{template.source}: user_defined.{key}"
        if not isinstance(fields, dict):
            raise UserError(f"{where} is a {type(fields).__name__}: give a JSON object")
        place = np.eye(4)
        turn = rotation_matrix(numbers(fields, "rotation", (1, 0, 0, 0), where))
        place[:3, :3] = turn * numbers(fields, "scale", (1, 1, 1), where)
        place[:3, 3] = numbers(fields, "position", (0, 0, 0), where)
        matrix = (boxes if key.startswith(_BOX) else meshes) @ place
        if key.startswith(_BOX):
            if abs(np.linalg.det(matrix[:3, :3])) < 1e-9:
                raise UserError(f"{where}.scale makes a box without volume: give half its edges")
            yield Receptacle(part, str(fields.get("name", key)), np.linalg.inv(matrix))
            continue
        name = fields.get("mesh_filepath")
        if not isinstance(name, str) or not name:
            raise UserError(f"{where}.mesh_filepath is missing: name the mesh file")
        mesh = load_soup(template.file(name)).transformed(matrix)
        yield Receptacle(part, str(fields.get("name", key)), np.eye(4), Geometry([mesh], [0]))


@dataclass(frozen=True)
class Surface:
    """A level surface.

    Attributes:
        name: ``TEMPLATE_:NNNN|surface_N`` as in generated homes, or ``TEMPLATE_:NNNN|RECEPTACLE``.
        piece: what it is part of; receptacles and surfaces of the building itself are each a piece
            of their own, or a house that is one scan would be one piece.
        points: ``[P, 3]`` m, on a grid of ``STEP``.
    """

    name: str
    piece: str
    points: np.ndarray


@dataclass(frozen=True)
class Levels:
    """Where vertical rays pass a house.

    Attributes:
        points: ``[H, 3]`` m.
        part: ``[H]``, panoptic id of what was passed.
        clear: ``[H]`` m, free height above.
        is_level: ``[H]``, whether the face looks up and hardly slopes.
    """

    points: np.ndarray
    part: np.ndarray
    clear: np.ndarray
    is_level: np.ndarray

    def where(self, chosen: np.ndarray) -> Levels:
        """Those for which `chosen` ``[H]`` is true."""
        return Levels(*(values[chosen] for values in vars(self).values()))


def levels(geometry: Geometry) -> Levels:
    """All places at which rays from above pass faces of a house."""
    corners = geometry.soup.corners
    low, high = corners.min(axis=(0, 1)), corners.max(axis=(0, 1))
    # A little aside, so that rays do not run along the edges of rectangles on round numbers.
    x = np.arange(low[0] + 0.37 * STEP, high[0], STEP)
    z = np.arange(low[2] + 0.37 * STEP, high[2], STEP)
    xs, zs = (axis.ravel() for axis in np.meshgrid(x, z))
    origins = np.stack([xs, np.full(xs.shape, high[1] + 1.0), zs], axis=1).astype(np.float32)
    above, found = np.full(len(origins), np.inf), []
    for _ in range(MAX_LAYERS):
        hits = _down(geometry, origins)
        met = hits.triangle >= 0
        if not met.any():
            break
        points, triangle = origins[met].copy(), hits.triangle[met]
        points[:, 1] -= hits.distance[met]
        found.append((points, triangle, above[met] - points[:, 1]))
        above, origins = points[:, 1].astype(float), points.copy()
        origins[:, 1] -= 1e-3
    points, triangle, clear = (np.concatenate(values) for values in zip(*found, strict=True))
    edges = corners[:, 1:] - corners[:, :1]
    normal = np.cross(edges[:, 0], edges[:, 1])
    up = normal[:, 1] / np.maximum(np.linalg.norm(normal, axis=1), 1e-12)
    return Levels(points.astype(float), geometry.instance[triangle], clear, up[triangle] > LEVEL)


def find_surfaces(
    found: Levels, names: Sequence[str], lowest: float, receptacles: Sequence[Receptacle]
) -> list[Surface]:
    """Level surfaces with free space above them.

    Args:
        found: of the house.
        names: of its parts; the first is the building.
        lowest: height from which on a surface is no floor, m.
        receptacles: where small objects are meant to be; without any, all surfaces serve.
    """
    found = found.where(
        found.is_level & (found.clear >= MIN_CLEAR) & (found.points[:, 1] >= lowest)
    )
    surfaces = []
    for receptacle in receptacles:
        mine = found.where(found.part == receptacle.part).points
        points = mine[receptacle.holds(mine)]
        name = f"{names[receptacle.part]}|{receptacle.name}"
        surfaces += [Surface(name, name, group) for group in _connected(points)]
    for part in () if receptacles else np.unique(found.part):
        for number, group in enumerate(_connected(found.points[found.part == part])):
            name = f"{names[part]}|surface_{number}"
            surfaces.append(Surface(name, name if part == 0 else names[part], group))
    return surfaces


def _connected(points: np.ndarray) -> list[np.ndarray]:
    """Groups of points that neighbours at nearly one height connect, the lowest first."""
    if not len(points):
        return []
    scaled = points / (STEP, FLAT, STEP)
    pairs = cKDTree(scaled).query_pairs(1.01, p=np.inf, output_type="ndarray")
    graph = sparse.coo_matrix((np.ones(len(pairs)), pairs.T), shape=(len(points),) * 2)
    _, label = sparse.csgraph.connected_components(graph, directed=False)
    order = np.argsort(label, kind="stable")
    groups = np.split(points[order], np.flatnonzero(np.diff(label[order])) + 1)
    groups = [group for group in groups if len(group) >= MIN_POINTS]
    return sorted(groups, key=lambda group: tuple(group.mean(axis=0)[[1, 2, 0]]))


def rests(geometry: Geometry, points: np.ndarray, height: float) -> float | None:
    """Height of what an object stands on that covers `points` [P, 3] m and is `height` m tall.

    None where it would tilt, hang over an edge or run into something above.
    """
    origins = points.astype(np.float32)
    origins[:, 1] += height
    hits = _down(geometry, origins)
    heights = origins[:, 1] - hits.distance
    if (hits.triangle < 0).any() or (np.abs(heights - points[:, 1]) > FLAT).any():
        return None
    return float(heights.max())


def height_below(geometry: Geometry, point: np.ndarray, above: float) -> float | None:
    """Height of what lies under a point [3] m from `above` m over it; None where nothing does."""
    origin = np.array([[point[0], point[1] + above, point[2]]], dtype=np.float32)
    hits = _down(geometry, origin)
    return None if hits.triangle[0] < 0 else float(origin[0, 1] - hits.distance[0])


def free_ahead(
    geometry: Geometry, point: np.ndarray, above: float
) -> tuple[np.ndarray, np.ndarray]:
    """Directions all around [D, 3] and the free distance [D] m there, `above` m over a point."""
    angle = np.arange(16) * (np.pi / 8)
    around = np.stack([np.cos(angle), np.zeros(16), np.sin(angle)], axis=1).astype(np.float32)
    eye = np.array([point[0], point[1] + above, point[2]], dtype=np.float32)
    hits = geometry.cast(np.tile(eye, (16, 1)), around)
    return around, np.where(hits.triangle < 0, np.inf, hits.distance)


def _down(geometry: Geometry, origins: np.ndarray) -> Hits:
    return geometry.cast(origins, np.tile(np.array([0, -1, 0], np.float32), (len(origins), 1)))
