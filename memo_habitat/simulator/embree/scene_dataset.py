"""Scene data sets of Habitat: templates, and scenes, which are a stage and what stands on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from habitat.core.logging import logger

from memo_habitat.errors import UserError
from memo_habitat.simulator.embree.geometry import rotation_matrix
from memo_habitat.simulator.embree.templates import (
    ARTICULATED,
    OBJECT,
    SCENE,
    STAGE,
    Kind,
    Library,
    Template,
    numbers,
    overlay,
    read_template,
    stem,
)
from memo_habitat.utils.data_paths import SET_CONFIG_SUFFIX, resolve
from memo_habitat.utils.file_cache import FileCache
from memo_habitat.utils.files import read_json


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


_KINDS = (STAGE, OBJECT, ARTICULATED, SCENE)
_KEPT = 32
_KEPT_SCENES = 256


@dataclass(frozen=True)
class SceneDataset:
    """The templates and scenes of a scene data set by their names."""

    source: Path | None
    files: frozenset[Path]  # the config, and the folders that it searches
    stages: Library
    objects: Library
    articulated: Library
    scenes: Library

    def scene(self, handle: str) -> SceneInstance:
        """The scene instance (or bare stage) that `handle`, a path or a name, stands for."""
        name = stem(handle)
        if name in self.scenes:
            return self._instance(self.scenes[name])
        if name in self.stages and not handle.endswith(SCENE.suffix):
            return _bare(self.stages[name])
        known = ", ".join(sorted(self.scenes)[:8]) or "none"
        raise UserError(
            f"scene {handle!r} is not in the scene data set {self.source}: it has {known}"
        )

    def file(self, path: Path) -> SceneInstance:
        """The scene in a file that the data set does not list."""
        if path.name.endswith(SCENE.suffix):
            return self._instance(read_template(path, SCENE))
        return _bare(read_template(path, STAGE))

    def _instance(self, scene: Template) -> SceneInstance:
        return read_scene_instance(scene, self.stages, self.objects, self.articulated)


def _bare(stage: Template) -> SceneInstance:
    return SceneInstance(stage.name, stage.source, stage, np.eye(4), files=stage.files)


def find_scene(scene: str, scene_dataset: str) -> tuple[SceneDataset, SceneInstance]:
    """The data set and scene instance that Habitat's `scene` and `scene_dataset` name.

    `scene_dataset` may be "default" or empty: then `scene` is a file, and the data set is the one
    that lies in a folder above it, if any. Cached while all files stay as they are.
    """

    def find() -> tuple[tuple[SceneDataset, SceneInstance], frozenset[Path]]:
        if scene_dataset and scene_dataset != "default":
            dataset = load_dataset(resolve(scene_dataset))
            instance, folders = dataset.scene(scene), []
        else:
            path = resolve(scene)
            folders = list(path.resolve().parents)[:2]
            dataset, instance = _find_by_file(path, folders)
        return (dataset, instance), instance.files.union(dataset.files, folders)

    # Paths count from the working directory.
    return _found.get((scene, scene_dataset, Path.cwd()), find, _KEPT_SCENES)


def _find_by_file(path: Path, folders: list[Path]) -> tuple[SceneDataset, SceneInstance]:
    if not path.is_file():
        raise UserError(
            f"scene {str(path)!r} is no file: give a .scene_instance.json or .glb file, or set "
            "habitat.simulator.scene_dataset (or the episode's scene_dataset_config)"
        )
    for folder in folders:
        for found in sorted(folder.glob(f"*{SET_CONFIG_SUFFIX}")):
            dataset = load_dataset(found)
            if stem(path.name) in dataset.scenes or stem(path.name) in dataset.stages:
                return dataset, dataset.scene(path.name)
    dataset = SceneDataset(None, frozenset(), *(Library(kind) for kind in _KINDS))
    return dataset, dataset.file(path)


_found: FileCache[tuple[SceneDataset, SceneInstance]] = FileCache()
_datasets: FileCache[SceneDataset] = FileCache()


def load_dataset(path: Path) -> SceneDataset:
    """The index of a scene data set, cached while its file and folders stay as they are."""
    if not path.is_file():
        raise UserError(
            f"scene data set {path} is missing: check habitat.simulator.scene_dataset or the "
            "episode's scene_dataset_config; `memo-habitat scenes generate` makes one"
        )

    def read() -> tuple[SceneDataset, set[Path]]:
        document, seen = read_json(path), {path}
        libraries = [_library(path, document, kind, seen) for kind in _KINDS]
        return SceneDataset(path, frozenset(seen), *libraries), seen

    return _datasets.get(path, read, _KEPT)


def _library(source: Path, document: dict[str, Any], kind: Kind, seen: set[Path]) -> Library:
    """The templates of one kind; the files and folders they depend on are added to `seen`."""
    section = document.get(kind.section, {})
    if not isinstance(section, dict):
        raise UserError(f'{source}: "{kind.section}" must be a JSON object')
    paths, defaults = section.get("paths", {}), section.get("default_attributes")
    if not isinstance(paths, dict):
        raise UserError(f'{source}: "{kind.section}.paths" must map file endings to lists of paths')
    if not isinstance(defaults, dict | None):
        raise UserError(f'{source}: "{kind.section}.default_attributes" must be a JSON object')
    found: dict[str, Path | Template] = {}
    for patterns in paths.values():
        for pattern in patterns if isinstance(patterns, list) else [patterns]:
            for path in _expand(source.parent, str(pattern), seen):
                name = stem(path.name)
                # A bare mesh serves where it has no config of its own.
                if path.name.endswith(kind.suffix) or (
                    path.suffix in kind.bare and name not in found
                ):
                    found[name] = path
    library = Library(kind, found, defaults)
    configs = section.get("configs", [])
    for index, entry in enumerate(configs if isinstance(configs, list) else [configs]):
        template = _inline(library, source, entry, f"{source}: {kind.section}.configs[{index}]")
        if template is not None:
            found[template.name] = template
            seen |= template.files
    return library


def _inline(library: Library, source: Path, entry: Any, where: str) -> Template | None:
    """A template written into the data set config: new, or over one that a file gives."""
    original = entry.get("original_file") if isinstance(entry, dict) else None
    handle = entry.get("template_handle", original) if isinstance(entry, dict) else None
    attributes = entry.get("attributes") if isinstance(entry, dict) else None
    if not isinstance(handle, str) or not isinstance(attributes, dict):
        raise UserError(
            f'{where} needs "attributes" (a JSON object) and "template_handle" or "original_file"'
        )
    if original is None:
        attributes = overlay(library.defaults or {}, attributes)
        return Template(stem(handle), source, source.parent, attributes, library.kind)
    try:
        base = library.find(original, f"{where}.original_file", source)
    except UserError as error:
        # Habitat-Sim goes on, too: most houses do not need it.
        logger.warning(f"{error}; the template {handle!r} is left out")
        return None
    merged = overlay(base.attributes, attributes)
    return Template(stem(handle), base.source, base.folder, merged, library.kind, base.files)


def _expand(root: Path, pattern: str, seen: set[Path]) -> list[Path]:
    """Files that a path of a data set means: a glob, a folder (its files) or a file."""
    if Path(pattern).is_absolute():
        root, pattern = Path("/"), pattern.lstrip("/")
    files: list[Path] = []
    seen.add(root)
    try:
        matches = sorted(root.glob(pattern.rstrip("/"))) if pattern.strip("/.") else [root]
    except (ValueError, NotImplementedError) as error:
        raise UserError(f"scene data set in {root}: {pattern!r} is no path ({error})") from error
    for match in matches:
        folder = match if match.is_dir() else match.parent
        # What is added to a folder on the way can change what the pattern means.
        seen |= {folder, *(above for above in folder.parents if above.is_relative_to(root))}
        files += sorted(match.iterdir()) if match.is_dir() else [match]
    return [path for path in files if path.is_file()]
