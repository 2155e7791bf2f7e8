"""How the plan of each kind of home is drawn: studios, apartments, lofts, houses, labyrinths."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from memo_habitat.errors import UserError
from memo_habitat.scenes.floor_plan import WALL, Door, Plan, RandomStream, Rect, Room

MIN_WIDTH = 2.7
"""Of a room in a row of rooms, m."""
PITCH = 1.5
"""Edge of a labyrinth's cell, half a wall on each side included, m."""
MAZE_CELLS = 15
MAZE_ROOMS = (6, 9)
"""Least and most rooms of a labyrinth."""


def studio_plan(rng: RandomStream) -> Plan:
    """One room of 4 to 6 m by 4 to 6 m."""
    width, depth = rng.uniform(4.2, 6.0), rng.uniform(4.2, 6.0)
    return Plan((Room("studio", "studio", Rect(0, 0, width, depth)),), ()).centred()


def apartment_plan(rng: RandomStream) -> Plan:
    """A corridor with two to four rooms on either side and sometimes a large room at its end."""
    end_room = rng.chance(0.6)
    most = 3 if end_room else 4
    near = rng.integer(2, most)
    far = max(2, min(near + rng.integer(-1, 1), most))
    length = round(max(near, far) * rng.uniform(3.3, 3.8), 2)
    width = rng.uniform(1.4, 1.7)  # of the corridor
    depths = rng.uniform(3.2, 4.2), rng.uniform(3.2, 4.2)
    floors: list[Rect] = []
    doors: list[Door] = []
    for number, depth, z0, wall in (
        (near, depths[0], -WALL - depths[0], -WALL),
        (far, depths[1], width + WALL, width),
    ):
        _add_row(rng, (z0, z0 + depth), length, number, wall, floors, doors)
    if end_room:
        x0 = length + WALL
        end = Rect(x0, floors[0].z0, x0 + rng.uniform(3.6, 4.6), floors[-1].z1)
        doors.append(_door(rng, (0, width), length, along_x=True))
        floors.append(end)
    # The largest is the living room, the smallest the bathroom.
    order = _by_area(floors)
    kinds = {order[0]: "bathroom", order[-1]: "living"}
    rest = ["kitchen", "bedroom", *rng.shuffled(["bedroom", "office", "bedroom", "dining"])]
    kinds.update(zip(rng.shuffled(order[1:-1]), rest, strict=False))
    rooms = [Room(f"{kinds[i]}_{i}", kinds[i], floor) for i, floor in enumerate(floors)]
    corridor = Room("corridor", "corridor", Rect(0, 0, length, width))
    return Plan((corridor, *rooms), tuple(doors)).turned(rng)


def loft_plan(rng: RandomStream) -> Plan:
    """Nine areas in three rows, open to their neighbours over most of their width.

    What is behind the next corner has to be looked for, and what is known can be walked to almost
    straight: homes to study memory in before the way back becomes a task of its own.
    """
    widths, depths = ([rng.uniform(3.8, 4.8) for _ in range(3)] for _ in range(2))
    xs, zs = ([0.0], [0.0])
    for starts, sizes in ((xs, widths), (zs, depths)):
        for size in sizes[:-1]:
            starts.append(_after(starts[-1], size + WALL))
    floors = [
        [
            Rect(x, z, _after(x, width), _after(z, depth))
            for x, width in zip(xs, widths, strict=True)
        ]
        for z, depth in zip(zs, depths, strict=True)
    ]
    doors = []
    for row, column in itertools.product(range(3), repeat=2):
        here = floors[row][column]
        if column < 2:
            span = _opening(rng, here.z0, here.z1)
            doors.append(Door(Rect(here.x1, span[0], _after(here.x1, WALL), span[1]), True))
        if row < 2:
            span = _opening(rng, here.x0, here.x1)
            doors.append(Door(Rect(span[0], here.z1, span[1], _after(here.z1, WALL)), False))
    rooms = _many_rooms(rng, [], [floor for row in floors for floor in row])
    return Plan(rooms, tuple(doors)).turned(rng)


def _opening(rng: RandomStream, low: float, high: float) -> tuple[float, float]:
    """Six to eight tenths of a wall, anywhere in it."""
    length = (high - low) * rng.uniform(0.6, 0.8)
    first = low + 0.1 + (high - low - 0.2 - length) * rng.unit()
    return round(first, 2), round(first + length, 2)


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
    for row, (number, depth) in enumerate(zip(numbers, depths, strict=True)):
        is_behind_hall = row % 2 == 1
        if is_behind_hall:
            halls.append(Rect(0, z, length, _after(z, widths[row // 2])))
            z = _after(halls[-1].z1, WALL)
        end = _after(z, depth)
        wall = z - WALL if is_behind_hall else end
        _add_row(rng, (z, end), length, number, wall, floors, doors)
        z = _after(end, WALL)
    cross = Rect(_after(length, WALL), halls[0].z0, _after(length, WALL + widths[2]), halls[1].z1)
    doors += [_door(rng, (hall.z0, hall.z1), length, along_x=True) for hall in halls]
    behind, width = _after(cross.x1, WALL), rng.uniform(3.4, 4.4)
    for z0, z1 in _partition(rng, round(cross.depth, 2), rng.integer(2, 3)):
        room = Rect(behind, _after(cross.z0, z0), _after(behind, width), _after(cross.z0, z1))
        doors.append(_door(rng, (room.z0, room.z1), cross.x1, along_x=True))
        floors.append(room)
    return Plan(_many_rooms(rng, [*halls, cross], floors), tuple(doors)).turned(rng)


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
    walls, letters = (
        str(layer).split("\n")[:MAZE_CELLS] for layer in (maze.entity_layer, maze.variations_layer)
    )
    halls: list[Rect] = []
    rooms: list[Rect] = []
    floors: list[Rect] = []
    for x0, z0, x1, z1 in _areas(walls, letters):
        near, far = (PITCH * x0, PITCH * z0), (PITCH * x1 - WALL, PITCH * z1 - WALL)
        floors.append(Rect(*(round(v, 4) for v in (*near, *far))))
        (halls if min(x1 - x0, z1 - z0) < 2 else rooms).append(floors[-1])
    doors = []
    for a, b in itertools.permutations(floors, 2):
        # An opening as wide as it can be wherever two areas lie next to each other.
        low, high = max(a.z0, b.z0), min(a.z1, b.z1)
        if abs(b.x0 - a.x1 - WALL) < 1e-3 and high - low > WALL:
            doors.append(Door(Rect(a.x1, low, b.x0, high), True))
        low, high = max(a.x0, b.x0), min(a.x1, b.x1)
        if abs(b.z0 - a.z1 - WALL) < 1e-3 and high - low > WALL:
            doors.append(Door(Rect(low, a.z1, high, b.z0), False))
    return Plan(_many_rooms(rng, halls, rooms), tuple(doors)).turned(rng)


def _areas(walls: Sequence[str], letters: Sequence[str]) -> list[tuple[int, int, int, int]]:
    """Rectangles (x0, z0, x1, z1) of cells that cover all that is open: rooms, then passages."""
    left = {(x, z) for z, row in enumerate(walls) for x, cell in enumerate(row) if cell != "*"}
    areas = []

    def take(x0: int, z0: int, x1: int, z1: int) -> None:
        areas.append((x0, z0, x1, z1))
        left.difference_update(itertools.product(range(x0, x1), range(z0, z1)))

    for letter in sorted({c for row in letters for c in row if c.isalpha()}):
        cells = {(x, z) for x, z in left if letters[z][x] == letter}
        if cells:
            xs, zs = zip(*cells, strict=True)
            x0, z0, x1, z1 = min(xs), min(zs), max(xs) + 1, max(zs) + 1
            if len(cells) == (x1 - x0) * (z1 - z0):  # else rooms have run into each other
                take(x0, z0, x1, z1)
    while left:  # what is left are passages: the longer arm of each corner is one area
        x, z = min(left, key=lambda cell: (cell[1], cell[0]))
        across, down = x + 1, z + 1
        while (across, z) in left:
            across += 1
        while (x, down) in left:
            down += 1
        take(x, z, *((across, z + 1) if across - x >= down - z else (x + 1, down)))
    return areas


def _many_rooms(
    rng: RandomStream, halls: Sequence[Rect], floors: Sequence[Rect]
) -> tuple[Room, ...]:
    """The rooms of a large home with their uses: two bathrooms are the smallest."""
    order = _by_area(floors)
    uses = {order[0]: "bathroom", order[1]: "bathroom", order[-1]: "living", order[-2]: "kitchen"}
    kinds = ["kitchen", "living", "dining", "office", "bedroom", "bedroom"]
    rest = itertools.cycle(rng.shuffled(kinds))
    rooms = [Room(f"corridor_{i}", "corridor", floor) for i, floor in enumerate(halls)]
    for i, floor in enumerate(floors):
        kind = uses[i] if i in uses else next(rest)
        rooms.append(Room(f"{kind}_{i}", kind, floor))
    return tuple(rooms)


def _by_area(floors: Sequence[Rect]) -> list[int]:
    return sorted(range(len(floors)), key=lambda i: (floors[i].width * floors[i].depth, i))


def _after(start: float, length: float) -> float:
    return round(start + length, 4)  # sums stay short decimals


def _add_row(
    rng: RandomStream,
    z: tuple[float, float],
    length: float,
    number: int,
    wall: float,
    floors: list[Rect],
    doors: list[Door],
) -> None:
    """A row of rooms from x = 0 to ``length``, each with a door in the wall that begins at z =
    ``wall``, and some with one to their neighbour."""
    rooms = [Rect(x0, z[0], x1, z[1]) for x0, x1 in _partition(rng, length, number)]
    doors += [_door(rng, (room.x0, room.x1), wall, along_x=False) for room in rooms]
    for room in rooms[:-1]:
        if rng.chance(0.3):
            doors.append(_door(rng, z, room.x1, along_x=True))
    floors += rooms


def _partition(rng: RandomStream, length: float, number: int) -> list[tuple[float, float]]:
    """Cut [0, length] into rooms with walls between them."""
    spare = length - WALL * (number - 1) - MIN_WIDTH * number
    shares = [0.3 + rng.unit() for _ in range(number)]  # no room is left at the least width
    cuts, x = [], 0.0
    for share in shares[:-1]:
        cuts.append((round(x, 2), round(x + (MIN_WIDTH + spare * share / sum(shares)), 2)))
        x = cuts[-1][1] + WALL
    return [*cuts, (round(x, 2), length)]


def _door(rng: RandomStream, span: tuple[float, float], wall: float, along_x: bool) -> Door:
    """A door of about a metre somewhere in ``span`` of the wall that begins at ``wall``."""
    margin = min(0.35, (span[1] - span[0] - 1.0) / 2)
    width = min(rng.uniform(0.95, 1.15), span[1] - span[0] - 2 * margin)
    first = rng.uniform(span[0] + margin, span[1] - margin - width)
    a, b = round(first, 2), round(first + width, 2)
    rect = Rect(wall, a, wall + WALL, b) if along_x else Rect(a, wall, b, wall + WALL)
    return Door(rect, along_x)
