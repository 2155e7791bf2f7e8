"""Checks that scene data sets and episode files are whole: everything that they name is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from memo_habitat.errors import UserError
from memo_habitat.simulator.embree.scene_dataset import (
    SceneDataset,
    SceneInstance,
    find_scene,
    load_dataset,
)
from memo_habitat.simulator.embree.templates import (
    OBJECT,
    Template,
    read_template,
    stem,
)
from memo_habitat.tasks.extobjnav.dataset import files_of_houses, read_json, read_split
from memo_habitat.tasks.extobjnav.episode import ExtObjNavEpisode, category_of, house_of
from memo_habitat.utils.data_paths import SET_CONFIG_SUFFIX, resolve

_EPISODES = ".json.gz"
_CONTENT = "content"


@dataclass
class Count:
    """What a file holds.

    Attributes:
        file: a scene data set's configuration or a split's file of episodes.
        houses, episodes: how many; each episode of ExtObjNav is an arrangement.
        objects: small objects by category, over all arrangements; empty for other tasks.
    """

    file: Path
    houses: int
    episodes: int = 0
    objects: Counter[str] = field(default_factory=Counter)


def check(folder: Path) -> Iterator[Count]:
    """Check every scene data set and every file of episodes below a folder, one after the other.

    Scenes must resolve to stages and objects whose mesh files exist (they are not opened), episodes
    to scenes and object configs. Yields what each file holds.

    Raises:
        UserError: nothing to check, or the first thing that is wrong, with file and field.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder: give one that holds scenes or episodes")
    sets = _visible(folder, SET_CONFIG_SUFFIX)
    splits = [file for file in _visible(folder, _EPISODES) if not _is_part(file)]
    if not sets and not splits:
        raise UserError(
            f"{folder} holds neither a *{SET_CONFIG_SUFFIX} nor episodes (*{_EPISODES}): give "
            "another folder, or download or make a set"
        )
    checker = _Checker()
    yield from map(checker.scene_dataset, sets)
    yield from map(checker.split, splits)


def _visible(folder: Path, suffix: str) -> list[Path]:
    """Files below a folder, without what the download client keeps for itself."""
    found = sorted(folder.rglob(f"*{suffix}"))
    return [
        path
        for path in found
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def _is_part(file: Path) -> bool:
    """Whether a file is one house of a split, whose own file lies above it."""
    return file.parent.name == _CONTENT and any(file.parent.parent.glob(f"*{_EPISODES}"))


@contextmanager
def _named(where: str, name: str | None = None) -> Iterator[None]:
    """Errors within begin with the file, the episode and the field."""
    try:
        yield
    except UserError as error:
        what = f"{where}: field {name!r}: " if name else f"{where}: "
        raise UserError(f"{what}{error}") from error


def _records_of_another_task(file: Path) -> list[Any]:
    """All episodes of a split and the files of its houses; none if one is of ExtObjNav.

    That one is found in the first file that holds any: no other is read twice.
    """
    content = read_json(file)
    records: list[Any] = []
    for part in (content, *map(read_json, files_of_houses(content, file))):
        found = part.get("episodes")
        found = found if isinstance(found, list) else []
        if not all(map(_is_of_another_task, found)):
            return []
        records += found
    return records


def _is_of_another_task(record: Any) -> bool:
    return (
        isinstance(record, dict)
        and isinstance(record.get("scene_id"), str)
        and ("rigid_objs" not in record)
    )


class _Checker:
    """Checks files and remembers what was found whole, which episodes name again and again."""

    def __init__(self) -> None:
        self._scenes: dict[tuple[str, str], SceneDataset] = {}
        self._objects: set[tuple[str, ...]] = set()
        self._templates: set[tuple[Path, str]] = set()

    def scene_dataset(self, file: Path) -> Count:
        """Check every template and scene of a data set."""
        dataset = load_dataset(file)
        for library in (dataset.stages, dataset.objects, dataset.articulated):
            for template in library.values():
                self._template(template)
        for name in dataset.scenes:
            self._scene(dataset.scene(name))
        return Count(file, len(dataset.scenes) or len(dataset.stages))

    def split(self, file: Path) -> Count:
        """Check the episodes of one split, of ExtObjNav or another task."""
        if records := _records_of_another_task(file):
            return self._other_task(file, records)
        _, episodes = read_split(file)
        objects: Counter[str] = Counter()
        for episode in episodes:
            self._episode(episode, file)
            objects.update(category_of(name) for name, _ in episode.rigid_objs)
        houses = {house_of(episode.scene_id) for episode in episodes}
        return Count(file, len(houses), len(episodes), objects)

    def _episode(self, episode: ExtObjNavEpisode, file: Path) -> None:
        where = f"{file}: episode {episode.episode_id!r}"
        folders = episode.additional_obj_config_paths
        with _named(where, "scene_id"):
            dataset = self._find(episode.scene_id, episode.scene_dataset_config)
        for name in sorted({Path(name).name for name, _ in episode.rigid_objs}):
            key = (name, str(dataset.source), *folders)
            if key in self._objects:
                continue
            with _named(where, "rigid_objs"):
                found = [Path(folder, name) for folder in folders if Path(folder, name).is_file()]
                if found:
                    self._template(read_template(found[0], OBJECT))
                elif stem(name) in dataset.objects:
                    self._template(dataset.objects[stem(name)])
                else:
                    raise UserError(
                        f"{name} is neither in {', '.join(folders)} nor in the scenes' "
                        f"data set {dataset.source}"
                    )
            self._objects.add(key)

    def _other_task(self, file: Path, records: list[Any]) -> Count:
        """Check the scenes of point goals and the like."""
        houses = set()
        for number, record in enumerate(records):
            with _named(f"{file}: episode number {number}", "scene_id"):
                scene = record["scene_id"]
                dataset = str(record.get("scene_dataset_config", "default"))
                if dataset.endswith(SET_CONFIG_SUFFIX):
                    dataset = str(resolve(dataset, beside=file))
                self._find(scene, dataset)
            houses.add(house_of(scene))
        return Count(file, len(houses), len(records))

    def _find(self, scene: str, scene_dataset: str) -> SceneDataset:
        """The data set of a scene, which is whole."""
        key = scene, scene_dataset
        if key not in self._scenes:
            dataset, instance = find_scene(scene, scene_dataset)
            self._scene(instance)
            self._scenes[key] = dataset
        return self._scenes[key]

    def _scene(self, scene: SceneInstance) -> None:
        for template in (scene.stage, *(piece.template for piece in scene.furniture)):
            with _named(str(scene.source)):
                self._template(template)

    def _template(self, template: Template) -> None:
        """Check that the meshes which a template names exist."""
        if (template.source, template.name) in self._templates:
            return
        for key, file in template.assets().items():
            if not file.is_file():
                name = template.attributes[key]
                raise UserError(f"{template.source}: field {key!r} is {name!r}, which is missing")
        self._templates.add((template.source, template.name))
