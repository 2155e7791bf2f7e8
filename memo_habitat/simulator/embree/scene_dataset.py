"""Reading Habitat scene data sets and the meshes they name into triangle soups."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import trimesh

from memo_habitat.errors import UserError
from memo_habitat.simulator.embree.geometry import TriangleSoup, join
from memo_habitat.utils.data_paths import SET_CONFIG_SUFFIX, resolve

OBJECT_SUFFIX = ".object_config.json"
STAGE_SUFFIX = ".stage_config.json"
SCENE_SUFFIX = ".scene_instance.json"
MESH_SUFFIXES = (".glb", ".gltf", ".ply", ".obj")


class Placement(NamedTuple):
    """One furniture object of a scene instance."""

    config: Path
    transform: np.ndarray  # [4, 4]
    asset_local: bool  # the transform moves the asset's own origin, not its centre of mass


@dataclass(frozen=True)
class SceneInstance:
    """A stage and the furniture on it."""

    source: Path
    stage: Path  # a stage config, or the mesh itself
    stage_transform: np.ndarray  # [4, 4]
    furniture: tuple[Placement, ...] = ()


@dataclass(frozen=True)
class SceneDataset:
    """The templates of a scene data set by their names (file names without the suffix)."""

    source: Path | None
    stages: dict[str, Path] = field(default_factory=dict)
    objects: dict[str, Path] = field(default_factory=dict)
    scenes: dict[str, Path] = field(default_factory=dict)

    def scene(self, handle: str) -> SceneInstance:
        """The scene instance (or bare stage) that `handle`, a path or a name, stands for."""
        name = stem(handle)
        if name in self.scenes:
            return read_scene_instance(self.scenes[name], self)
        if name in self.stages and not handle.endswith(SCENE_SUFFIX):
            return SceneInstance(self.stages[name], self.stages[name], np.eye(4))
        known = ", ".join(sorted(self.scenes)[:8]) or "none"
        raise UserError(
            f"scene {handle!r} is not in the scene data set {self.source}: it has {known}"
        )


def stem(handle: str) -> str:
    """The template name in a handle: the file name without folder and known suffix."""
    name = str(handle).replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
    for suffix in (OBJECT_SUFFIX, STAGE_SUFFIX, SCENE_SUFFIX, SET_CONFIG_SUFFIX, *MESH_SUFFIXES):
        if name.endswith(suffix):
            return name[: -len(suffix)]
    return name


def find_scene(scene: str, scene_dataset: str) -> tuple[SceneDataset, SceneInstance]:
    """The data set and scene instance that Habitat's `scene` and `scene_dataset` name.

    `scene_dataset` may be "default" or empty: then `scene` is a file, and the data set is the one
    that lies in a folder above it, if any.
    """
    if scene_dataset and scene_dataset != "default":
        dataset = load_dataset(resolve(scene_dataset))
        return dataset, dataset.scene(scene)
    path = resolve(scene)
    if not path.is_file():
        raise UserError(
            f"scene {scene!r} is missing: give a .scene_instance.json or .glb file, or set "
            "habitat.simulator.scene_dataset (or the episode's scene_dataset_config)"
        )
    for folder in list(path.resolve().parents)[:2]:
        for found in sorted(folder.glob(f"*{SET_CONFIG_SUFFIX}")):
            dataset = load_dataset(found)
            if stem(scene) in dataset.scenes or stem(scene) in dataset.stages:
                return dataset, dataset.scene(scene)
    dataset = SceneDataset(None)
    if path.name.endswith(SCENE_SUFFIX):
        return dataset, read_scene_instance(path, dataset)
    return dataset, SceneInstance(path, path, np.eye(4))


def load_dataset(path: Path) -> SceneDataset:
    """The index of a scene data set, cached while its file stays as it is."""
    remedy = (
        "check habitat.simulator.scene_dataset or the episode's scene_dataset_config; "
        "`memo-habitat scenes generate` makes one"
    )
    return _load_dataset(path, _modified(path, "scene data set", remedy))


def _modified(path: Path, what: str, remedy: str) -> int:
    """When a file was last written, in ns: part of what it is cached by."""
    try:
        return path.stat().st_mtime_ns
    except OSError as error:
        raise UserError(f"{what} {path} is missing: {remedy}") from error


@lru_cache(maxsize=32)
def _load_dataset(path: Path, _stamp: int) -> SceneDataset:
    document = read_json(path, "scene data set")
    return SceneDataset(
        path,
        _index(path, document, "stages", STAGE_SUFFIX),
        _index(path, document, "objects", OBJECT_SUFFIX),
        _index(path, document, "scene_instances", SCENE_SUFFIX),
    )


def _index(source: Path, document: dict[str, Any], key: str, suffix: str) -> dict[str, Path]:
    """Template name -> file; a bare mesh serves where it has no config of its own."""
    section = document.get(key, {})
    paths = section.get("paths", {}) if isinstance(section, dict) else {}
    if not isinstance(paths, dict):
        raise UserError(f'{source}: "{key}.paths" must map file endings to lists of paths')
    found: dict[str, Path] = {}
    for patterns in paths.values():
        for pattern in [patterns] if isinstance(patterns, str) else patterns:
            for path in _expand(source.parent, str(pattern)):
                name = stem(path.name)
                is_config = path.name.endswith(suffix)
                is_mesh = path.suffix in MESH_SUFFIXES and key != "scene_instances"
                if is_config or (is_mesh and name not in found):
                    found[name] = path
    return found


def _expand(root: Path, pattern: str) -> list[Path]:
    """Files that a path of a data set means: a glob, a folder (its files) or a file."""
    if Path(pattern).is_absolute():
        root, pattern = Path("/"), pattern.lstrip("/")
    files = []
    for match in sorted(root.glob(pattern.rstrip("/"))):
        files += sorted(match.iterdir()) if match.is_dir() else [match]
    return [path for path in files if path.is_file()]


def read_scene_instance(path: Path, dataset: SceneDataset) -> SceneInstance:
    """A scene instance with every template looked up in `dataset` (or beside the file)."""
    document = read_json(path, "scene instance")
    stage: Any = document.get("stage_instance")
    where = f"{path}: stage_instance"
    stage_config = _template(dataset.stages, stage, path, STAGE_SUFFIX, where)
    stage_transform = _instance_transform(stage, where)
    usual = document.get("translation_origin", "")
    furniture = []
    for index, entry in enumerate(document.get("object_instances", [])):
        where = f"{path}: object_instances[{index}]"
        config = _template(dataset.objects, entry, path, OBJECT_SUFFIX, where)
        origin = str(entry.get("translation_origin", "") or usual).lower()
        transform = _instance_transform(entry, where)
        furniture.append(Placement(config, transform, origin == "asset_local"))
    return SceneInstance(path, stage_config, stage_transform, tuple(furniture))


def _template(known: dict[str, Path], entry: Any, source: Path, suffix: str, where: str) -> Path:
    """The config of the template that an entry of a scene instance names."""
    if not isinstance(entry, dict) or "template_name" not in entry:
        raise UserError(f'{where} has no "template_name": name its template')
    handle = entry["template_name"]
    if stem(handle) in known:
        return known[stem(handle)]
    for folder in (source.parent, source.parent.parent):
        for candidate in (folder / f"{handle}{suffix}", folder / handle):
            if candidate.is_file():
                return candidate
    raise UserError(
        f"{where}: template {handle!r} is not in the scene data set: add its "
        f"{suffix.lstrip('.')} or correct the name"
    )


def _instance_transform(entry: dict[str, Any], where: str) -> np.ndarray:
    """[4, 4] of translation, rotation [w, x, y, z] and scale of a scene instance's entry."""
    rotation = rotation_matrix(_numbers(entry, "rotation", (1, 0, 0, 0), where))
    scale = _numbers(entry, "non_uniform_scale", (1, 1, 1), where)
    matrix = np.eye(4)
    matrix[:3, :3] = rotation * (scale * _numbers(entry, "uniform_scale", 1.0, where))
    matrix[:3, 3] = _numbers(entry, "translation", (0, 0, 0), where)
    return matrix


def rotation_matrix(wxyz: np.ndarray) -> np.ndarray:
    """[3, 3] of a quaternion [w, x, y, z], normalised first."""
    w, x, y, z = np.asarray(wxyz, dtype=np.float64) / np.linalg.norm(wxyz)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def stage_soup(path: Path) -> TriangleSoup:
    """The stage's triangles with its up and front turned to +Y and -Z and its scale applied."""
    soup, document = _template_soup(path, "stage config")
    up = _numbers(document, "up", (0, 1, 0), str(path))
    front = _numbers(document, "front", (0, 0, -1), str(path))
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack([np.cross(front, up), up, -front])
    matrix[:3, :3] *= _numbers(document, "scale", (1, 1, 1), str(path))
    matrix[:3, 3] = -_numbers(document, "origin", (0, 0, 0), str(path))
    return soup if np.array_equal(matrix, np.eye(4)) else soup.transformed(matrix)


def object_soup(path: Path) -> tuple[TriangleSoup, np.ndarray]:
    """An object template's triangles in its asset frame, and its centre of mass there [3] m.

    As in Habitat-Sim, placements move the centre of mass: `COM` of the config, else the centre
    of the bounding box.
    """
    soup, document = _template_soup(path, "object config")
    scale = _numbers(document, "scale", (1, 1, 1), str(path))
    if not np.array_equal(scale, np.ones(3)):
        soup = soup.transformed(np.diag([*scale, 1.0]))
    return soup, _numbers(document, "COM", soup.bounds.mean(axis=0), str(path))


def _template_soup(path: Path, what: str) -> tuple[TriangleSoup, dict[str, Any]]:
    """The mesh that a config names, and the config; a bare mesh has none."""
    if path.suffix in MESH_SUFFIXES:
        return load_soup(path), {}
    document = read_json(path, what)
    name = document.get("render_asset")
    if not isinstance(name, str) or not name:
        raise UserError(f'{path}: "render_asset" is missing: name the mesh file')
    return load_soup((path.parent / name).resolve()), document


def read_json(path: Path, what: str) -> dict[str, Any]:
    """The JSON object in `path`; `what` names it in errors."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{what} {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UserError(
            f"{what} {path} is not valid JSON ({error}): write or download the file again"
        ) from error
    if not isinstance(document, dict):
        raise UserError(f"{what} {path} must hold a JSON object, not a {type(document).__name__}")
    return document


def _numbers(document: dict[str, Any], key: str, default: Any, where: str) -> np.ndarray:
    """Numbers of a document, as many as the default has."""
    value = document.get(key, default)
    try:
        numbers = np.asarray(value, dtype=np.float64)
        is_valid = numbers.shape == np.shape(default) and bool(np.isfinite(numbers).all())
    except (TypeError, ValueError):
        is_valid = False
    if not is_valid:
        raise UserError(f"{where}.{key} is {value!r}: give {np.size(default)} numbers, all finite")
    return numbers


def load_soup(path: Path) -> TriangleSoup:
    """The triangles of a mesh file (GLB and whatever else trimesh reads), kept while the file
    stays as it is.

    Raises:
        UserError: when the file is missing, cannot be read or holds no triangle.
    """
    remedy = "restore the file or correct the config that names it"
    return _load_soup(path, _modified(path, "3D model", remedy))


@lru_cache(maxsize=4096)
def _load_soup(path: Path, _stamp: int) -> TriangleSoup:
    # A corrupt file can raise nearly anything from inside the parser, hence the wide net.
    try:
        scene: Any = trimesh.load(path, force="scene", process=False)
        soups = []
        for node in scene.graph.nodes_geometry:
            transform, name = scene.graph[node]
            mesh = scene.geometry[name]
            if isinstance(mesh, trimesh.Trimesh) and len(mesh.faces):
                soups.append(_mesh_soup(mesh).transformed(transform))
    except Exception as error:
        raise UserError(
            f"3D model {path} cannot be read ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:120]}): write or download the file again"
        ) from error
    if not soups:
        raise UserError(f"3D model {path} holds no triangle: export it with its meshes")
    soup = join(soups)
    if not np.isfinite(soup.corners).all():
        raise UserError(f"3D model {path} has coordinates that are not numbers: export it again")
    return soup


#: Empties the cache of meshes.
forget_meshes = _load_soup.cache_clear


def _mesh_soup(mesh: trimesh.Trimesh) -> TriangleSoup:
    faces = np.asarray(mesh.faces)
    corners = np.asarray(mesh.vertices, dtype=np.float32)[faces]
    colours = np.ones((len(faces), 3, 3), dtype=np.float32)
    uv = np.zeros((len(faces), 3, 2), dtype=np.float32)
    texture = np.full(len(faces), -1, dtype=np.int32)
    images: list[np.ndarray] = []
    visual: Any = mesh.visual
    if visual.kind == "texture":
        factor, image = _base_colour(visual.material)
        colours *= factor
        if image is not None and visual.uv is not None:
            uv = np.asarray(visual.uv, dtype=np.float32)[faces]
            texture[:] = 0
            images = [np.ascontiguousarray(image.convert("RGB"), dtype=np.uint8)]
    elif visual.kind == "vertex":
        colours = np.asarray(visual.vertex_colors)[faces][..., :3].astype(np.float32) / 255.0
    elif visual.kind == "face":
        rgb = np.asarray(visual.face_colors)[:, None, :3].astype(np.float32) / 255.0
        colours = np.repeat(rgb, 3, axis=1)
    else:
        colours *= 0.6
    return TriangleSoup(corners, np.ascontiguousarray(colours), uv, texture, images)


def _base_colour(material: Any) -> tuple[np.ndarray, Any]:
    """Constant base colour [3] float32 in [0, 1] and image (or None) of a trimesh material."""
    if isinstance(material, trimesh.visual.material.PBRMaterial):
        value, image = material.baseColorFactor, material.baseColorTexture
    else:
        image = material.image
        # Where there is an image, trimesh makes up the diffuse colour.
        value = material.diffuse if image is None else None
    factor = np.ones(3) if value is None else np.asarray(value)[:3]
    scale = 255.0 if factor.dtype.kind in "ui" else 1.0
    return (factor / scale).astype(np.float32), image
