"""Houses and small objects of any origin: those of a scene data set, and bare GLB files.

Bare files get what Habitat wants beside them, in the data set that is being written: configs that
say which way is up, and a scene. The files themselves are linked there, or copied.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from memo_habitat.errors import UserError
from memo_habitat.scenes import files
from memo_habitat.scenes.files import EpisodePlace
from memo_habitat.simulator.embree.scene_dataset import load_dataset
from memo_habitat.simulator.embree.templates import OBJECT, SCENE, STAGE
from memo_habitat.utils.data_paths import SET_CONFIG_SUFFIX

FRAMES = {"y": ([0, 1, 0], [0, 0, -1]), "z": ([0, 0, 1], [0, 1, 0])}
"""Up and front of bare GLB files by the axis that points up; glTF itself says y."""


def find_houses(source: Path, folder: Path, name: str, up: str) -> dict[str, EpisodePlace]:
    """Where the houses lie, by name.

    Args:
        source: a scene data set's configuration, a folder with one or with GLB files, or one GLB.
        folder: of the set that is being written, for what bare files need.
        name: of that set.
        up: key of `FRAMES`, for bare files.

    Raises:
        UserError: there are none.
    """
    configs = sorted(source.glob(f"*{SET_CONFIG_SUFFIX}")) if source.is_dir() else [source]
    if len(configs) > 1:
        raise UserError(f"{source} holds {len(configs)} scene data sets: name the file of one")
    if configs and configs[0].name.endswith(SET_CONFIG_SUFFIX):
        dataset = load_dataset(configs[0])
        # Sets of scans have no scenes: their stages are the houses.
        found = dataset.scenes or dataset.stages
        places = {}
        for house, template in sorted(found.items()):
            # One that is written into the data set's config has no file, but its name.
            is_inline = template.source == dataset.source
            scene = house if is_inline else template.source.as_posix()
            places[house] = EpisodePlace(scene, configs[0].as_posix())
        return places
    meshes = _meshes(source)
    if not meshes:
        raise UserError(
            f"{source} is neither a *{SET_CONFIG_SUFFIX} nor a GLB file or a folder of them"
        )
    written = files.set_config(name)
    for house, mesh in meshes.items():
        written |= _bare_config(f"stages/{house}{STAGE.suffix}", mesh, folder, up)
        instance = {"stage_instance": {"template_name": house}, "object_instances": []}
        written[f"scenes/{house}{SCENE.suffix}"] = files.json_bytes(instance)
    files.write_files(folder, written)
    return {house: EpisodePlace.of(name, house) for house in meshes}


def find_objects(
    sources: Sequence[Path], folder: Path, name: str
) -> tuple[dict[str, Path], tuple[str, ...]]:
    """Configs of small objects by category, and the folders that episodes name for them.

    Args:
        sources: folders of object configs, or of GLB files.
        folder: of the set that is being written, for what bare files need.
        name: of that set.

    Raises:
        UserError: there are none, or two of one name.
    """
    found: dict[str, Path] = {}
    named: list[str] = []
    for source in sources:
        mine = {p.name[: -len(OBJECT.suffix)]: p for p in sorted(source.glob(f"*{OBJECT.suffix}"))}
        place = f"{source.as_posix()}/"
        bare: dict[str, Path] = {}  # by their configs, which are yet to be written
        if not mine:
            place = f"data/{name}/{files.BARE_OBJECTS}/"
            for category, mesh in _meshes(source).items():
                config = f"{files.BARE_OBJECTS}/{category}{OBJECT.suffix}"
                bare[config], mine[category] = mesh, folder / config
        if not mine:
            raise UserError(f"{source} holds neither *{OBJECT.suffix} nor GLB files")
        if twice := sorted(set(mine) & set(found)):
            raise UserError(
                f"{source} has a {twice[0]} as another folder of objects has: rename it"
            )
        for config, mesh in bare.items():
            files.write_files(folder, _bare_config(config, mesh, folder, "y"))
        found |= mine
        named += [place] if place not in named else []
    return dict(sorted(found.items())), tuple(named)


def on_disk(place: EpisodePlace, folder: Path, name: str) -> EpisodePlace:
    """The place while the set that is being written still lies in another folder."""
    own = f"data/{name}/"

    def moved(path: str) -> str:
        now = folder / path.removeprefix(own)
        # Not all that is called so is its own: the houses may be those of a set of the same name.
        return str(now) if path.startswith(own) and now.exists() else path

    scene, dataset = moved(place.scene_id), moved(place.scene_dataset_config)
    return replace(
        place,
        scene_id=scene,
        scene_dataset_config=dataset,
        objects=tuple(map(moved, place.objects)),
    )


def _meshes(source: Path) -> dict[str, Path]:
    """GLB files by name."""
    found = sorted(source.iterdir()) if source.is_dir() else [source]
    return {path.stem: path for path in found if path.suffix.lower() == ".glb" and path.is_file()}


def _bare_config(config: str, mesh: Path, folder: Path, up: str) -> dict[str, bytes]:
    """The config of a bare file, which is put beside it."""
    target = (folder / config).with_name(f"{mesh.stem}.glb")
    target.parent.mkdir(parents=True, exist_ok=True)
    # Never written into: what lies there may be a link to somebody's file.
    target.unlink(missing_ok=True)
    try:
        os.link(mesh.resolve(), target)  # of a symbolic link, what it leads to
    except OSError:  # on another file system
        shutil.copyfile(mesh, target)
    axis, front = FRAMES[up]
    document = {"render_asset": target.name, "up": axis, "front": front, "is_collidable": True}
    return {config: files.json_bytes(document)}
