"""The files of a data set: their contents as Habitat reads them, and the folder they go to."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memo_habitat.errors import UserError
from memo_habitat.scenes.furniture import CATALOGUE
from memo_habitat.scenes.furniture_layout import House
from memo_habitat.scenes.mesh import Mesh, Point, circle, glb_bytes, gzip_bytes, palette_textured
from memo_habitat.scenes.object_placement import Arrangement, PlacedObject
from memo_habitat.scenes.objects import ALL_OBJECTS
from memo_habitat.simulator.interface import instance_names
from memo_habitat.utils.data_paths import MANIFEST, SET_CONFIG_SUFFIX

SPLITS = ("train", "val", "test")
BARE_OBJECTS = "bare_objects"
"""Folder of objects that were GLB files; episodes may name folders called `objects` beside it."""
OWN_FOLDERS = {"stages", "furniture", "objects", BARE_OBJECTS, "scenes", "episodes", "pointnav"}
HALF_TURNS = circle(24)
"""Cosine and sine of half of each heading (headings are 30 degrees apart)."""
ROOT_HALF = round(math.sqrt(0.5), 9)
QUARTER_ROTATIONS = (
    [1.0, 0.0, 0.0, 0.0],
    [ROOT_HALF, 0.0, ROOT_HALF, 0.0],
    [0.0, 0.0, 1.0, 0.0],
    [ROOT_HALF, 0.0, -ROOT_HALF, 0.0],
)
"""Quarter turns about +Y as scene instances write them, [w, x, y, z]."""


def json_bytes(document: Any) -> bytes:
    """Readable JSON with sorted keys."""
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()


def episode_file(episodes: Sequence[dict[str, Any]], **further: Any) -> bytes:
    """A split's file of episodes, with further keys beside them."""
    document = {**further, "episodes": list(episodes)}
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return gzip_bytes((text + "\n").encode())


def set_config(name: str) -> dict[str, bytes]:
    """The scene data set configuration."""
    folders = {"stages": "stages", "objects": "furniture", "scene_instances": "scenes"}
    document = {key: {"paths": {".json": [folder]}} for key, folder in folders.items()}
    return {f"{name}{SET_CONFIG_SUFFIX}": json_bytes(document)}


def _object_files(folder: str, name: str, mesh: Mesh, mass: float) -> dict[str, bytes]:
    config = {
        "render_asset": f"{name}.glb",
        # Meshes are centred on their bounding box, so every convention agrees where they are.
        "COM": [0.0, 0.0, 0.0],
        "up": [0.0, 1.0, 0.0],
        "front": [0.0, 0.0, -1.0],
        "mass": mass,
        "is_collidable": True,
        # Without a light setup of their own, renderers that shade would tint the colours.
        "shader_type": "flat",
    }
    return {
        f"{folder}/{name}.glb": glb_bytes([palette_textured(mesh)]),
        f"{folder}/{name}.object_config.json": json_bytes(config),
    }


def shared_files(name: str, vocabulary: Sequence[str]) -> dict[str, bytes]:
    """Everything that all houses of a set share: its configuration, furniture, small objects."""
    files = set_config(name)
    for template in CATALOGUE.values():
        files.update(_object_files("furniture", template.name, template.mesh.centred()[0], 30.0))
    for category in vocabulary:
        files.update(_object_files("objects", category, ALL_OBJECTS[category].mesh, 0.5))
    return files


def house_files(house: House) -> dict[str, bytes]:
    """Stage and scene instance of a house."""
    stage = {
        "render_asset": f"{house.name}.glb",
        "up": [0.0, 1.0, 0.0],
        "front": [0.0, 0.0, -1.0],
        "origin": [0.0, 0.0, 0.0],
        "is_collidable": True,
    }
    pieces = []
    for piece in (piece for layout in house.layouts for piece in layout.placed):
        middle = piece.template.mesh.centred()[1]
        x, z = piece.to_world(middle[0], middle[2])
        pieces.append(
            {
                "template_name": piece.template.name,
                "translation": [x, middle[1], z],
                "rotation": QUARTER_ROTATIONS[piece.turns],
                "translation_origin": "asset_local",
                "motion_type": "STATIC",
            }
        )
    scene = {
        "translation_origin": "asset_local",
        "stage_instance": {
            "template_name": house.name,
            "translation": [0.0, 0.0, 0.0],
            "rotation": [1.0, 0.0, 0.0, 0.0],
        },
        "object_instances": pieces,
    }
    return {
        f"stages/{house.name}.glb": glb_bytes(house.stage),
        f"stages/{house.name}.stage_config.json": json_bytes(stage),
        f"scenes/{house.name}.scene_instance.json": json_bytes(scene),
    }


def rigid_objects(items: Sequence[PlacedObject]) -> list[Any]:
    """The small objects as episodes list them: object-config name and 4x4 row-major transform."""
    return [[f"{item.shape.category}.object_config.json", item.transform()] for item in items]


@dataclass(frozen=True)
class EpisodePlace:
    """What the episodes of a house name.

    Attributes:
        scene_id, scene_dataset_config: as Habitat names a scene.
        objects: folders of the small objects' configs.
    """

    scene_id: str
    scene_dataset_config: str
    objects: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str, house: str, objects: Sequence[str] | None = None) -> EpisodePlace:
        """A house of the set `name`; the objects are the set's own unless others are named."""
        folders = [f"data/{name}/objects/"] if objects is None else objects
        scene = f"data/{name}/scenes/{house}.scene_instance.json"
        return cls(scene, f"data/{name}/{name}{SET_CONFIG_SUFFIX}", tuple(folders))


def _episode_base(place: EpisodePlace, number: int, start: Point, heading: int) -> dict[str, Any]:
    """What every episode holds; `heading` is an index of 30 degree turns about +Y."""
    w, y = HALF_TURNS[heading]
    return {
        "episode_id": str(number),
        "scene_id": place.scene_id,
        "scene_dataset_config": place.scene_dataset_config,
        "start_position": list(start),
        "start_rotation": [0.0, y, 0.0, w],
        "info": {},
    }


def episode(place: EpisodePlace, number: int, arrangement: Arrangement) -> dict[str, Any]:
    """One arrangement as an episode of the published form."""
    labels = instance_names(item.shape.category for item in arrangement.items)
    receptacles = {
        label: item.support.name for label, item in zip(labels, arrangement.items, strict=True)
    }
    return {
        **_episode_base(place, number, arrangement.start, arrangement.heading),
        "additional_obj_config_paths": list(place.objects),
        "rigid_objs": rigid_objects(arrangement.items),
        "name_to_receptacle": receptacles,
        **{key: {} for key in ("ao_states", "targets")},
        **{key: [] for key in ("markers", "target_receptacles", "goal_receptacles")},
    }


def point_goal_episode(
    place: EpisodePlace, number: int, ends: Sequence[tuple[float, float]], heading: int
) -> dict[str, Any]:
    """A point-goal episode of Habitat's own form, from the first of two ends to the second."""
    (x0, z0), (x, z) = ends
    return {
        **_episode_base(place, number, (x0, 0.0, z0), heading),
        "additional_obj_config_paths": [],
        "goals": [{"position": [x, 0.0, z], "radius": None}],
        "start_room": None,
        "shortest_paths": None,
    }


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """How the set in a folder was made; None where no generated set lies there."""
    try:
        found = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def check_target(out: Path, name: str, kind: str, overwrite: bool) -> None:
    """Refuse a folder that holds something else, or cannot be written.

    Raises:
        UserError: naming the folder and the remedy.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: give a folder that does not exist yet")
    if out.is_dir() and any(out.iterdir()):
        found = read_manifest(out)
        if found is None or (found.get("name"), found.get("kind")) != (name, kind):
            raise UserError(
                f"{out} holds other files than a generated set {name!r} of kind {kind!r}: "
                "give a folder that does not exist yet"
            )
        if not overwrite:
            raise UserError(f"{out} holds a generated set already: add --overwrite to replace it")
        known = OWN_FOLDERS | {MANIFEST, f"{name}{SET_CONFIG_SUFFIX}"}
        foreign = sorted(path.name for path in out.iterdir() if path.name not in known)
        if foreign:
            raise UserError(
                f"{out} holds {foreign[0]}, which was not generated: move it away before "
                "overwriting"
            )
    parent = out.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise UserError(f"cannot write in {parent}: give another folder than {out}, or its rights")


@contextmanager
def replace_folder(out: Path) -> Iterator[Path]:
    """A fresh folder beside ``out`` that takes its place when the block ends without an error.

    Raises:
        UserError: the folder cannot be written.
    """
    out = out.absolute()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        # Beside it, since a folder can be renamed within one file system only.
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as beside:
            new, old = Path(beside, "new"), Path(beside, "old")
            new.mkdir()
            yield new
            if out.exists():
                out.rename(old)
            try:
                new.rename(out)
            except OSError:
                if old.exists():
                    old.rename(out)
                raise
    except OSError as error:
        raise UserError(
            f"cannot write {out}: {error}; free space or give another folder"
        ) from error


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    """Write files given by their paths inside the folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
