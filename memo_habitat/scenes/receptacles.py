"""Receptacles: where the makers of a data set say that small objects may be put.

Configs of stages and objects hold them under `user_defined`, as Habitat-Lab reads them: boxes
(`receptacle_aabb_...`) and meshes (`receptacle_mesh_...`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from memo_habitat.errors import UserError
from memo_habitat.simulator.embree.geometry import Geometry, rotation_matrix
from memo_habitat.simulator.embree.meshes import load_soup
from memo_habitat.simulator.embree.scene_instance import SceneInstance
from memo_habitat.simulator.embree.templates import OBJECT, Template, numbers, object_soup

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
        hits = self.mesh.cast(origins, np.tile(np.array([0, -1, 0], np.float32), (len(points), 1)))
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
