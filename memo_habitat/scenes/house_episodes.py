"""Episodes for houses of any origin: small objects arranged, written in the published form."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from habitat.config import read_write
from habitat.config.default import patch_config
from habitat.sims import make_sim
from omegaconf import OmegaConf
from tqdm import tqdm

from memo_habitat.compat import startup
from memo_habitat.config.compose import choices, compose_config
from memo_habitat.config.simulator import options_of
from memo_habitat.errors import UserError
from memo_habitat.scenes import files
from memo_habitat.scenes.any_house import AnyHouse, AnyObject
from memo_habitat.scenes.files import EpisodePlace
from memo_habitat.scenes.floor_plan import RandomStream
from memo_habitat.scenes.generate import check_counts, check_name, shares
from memo_habitat.scenes.house_sources import FRAMES, find_houses, find_objects, on_disk
from memo_habitat.scenes.object_placement import Arrangement
from memo_habitat.scenes.surfaces import read_receptacles
from memo_habitat.simulator.embree.geometry import Geometry
from memo_habitat.simulator.embree.scene import load_scene
from memo_habitat.simulator.embree.scene_dataset import find_scene, load_dataset
from memo_habitat.simulator.embree.sim import agent_shape
from memo_habitat.simulator.interface import instance_names, task_simulator
from memo_habitat.tasks.extobjnav.dataset import parse_episodes
from memo_habitat.tasks.extobjnav.goals import GoalOptions
from memo_habitat.utils.data_paths import MANIFEST

KIND = "episodes"
ATTEMPTS = 4
"""Arrangements that may fail, beside those that are found, before a house is left out."""
INSTANCES, CATEGORIES = 24, 14
"""Of an arrangement, as in apartments, where there are as many kinds of objects."""
SPLIT_BY = ("houses", "arrangements")


@dataclass(frozen=True)
class EpisodeOptions:
    """What `memo-habitat scenes episodes` is told.

    Attributes:
        scene_dataset: a scene data set's configuration, a folder of GLB files, or one of them.
        objects: folders of object configs or of GLB files.
        out: folder to write.
        houses: pattern of the names of the houses to use.
        arrangements: per house.
        instances, categories: objects of an arrangement and kinds of them; None: as many as in
            apartments, or as the objects allow.
        split_sizes: for train, val and test, of what `split_by` says; None: about 70/10/20 %.
        split_by: "houses": no house is in two splits; "arrangements": every house is in all.
        seed: determines every choice.
        simulator: a choice of the config group `simulator`, which says what can be reached.
        up: axis of bare GLB files that points up.
        name: of the data set; None: that of `out`.
        overwrite: replace a set of the same name that the same command wrote.
    """

    scene_dataset: Path
    objects: Sequence[Path]
    out: Path
    houses: str = "*"
    arrangements: int = 4
    instances: int | None = None
    categories: int | None = None
    split_sizes: tuple[int, ...] | None = None
    split_by: str = "houses"
    seed: int = 0
    simulator: str = "embree"
    up: str = "y"
    name: str | None = None
    overwrite: bool = False

    @property
    def set_name(self) -> str:
        """Name of the data set."""
        return self.name or self.out.resolve().name

    def counts(self, kinds: int) -> tuple[int, int]:
        """Instances and categories of an arrangement, of so many kinds of objects."""
        categories = min(kinds, CATEGORIES) if self.categories is None else self.categories
        instances = min(INSTANCES, 3 * categories) if self.instances is None else self.instances
        check_counts(instances, categories, kinds)
        return instances, categories

    def check(self) -> None:
        """Refuse what has no meaning.

        Raises:
            UserError: naming the value and what would be valid.
        """
        for option, known in (
            ("split_by", SPLIT_BY),
            ("up", FRAMES),
            ("simulator", choices("simulator")),
        ):
            if getattr(self, option) not in known:
                raise UserError(
                    f"{option} is {getattr(self, option)}: give one of {', '.join(known)}"
                )
        if self.arrangements < 1:
            raise UserError(f"arrangements is {self.arrangements}: give 1 or more")
        check_name(self.set_name)
        if self.split_by == "arrangements":
            self.arrangement_shares()

    def houses_wanted(self, known: int) -> int:
        """How many houses are to serve of those that are known; more are not tried."""
        if self.split_by == "arrangements":
            return known
        if self.split_sizes is None and known < 3:
            raise UserError(
                f"{known} house(s) are too few for splits of their own: give --split-by "
                "arrangements, or --split-sizes"
            )
        wanted = known if self.split_sizes is None else sum(self.split_sizes)
        shares(min(wanted, known), self.split_sizes)
        return wanted

    def arrangement_shares(self) -> dict[str, int]:
        """Arrangements of each house in each split."""
        return shares(self.arrangements, self.split_sizes, "arrangements")


@dataclass
class Written:
    """What came of it.

    Attributes:
        episodes: of each split that has any.
        left_out: name of a house, and why it has no episodes.
        objects_left_out: name of an object, and why it is in none.
    """

    episodes: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    objects_left_out: dict[str, str] = field(default_factory=dict)


def write_episodes(options: EpisodeOptions) -> Written:
    """Write episodes for every house of a data set.

    Raises:
        UserError: options that cannot be met, files that cannot be read, or no house that serves.
    """
    options.check()
    name = options.set_name
    files.check_target(options.out, name, KIND, options.overwrite)
    with files.replace_folder(options.out) as folder:
        found = find_houses(options.scene_dataset, folder, name, options.up)
        names = [house for house in found if fnmatch(house, options.houses)]
        if not names:
            raise UserError(f"houses is {options.houses!r}: there are {', '.join(found)[:200]}")
        wanted = options.houses_wanted(len(names))
        configs, folders = find_objects(options.objects, folder, name)
        first = on_disk(found[names[0]], folder, name)
        defaults = load_dataset(Path(first.scene_dataset_config)).objects.defaults
        result = Written()
        shapes = _small_objects(configs, defaults, result)
        counts = options.counts(len(shapes))
        made: dict[str, list[_Entry]] = {}
        with HouseSimulator(options.simulator) as simulator:
            # In an order of chance, which also deals them to the splits.
            order = RandomStream(name, options.seed).shuffled(names)
            bar = tqdm(total=wanted, unit="house", disable=not sys.stderr.isatty())
            while order and len(made) < wanted:
                house = order.pop(0)
                place = replace(found[house], objects=folders)
                rng = RandomStream(name, options.seed, house)
                try:
                    entered = simulator.enter(on_disk(place, folder, name), rng)
                    some = _arrangements(entered, shapes, counts, options.arrangements)
                except UserError as error:
                    result.left_out[house] = str(error)
                    _check_houses_left(options, len(made) + len(order), result)
                    continue
                made[house] = [(place, each) for each in some]
                bar.update()
            bar.close()
        for split, entries in _deal(options, made, result).items():
            episodes = [files.episode(place, i, each) for i, (place, each) in enumerate(entries)]
            listed = files.episode_file(episodes, categories=[s.category for s in shapes])
            files.write_files(folder, {f"episodes/{split}.json.gz": listed})
            result.episodes[split] = len(episodes)
        files.write_files(folder, {MANIFEST: files.json_bytes(_manifest(options, counts))})
    return result


def _small_objects(
    configs: Mapping[str, Path], defaults: dict[str, Any] | None, result: Written
) -> list[AnyObject]:
    """Those that can be placed; a folder of hundreds may hold some that are too large."""
    shapes = []
    for category, config in configs.items():
        try:
            shapes.append(AnyObject.read(category, config, defaults))
        except UserError as error:
            result.objects_left_out[category] = str(error)
    if not shapes:
        raise UserError(f"no object serves; {next(iter(result.objects_left_out.values()))}")
    return shapes


def _check_houses_left(options: EpisodeOptions, count: int, result: Written) -> None:
    """UserError where `count` houses are too few for the splits, before all of them are filled."""
    sizes = options.split_sizes if options.split_by == "houses" else None
    if sizes and sum(sizes) > count > 0:
        house, reason = next(iter(result.left_out.items()))
        raise UserError(
            f"--split-sizes {','.join(map(str, sizes))}: {count} houses are left, as "
            f"{len(result.left_out)} do not serve; {house}: {reason}"
        )


_Entry = tuple[EpisodePlace, Arrangement]


def _deal(
    options: EpisodeOptions, made: dict[str, list[_Entry]], result: Written
) -> dict[str, list[_Entry]]:
    """The arrangements of each split, those of a house together; no split is empty."""
    if not made:
        house, reason = next(iter(result.left_out.items()))
        raise UserError(f"no house serves; {house}: {reason}")
    splits: dict[str, list[_Entry]] = {}
    if options.split_by == "houses":
        order = list(made)
        for split, size in shares(len(order), options.split_sizes).items():
            mine, order = sorted(order[:size]), order[size:]
            splits[split] = [entry for house in mine for entry in made[house]]
    else:
        first = 0
        for split, size in options.arrangement_shares().items():
            parts = (made[house][first : first + size] for house in sorted(made))
            splits[split] = [entry for part in parts for entry in part]
            first += size
    return {split: entries for split, entries in splits.items() if entries}


def _arrangements(
    house: AnyHouse, shapes: Sequence[AnyObject], counts: tuple[int, int], wanted: int
) -> list[Arrangement]:
    found: list[Arrangement] = []
    failures = 0
    while failures < ATTEMPTS + len(found):
        arrangement = house.sample_arrangement(shapes, *counts)
        if arrangement is None:
            failures += 1
            continue
        found.append(arrangement)
        if len(found) == wanted:
            return found
    raise UserError(
        f"{len(house.surfaces)} surfaces and the floor hold {len(found)} arrangements of "
        f"{counts[0]} objects that can be reached, not {wanted}: ask for fewer instances"
    )


def _manifest(options: EpisodeOptions, counts: tuple[int, int]) -> dict[str, Any]:
    """How the set was made."""
    return {
        "generator": "memo-habitat scenes episodes",
        "name": options.set_name,
        "kind": KIND,
        "scene_dataset": options.scene_dataset.as_posix(),
        "objects": [folder.as_posix() for folder in options.objects],
        "houses": options.houses,
        "seed": options.seed,
        "arrangements": options.arrangements,
        "instances": counts[0],
        "categories": counts[1],
        "split_by": options.split_by,
        "simulator": options.simulator,
    }


# The simulator -----------------------------------------------------------------------------------


@cache
def _composed(simulator: str) -> Any:
    # In a process of its own: composing loads Habitat-Baselines and with it Triton, and beside that
    # Habitat-Sim cannot draw without a GPU.
    quiet = startup.silence_gym_notice
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=quiet) as pool:
        return pool.submit(_compose, simulator).result()


def _compose(simulator: str) -> Any:
    """`habitat` of an experiment with a simulator, in plain containers."""
    config = patch_config(compose_config("extobjnav/base", [f"simulator={simulator}"]))
    return OmegaConf.to_container(config.habitat, resolve=True)


class HouseSimulator:
    """The simulator that will run the episodes, entering one house after the other."""

    def __init__(self, simulator: str) -> None:
        """Choose a simulator by its name among the configs."""
        self._config = OmegaConf.create(_composed(simulator))
        self._sim: Any = None

    def __enter__(self) -> HouseSimulator:
        return self

    def __exit__(self, *_: object) -> None:
        if self._sim is not None:
            self._sim.close()

    def enter(self, place: EpisodePlace, rng: RandomStream) -> AnyHouse:
        """A house, without small objects yet."""
        config = self._config.simulator
        _, instance = find_scene(place.scene_id, place.scene_dataset_config)
        with read_write(config):
            config.scene, config.scene_dataset = place.scene_id, place.scene_dataset_config
            # Furniture has the numbers below.
            config.object_ids_start = max(config.object_ids_start, len(instance.furniture) + 1)
        options = options_of(config)
        kept = options.cached_houses, options.cached_fields
        # Of EmbreeSim, whichever simulator runs: it reads the geometry.
        scene = load_scene(config.scene, config.scene_dataset, agent_shape(config), *kept)
        names = ["stage", *instance_names(piece.template.name for piece in instance.furniture)]

        def arrange(rigid_objs: Sequence[Any]) -> None:
            record = files.episode(place, 0, Arrangement([], (0.0, 0.0, 0.0), 0))
            record["rigid_objs"] = list(rigid_objs)
            (episode,) = parse_episodes({"episodes": [record]}, Path(place.scene_id))
            self._sim.reconfigure(config, episode)

        if self._sim is None:
            self._sim = make_sim(config.type, config=config)
        arrange([])
        goals = GoalOptions.of(self._config.task)
        geometry = Geometry(scene.parts, list(range(len(scene.parts))))
        receptacles, simulator = read_receptacles(instance), task_simulator(self._sim)
        return AnyHouse(geometry, names, receptacles, simulator, arrange, goals, rng)
