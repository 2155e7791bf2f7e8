"""A player with perfect memory that does not know the house: what remembering can gain at most.

It walks straight back to what it has seen, and otherwise explores. Everything it knows comes from
its own trial: the floor it looked at and the detections of each step.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from memo_habitat.errors import check_choice
from memo_habitat.simulator.interface import TopDownMap
from memo_habitat.tasks.extobjnav.detections import TRIAL_SCALE
from memo_habitat.tasks.extobjnav.floor_map import (
    DIRECTIONS,
    FAR,
    coarser,
    disc,
    reveal,
    scan,
    shortest,
    way_ahead,
)
from memo_habitat.tasks.extobjnav.goals import (
    CategoryGoals,
    Pose,
    heading_to,
    horizontal_distance,
    turned,
    wrap_angle,
)
from memo_habitat.tasks.extobjnav.oracle import LEFT, RIGHT, STOP, Gaze, OracleOptions

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
_SAME_PLACE = 0.5  # m within which two sightings of a category are one thing
_PATIENCE = 60  # steps towards one unseen place after which it is given up
_STUCK = 15  # steps on a way back that gets no shorter; to turn round and walk a cell takes 8
_AHEAD = 2.0  # m of the path that are cut short where the way is free
_NEAR_WALL, _OPEN = 0.75, 1.5  # m ahead at which wandering turns away, and is content again
_PASSABLE, _ENOUGH = 0.6, 2.1  # m that a direction must be free to be taken, and that say no more
_BESIDE = 3  # cells within which an agent that the map has nowhere is taken to stand
# Of the scanned directions, rad in [-pi, pi).
_ANGLES = np.remainder(2.0 * math.pi * np.arange(DIRECTIONS) / DIRECTIONS + math.pi, 2.0 * math.pi)
_ANGLES -= math.pi


class Searcher:
    """One trial's player; asked at every step.

    The map's cells are revealed as they come into view, behind nothing that stands on the floor.
    """

    def __init__(
        self, floor: TopDownMap, origin: Pose, options: OracleOptions, moves: str = "planned"
    ) -> None:
        """Begin a trial.

        Args:
            floor: of the house, as `floor_map.floor_of` makes it; nothing of it is known yet.
            origin: the trial's frame, in which detections tell places.
            options: angles and limits.
            moves: one of `MOVES`.
        """
        check_choice("perfect_memory_action_sensor.moves", moves, MOVES)
        self._origin, self._options, self._reacts = origin, options, moves == "reactive"
        self._fine = floor
        self._floor = coarser(floor, max(round(_RESOLUTION / floor.resolution), 1))
        self._free = self._floor.free
        self._known = np.zeros_like(self._free)
        self._spent = np.zeros_like(self._free)
        self._previous = np.empty(self._free.shape, dtype=np.int64)
        self._places: dict[int, list[NDArray[np.floating]]] = {}
        # Flat index of the cell that is walked to, steps towards it and the length of the way left.
        self._goal, self._waited, self._left = -1, 0, 0
        self._shortest_left, self._stuck = FAR, 0
        self._viewpoints: tuple[CategoryGoals, NDArray[np.int64]] | None = None
        self._gaze = Gaze(options)
        self._last_turn, self._last = LEFT, STOP

    def begin_episode(self) -> None:
        """The agent stands somewhere else, with a level camera."""
        self._gaze = Gaze(self._options)
        self._goal, self._waited, self._last = -1, 0, STOP
        self._spent[:] = False
        self._shortest_left, self._stuck = FAR, 0

    def saw_action(self, action: str) -> None:
        """Account for a camera movement that was made."""
        self._gaze.saw_action(action)
        self._last = action

    def look(self, pose: Pose, detections: NDArray[np.float32]) -> None:
        """Remember the floor in view at `pose`, and the places in the detections [C, 6]."""
        if not self._reacts:
            cell = self._cell(pose.position)
            reveal(self._free, self._known, cell, pose.heading, _SIGHT / _RESOLUTION)
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
            # Those on the map's very border belong to its last cells.
            last = np.array(self._free.shape) - 1
            cells = self._floor.cells(goals.viewpoints).astype(np.int64).clip(0, last)
            self._viewpoints = goals, cells
        cells, goal = self._viewpoints[1], np.zeros_like(self._free)
        for centre in seen:
            reach = horizontal_distance(centre, goals.viewpoints) <= self._options.reach
            goal[cells[reach, 0], cells[reach, 1]] = True
        goal &= self._free & ~self._spent
        at = self._cell(pose.position)
        if goal[at]:
            nearest = seen[horizontal_distance(pose.position, seen).argmin()]
            action = self._gaze.towards(pose, nearest)
            if action is not None:
                return action
            goal &= ~self._given_up_around(at)
        while goal.any():
            action = self._walk(pose, goal, self._known) or self._walk(pose, goal, self._free)
            if action is None or not self._is_stuck():
                return action
            goal &= ~self._given_up_around(divmod(self._goal, goal.shape[1]))
        return None

    def _is_stuck(self) -> bool:
        """Whether the way back has not become shorter for long.

        Steps are longer than a cell: one in a corner may be walked over time and again and never
        be stood in.
        """
        if self._left < self._shortest_left:
            self._shortest_left, self._stuck = self._left, 0
        self._stuck += 1
        return self._stuck > _STUCK

    def _given_up_around(self, cell: tuple[int, int]) -> NDArray[np.bool_]:
        """Cells that nothing is looked for from in this episode, those around `cell` now too."""
        self._spent |= disc(self._free.shape, cell, self._options.spent_radius / _RESOLUTION)
        self._shortest_left, self._stuck = FAR, 0
        return self._spent

    # To what was not ----------------------------------------------------------------------------

    def _explore(self, pose: Pose) -> str:
        """Towards the nearest floor not yet seen; once all is seen, everything is looked at again.

        A goal is kept until it has come into view, or the player would waver between two.
        """
        if (action := self._gaze.level()) is not None:
            return action
        self._shortest_left, self._stuck = FAR, 0
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
        at = self._nearest_free(self._cell(pose.position))
        reached, left = shortest(self._free, allowed, goal, at, self._previous)
        if reached < 0:
            return None
        self._goal, self._left = reached, left
        place = self._floor.cells(pose.position)[0]
        free = self._free & allowed
        ahead = way_ahead(free, self._previous, reached, place, _AHEAD / _RESOLUTION)
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
        if (action := self._gaze.level()) is not None:
            return action
        ranges = scan(self._fine, pose)
        if not len(seen):
            return self._wander(ranges)
        nearest = seen[horizontal_distance(pose.position, seen).argmin()]
        bearing = wrap_angle(heading_to(pose.position, nearest) - pose.heading)
        return self._head_for(bearing, ranges)

    def _head_for(self, bearing: float, ranges: NDArray[np.float32]) -> str:
        """The free direction that leads there best, but rather on than aside, and into the open."""
        aside = np.abs(np.remainder(_ANGLES - bearing + math.pi, 2.0 * math.pi) - math.pi)
        cost = aside - 0.4 * np.minimum(ranges, _ENOUGH) + 0.35 * np.abs(_ANGLES)
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

    def _nearest_free(self, cell: tuple[int, int]) -> tuple[int, int]:
        """The agent may stand where the coarse map has nothing free: its way begins beside it."""
        if self._free[cell]:
            return cell
        row, column = max(cell[0] - _BESIDE, 0), max(cell[1] - _BESIDE, 0)
        window = self._free[row : cell[0] + _BESIDE + 1, column : cell[1] + _BESIDE + 1]
        free = np.argwhere(window) + np.array([row, column])
        if not len(free):
            return cell
        nearest = free[((free - cell) ** 2).sum(1).argmin()]
        return int(nearest[0]), int(nearest[1])

    def _world(self, place: NDArray[np.floating]) -> NDArray[np.floating]:
        """(x, z) m of a place (forward, left) m in the trial's frame."""
        x, z = turned(float(place[0]), float(place[1]), self._origin.heading)
        return np.array([self._origin.position[0] + x, self._origin.position[2] + z])
