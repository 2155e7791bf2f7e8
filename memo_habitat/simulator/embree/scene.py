"""Houses and what stands in them, kept per process while they are in use."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from memo_habitat.errors import UserError
from memo_habitat.simulator.embree.distance_field import Geodesics
from memo_habitat.simulator.embree.geometry import Geometry, TriangleSoup
from memo_habitat.simulator.embree.navgrid import AgentShape, NavGrid, build_navgrid
from memo_habitat.simulator.embree.scene_dataset import (
    OBJECT_SUFFIX,
    SceneDataset,
    clear_mesh_cache,
    find_scene,
    object_soup,
    stage_soup,
    stem,
)
from memo_habitat.simulator.interface import Instance
from memo_habitat.utils.data_paths import resolve

STAGE_ID = 0


@dataclass
class Scene:
    """A stage with its furniture: what all arrangements in it share."""

    dataset: SceneDataset
    source: Path
    parts: list[TriangleSoup]  # the stage, then the furniture, in world coordinates
    ids: list[int]  # their panoptic ids: 0, then 1, 2, ...
    grid: NavGrid
    geodesics: Geodesics


@dataclass(frozen=True)
class Arrangement:
    """A house with small objects placed in it, ready for rays."""

    geometry: Geometry
    instances: tuple[Instance, ...]

    @cached_property
    def centres(self) -> np.ndarray:
        """[I, 3] m: positions of the instances."""
        return np.array([instance.position for instance in self.instances]).reshape(-1, 3)

    @cached_property
    def bounds(self) -> np.ndarray:
        """[I, 2, 3] m: bounding boxes of the instances."""
        return self.geometry.bounds_of(instance.id for instance in self.instances)

    @cached_property
    def triangles(self) -> np.ndarray:
        """[I, 2] int64: first and one past the last triangle of each instance."""
        ranges = [self.geometry.ranges[instance.id] for instance in self.instances]
        return np.array(ranges, dtype=np.int64).reshape(-1, 2)


_scenes: OrderedDict[tuple[Any, ...], Scene] = OrderedDict()


def clear_caches() -> None:
    """Empties the process's caches of houses and meshes."""
    _scenes.clear()
    clear_mesh_cache()


def load_scene(
    handle: str, scene_dataset: str, shape: AgentShape, kept_houses: int, kept_fields: int
) -> Scene:
    """The house that Habitat's `scene` (the handle) and `scene_dataset` name, cached per process.

    Raises:
        UserError: for missing or malformed files, or when nothing is navigable.
    """
    dataset, instance = find_scene(handle, scene_dataset)
    stamp = instance.source.stat().st_mtime_ns
    key = (instance.source, stamp, dataset.source, shape, kept_fields)
    if key in _scenes:
        _scenes.move_to_end(key)
        return _scenes[key]
    parts = [stage_soup(instance.stage).transformed(instance.stage_transform)]
    for placement in instance.furniture:
        soup, center = object_soup(placement.config)
        parts.append(soup.transformed(_placed(placement.transform, center, placement.asset_local)))
    corners = np.concatenate([part.corners for part in parts])
    grid = build_navgrid(corners, shape, str(instance.source))
    scene = Scene(
        dataset,
        instance.source,
        parts,
        list(range(STAGE_ID, len(parts))),
        grid,
        Geodesics(grid, kept_fields),
    )
    _scenes[key] = scene
    while len(_scenes) > max(kept_houses, 1):
        _scenes.popitem(last=False)
    return scene


def _placed(transform: np.ndarray, center: np.ndarray, asset_local: bool) -> np.ndarray:
    """The transform of the asset's own coordinates."""
    if asset_local or not center.any():
        return transform
    shift = np.eye(4)
    shift[:3, 3] = -center
    return transform @ shift


def place_objects(
    scene: Scene, rigid_objs: Sequence[Any], folders: Sequence[str], first_id: int
) -> Arrangement:
    """The house with the objects of an episode.

    Args:
        scene: where they stand.
        rigid_objs: pairs of object-config file name and 4x4 row-major transform.
        folders: the episode's additional_obj_config_paths, searched before the data set.
        first_id: panoptic id of the first object.

    Raises:
        UserError: for an unknown object, a malformed pair, or ids that overlap the furniture's.
    """
    if rigid_objs and first_id <= max(scene.ids):
        raise UserError(
            f"habitat.simulator.object_ids_start={first_id} is taken: {scene.source} has "
            f"{max(scene.ids)} pieces of furniture; set it to {max(scene.ids) + 1} or more"
        )
    known = {**scene.dataset.objects, **_configs_in(folders)}
    parts, ids, instances = list(scene.parts), list(scene.ids), []
    counts: dict[str, int] = {}
    for index, entry in enumerate(rigid_objs):
        name, transform = _pair(entry, f"rigid_objs[{index}] in {scene.source.name}")
        category = stem(name)
        if category not in known:
            raise UserError(
                f"object {name!r} of rigid_objs[{index}] has no {OBJECT_SUFFIX.lstrip('.')} in "
                f"{list(folders)} or the scene data set {scene.dataset.source}: correct the name "
                "or additional_obj_config_paths"
            )
        soup, center = object_soup(known[category])
        soup = soup.transformed(_placed(transform, center, asset_local=False))
        number = counts.get(category, 0)
        counts[category] = number + 1
        parts.append(soup)
        ids.append(first_id + index)
        position = soup.bounds.mean(axis=0)
        position.setflags(write=False)
        instances.append(
            Instance(f"{category}_:{number:04d}", category, first_id + index, position)
        )
    return Arrangement(Geometry(parts, ids), tuple(instances))


def _configs_in(folders: Sequence[str]) -> dict[str, Path]:
    """Object name -> config file below the folders; the first folder that has a name wins."""
    found: dict[str, Path] = {}
    for folder in folders:
        try:
            path = resolve(str(folder))
        except UserError:
            # A set that was moved: its own data set config lists the objects as well.
            continue
        files = sorted(path.glob(f"*{OBJECT_SUFFIX}")) if path.is_dir() else [path]
        for file in files:
            found.setdefault(stem(file.name), file)
    return found


def _pair(entry: Any, where: str) -> tuple[str, np.ndarray]:
    try:
        name, rows = entry
        transform = np.asarray(rows, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where} must be [object-config file name, 4x4 transform]") from error
    if transform.shape != (4, 4) or not np.isfinite(transform).all():
        raise UserError(f"{where}: the transform must be 4x4 finite numbers, row by row")
    return str(name), transform
