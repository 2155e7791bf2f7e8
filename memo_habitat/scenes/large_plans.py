"""Floor plans of homes too large to see at a glance: houses over corridors, and labyrinths."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from memo_habitat.errors import UserError
from memo_habitat.scenes.floor_plan import (
    WALL,
    Door,
    Plan,
    RandomStream,
    Rect,
    Room,
    door_between,
    partition,
    turned,
)

PITCH = 1.5
"""Edge of a labyrinth's cell, half a wall on each side included, m."""
MAZE_CELLS = 15
MAZE_ROOMS = (6, 9)
"""Least and most rooms of a labyrinth."""


def house_plan(rng: RandomStream) -> Plan:
    """Ten to twenty rooms: two corridors with rooms on either side, joined by a third at their end.

    From front to back: rooms, a corridor, two rows of rooms back to back, a corridor, rooms. At
    one end a cross corridor joins the two, with two or three rooms behind it.
    """
    numbers = [rng.choice((2, 3, 3, 4)) for _ in range(4)]
    length = round(max(numbers) * rng.uniform(3.0, 3.3), 2)
    depths = [rng.uniform(2.9, 3.6) for _ in range(4)]
    widths = [rng.uniform(1.4, 1.7) for _ in range(3)]
    floors: list[Rect] = []
    doors: list[Door] = []
    halls: list[Rect] = []
    z = 0.0
    for pair in range(2):
        for side in range(2):
            row = 2 * pair + side
            if side == 1:
                halls.append(Rect(0, z, length, _after(z, widths[pair])))
                z = _after(halls[-1].z1, WALL)
            rooms = [
                Rect(x0, z, x1, _after(z, depths[row]))
                for x0, x1 in partition(rng, length, numbers[row])
            ]
            z = _after(rooms[0].z1, WALL)
            # The hall lies behind the first row of a pair and before the second.
            wall = rooms[0].z1 if side == 0 else rooms[0].z0 - WALL
            doors += [door_between(rng, (room.x0, room.x1), wall, along_x=False) for room in rooms]
            for left, _right in itertools.pairwise(rooms):
                if rng.chance(0.3):
                    doors.append(door_between(rng, (left.z0, left.z1), left.x1, along_x=True))
            floors += rooms
    cross = Rect(_after(length, WALL), halls[0].z0, _after(length, WALL + widths[2]), halls[1].z1)
    doors += [door_between(rng, (hall.z0, hall.z1), length, along_x=True) for hall in halls]
    behind, width = _after(cross.x1, WALL), rng.uniform(3.4, 4.4)
    for z0, z1 in partition(rng, round(cross.depth, 2), rng.integer(2, 3)):
        room = Rect(behind, _after(cross.z0, z0), _after(behind, width), _after(cross.z0, z1))
        doors.append(door_between(rng, (room.z0, room.z1), cross.x1, along_x=True))
        floors.append(room)
    return turned(rng, Plan(_rooms(rng, [*halls, cross], floors), tuple(doors)))


def _after(start: float, length: float) -> float:
    return round(start + length, 4)


def _rooms(rng: RandomStream, halls: Sequence[Rect], floors: Sequence[Rect]) -> tuple[Room, ...]:
    """The rooms with their uses: two bathrooms are the smallest."""
    order = sorted(range(len(floors)), key=lambda i: (floors[i].width * floors[i].depth, i))
    kinds = ["kitchen", "living", "dining", "office", "bedroom", "bedroom"]
    uses = {order[0]: "bathroom", order[1]: "bathroom", order[-1]: "living", order[-2]: "kitchen"}
    rest = itertools.cycle(rng.shuffled(kinds))
    rooms = [Room(f"corridor_{i}", "corridor", floor) for i, floor in enumerate(halls)]
    for i, floor in enumerate(floors):
        kind = uses[i] if i in uses else next(rest)
        rooms.append(Room(f"{kind}_{i}", kind, floor))
    return tuple(rooms)


def labyrinth_plan(rng: RandomStream) -> Plan:
    """Rooms in a maze of passages, laid out as in Memory Maze (Pasukonis et al. 2022).

    Raises:
        UserError: labmaze, which draws the layouts, is not installed.
    """
    try:
        import labmaze
    except ImportError as error:
        raise UserError(
            "labyrinths are laid out by labmaze: pip install 'memo-habitat[labyrinth]'"
        ) from error
    maze = labmaze.RandomMaze(
        height=MAZE_CELLS,
        width=MAZE_CELLS,
        max_rooms=rng.integer(*MAZE_ROOMS),
        room_min_size=3,
        room_max_size=5,
        spawns_per_room=0,
        objects_per_room=0,
        random_seed=rng.integer(0, 2**31 - 1),
    )
    areas = _areas([str(row) for row in _rows(maze.entity_layer)], _rows(maze.variations_layer))
    floors = [
        Rect(
            round(PITCH * x0, 4),
            round(PITCH * z0, 4),
            round(PITCH * x1 - WALL, 4),
            round(PITCH * z1 - WALL, 4),
        )
        for x0, z0, x1, z1 in areas
    ]
    is_hall = [min(x1 - x0, z1 - z0) < 2 for x0, z0, x1, z1 in areas]
    halls = [floor for floor, narrow in zip(floors, is_hall, strict=True) if narrow]
    rooms = [floor for floor, narrow in zip(floors, is_hall, strict=True) if not narrow]
    return turned(rng, Plan(_rooms(rng, halls, rooms), tuple(_openings(floors))))


def _rows(layer: object) -> list[str]:
    return str(layer).split("\n")[:MAZE_CELLS]


def _areas(walls: Sequence[str], letters: Sequence[str]) -> list[tuple[int, int, int, int]]:
    """Rectangles (x0, z0, x1, z1) of cells that cover all that is open: rooms, then passages."""
    left = {
        (x, z) for z, row in enumerate(walls) for x, cell in enumerate(row) if cell not in "*\n"
    }
    areas = []
    for letter in sorted({c for row in letters for c in row if c.isalpha()}):
        cells = {(x, z) for x, z in left if letters[z][x] == letter}
        if cells:
            box = _bounds(cells)
            inside = set(itertools.product(range(box[0], box[2]), range(box[1], box[3])))
            if inside == cells:
                areas.append(box)
                left -= cells
    while left:
        x, z = min(left, key=lambda cell: (cell[1], cell[0]))
        across, down = x + 1, z + 1
        while (across, z) in left:
            across += 1
        while (x, down) in left:
            down += 1
        box = (x, z, across, z + 1) if across - x >= down - z else (x, z, x + 1, down)
        areas.append(box)
        left -= set(itertools.product(range(box[0], box[2]), range(box[1], box[3])))
    return areas


def _bounds(cells: set[tuple[int, int]]) -> tuple[int, int, int, int]:
    xs, zs = zip(*cells, strict=True)
    return min(xs), min(zs), max(xs) + 1, max(zs) + 1


def _openings(floors: Sequence[Rect]) -> list[Door]:
    """An opening as wide as it can be wherever two areas lie next to each other."""
    doors = []
    for a, b in itertools.permutations(floors, 2):
        z0, z1 = max(a.z0, b.z0), min(a.z1, b.z1)
        if abs(b.x0 - a.x1 - WALL) < 1e-3 and z1 - z0 > WALL:
            doors.append(Door(Rect(a.x1, z0, b.x0, z1), True))
        x0, x1 = max(a.x0, b.x0), min(a.x1, b.x1)
        if abs(b.z0 - a.z1 - WALL) < 1e-3 and x1 - x0 > WALL:
            doors.append(Door(Rect(x0, a.z1, x1, b.z0), False))
    return doors
