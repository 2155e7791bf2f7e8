"""Plans of houses and labyrinths: sizes, no overlaps, and a way from every room to every other."""

from __future__ import annotations

import itertools

import pytest

from memo_habitat.errors import UserError
from memo_habitat.scenes.floor_plan import RandomStream, house_plan, labyrinth_plan
from memo_habitat.scenes.generate import KINDS, GenerateOptions, sample_house
from memo_habitat.scenes.objects import ALL_OBJECTS, SMALL_OBJECTS


def plan_of(kind, seed):
    if kind == "labyrinth":
        pytest.importorskip("labmaze")
    return {"house": house_plan, "labyrinth": labyrinth_plan}[kind](RandomStream("plan", seed))


def joined(plan):
    """Indices of the rooms that can be reached from the first one."""
    found, left = {0}, [0]
    while left:
        room = plan.rooms[left.pop()]
        for door in plan.doors:
            sides = [i for i, r in enumerate(plan.rooms) if door.clear_zone().overlaps(r.floor)]
            if any(plan.rooms[i] is room for i in sides):
                left += [i for i in sides if i not in found]
                found.update(sides)
    return found


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", ["house", "labyrinth"])
def test_rooms_do_not_overlap_and_all_hang_together(kind, seed):
    plan = plan_of(kind, seed)
    for a, b in itertools.combinations(plan.rooms, 2):
        assert not a.floor.overlaps(b.floor), (a, b)
    assert joined(plan) == set(range(len(plan.rooms)))
    assert plan_of(kind, seed) == plan


@pytest.mark.parametrize("seed", range(8))
def test_a_house_has_ten_to_twenty_rooms_over_three_corridors(seed):
    kinds = [room.kind for room in plan_of("house", seed).rooms]
    assert kinds.count("corridor") == 3
    assert 10 <= len(kinds) - 3 <= 20
    assert {"living", "kitchen", "bathroom"} <= set(kinds)


def test_large_homes_know_more_categories_and_place_thirty_of_them():
    assert len(ALL_OBJECTS) >= 36 and set(SMALL_OBJECTS) < set(ALL_OBJECTS)
    for kind in ("house", "labyrinth"):
        assert KINDS[kind].vocabulary == tuple(sorted(ALL_OBJECTS))
    assert KINDS["house"].instances >= 40 and KINDS["house"].categories >= 30
    assert KINDS["apartment"].vocabulary == tuple(sorted(SMALL_OBJECTS))


@pytest.mark.parametrize("kind", ["house", "labyrinth"])
def test_large_homes_are_furnished(kind, tmp_path):
    if kind == "labyrinth":
        pytest.importorskip("labmaze")
    options = GenerateOptions(tmp_path, kind=kind)
    houses = (sample_house(options, "train", 0, attempt) for attempt in range(20))
    house = next(found for found in houses if found is not None)
    assert sum(len(layout.placed) for layout in house.layouts) >= KINDS[kind].min_furniture


def test_without_labmaze_a_labyrinth_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "labmaze", None)
    with pytest.raises(UserError, match=r"memo-habitat\[labyrinth\]"):
        labyrinth_plan(RandomStream("plan", 0))
