"""Plans of lofts, houses and labyrinths: sizes, no overlaps, and a way from each room to all."""

from __future__ import annotations

import itertools

import pytest

from memo_habitat.errors import UserError
from memo_habitat.scenes.floor_plan import RandomStream
from memo_habitat.scenes.generate import KINDS, GenerateOptions, sample_house
from memo_habitat.scenes.objects import ALL_OBJECTS, SMALL_OBJECTS
from memo_habitat.scenes.plans import house_plan, labyrinth_plan, loft_plan


def plan_of(kind, seed):
    if kind == "labyrinth":
        pytest.importorskip("labmaze")
    plans = {"loft": loft_plan, "house": house_plan, "labyrinth": labyrinth_plan}
    return plans[kind](RandomStream("plan", seed))


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
@pytest.mark.parametrize("kind", ["loft", "house", "labyrinth"])
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


@pytest.mark.parametrize("seed", range(8))
def test_a_loft_has_nine_areas_open_to_their_neighbours_over_most_of_their_width(seed):
    plan = plan_of("loft", seed)
    assert len(plan.rooms) == 9 and len(plan.doors) == 12
    for room in plan.rooms:
        assert 3.8 <= room.floor.width <= 4.8 and 3.8 <= room.floor.depth <= 4.8
    for door in plan.doors:
        opening = door.threshold.depth if door.along_x else door.threshold.width
        sides = [r.floor for r in plan.rooms if door.threshold.grown(0.01).overlaps(r.floor)]
        assert len(sides) == 2
        for floor in sides:
            wall = floor.depth if door.along_x else floor.width
            assert 0.59 <= opening / wall <= 0.81
    x0, z0 = (min(getattr(r.floor, side) for r in plan.rooms) for side in ("x0", "z0"))
    x1, z1 = (max(getattr(r.floor, side) for r in plan.rooms) for side in ("x1", "z1"))
    assert 11.6 <= x1 - x0 <= 14.7 and 11.6 <= z1 - z0 <= 14.7


def test_large_homes_know_more_categories_and_place_thirty_of_them():
    assert len(ALL_OBJECTS) >= 36 and set(SMALL_OBJECTS) < set(ALL_OBJECTS)
    for kind in ("house", "labyrinth"):
        assert KINDS[kind].vocabulary == tuple(sorted(ALL_OBJECTS))
    assert KINDS["house"].instances >= 40 and KINDS["house"].categories >= 30
    assert KINDS["apartment"].vocabulary == tuple(sorted(SMALL_OBJECTS))


@pytest.mark.parametrize("kind", ["loft", "house", "labyrinth"])
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
