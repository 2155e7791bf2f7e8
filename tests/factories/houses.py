"""A two-room house in the published scene-data-set form, small enough to write in every test."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import trimesh
from PIL import Image

from memo_habitat.testing.tasks import episode_record, write_episodes

NAME = "testhome"
HOUSE = "two_rooms"

#: Inner size of the house, m: x in [-4, 4], z in [-2, 2], ceiling at 2.6.
HALF_X, HALF_Z, CEILING = 4.0, 2.0, 2.6
#: The wall between the rooms stands at x = 0; its door spans z in [-0.5, 0.5] up to 2.1 m.
WALL, DOOR_HALF, DOOR_HEIGHT = 0.1, 0.5, 2.1
#: The one piece of furniture: centre and extents, m.
FURNITURE_CENTER = (-2.0, 0.4, 1.2)
FURNITURE_EXTENTS = (1.0, 0.8, 0.6)
#: Edge of the cube, diameter of the ball, m.
OBJECT_SIZE = 0.3

#: category, position of the origin (= centre) m, receptacle; one list per arrangement.
ARRANGEMENTS: tuple[tuple[tuple[str, tuple[float, float, float], str], ...], ...] = (
    (
        ("red_cube", (2.0, 0.15, 1.0), "floor"),
        ("blue_ball", (-3.0, 0.15, -1.0), "floor"),
        ("red_cube", (-2.0, 0.95, 1.2), "counter"),
    ),
    (
        ("blue_ball", (3.0, 0.15, -1.2), "floor"),
        ("red_cube", (-3.2, 0.15, 0.5), "floor"),
    ),
)


@dataclass(frozen=True)
class TestHouse:
    """Where the parts of the written house lie."""

    __test__ = False

    root: Path
    name: str
    house: str
    scene_dataset_config: str
    scene_id: str
    object_paths: list[str]
    rigid_objs: list[list[list[Any]]]  # one list per arrangement: [config file name, 4x4]
    categories: tuple[str, ...]
    episode_file: Path  # holds every arrangement; also written as {train,val,test}.json.gz
    episodes: list[dict[str, Any]]

    def arrangement(self, index: int = 0) -> SimpleNamespace:
        """What a simulator reads of the episode with arrangement `index`."""
        return SimpleNamespace(
            rigid_objs=self.rigid_objs[index], additional_obj_config_paths=list(self.object_paths)
        )


def write_test_house(root: Path) -> TestHouse:
    """Writes the house below `root` (made when missing) and says where everything is."""
    root = Path(root).resolve()
    for folder in ("stages", "furniture", "objects", "scenes"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    _write_stage(root)
    _write_furniture(root)
    categories = _write_objects(root)
    _write_json(
        root / f"{NAME}.scene_dataset_config.json",
        {
            "stages": {"paths": {".json": ["stages/*"]}},
            "objects": {"paths": {".json": ["furniture/*", "objects/*"]}},
            "scene_instances": {"paths": {".json": ["scenes/*"]}},
        },
    )
    episodes = [_episode(root, index) for index in range(len(ARRANGEMENTS))]
    for split in ("train", "val", "test"):
        write_episodes(root / "episodes" / f"{split}.json.gz", episodes, categories)
    return TestHouse(
        root=root,
        name=NAME,
        house=HOUSE,
        scene_dataset_config=str(root / f"{NAME}.scene_dataset_config.json"),
        scene_id=str(root / "scenes" / f"{HOUSE}.scene_instance.json"),
        object_paths=[f"{root / 'objects'}/"],
        rigid_objs=[episode["rigid_objs"] for episode in episodes],
        categories=categories,
        episode_file=root / "episodes" / "train.json.gz",
        episodes=episodes,
    )


def _box(center: tuple[float, ...], extents: tuple[float, ...]) -> trimesh.Trimesh:
    mesh = trimesh.creation.box(extents=extents)
    mesh.apply_translation(center)
    return mesh


def _coloured(mesh: trimesh.Trimesh, rgb: tuple[int, int, int]) -> trimesh.Trimesh:
    mesh.visual = trimesh.visual.ColorVisuals(mesh, face_colors=[*rgb, 255])
    return mesh


def _textured_floor() -> trimesh.Trimesh:
    """The floor at y = 0 with a chequered texture of 0.5 m squares."""
    x, z = HALF_X + WALL, HALF_Z + WALL
    corners = np.array([[-x, 0, -z], [-x, 0, z], [x, 0, z], [x, 0, -z]], dtype=np.float64)
    squares = np.indices((8, 8)).sum(axis=0) % 2 == 0
    pixels = np.where(squares[..., None], (200, 180, 150), (120, 100, 80)).astype(np.uint8)
    material = trimesh.visual.material.PBRMaterial(
        baseColorTexture=Image.fromarray(pixels), metallicFactor=0.0, roughnessFactor=1.0
    )
    visual = trimesh.visual.TextureVisuals(uv=corners[:, [0, 2]] / 4.0, material=material)
    return trimesh.Trimesh(corners, [[0, 1, 2], [0, 2, 3]], visual=visual, process=False)


def _write_stage(root: Path) -> None:
    x, z, y, w = HALF_X, HALF_Z, CEILING, WALL
    scene = trimesh.Scene()
    scene.add_geometry(_textured_floor(), geom_name="floor")
    grey, white, ochre = (170, 170, 175), (230, 230, 230), (190, 160, 110)
    scene.add_geometry(_coloured(_box((0, y + w / 2, 0), (2 * x, w, 2 * z)), white))
    for side in (-1, 1):
        outer = _box((side * (x + w / 2), y / 2, 0), (w, y, 2 * (z + w)))
        scene.add_geometry(_coloured(outer, grey if side < 0 else ochre))
        scene.add_geometry(_coloured(_box((0, y / 2, side * (z + w / 2)), (2 * x, y, w)), grey))
        length = z - DOOR_HALF
        jamb = _box((0, y / 2, side * (DOOR_HALF + length / 2)), (w, y, length))
        scene.add_geometry(_coloured(jamb, white))
    lintel = y - DOOR_HEIGHT
    above = _box((0, DOOR_HEIGHT + lintel / 2, 0), (w, lintel, 2 * DOOR_HALF))
    scene.add_geometry(_coloured(above, white))
    scene.export(root / "stages" / f"{HOUSE}.glb")
    _write_json(
        root / "stages" / f"{HOUSE}.stage_config.json",
        {"render_asset": f"{HOUSE}.glb", "up": [0, 1, 0], "front": [0, 0, -1]},
    )


def _write_object(folder: Path, name: str, mesh: trimesh.Trimesh) -> None:
    mesh.export(folder / f"{name}.glb")
    _write_json(
        folder / f"{name}.object_config.json",
        {"render_asset": f"{name}.glb", "COM": [0.0, 0.0, 0.0]},
    )


def _write_furniture(root: Path) -> None:
    counter = _coloured(_box((0, 0, 0), FURNITURE_EXTENTS), (140, 90, 40))
    _write_object(root / "furniture", "counter", counter)
    _write_json(
        root / "scenes" / f"{HOUSE}.scene_instance.json",
        {
            "stage_instance": {"template_name": f"stages/{HOUSE}"},
            "object_instances": [
                {
                    "template_name": "furniture/counter",
                    "translation": list(FURNITURE_CENTER),
                    "rotation": [1.0, 0.0, 0.0, 0.0],
                    "motion_type": "STATIC",
                }
            ],
            "default_lighting": "",
        },
    )


def _write_objects(root: Path) -> tuple[str, ...]:
    size = OBJECT_SIZE
    cube = _coloured(_box((0, 0, 0), (size, size, size)), (220, 30, 30))
    ball = _coloured(trimesh.creation.icosphere(2, radius=size / 2), (30, 60, 220))
    _write_object(root / "objects", "red_cube", cube)
    _write_object(root / "objects", "blue_ball", ball)
    return ("blue_ball", "red_cube")


def _episode(root: Path, index: int) -> dict[str, Any]:
    receptacles = {}
    counts: Counter[str] = Counter()
    for category, _, receptacle in ARRANGEMENTS[index]:
        receptacles[f"{category}_:{counts[category]:04d}"] = receptacle
        counts[category] += 1
    return episode_record(
        [(category, position) for category, position, _ in ARRANGEMENTS[index]],
        episode_id=str(index),
        scene_id=str(root / "scenes" / f"{HOUSE}.scene_instance.json"),
        scene_dataset_config=str(root / f"{NAME}.scene_dataset_config.json"),
        additional_obj_config_paths=[f"{root / 'objects'}/"],
        start_position=[-3.0, 0.0, 0.0],
        info={"object_labels": {}},
        name_to_receptacle=receptacles,
    )


def _write_json(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
