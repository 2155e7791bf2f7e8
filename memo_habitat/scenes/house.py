"""One house from its key: plan, shell, furniture and arrangements, as plain data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from memo_habitat.errors import UserError
from memo_habitat.scenes.floor_plan import Draw, Plan, apartment_plan, studio_plan
from memo_habitat.scenes.furniture_layout import CELL, RoomLayout, free_cells, furnish_room
from memo_habitat.scenes.mesh import Part
from memo_habitat.scenes.object_placement import Item, arrange
from memo_habitat.scenes.options import GenerateOptions
from memo_habitat.scenes.stage import stage_parts

LEAST_PIECES = {"studio": 6, "apartment": 18}
"""Pieces of furniture below which a house is drawn anew."""
ATTEMPTS = 40


@dataclass(frozen=True)
class House:
    """A furnished house; ``draw`` goes on from the stream that made it."""

    name: str
    plan: Plan
    stage: list[Part]
    layouts: list[RoomLayout]
    draw: Draw


@dataclass(frozen=True)
class Arrangement:
    """Small objects in a house and where the agent begins: position [m], heading index (30 deg)."""

    items: list[Item]
    start: tuple[float, float]
    heading: int


def house_name(options: GenerateOptions, split: str, number: int) -> str:
    """Name of a house; it tells the key from which it was drawn."""
    return f"{options.kind}_{options.seed}_{split}_{number:03d}"


def draw_house(options: GenerateOptions, split: str, number: int, attempt: int) -> House | None:
    """A furnished house, or None where too little furniture found a place."""
    name = house_name(options, split, number)
    draw = Draw(name, attempt)
    plan = studio_plan(draw) if options.kind == "studio" else apartment_plan(draw)
    stage = stage_parts(draw, plan)
    layouts = [furnish_room(draw, plan, room) for room in plan.rooms]
    if not all(layout.connected() for layout in layouts):
        return None
    if sum(len(layout.placed) for layout in layouts) < LEAST_PIECES[options.kind]:
        return None
    return House(name, plan, stage, layouts, draw)


def draw_arrangement(house: House, options: GenerateOptions) -> Arrangement | None:
    """A further arrangement of the house, or None where not everything found a place."""
    instances, categories = options.counts
    items = arrange(house.draw, house.layouts, instances, categories)
    if items is None:
        return None
    start = free_point(house, house.draw, items)
    return Arrangement(items, start, house.draw.integer(0, 11))


def free_point(house: House, draw: Draw, items: list[Item]) -> tuple[float, float]:
    """A random point (x, z) on the connected floor, clear of everything by an agent's radius."""
    rooms = range(len(house.layouts))
    areas = [house.layouts[i].room.floor for i in rooms]
    while True:
        room = draw.choice(rooms)
        layout, floor = house.layouts[room], areas[room]
        low = [i.footprint for i in items if i.room == room and i.support_y == 0.0]
        free = free_cells(floor, [p.footprint for p in layout.placed] + low)
        labels, _ = ndimage.label(free)
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        rows, columns = np.nonzero(labels == sizes.argmax())
        if sizes.max() > 0:
            i = draw.integer(0, len(rows) - 1)
            x = floor.x0 + (int(columns[i]) + 0.5) * CELL
            z = floor.z0 + (int(rows[i]) + 0.5) * CELL
            return round(x, 3), round(z, 3)


def too_hard(name: str) -> UserError:
    """The error for a house that could not be filled."""
    return UserError(
        f"house {name} found no place for everything: "
        "ask for fewer instances or categories, or use another seed"
    )
