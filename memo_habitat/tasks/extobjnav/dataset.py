"""The ExtObjNav data set: arrangements of small objects in houses, read from gzip JSON files."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

from habitat.core.dataset import ALL_SCENES_MASK, Dataset
from habitat.core.logging import logger
from habitat.core.registry import registry
from omegaconf import DictConfig

from memo_habitat.errors import UserError
from memo_habitat.tasks.extobjnav.episode import ExtObjNavEpisode, house_of
from memo_habitat.tasks.extobjnav.parsing import parse_categories, parse_episodes, read_json
from memo_habitat.tasks.extobjnav.trial import TrialIterator
from memo_habitat.utils.data_paths import resolve

_CONTENT_FOLDER = "content"
_SUFFIX = ".json.gz"


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

    Returns:
        The vocabulary, and every arrangement in the files' order.

    Raises:
        UserError: with file, episode and field where something is missing or malformed.
    """
    content = read_json(path)
    vocabulary = parse_categories(content, path)
    episodes = parse_episodes(content, path)
    folder = path.parent / _CONTENT_FOLDER
    named: set[str] = set()
    if folder.is_dir():
        for house_file in sorted(folder.glob(f"*{_SUFFIX}")):
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


def _of_scenes(
    episodes: list[ExtObjNavEpisode], scenes: list[str], path: Path
) -> list[ExtObjNavEpisode]:
    if ALL_SCENES_MASK in scenes:
        return episodes
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
    seen: Counter[tuple[str, str]] = Counter()
    for episode in episodes:
        key = (episode.scene_id, episode.episode_id)
        seen[key] += 1
        if seen[key] > 1:
            episode.episode_id = f"{episode.episode_id}.{seen[key]}"
    repeated = sum(count > 1 for count in seen.values())
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
