"""What an episode asks any simulator to place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from memo_habitat.errors import UserError
from memo_habitat.simulator.embree.templates import (
    OBJECT,
    Library,
    Template,
    read_template,
    stem,
)
from memo_habitat.simulator.interface import instance_names
from memo_habitat.utils.data_paths import resolve


@dataclass(frozen=True)
class PlacedObject:
    """A small object of an episode, found on disk but not yet loaded."""

    name: str  # "<category>_:NNNN"
    category: str
    id: int  # panoptic id
    template: Template
    transform: np.ndarray  # [4, 4], moves its centre of mass


@dataclass(frozen=True)
class House:
    """What placing objects needs to know of a house."""

    source: Path  # the scene instance or mesh
    dataset: Path | None  # the scene data set
    objects: Library  # of the data set
    furniture: int  # pieces, whose panoptic ids are 1, 2, ...


def placed_objects(
    house: House, rigid_objs: Sequence[Any], folders: Sequence[str], first_id: int
) -> list[PlacedObject]:
    """The small objects of an episode, in the order of `rigid_objs`.

    Args:
        house: where they stand.
        rigid_objs: pairs of object-config file name and 4x4 row-major transform.
        folders: the episode's additional_obj_config_paths, searched before the data set.
        first_id: panoptic id of the first object.

    Raises:
        UserError: for an unknown object, a malformed pair, or ids that overlap the furniture's.
    """
    if rigid_objs and first_id <= house.furniture:
        raise UserError(
            f"habitat.simulator.object_ids_start={first_id} is taken: {house.source} has "
            f"{house.furniture} pieces of furniture; set it to {house.furniture + 1} or more"
        )
    library, own = house.objects, _configs_in(folders)
    placed: list[PlacedObject] = []
    pairs = [
        _pair(entry, f"rigid_objs[{i}] in {house.source.name}")
        for i, entry in enumerate(rigid_objs)
    ]
    labels = instance_names(stem(name) for name, _ in pairs)
    for i, ((name, transform), label) in enumerate(zip(pairs, labels, strict=True)):
        category = stem(name)
        if category not in own and category not in library:
            raise UserError(
                f"object {name!r} of rigid_objs[{i}] has no {OBJECT.suffix.lstrip('.')} in "
                f"{list(folders)} or the scene data set {house.dataset}: correct the name "
                "or additional_obj_config_paths"
            )
        template = (
            read_template(own[category], OBJECT, library.defaults)
            if category in own
            else library[category]
        )
        placed.append(PlacedObject(label, category, first_id + i, template, transform))
    return placed


def objects_of(config: Any, episode: Any) -> tuple[list[Any], list[str], int]:
    """The small objects of an episode (None: there is none), as `placed_objects` takes them."""
    folders = getattr(episode, "additional_obj_config_paths", None) or ()
    return (
        list(getattr(episode, "rigid_objs", None) or ()),
        [*folders, *config.get("additional_object_paths", ())],
        int(config.get("object_ids_start", 100)),
    )


def _configs_in(folders: Sequence[str]) -> dict[str, Path]:
    """Object name -> config file below the folders; the first folder that has a name wins."""
    found: dict[str, Path] = {}
    for folder in folders:
        try:
            path = resolve(str(folder))
        except UserError:
            # A set that was moved: its own data set config lists the objects as well.
            continue
        files = sorted(path.glob(f"*{OBJECT.suffix}")) if path.is_dir() else [path]
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
