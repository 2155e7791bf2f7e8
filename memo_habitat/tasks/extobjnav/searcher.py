"""A player with perfect memory that does not know the house: what remembering can gain at most.

It walks straight back to what it has seen, and otherwise explores. Everything it knows comes from
its own trial: the floor it looked at and the detections of each step.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from memo_habitat.errors import check_choice
from memo_habitat.simulator.interface import TopDownMap
from memo_habitat.tasks.extobjnav.detections import TRIAL_SCALE
from memo_habitat.tasks.extobjnav.goals import (
    CategoryGoals,
    Pose,
    heading_to,
    horizontal_distance,
    pitch_to,
    wrap_angle,
)
from memo_habitat.tasks.extobjnav.oracle import DOWN, LEFT, RIGHT, STOP, UP, OracleOptions
from memo_habitat.tasks.extobjnav.range_scan import DIRECTIONS, scan

#: "planned": along shortest paths over the floor it has seen, to what it remembers or to the
#: nearest floor it has not seen. "reactive": in the free direction that leads there best, and
#: wandering where there is nowhere to go; of all it knows this needs the place alone, so that who
#: remembers places can imitate it.
MOVES = ("planned", "reactive")
# Edge of a cell of the player's map, m: a door is two cells wide where an agent can stand.
_RESOLUTION = 0.2
_FORWARD = "move_forward"
#: Floor counts as seen up to here, m: small things further away are often missed.
_SIGHT = 2.5
_HALF_VIEW = math.radians(43.0)  # within the 90 degrees of the camera
_RAYS = 31
_SAME_PLACE = 0.5  # m within which two sightings of a category are one thing
_PATIENCE = 60  # steps towards one goal after which it is given up
_AHEAD = 2.0  # m of the path that are cut short where the way is free
_NEAR_WALL, _OPEN = 0.75, 1.5  # m ahead at which wandering turns away, and is content again
_PASSABLE, _ENOUGH = 0.6, 2.1  # m that a direction must be free to be taken, and that say no more
_ANGLES = 2.0 * math.pi * np.arange(DIRECTIONS) / DIRECTIONS


class Searcher:
    """One trial's player; asked at every step.

    The map's cells are revealed as they come into view, behind nothing that stands on the floor.
    """

    def __init__(
        self, floor: TopDownMap, origin: Pose, options: OracleOptions, moves: str = "planned"
    ) -> None:
        """Begin a trial.

        Args:
            floor: of the house, as `range_scan.floor_of` makes it; nothing of it is known yet.
            origin: the trial's frame, in which detections tell places.
            options: angles and limits.
            moves: one of `MOVES`.
        """
        check_choice("perfect_memory_action_sensor.moves", moves, MOVES)
        self._origin, self._options, self._reacts = origin, options, moves == "reactive"
        self._fine = floor
        every = max(round(_RESOLUTION / floor.resolution), 1)
        coarse = np.ascontiguousarray(floor.free[every // 2 :: every, every // 2 :: every])
        self._floor = TopDownMap(coarse, floor.origin, every * floor.resolution)
        self._free = coarse
        self._known = np.zeros_like(self._free)
        self._spent = np.zeros_like(self._free)
        self._previous = np.empty(self._free.shape, dtype=np.int64)
        self._places: dict[int, list[NDArray[np.floating]]] = {}
        self._goal, self._waited = -1, 0
        self._viewpoints: tuple[CategoryGoals, NDArray[np.int64]] | None = None
        self._tilt, self._most_tilts = 0, 0
        if options.tilt_angle > 0:
            self._most_tilts = int(options.tilt_limit / options.tilt_angle + 1e-6)
        self._last_turn, self._last = LEFT, STOP

    def begin_episode(self) -> None:
        """The agent stands somewhere else, with a level camera."""
        self._tilt, self._goal, self._waited, self._last = 0, -1, 0, STOP
        self._spent[:] = False

    def saw_action(self, action: str) -> None:
        """Account for a camera movement that was made."""
        tilt = self._tilt + {UP: 1, DOWN: -1}.get(action, 0)
        self._tilt = max(-self._most_tilts, min(self._most_tilts, tilt))
        self._last = action

    def look(self, pose: Pose, detections: NDArray[np.float32]) -> None:
        """Remember the floor in view at `pose`, and the places in the detections [C, 6]."""
        if not self._reacts:
            cell = self._cell(pose.position)
            _reveal(self._free, self._known, cell, pose.heading, _SIGHT / _RESOLUTION)
        for row in np.flatnonzero(detections[:, 0]).tolist():
            place = self._world(detections[row, 3:5] * TRIAL_SCALE)
            known = self._places.setdefault(row, [])
            if all(math.dist(place, other) > _SAME_PLACE for other in known):
                known.append(place)

    def next_action(self, pose: Pose, row: int, goals: CategoryGoals, found: bool) -> str:
        """Name of the action to take.

        Args:
            pose: of the agent.
            row: of the target among the categories.
            goals: the target's instances and viewpoints; used near remembered places only.
            found: whether stopping now would succeed.
        """
        if found:
            return STOP
        seen = self._remembered(row, goals)
        if self._reacts:
            return self._react(pose, seen)
        if len(seen):
            action = self._go_back(pose, seen, goals)
            if action is not None:
                return action
        return self._explore(pose)

    # To what was seen ---------------------------------------------------------------------------

    def _remembered(self, row: int, goals: CategoryGoals) -> NDArray[np.floating]:
        """[J, 3] m, centres of the target's instances whose places are remembered."""
        places = self._places.get(row)
        if not places:
            return goals.positions[:0]
        across = goals.positions[:, [0, 2]]
        near = [np.linalg.norm(across - place, axis=1).argmin() for place in places]
        return goals.positions[np.unique(near)]

    def _go_back(self, pose: Pose, seen: NDArray[np.floating], goals: CategoryGoals) -> str | None:
        """Towards the nearest viewpoint of what was seen; None when all proved useless."""
        if self._viewpoints is None or self._viewpoints[0] is not goals:
            self._viewpoints = goals, self._floor.cells(goals.viewpoints).astype(np.int64)
        cells, goal = self._viewpoints[1], np.zeros_like(self._free)
        for centre in seen:
            reach = horizontal_distance(centre, goals.viewpoints) <= self._options.reach
            goal[cells[reach, 0], cells[reach, 1]] = True
        goal &= self._free & ~self._spent
        at = self._cell(pose.position)
        if goal[at]:
            action = self._face(pose, seen)
            if action is not None:
                return action
            self._spent |= _disc(self._free.shape, at, self._options.spent_radius / _RESOLUTION)
            goal &= ~self._spent
        if not goal.any():
            return None
        return self._walk(pose, goal, self._known | goal) or self._walk(pose, goal, self._free)

    def _face(self, pose: Pose, seen: NDArray[np.floating]) -> str | None:
        """Turn and tilt towards the nearest of what was seen; None once it should be in view."""
        centre = seen[horizontal_distance(pose.position, seen).argmin()]
        turn = wrap_angle(heading_to(pose.position, centre) - pose.heading)
        if abs(turn) > self._options.turn_angle / 2 + 1e-6:
            return LEFT if turn > 0 else RIGHT
        if self._options.tilt_angle > 0:
            eye = pose.position + np.array([0.0, self._options.eye_height, 0.0])
            wanted = round(pitch_to(eye, centre) / self._options.tilt_angle)
            wanted = max(-self._most_tilts, min(self._most_tilts, wanted))
            if wanted != self._tilt:
                return UP if wanted > self._tilt else DOWN
        return None

    # To what was not ----------------------------------------------------------------------------

    def _explore(self, pose: Pose) -> str:
        """Towards the nearest floor not yet seen; once all is seen, everything is looked at again.

        A goal is kept until it has come into view, or the player would waver between two.
        """
        if self._tilt:
            return DOWN if self._tilt > 0 else UP
        unseen = self._free & ~self._known
        goal = np.zeros_like(self._free)
        if self._goal >= 0 and unseen.flat[self._goal] and self._waited < _PATIENCE:
            goal.flat[self._goal] = True
            action = self._walk(pose, goal, self._known)
            if action is not None:
                self._waited += 1
                return action
        elif self._goal >= 0:
            self._known.flat[self._goal] = True
        self._waited = 0
        action = self._walk(pose, self._free & ~self._known, self._known)
        if action is not None:
            return action
        self._known[:] = False
        self._goal = -1
        return self._last_turn

    def _walk(self, pose: Pose, goal: NDArray[np.bool_], allowed: NDArray[np.bool_]) -> str | None:
        """The action on the shortest way to a cell of `goal` over cells `allowed` besides."""
        at = self._cell(pose.position)
        # A cell of the border that the coarse map does not know is one to begin from.
        reached = _shortest(self._free, allowed, goal, at, self._previous)
        if reached < 0:
            return None
        self._goal = reached
        place = self._floor.cells(pose.position)[0]
        ahead = _way_ahead(self._free, self._previous, reached, place, _AHEAD / _RESOLUTION)
        turn = wrap_angle(math.atan2(-(ahead[1] - place[1]), -(ahead[0] - place[0])) - pose.heading)
        if abs(turn) <= self._options.turn_angle / 2 + 1e-6:
            return _FORWARD
        if abs(turn) < math.pi - self._options.turn_angle:
            # Straight behind, either way is as good: go on turning the same way.
            self._last_turn = LEFT if turn > 0 else RIGHT
        return self._last_turn

    # By what is around alone --------------------------------------------------------------------

    def _react(self, pose: Pose, seen: NDArray[np.floating]) -> str:
        """Towards the nearest of what was seen, or wandering."""
        if self._tilt:
            return DOWN if self._tilt > 0 else UP
        ranges = scan(self._fine, pose)
        if not len(seen):
            return self._wander(ranges)
        nearest = seen[horizontal_distance(pose.position, seen).argmin()]
        bearing = wrap_angle(heading_to(pose.position, nearest) - pose.heading)
        return self._head_for(bearing, ranges)

    def _head_for(self, bearing: float, ranges: NDArray[np.float32]) -> str:
        """The free direction that leads there best, but rather on than aside, and into the open."""
        angles = np.remainder(_ANGLES + math.pi, 2.0 * math.pi) - math.pi
        aside = np.abs(np.remainder(angles - bearing + math.pi, 2.0 * math.pi) - math.pi)
        cost = aside - 0.4 * np.minimum(ranges, _ENOUGH) + 0.35 * np.abs(angles)
        best = int(np.where(ranges >= _PASSABLE, cost, np.inf).argmin())
        if best == 0 and ranges[0] >= _PASSABLE:
            return _FORWARD
        return LEFT if best <= len(ranges) // 2 else RIGHT

    def _wander(self, ranges: NDArray[np.float32]) -> str:
        """On while the way is free; else to the freer side, and on turning that way."""
        side = len(ranges) // 4
        turning = self._last if self._last in (LEFT, RIGHT) else None
        if ranges[0] < _NEAR_WALL:
            left, right = ranges[1 : side + 1].sum(), ranges[-side:].sum()
            return turning or (LEFT if left >= right else RIGHT)
        further = ranges[1] if turning == LEFT else ranges[-1]
        if turning and ranges[0] < min(_OPEN, further):
            return turning
        return _FORWARD

    # The map ------------------------------------------------------------------------------------

    def _cell(self, position: NDArray[np.floating]) -> tuple[int, int]:
        row, column = self._floor.cells(position)[0].astype(int)
        rows, columns = self._free.shape
        return min(max(row, 0), rows - 1), min(max(column, 0), columns - 1)

    def _world(self, place: NDArray[np.floating]) -> NDArray[np.floating]:
        """(x, z) m of a place (forward, left) m in the trial's frame."""
        sin, cos = math.sin(self._origin.heading), math.cos(self._origin.heading)
        forward, left = float(place[0]), float(place[1])
        x, z = self._origin.position[0], self._origin.position[2]
        return np.array([x - sin * forward - cos * left, z - cos * forward + sin * left])


def _disc(shape: tuple[int, ...], centre: tuple[int, int], radius: float) -> NDArray[np.bool_]:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return np.asarray((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2)


@njit(cache=True, nogil=True)
def _reveal(free, known, at, heading, reach):  # type: ignore[no-untyped-def]
    """Mark the cells [Z, X] around `at` and those in view, up to `reach` cells away."""
    rows, columns = free.shape
    for i in range(max(at[0] - 1, 0), min(at[0] + 2, rows)):
        for j in range(max(at[1] - 1, 0), min(at[1] + 2, columns)):
            known[i, j] = True
    for ray in range(_RAYS):
        angle = heading - _HALF_VIEW + 2.0 * _HALF_VIEW * ray / (_RAYS - 1)
        distance = 0.0
        while distance < reach:
            distance += 0.5
            i = int(at[0] + 0.5 - math.cos(angle) * distance)
            j = int(at[1] + 0.5 - math.sin(angle) * distance)
            if i < 0 or j < 0 or i >= rows or j >= columns:
                break
            known[i, j] = True
            if not free[i, j] and distance > 1.0:
                break


@njit(cache=True, nogil=True)
def _shortest(free, allowed, goal, at, previous):  # type: ignore[no-untyped-def]
    """The nearest cell of `goal` that can be walked to over `allowed` ones, as a flat index.

    A step costs 2, a diagonal one 3, so that whole numbers serve as distances: cells wait in four
    queues by distance modulo 4 (Dial 1969). `previous` [Z, X] tells the way back; -1 if there is
    no way.
    """
    rows, columns = free.shape
    distance = np.full(free.shape, 2**30)
    waiting = np.empty((4, 8 * free.size), dtype=np.int64)
    count = np.zeros(4, dtype=np.int64)
    distance[at] = 0
    previous[at] = -1
    waiting[0, 0] = at[0] * columns + at[1]
    count[0] = 1
    now = 0
    idle = 0
    while idle < 4:
        queue = now % 4
        idle = 0 if count[queue] else idle + 1
        for k in range(count[queue]):
            cell = waiting[queue, k]
            i = cell // columns
            j = cell % columns
            if distance[i, j] != now:
                continue
            if goal[i, j]:
                return cell
            if now > 0 and not allowed[i, j]:
                continue
            for a in range(max(i - 1, 0), min(i + 2, rows)):
                for b in range(max(j - 1, 0), min(j + 2, columns)):
                    if not free[a, b]:
                        continue
                    straight = a == i or b == j
                    if not straight and not (free[a, j] and free[i, b]):
                        continue
                    length = now + (2 if straight else 3)
                    if length < distance[a, b]:
                        distance[a, b] = length
                        previous[a, b] = cell
                        into = length % 4
                        waiting[into, count[into]] = a * columns + b
                        count[into] += 1
        count[queue] = 0
        now += 1
    return -1


@njit(cache=True, nogil=True)
def _way_ahead(free, previous, cell, place, limit):  # type: ignore[no-untyped-def]
    """(row, column) of the farthest point of the way to `cell` that lies straight ahead.

    place: (row, column) of the agent; limit: how far ahead at most, cells.
    """
    columns = free.shape[1]
    row = cell // columns + 0.5
    column = cell % columns + 0.5
    while previous[cell // columns, cell % columns] >= 0:
        row = cell // columns + 0.5
        column = cell % columns + 0.5
        d_row = row - place[0]
        d_column = column - place[1]
        steps = int(4.0 * max(abs(d_row), abs(d_column))) + 1
        clear = d_row * d_row + d_column * d_column <= limit * limit
        for k in range(steps + 1):
            if not clear:
                break
            i = int(place[0] + d_row * k / steps)
            j = int(place[1] + d_column * k / steps)
            clear = free[i, j] or k * max(abs(d_row), abs(d_column)) < steps
        if clear:
            break
        cell = previous[cell // columns, cell % columns]
    return row, column
