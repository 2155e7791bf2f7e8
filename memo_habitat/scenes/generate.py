"""Generating a data set: homes are sampled, checked and written, then their episodes."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from memo_habitat.errors import UserError
from memo_habitat.scenes import files
from memo_habitat.scenes.floor_plan import Plan, RandomStream
from memo_habitat.scenes.furniture_layout import House, layout_room
from memo_habitat.scenes.object_placement import Arrangement, free_point, sample_arrangement
from memo_habitat.scenes.objects import ALL_OBJECTS, SMALL_OBJECTS
from memo_habitat.scenes.plans import (
    apartment_plan,
    house_plan,
    labyrinth_plan,
    loft_plan,
    studio_plan,
)
from memo_habitat.scenes.stage import stage_parts
from memo_habitat.utils.data_paths import MANIFEST, SET_CONFIG_SUFFIX

if TYPE_CHECKING:
    from memo_habitat.scenes.views import SimulatedHouse

ATTEMPTS = 40
"""Houses that may be sampled for one that passes its checks."""
MAX_FAILURES = 4
"""Arrangements, and houses without enough of them, that may fail before it is given up."""
MIN_ISLAND_SHARE = 0.95
"""Least share of the free floor that is one island."""
MIN_VIEWPOINTS = 10
"""Viewpoints that make a category count as reachable; the task itself asks for one."""
POINT_GOALS = 4
"""Point-goal episodes per house."""
MIN_DISTANCE = 1.0
"""Straight distance between start and goal of a point-goal episode, m."""


@dataclass(frozen=True)
class Kind:
    """A kind of home.

    Attributes:
        plan: samples its rooms.
        instances, categories: small objects in an arrangement, and how many kinds of them, unless
            told otherwise.
        reachable: of these categories, how many must have a viewpoint.
        min_furniture: pieces below which a house is sampled again.
        min_floor_area: least area on which an agent's centre can be, m2.
        vocabulary: all categories of its data sets, in alphabetical order.
    """

    plan: Callable[[RandomStream], Plan]
    instances: int
    categories: int
    reachable: int
    min_furniture: int
    min_floor_area: float
    vocabulary: tuple[str, ...] = tuple(SMALL_OBJECTS)


KINDS = {
    "studio": Kind(studio_plan, 8, 6, 5, min_furniture=6, min_floor_area=5.0),
    "apartment": Kind(apartment_plan, 24, 14, 12, min_furniture=18, min_floor_area=20.0),
    "loft": Kind(loft_plan, 24, 16, 14, min_furniture=18, min_floor_area=50.0),
    "house": Kind(house_plan, 56, 32, 30, 40, 60.0, tuple(ALL_OBJECTS)),
    "labyrinth": Kind(labyrinth_plan, 36, 28, 26, 8, 60.0, tuple(ALL_OBJECTS)),
}


@dataclass(frozen=True)
class GenerateOptions:
    """What `memo-habitat scenes generate` is told.

    Attributes:
        out: folder to write; must not exist, or be a set of the same kind and name with
            ``overwrite``.
        houses: number of houses over all splits.
        seed: 0 or more; together with kind, split and number it determines each house.
        kind: one of `KINDS`.
        split_sizes: houses for train, val and test; None shares them out by about 70/10/20.
        arrangements: arrangements of small objects per house.
        instances, categories: small objects per arrangement and kinds of them; None as usual for
            the kind of home.
        name: name of the data set; None takes the kind's plural. Episode files name their files as
            ``data/NAME/...``, so the set's bytes do not depend on where it is written.
        overwrite: replace a generated set that is there already.
    """

    out: Path
    houses: int = 8
    seed: int = 0
    kind: str = "studio"
    split_sizes: tuple[int, int, int] | None = None
    arrangements: int = 4
    instances: int | None = None
    categories: int | None = None
    name: str | None = None
    overwrite: bool = False

    @property
    def set_name(self) -> str:
        """Name of the data set."""
        return self.name or f"{self.kind}s"

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """All categories of the data set, in alphabetical order."""
        return KINDS[self.kind].vocabulary

    @property
    def counts(self) -> tuple[int, int]:
        """Instances and categories of an arrangement."""
        usual = KINDS[self.kind]
        instances = usual.instances if self.instances is None else self.instances
        categories = usual.categories if self.categories is None else self.categories
        return instances, categories

    def sizes(self) -> dict[str, int]:
        """Houses per split."""
        return shares(self.houses, self.split_sizes)

    def manifest(self) -> dict[str, Any]:
        """What determines the bytes of the set."""
        instances, categories = self.counts
        return {
            "generator": "memo-habitat scenes generate",
            "name": self.set_name,
            "kind": self.kind,
            "seed": self.seed,
            "houses": self.houses,
            "split_sizes": self.sizes(),
            "arrangements": self.arrangements,
            "instances": instances,
            "categories": categories,
        }

    def check(self) -> None:
        """Refuse what cannot be generated.

        Raises:
            UserError: naming the value and what would be valid.
        """
        if self.kind not in KINDS:
            raise UserError(f"kind {self.kind!r} is unknown: use one of {', '.join(KINDS)}")
        for label in ("houses", "arrangements"):
            if getattr(self, label) < 1:
                raise UserError(f"{label} is {getattr(self, label)}: give 1 or more")
        if self.houses > 1000:
            raise UserError(f"houses is {self.houses}: give at most 1000, and further sets by seed")
        if self.seed < 0:
            raise UserError(f"seed is {self.seed}: give 0 or more")
        check_name(self.set_name)
        check_counts(*self.counts, len(self.vocabulary))
        self.sizes()


def shares(count: int, sizes: tuple[int, ...] | None, what: str = "houses") -> dict[str, int]:
    """How many of `count` each split gets: `sizes`, or about 70/10/20 %.

    Raises:
        UserError: sizes that do not add up.
    """
    if sizes is None:
        val, test = int(0.1 * count + 0.5), int(0.2 * count + 0.5)
        sizes = count - val - test, val, test
    if len(sizes) != 3 or min(sizes) < 0 or sum(sizes) != count:
        raise UserError(
            f"split sizes {','.join(map(str, sizes))} do not fit {count} {what}: "
            f"give three numbers (train,val,test) from 0 that add up to {count}"
        )
    return dict(zip(files.SPLITS, sizes, strict=True))


def check_name(name: str) -> None:
    """Refuse names of data sets that are no plain file names."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise UserError(f"name {name!r} of the data set: give --name of letters, digits, - and _")


def check_counts(instances: int, categories: int, known: int) -> None:
    """Refuse arrangements that cannot be: of `known` categories, each occurs up to three times."""
    if not 1 <= categories <= known:
        raise UserError(f"categories is {categories}: give 1 to {known}")
    if not categories <= instances <= 3 * categories:
        raise UserError(
            f"instances is {instances}: for {categories} categories give {categories} to "
            f"{3 * categories} (each category once to three times)"
        )


def generate(options: GenerateOptions) -> None:
    """Write a data set of procedural homes.

    Raises:
        UserError: options that cannot be met, or a folder that cannot or must not be written.
    """
    options.check()
    name = options.set_name
    files.check_target(options.out, name, options.kind, options.overwrite)
    with (
        files.replace_folder(options.out) as folder,
        tqdm(total=options.houses, unit="house", disable=not sys.stderr.isatty()) as bar,
    ):
        files.write_files(folder, files.shared_files(name, options.vocabulary))
        files.write_files(folder, {MANIFEST: files.json_bytes(options.manifest())})
        for split, size in options.sizes().items():
            episodes: list[dict[str, Any]] = []
            goals: list[dict[str, Any]] = []
            for number in range(size):
                house, arrangements = make_house(options, folder, split, number)
                place = files.EpisodePlace.of(name, house.name)
                for arrangement in arrangements:
                    episodes.append(files.episode(place, len(episodes), arrangement))
                for _ in range(POINT_GOALS):
                    ends = _two_points(house)
                    heading = house.rng.integer(0, 11)
                    goals.append(files.point_goal_episode(place, len(goals), ends, heading))
                bar.update()
            if size:
                listed = files.episode_file(episodes, categories=list(options.vocabulary))
                files.write_files(folder, {f"episodes/{split}.json.gz": listed})
                files.write_files(folder, {f"pointnav/{split}.json.gz": files.episode_file(goals)})


def make_house(
    options: GenerateOptions, folder: Path, split: str, number: int
) -> tuple[House, list[Arrangement]]:
    """Sample a house until it passes its check; its files are written into the folder.

    Raises:
        UserError: no house that passes was found.
    """
    # Importing the simulator takes seconds, which refusals need not wait for.
    from memo_habitat.scenes.views import SimulatedHouse

    kind, too_full = KINDS[options.kind], 0
    for attempt in range(ATTEMPTS):
        house = sample_house(options, split, number, attempt)
        if house is None:
            continue
        files.write_files(folder, files.house_files(house))
        # The simulator keeps the index of a set until the set's configuration is written again.
        files.write_files(folder, files.set_config(options.set_name))
        simulated = SimulatedHouse(
            folder / "scenes" / f"{house.name}.scene_instance.json",
            folder / f"{options.set_name}{SET_CONFIG_SUFFIX}",
        )
        area = float((simulated.grid.islands == 1).sum()) * simulated.grid.cell**2
        if area < kind.min_floor_area or simulated.main_island_share() < MIN_ISLAND_SHARE:
            continue
        arrangements = _sample_arrangements(options, house, simulated)
        if len(arrangements) == options.arrangements:
            return house, arrangements
        too_full += 1
        if too_full == MAX_FAILURES:
            break
    raise UserError(
        f"house {house_name(options, split, number)} found no place for everything: "
        "ask for fewer instances or categories, or use another seed"
    )


def house_name(options: GenerateOptions, split: str, number: int) -> str:
    """Name of a house; it tells the key from which it was sampled."""
    return f"{options.kind}_{options.seed}_{split}_{number:03d}"


def sample_house(options: GenerateOptions, split: str, number: int, attempt: int) -> House | None:
    """A furnished house, or None where too little furniture found a place."""
    kind, name = KINDS[options.kind], house_name(options, split, number)
    rng = RandomStream(name, attempt)
    plan = kind.plan(rng)
    stage = stage_parts(rng, plan)
    layouts = [layout_room(rng, plan, room) for room in plan.rooms]
    if not all(layout.connected() for layout in layouts):
        return None
    if sum(len(layout.placed) for layout in layouts) < kind.min_furniture:
        return None
    return House(name, plan, stage, layouts, rng)


def _sample_arrangements(
    options: GenerateOptions, house: House, simulated: SimulatedHouse
) -> list[Arrangement]:
    """Arrangements in which enough categories are reachable; fewer than asked for where the house
    is too full."""
    usual, failures = KINDS[options.kind], 0
    found: list[Arrangement] = []
    # As many may be out of reach as in a usual arrangement of this kind of home.
    least = max(1, options.counts[1] - (usual.categories - usual.reachable))
    while len(found) < options.arrangements and failures < MAX_FAILURES + len(found):
        arrangement = sample_arrangement(house, *options.counts, options.vocabulary)
        if arrangement is not None:
            arranged = simulated.arranged(files.rigid_objects(arrangement.items))
            if len(arranged.reachable(MIN_VIEWPOINTS)) >= least:
                found.append(arrangement)
                continue
        failures += 1
    return found


def _two_points(house: House) -> tuple[tuple[float, float], tuple[float, float]]:
    """Two free points (x, z) m that lie apart."""
    start, goal = free_point(house), free_point(house)
    while (start[0] - goal[0]) ** 2 + (start[1] - goal[1]) ** 2 < MIN_DISTANCE**2:
        goal = free_point(house)
    return start, goal
