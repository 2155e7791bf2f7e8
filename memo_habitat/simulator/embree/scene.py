"""Houses and what stands in them, kept per process while they are in use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from memo_habitat.simulator.arrangement import House, placed_objects
from memo_habitat.simulator.embree.distance_field import Geodesics
from memo_habitat.simulator.embree.geometry import Geometry, TriangleSoup
from memo_habitat.simulator.embree.meshes import forget_meshes
from memo_habitat.simulator.embree.navgrid import AgentShape, NavGrid, build_navgrid
from memo_habitat.simulator.embree.scene_dataset import SceneDataset, SceneInstance, find_scene
from memo_habitat.simulator.embree.templates import (
    object_soup,
    stage_soup,
)
from memo_habitat.simulator.interface import Instance
from memo_habitat.utils.file_cache import FileCache


@dataclass
class Scene:
    """A stage with its furniture: what all arrangements in it share."""

    dataset: SceneDataset
    source: Path
    parts: list[TriangleSoup]  # in world coordinates: the stage, panoptic id 0, furniture 1, 2, ...
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
        return self.geometry.ranges_of(instance.id for instance in self.instances)


_scenes: FileCache[Scene] = FileCache()


def clear_caches() -> None:
    """Empties the process's caches of houses and meshes."""
    _scenes.clear()
    forget_meshes()


def load_scene(
    handle: str, scene_dataset: str, shape: AgentShape, kept_houses: int, kept_fields: int
) -> Scene:
    """The house that Habitat's `scene` (the handle) and `scene_dataset` name, cached per process
    while all its files stay as they are.

    Raises:
        UserError: for missing or malformed files, or when nothing is navigable.
    """
    dataset, instance = find_scene(handle, scene_dataset)

    def build() -> tuple[Scene, frozenset[Path]]:
        parts = _parts(instance)
        grid = build_navgrid(
            np.concatenate([part.corners for part in parts]), shape, str(instance.source)
        )
        files = instance.files.union(*(part.files for part in parts))
        files |= {dataset.source} if dataset.source else frozenset()
        scene = Scene(dataset, instance.source, parts, grid, Geodesics(grid, kept_fields))
        return scene, files

    key = (instance.source, instance.name, dataset.source, shape, kept_fields)
    return _scenes.get(key, build, max(kept_houses, 1))


def _parts(instance: SceneInstance) -> list[TriangleSoup]:
    """The stage and the pieces of furniture where they stand."""
    parts = [stage_soup(instance.stage).transformed(instance.stage_transform)]
    for piece in instance.furniture:
        soup, center = object_soup(piece.template)
        center = np.zeros(3) if piece.asset_local else center
        parts.append(soup.transformed(_about(piece.transform, center)))
    return parts


def _about(transform: np.ndarray, center: np.ndarray) -> np.ndarray:
    """The transform of an asset's own coordinates that moves its centre as `transform` says."""
    shift = np.eye(4)
    shift[:3, 3] = -center
    return transform @ shift


def place_objects(
    scene: Scene, rigid_objs: Sequence[Any], folders: Sequence[str], first_id: int
) -> Arrangement:
    """The house with the objects of an episode; arguments and errors as `placed_objects`."""
    house = House(scene.source, scene.dataset.source, scene.dataset.objects, len(scene.parts) - 1)
    parts, ids = list(scene.parts), list(range(len(scene.parts)))
    instances: list[Instance] = []
    for placed in placed_objects(house, rigid_objs, folders, first_id):
        soup, center = object_soup(placed.template)
        parts.append(soup.transformed(_about(placed.transform, center)))
        ids.append(placed.id)
        position = parts[-1].bounds.mean(axis=0)
        position.setflags(write=False)
        instances.append(Instance(placed.name, placed.category, placed.id, position))
    return Arrangement(Geometry(parts, ids), tuple(instances))
