"""Generating a data set: every house drawn, checked, written; then its episode files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from memo_habitat.scenes import formats
from memo_habitat.scenes.check import HouseCheck
from memo_habitat.scenes.files import MANIFEST, manifest, replacing, write_files
from memo_habitat.scenes.house import (
    ATTEMPTS,
    Arrangement,
    House,
    draw_arrangement,
    draw_house,
    free_point,
    house_name,
    too_hard,
)
from memo_habitat.scenes.options import GenerateOptions

PATIENCE = 4
"""Arrangements, and houses, that may fail before the next house, and the user, is asked."""
POINT_GOALS = 4
"""Point-goal episodes per house."""
LEAST_DISTANCE = 1.0
"""Straight distance between start and goal of a point-goal episode, m."""


def write_data_set(options: GenerateOptions) -> None:
    """Write a data set; options and folder have been checked.

    Raises:
        UserError: the options cannot be met, or the folder cannot be written.
    """
    with replacing(options.out) as folder:
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
    """Draw a house until it passes its check; its files are written into the folder.

    Raises:
        UserError: no house that passes was found.
    """
    too_full = 0
    for attempt in range(ATTEMPTS):
        house = draw_house(options, split, number, attempt)
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
        if too_full == PATIENCE:
            break
    raise too_hard(house_name(options, split, number))


def _arrangements(options: GenerateOptions, house: House, check: HouseCheck) -> list[Arrangement]:
    """The house's arrangements that pass; fewer than asked for where the house is too full."""
    found: list[Arrangement] = []
    failures = 0
    while len(found) < options.arrangements and failures < PATIENCE + len(found):
        arrangement = draw_arrangement(house, options)
        if arrangement is not None and check.passes(arrangement):
            found.append(arrangement)
        else:
            failures += 1
    return found


def _point_goal(name: str, house: House, number: int) -> dict[str, Any]:
    """A point-goal episode between two free points that lie apart."""
    start = free_point(house, house.draw, [])
    goal = free_point(house, house.draw, [])
    while (start[0] - goal[0]) ** 2 + (start[1] - goal[1]) ** 2 < LEAST_DISTANCE**2:
        goal = free_point(house, house.draw, [])
    return formats.point_goal_episode(name, house, number, (start, goal), house.draw.integer(0, 11))
