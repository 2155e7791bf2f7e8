"""Scene instances: a stage, what stands on it, and where."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from habitat.core.logging import logger

from memo_habitat.errors import UserError
from memo_habitat.simulator.embree.geometry import rotation_matrix
from memo_habitat.simulator.embree.templates import Library, Template, numbers


class Placement(NamedTuple):
    """One piece of furniture of a scene instance, rigid or articulated."""

    template: Template
    transform: np.ndarray  # [4, 4]
    asset_local: bool  # the transform moves the asset's own origin, not its centre of mass


@dataclass(frozen=True)
class SceneInstance:
    """A stage and the furniture on it."""

    name: str
    source: Path
    stage: Template
    stage_transform: np.ndarray  # [4, 4]
    furniture: tuple[Placement, ...] = ()
    files: frozenset[Path] = frozenset()  # what it was read from


def read_scene_instance(
    scene: Template, stages: Library, objects: Library, articulated: Library
) -> SceneInstance:
    """A scene instance with every template looked up in the libraries (or beside its file)."""
    document, path = scene.attributes, scene.source
    where = f"{path}: stage_instance"
    entry = _entry(document.get("stage_instance"), where)
    stage = stages.find(entry["template_name"], f"{where}.template_name", path)
    usual = document.get("translation_origin", "")
    furniture = []
    for key, library in (
        ("object_instances", objects),
        ("articulated_object_instances", articulated),
    ):
        entries = document.get(key, [])
        if not isinstance(entries, list):
            raise UserError(f"{path}: {key} is a {type(entries).__name__}: give a list")
        for index, value in enumerate(entries):
            here = f"{path}: {key}[{index}]"
            piece = _entry(value, here)
            template = library.find(piece["template_name"], f"{here}.template_name", path)
            origin = str(piece.get("translation_origin", "") or usual).lower()
            if _has_moved_joints(piece):
                logger.warning(f"{here}: initial_joint_pose is left out, the object stands at rest")
            transform = _instance_transform(piece, here)
            furniture.append(Placement(template, transform, origin == "asset_local"))
    return SceneInstance(
        scene.name,
        path,
        stage,
        _instance_transform(entry, where),
        tuple(furniture),
        scene.files.union(stage.files, *(piece.template.files for piece in furniture)),
    )


def _entry(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict) or "template_name" not in value:
        raise UserError(f'{where} has no "template_name": name its template')
    return value


def _has_moved_joints(entry: dict[str, Any]) -> bool:
    pose = entry.get("initial_joint_pose", [])
    values = pose.values() if isinstance(pose, dict) else pose if isinstance(pose, list) else []
    return any(isinstance(value, (int, float)) and value != 0 for value in values)


def _instance_transform(entry: dict[str, Any], where: str) -> np.ndarray:
    """[4, 4] of translation, rotation [w, x, y, z] and scale of a scene instance's entry."""
    wxyz = numbers(entry, "rotation", (1, 0, 0, 0), where)
    if not np.linalg.norm(wxyz) > 1e-6:
        raise UserError(f"{where}.rotation is {wxyz.tolist()}: give a quaternion [w, x, y, z]")
    scale = numbers(entry, "non_uniform_scale", (1, 1, 1), where)
    matrix = np.eye(4)
    matrix[:3, :3] = rotation_matrix(wxyz) * (scale * numbers(entry, "uniform_scale", 1.0, where))
    matrix[:3, 3] = numbers(entry, "translation", (0, 0, 0), where)
    return matrix
