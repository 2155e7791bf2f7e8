"""Small scene data sets for tests: a room, a block and an articulated cupboard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.factories.gltf_files import Glb

ROOM = (5.0, 2.4, 3.0)  # m, along x, y, z
#: The block has its corner at its origin.
BLOCK = (0.4, 0.8, 0.2)


def box_glb(low: tuple[float, ...], high: tuple[float, ...], inwards: bool = False) -> bytes:
    """A box from corner to corner, m; `inwards`: its faces look into it."""
    signs = np.array(np.meshgrid((0, 1), (0, 1), (0, 1), indexing="ij")).reshape(3, 8).T
    points = np.where(signs == 1, high, low).astype(np.float32)
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = np.array([(a, b, c, a, c, d) for a, b, c, d in quads], np.uint16).reshape(-1, 3)
    if inwards:
        faces = faces[:, ::-1]
    glb = Glb()
    colour = {"baseColorFactor": [0.8, 0.5, 0.3, 1], "baseColorTexture": {"index": 0}}
    glb.add("materials", {"pbrMetallicRoughness": colour})
    glb.texture(np.arange(12, dtype=np.uint8).reshape(2, 2, 3) * 20)
    uv = points[:, [0, 2]].copy()
    attributes = {
        "POSITION": glb.sparse(points, [0, 7], base=True, normalized=False),
        "TEXCOORD_0": glb.accessor(uv, pad=4),
        "COLOR_0": glb.accessor(np.full((8, 4), 255, np.uint8), normalized=True),
    }
    primitive = {"attributes": attributes, "material": 0}
    primitive["indices"] = glb.accessor(faces.reshape(-1, 1).copy())
    glb.add("meshes", {"primitives": [primitive]})
    glb.document.update(scene=0, scenes=[{"nodes": [0]}])
    glb.document["nodes"] = [{"children": [1], "scale": [1, 1, 1]}, {"mesh": 0}]
    return glb.bytes()


def write_json(path: Path, document: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def write_small_set(root: Path, **changes: Any) -> tuple[Path, str]:
    """Writes a set of one scene, `s`; returns its config and the scene's name.

    changes: `stage`, `object`: attributes of the configs of room and block; `dataset`: sections
    of the data set config, each laid over the usual one; `scene`: keys of the scene instance.
    """
    for folder in ("stages", "objects", "urdf", "scenes"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    x, y, z = ROOM
    (root / "stages/room.glb").write_bytes(box_glb((-x / 2, 0, -z / 2), (x / 2, y, z / 2), True))
    (root / "objects/block.glb").write_bytes(box_glb((0, 0, 0), BLOCK))
    (root / "urdf/body.glb").write_bytes(box_glb((-0.2, 0, -0.2), (0.2, 1, 0.2)))
    (root / "urdf/cupboard.urdf").write_text(
        '<robot name="c"><link name="base"><visual><geometry><mesh filename="body.glb"/></geometry>'
        '</visual></link><link name="door"><visual><origin xyz="0 0 0.01"/><geometry>'
        '<box size="0.4 1 0.02"/></geometry></visual></link><joint name="j" type="revolute">'
        '<origin xyz="0 0.5 0.2"/><parent link="base"/><child link="door"/></joint></robot>'
    )
    stage = {"render_asset": "room.glb", "up": [0, 1, 0], "front": [0, 0, -1]}
    write_json(root / "stages/room.stage_config.json", {**stage, **changes.get("stage", {})})
    block = {"render_asset": "block.glb", **changes.get("object", {})}
    write_json(root / "objects/block.object_config.json", block)
    usual: dict[str, dict[str, Any]] = {
        "stages": {"paths": {".json": ["stages"]}},
        "objects": {"paths": {".json": ["objects/*"]}},
        "articulated_objects": {"paths": {".urdf": ["urdf"]}},
        "scene_instances": {"paths": {".json": ["scenes"]}},
    }
    for section, keys in changes.get("dataset", {}).items():
        usual[section] = {**usual[section], **keys}
    scene = {
        "stage_instance": {"template_name": "room"},
        "object_instances": [{"template_name": "block", "translation": [1, 0.4, 0]}],
        "articulated_object_instances": [{"template_name": "cupboard", "translation": [-2, 0, -1]}],
        **changes.get("scene", {}),
    }
    write_json(root / "scenes/s.scene_instance.json", scene)
    return write_json(root / "small.scene_dataset_config.json", usual), "s"
