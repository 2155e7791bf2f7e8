"""Generating a data set: every house drawn, checked, written; then its episode files."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from memo_habitat.errors import UserError
from memo_habitat.scenes import formats
from memo_habitat.scenes.floor_plan import RandomStream, apartment_plan, studio_plan
from memo_habitat.scenes.formats import write_files
from memo_habitat.scenes.furniture_layout import House, layout_room
from memo_habitat.scenes.object_placement import Arrangement, free_point, sample_arrangement
from memo_habitat.scenes.options import MANIFEST, GenerateOptions, check_target, manifest
from memo_habitat.scenes.stage import stage_parts
from memo_habitat.utils.data_paths import SET_CONFIG_SUFFIX

MIN_FURNITURE = {"studio": 6, "apartment": 18}
"""Pieces of furniture below which a house is drawn anew."""


ATTEMPTS = 40


MAX_FAILURES = 4
"""Arrangements, and houses, that may fail before the next house, and the user, is asked."""
POINT_GOALS = 4
"""Point-goal episodes per house."""
MIN_DISTANCE = 1.0
"""Straight distance between start and goal of a point-goal episode, m."""


def generate(options: GenerateOptions) -> None:
    """Write a data set of procedural homes.

    Raises:
        UserError: options that cannot be met, or a folder that cannot or must not be written.
    """
    options.check()
    check_target(options)
    with replace_folder(options.out) as folder:
        write_files(folder, formats.shared_files(options.set_name))
        write_files(folder, {MANIFEST: formats.json_bytes(manifest(options))})
        sizes = options.sizes()
        with tqdm(
            total=options.houses, unit="house", desc="houses", disable=not sys.stderr.isatty()
        ) as bar:
            for split, size in sizes.items():
                if size:
                    _write_split(options, folder, split, size, bar)


def _write_split(
    options: GenerateOptions, folder: Path, split: str, size: int, bar: tqdm[Any]
) -> None:
    name = options.set_name
    episodes: list[dict[str, Any]] = []
    goals: list[dict[str, Any]] = []
    for number in range(size):
        house, arrangements = make_house(options, folder, split, number)
        for arrangement in arrangements:
            episodes.append(formats.episode(name, house, len(episodes), arrangement))
        for _ in range(POINT_GOALS):
            goals.append(_point_goal(name, house, len(goals)))
        bar.update()
    files = {
        f"episodes/{split}.json.gz": formats.episode_file(episodes),
        f"pointnav/{split}.json.gz": formats.point_goal_file(goals),
    }
    write_files(folder, files)


def make_house(
    options: GenerateOptions, folder: Path, split: str, number: int
) -> tuple[House, list[Arrangement]]:
    """RandomStream a house until it passes its check; its files are written into the folder.

    Raises:
        UserError: no house that passes was found.
    """
    too_full = 0
    for attempt in range(ATTEMPTS):
        house = sample_house(options, split, number, attempt)
        if house is None:
            continue
        write_files(folder, formats.house_files(house))
        # The simulator keeps the index of a set until the set's configuration is written anew.
        write_files(folder, formats.set_config(options.set_name))
        check = HouseCheck(options, folder, house)
        if not check.floor_connected():
            continue
        arrangements = _arrangements(options, house, check)
        if len(arrangements) == options.arrangements:
            return house, arrangements
        too_full += 1
        if too_full == MAX_FAILURES:
            break
    raise too_hard(house_name(options, split, number))


def _arrangements(options: GenerateOptions, house: House, check: HouseCheck) -> list[Arrangement]:
    """The house's arrangements that pass; fewer than asked for where the house is too full."""
    found: list[Arrangement] = []
    failures = 0
    while len(found) < options.arrangements and failures < MAX_FAILURES + len(found):
        arrangement = sample_arrangement(house, options)
        if arrangement is not None and check.passes(arrangement):
            found.append(arrangement)
        else:
            failures += 1
    return found


def _point_goal(name: str, house: House, number: int) -> dict[str, Any]:
    """A point-goal episode between two free points that lie apart."""
    start = free_point(house, house.rng, [])
    goal = free_point(house, house.rng, [])
    while (start[0] - goal[0]) ** 2 + (start[1] - goal[1]) ** 2 < MIN_DISTANCE**2:
        goal = free_point(house, house.rng, [])
    return formats.point_goal_episode(name, house, number, (start, goal), house.rng.integer(0, 11))


MIN_ISLAND_SHARE = 0.95
"""Least share of the free floor that hangs together."""
MIN_FLOOR_AREA = {"studio": 5.0, "apartment": 20.0}
"""Least area on which an agent's middle can be, m2."""
MIN_VIEWPOINTS = 10
"""Viewpoints that make a category count as reachable; the task itself asks for one."""


class HouseCheck:
    """Judges a house from its written files, with the simulator's own navigability and rays."""

    def __init__(self, options: GenerateOptions, folder: Path, house: House) -> None:
        # Importing the simulator takes seconds, which refusals need not wait for.
        from memo_habitat.scenes.views import SimulatedHouse

        self._options = options
        self._seen = SimulatedHouse(
            folder / "scenes" / f"{house.name}.scene_instance.json",
            folder / f"{options.set_name}{SET_CONFIG_SUFFIX}",
        )

    def floor_connected(self) -> bool:
        """Whether one island holds nearly all of the floor, and is not too small."""
        grid = self._seen.grid
        area = float((grid.islands == 1).sum()) * grid.cell**2
        large = area >= MIN_FLOOR_AREA[self._options.kind]
        return large and self._seen.main_island_share() >= MIN_ISLAND_SHARE

    def passes(self, arrangement: Arrangement) -> bool:
        """Whether enough categories are reachable."""
        arranged = self._seen.arranged(formats.rigid_objects(arrangement))
        return len(arranged.reachable(MIN_VIEWPOINTS)) >= self._options.reachable


def house_name(options: GenerateOptions, split: str, number: int) -> str:
    """Name of a house; it tells the key from which it was drawn."""
    return f"{options.kind}_{options.seed}_{split}_{number:03d}"


def sample_house(options: GenerateOptions, split: str, number: int, attempt: int) -> House | None:
    """A furnished house, or None where too little furniture found a place."""
    name = house_name(options, split, number)
    rng = RandomStream(name, attempt)
    plan = studio_plan(rng) if options.kind == "studio" else apartment_plan(rng)
    stage = stage_parts(rng, plan)
    layouts = [layout_room(rng, plan, room) for room in plan.rooms]
    if not all(layout.connected() for layout in layouts):
        return None
    if sum(len(layout.placed) for layout in layouts) < MIN_FURNITURE[options.kind]:
        return None
    return House(name, plan, stage, layouts, rng)


def too_hard(name: str) -> UserError:
    """The error for a house that could not be filled."""
    return UserError(
        f"house {name} found no place for everything: "
        "ask for fewer instances or categories, or use another seed"
    )


@contextmanager
def replace_folder(out: Path) -> Iterator[Path]:
    """A fresh folder beside ``out`` that takes its place when the block ends without an error.

    Raises:
        UserError: the folder cannot be written.
    """
    out = out.absolute()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; give another folder") from error
    try:
        (fresh / "new").mkdir()
        yield fresh / "new"
        if out.exists():
            out.rename(fresh / "old")
        (fresh / "new").rename(out)
    except OSError as error:
        if (fresh / "old").exists() and not out.exists():
            (fresh / "old").rename(out)
        raise UserError(
            f"cannot write {out}: {error}; free space or give another folder"
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
