"""The ExtObjNav data set: arrangements of small objects in houses, read from gzip JSON files.

Files of the published form are read; what is missing or malformed is refused by name.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import attr
import numpy as np
from habitat.core.dataset import ALL_SCENES_MASK, Dataset
from habitat.core.logging import logger
from habitat.core.registry import registry
from omegaconf import DictConfig
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from memo_habitat.errors import UserError
from memo_habitat.tasks.extobjnav.episode import (
    OBJECT_CONFIG_SUFFIX,
    ExtObjNavEpisode,
    TrialIterator,
    category_of,
    house_of,
)
from memo_habitat.utils.data_paths import resolve

#: Where the files of the houses lie unless the split's own file says otherwise, as in Habitat.
_CONTENT_PATH = "{data_path}/content/{scene}.json.gz"


@registry.register_dataset(name="ExtObjNav-v0")
class ExtObjNavDataset(Dataset[ExtObjNavEpisode]):
    """Arrangements of one split, and the vocabulary of their categories.

    Each entry of `episodes` is one arrangement of small objects in a house. A split is one file,
    or, as in Habitat's larger sets, one file and beside it a folder `content` with a file per
    house.

    Attributes:
        episodes: arrangements of the houses chosen by `content_scenes`.
        categories: the vocabulary: the file's own `categories`, else the sorted union over the
            whole split, so that a choice of houses does not change what an index means.
    """

    def __init__(self, config: DictConfig | None = None) -> None:
        """Read the split that `config` names; without a config the set is empty."""
        self.config = config
        self.episodes: list[ExtObjNavEpisode] = []
        self.categories: tuple[str, ...] = ()
        if config is None:
            return
        path = episode_file(config)
        self.categories, everything = read_split(path)
        self.episodes = _of_scenes(everything, list(config.content_scenes), path)

    @staticmethod
    def scene_from_scene_path(scene_path: str) -> str:
        """Name of the house of a scene."""
        return house_of(scene_path)

    @classmethod
    def check_config_paths_exist(cls, config: DictConfig) -> bool:
        """Whether the split's file exists."""
        return episode_file(config).is_file()

    @classmethod
    def get_scenes_to_load(cls, config: DictConfig) -> list[str]:
        """Names of the houses of the whole split, sorted."""
        _, everything = read_split(episode_file(config))
        return sorted({house_of(episode.scene_id) for episode in everything})

    def get_episode_iterator(self, *args: Any, **kwargs: Any) -> TrialIterator:
        """Iterate trial by trial; options as `habitat.environment.iterator_options`."""
        return TrialIterator(self.episodes, *args, **kwargs)


def episode_file(config: DictConfig) -> Path:
    """Path of the split's file."""
    return Path(resolve(config.data_path.format(split=config.split)))


def read_split(path: Path) -> tuple[tuple[str, ...], list[ExtObjNavEpisode]]:
    """Read a split's file and the files of its `content` folder.

    Their path is `content_scenes_path` of the split's file, as in Habitat's data sets.

    Returns:
        The vocabulary, and every arrangement in the files' order.

    Raises:
        UserError: with file, episode and field where something is missing or malformed.
    """
    content = read_json(path)
    vocabulary = parse_categories(content, path)
    episodes = parse_episodes(content, path)
    named: set[str] = set()
    for house_file in files_of_houses(content, path):
        house_content = read_json(house_file)
        named.update(parse_categories(house_content, house_file) or ())
        episodes += parse_episodes(house_content, house_file)
    if not episodes:
        raise UserError(f"{path}: has no episodes; name another file in habitat.dataset.data_path")
    if vocabulary is None:
        vocabulary = sorted(named.union(*(episode.categories for episode in episodes)))
    _name_apart(episodes, path)
    _find_moved(episodes, path)
    return tuple(vocabulary), episodes


def files_of_houses(content: dict[str, Any], path: Path) -> list[Path]:
    """The files of the houses of a split, sorted."""
    pattern = content.get("content_scenes_path", _CONTENT_PATH)
    if not isinstance(pattern, str) or pattern.count("{scene}") != 1:
        raise UserError(
            f"{path}: field 'content_scenes_path' is {pattern!r}: give a path like {_CONTENT_PATH}"
        )
    before, after = pattern.replace("{data_path}", str(path.parent)).split("{scene}")
    folder, start = Path(f"{before}_").parent, Path(f"{before}_").name[:-1]
    if not folder.is_absolute() and not folder.is_dir():
        folder = path.parent / folder
    return sorted(
        file
        for file in (folder.iterdir() if folder.is_dir() else ())
        if file.name.startswith(start) and file.name.endswith(after) and file != path
    )


def _of_scenes(
    episodes: list[ExtObjNavEpisode], scenes: list[str], path: Path
) -> list[ExtObjNavEpisode]:
    if ALL_SCENES_MASK in scenes:
        return episodes
    # In the file's order, whatever the order of `scenes`: an unshuffled pass is the same.
    houses = {house_of(episode.scene_id) for episode in episodes}
    missing = sorted(set(scenes) - houses)
    if missing or not scenes:
        raise UserError(
            f"{path}: has no house {', '.join(missing) or '(none is named)'}; habitat.dataset."
            f"content_scenes can be '*' or some of {', '.join(sorted(houses)[:20])}"
        )
    return [episode for episode in episodes if house_of(episode.scene_id) in scenes]


def _name_apart(episodes: list[ExtObjNavEpisode], path: Path) -> None:
    """Make (scene, episode id) unique: records and random draws are told apart by it."""
    in_file = {(episode.scene_id, episode.episode_id) for episode in episodes}
    numbers: Counter[tuple[str, str]] = Counter()
    for episode in episodes:
        scene, name = key = episode.scene_id, episode.episode_id
        numbers[key] += 1
        if numbers[key] == 1:
            continue
        while (scene, f"{name}.{numbers[key]}") in in_file:
            numbers[key] += 1
        episode.episode_id = f"{name}.{numbers[key]}"
    repeated = sum(number > 1 for number in numbers.values())
    if repeated:
        logger.warning(
            f"{path}: {repeated} episode id(s) occur more than once in a house;"
            " later ones are read as <id>.2, <id>.3, ..."
        )


def _find_moved(episodes: list[ExtObjNavEpisode], path: Path) -> None:
    """Point scene data set and object folders to where they lie beside the episode file.

    What cannot be found is left as it is written: only a simulator that loads it needs it, and it
    then says so.
    """

    @cache
    def located(name: str) -> str:
        try:
            return str(resolve(name, beside=path))
        except UserError:
            return name

    for episode in episodes:
        episode.scene_dataset_config = located(episode.scene_dataset_config)
        episode.additional_obj_config_paths = [
            located(folder) for folder in episode.additional_obj_config_paths
        ]


#: What the fields of Habitat's own episode, which these extend, are called.
_HABITATS_FIELDS = {
    field.name
    for field in attr.fields(ExtObjNavEpisode)
    if field.init and field.name not in ("extra", "trial", "episode_index", "target_category")
}
_ROTATION_TOLERANCE = 1e-3

_Text = Annotated[str, Field(strict=True, pattern=r"\S")]
_Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
_Four = Annotated[list[_Number], Field(min_length=4, max_length=4)]


def _object_config(name: str) -> str:
    if not name.endswith(OBJECT_CONFIG_SUFFIX) or not category_of(name):
        raise ValueError(f"{_short(name)} is no <category>{OBJECT_CONFIG_SUFFIX}")
    return name


def _transform(matrix: list[list[float]]) -> list[list[float]]:
    # A column-major matrix has its translation there.
    if not np.allclose(matrix[3], (0.0, 0.0, 0.0, 1.0), atol=1e-4):
        raise ValueError(f"last row is {matrix[3]}")
    return matrix


def _unit_quaternion(rotation: list[float]) -> list[float]:
    norm = float(np.linalg.norm(rotation))
    if abs(norm - 1.0) > _ROTATION_TOLERANCE:
        raise ValueError(f"its length is {norm:.3g}")
    return rotation


class _Record(BaseModel):
    """The fields of an episode that are needed, each with what it should be; others are kept."""

    model_config = ConfigDict(extra="allow")

    episode_id: Annotated[
        _Text, BeforeValidator(lambda value: str(value) if type(value) is int else value)
    ] = Field(description="a name or a number, unique within its house")
    scene_id: _Text = Field(description="the path or handle of a scene instance")
    scene_dataset_config: _Text = Field(description="the path of a *.scene_dataset_config.json")
    additional_obj_config_paths: list[_Text] = Field(
        description="a list of folders with object configs"
    )
    start_position: Annotated[list[_Number], Field(min_length=3, max_length=3)] = Field(
        description="[x, y, z] in metres"
    )
    start_rotation: Annotated[_Four, AfterValidator(_unit_quaternion)] = Field(
        description="a unit quaternion [x, y, z, w]"
    )
    rigid_objs: list[
        tuple[
            Annotated[_Text, AfterValidator(_object_config)],
            Annotated[list[_Four], Field(min_length=4, max_length=4), AfterValidator(_transform)],
        ]
    ] = Field(
        description=f'a list of ["<category>{OBJECT_CONFIG_SUFFIX}", 4x4 row-major transform with '
        "last row 0 0 0 1]"
    )
    name_to_receptacle: dict[str, Any] = Field(
        description="an object that maps instance names to receptacles"
    )
    ao_states: dict[str, Any] = Field({}, description="an object; {} where nothing is articulated")
    targets: dict[str, Any] = Field({}, description="an object; {} where nothing is to be moved")


def read_json(path: Path) -> dict[str, Any]:
    """Read one gzip JSON file.

    Raises:
        UserError: the file cannot be read, or holds no object at its top.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            content = json.load(file)
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            remedy = "check habitat.dataset.data_path and habitat.dataset.split"
        else:
            remedy = "it should be a readable gzip JSON file; copy or generate it again"
        raise UserError(f"{path}: cannot be read ({error}); {remedy}") from error
    except (EOFError, zlib.error, ValueError) as error:
        raise UserError(
            f"{path}: not a whole gzip JSON file ({error}); copy or generate it again"
        ) from error
    if not isinstance(content, dict):
        raise UserError(
            f"{path}: the top level is a {type(content).__name__}, not an object with 'episodes'"
        )
    return content


def parse_categories(content: dict[str, Any], path: Path) -> list[str] | None:
    """Return the file's own vocabulary, in its order, or None where the file has none."""
    if "categories" not in content:
        return None
    names = content["categories"]
    if (
        not isinstance(names, list)
        or not names
        or not all(isinstance(name, str) and name.strip() for name in names)
    ):
        raise UserError(
            f"{path}: field 'categories' is {_short(names)}, not a list of category names"
        )
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise UserError(f"{path}: field 'categories' names {twice} more than once")
    return names


def parse_episodes(content: dict[str, Any], path: Path) -> list[ExtObjNavEpisode]:
    """Return the entries of one file.

    Raises:
        UserError: with file, episode and field in its text.
    """
    records = content.get("episodes")
    if not isinstance(records, list):
        raise UserError(f"{path}: field 'episodes' is {_short(records)}, not a list of episodes")
    vocabulary = parse_categories(content, path)
    return [_parse_episode(record, i, path, vocabulary) for i, record in enumerate(records)]


def _parse_episode(
    record: Any, index: int, path: Path, vocabulary: list[str] | None
) -> ExtObjNavEpisode:
    if not isinstance(record, dict):
        raise UserError(
            f"{path}: episode number {index} is {_short(record)}, not an object with fields"
        )
    where = f"{path}: episode {record.get('episode_id', f'number {index}')!r}"
    try:
        parsed = _Record.model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        found = "missing"
        if name in record:
            inside = "".join(f"[{step}]" for step in first["loc"][1:])
            found = f"{_short(record[name])} ({f'{inside}: ' if inside else ''}{first['msg']})"
        wanted = _Record.model_fields[name].description
        raise UserError(f"{where}: field {name!r} is {found}; it should be {wanted}") from error
    if vocabulary is not None:
        _check_vocabulary(parsed.rigid_objs, vocabulary, where)
    fields = {name: getattr(parsed, name) for name in _Record.model_fields}
    for name, value in (parsed.model_extra or {}).items():
        (fields if name in _HABITATS_FIELDS else fields.setdefault("extra", {}))[name] = value
    return ExtObjNavEpisode(**fields)


def _check_vocabulary(objects: list[tuple[str, Any]], vocabulary: list[str], where: str) -> None:
    known = set(vocabulary)
    for name, _ in objects:
        if category_of(name) not in known:
            raise UserError(
                f"{where}: field 'rigid_objs' has an object of the unknown category"
                f" {category_of(name)!r}; the file's 'categories' are {', '.join(vocabulary)}"
            )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
