"""Who has perfect memory: it knows what its trial has shown, all of it and nothing else."""

from __future__ import annotations

import math

import numpy as np
import pytest

from memo_habitat.errors import UserError
from memo_habitat.simulator.interface import TopDownMap
from memo_habitat.tasks.extobjnav.goals import CategoryGoals, Pose, in_frame
from memo_habitat.tasks.extobjnav.oracle import OracleOptions
from memo_habitat.tasks.extobjnav.searcher import Searcher

OPTIONS = OracleOptions(
    turn_angle=math.radians(30), tilt_angle=0.0, tilt_limit=0.0, eye_height=1.2, reach=1.0
)
NOTHING = np.zeros((2, 6), dtype=np.float32)
NORTH, EAST, SOUTH = 0.0, -math.pi / 2, math.pi  # towards -z, +x, +z


def ring() -> TopDownMap:
    """A corridor 1.2 m wide around a block: 10 by 10 m, 0.05 m per cell."""
    free = np.ones((200, 200), dtype=np.bool_)
    free[24:176, 24:176] = False
    return TopDownMap(free, (0.0, 0.0), 0.05)


def pose_at(x: float, z: float, heading: float) -> Pose:
    return Pose(np.array([x, 0.0, z]), heading)


def goals_at(x: float, z: float) -> CategoryGoals:
    place = np.array([[x, 0.0, z]])
    offsets = np.array([[0, 0], [0.5, 0], [0, -0.5], [0.3, -0.3]])
    around = np.array([[x + dx, 0.0, z + dz] for dx, dz in offsets])
    return CategoryGoals("mug", (), place, around)


class Walk:
    """An agent on a map, which slides along what is not free, with the player that it asks."""

    def __init__(self, floor: TopDownMap, start: Pose, moves: str = "planned") -> None:
        self.floor, self.pose = floor, start
        self.player = Searcher(floor, start, OPTIONS, moves)
        self._origin = start
        self.path = [start.position]

    def show(self, target: tuple[float, float] | None = None) -> None:
        """Let the player look from here, where the target may be detected."""
        table = NOTHING.copy()
        if target is not None:
            place = np.array([target[0], 0.0, target[1]])
            table[0, 0] = 1.0
            table[0, 3:5] = np.array(in_frame(self._origin, place)) / 10.0
        self.player.look(self.pose, table)

    def along(self, heading: float, metres: float) -> None:
        """Walk straight, led by somebody else."""
        for _ in range(round(metres / 0.25)):
            forward = np.array([-math.sin(heading), 0.0, -math.cos(heading)])
            self.pose = Pose(self.pose.position + 0.25 * forward, heading)
            self.show()

    def act(self, action: str) -> None:
        position, heading = self.pose.position, self.pose.heading
        if action == "move_forward":
            step = 0.25 * np.array([-math.sin(heading), 0.0, -math.cos(heading)])
            wanted = (position + step * part for part in ([1, 0, 1], [1, 0, 0], [0, 0, 1]))
            position = next(filter(self._is_free, wanted), position)
        turn = {"turn_left": 1, "turn_right": -1}.get(action, 0) * OPTIONS.turn_angle
        self.pose = Pose(position, heading + turn)
        self.path.append(position)
        self.player.saw_action(action)

    def _is_free(self, position: np.ndarray) -> bool:
        row, column = np.floor(self.floor.cells(position)[0]).astype(int)
        rows, columns = self.floor.free.shape
        inside = 0 <= row < rows and 0 <= column < columns
        return bool(inside and self.floor.free[row, column])

    def until_found(self, goals: CategoryGoals, most: int) -> np.ndarray:
        """The positions [P, 3] that the player's own actions lead through."""
        self.path = [self.pose.position]
        for _ in range(most):
            self.show()
            near = np.linalg.norm(goals.positions - self.pose.position, axis=1).min() < 1.0
            action = self.player.next_action(self.pose, 0, goals, bool(near))
            if action == "stop":
                return np.array(self.path)
            self.act(action)
        raise AssertionError(f"not found in {most} steps, now at {self.pose}")


def walked_three_sides() -> Walk:
    """The target was seen where it began; the fourth side of the ring was not."""
    walk = Walk(ring(), pose_at(0.6, 9.4, NORTH))
    walk.show(target=(0.4, 9.0))
    for heading, metres in ((NORTH, 8.75), (EAST, 8.75), (SOUTH, 5.0)):
        walk.along(heading, metres)
    return walk


def unseen(path: np.ndarray) -> np.ndarray:
    """Which positions lie on the fourth side, away from its two ends."""
    return (path[:, 2] > 8.8) & (path[:, 0] > 3.2) & (path[:, 0] < 8.6)


def test_it_goes_back_over_what_it_has_seen_though_another_way_is_shorter():
    path = walked_three_sides().until_found(goals_at(0.4, 9.0), most=200)
    assert not unseen(path).any()
    assert np.linalg.norm(np.diff(path, axis=0), axis=1).sum() > 18.0


def test_it_walks_through_what_it_has_not_seen_where_there_is_no_other_way():
    walk = Walk(ring(), pose_at(0.6, 9.4, NORTH))
    walk.show(target=(0.4, 9.0))
    # The next episode begins at the other end of a side that was never seen.
    walk.player.begin_episode()
    walk.pose = pose_at(9.4, 9.4, SOUTH)
    path = walk.until_found(goals_at(0.4, 9.0), most=100)
    assert unseen(path).any()
    assert np.linalg.norm(np.diff(path, axis=0), axis=1).sum() < 14.0


def test_it_explores_until_it_sees_the_target():
    walk = Walk(ring(), pose_at(0.6, 9.4, NORTH))
    goals = goals_at(9.4, 0.6)
    assert len(walk.until_found(goals, most=400)) > 60  # nobody told it where


def test_a_cell_smaller_than_a_step_does_not_hold_it_for_ever():
    # The only viewpoint lies in a corner; what is to be seen from there is never in reach.
    walk = Walk(ring(), pose_at(0.6, 9.4, NORTH))
    walk.show(target=(0.4, 6.0))
    corner = CategoryGoals("mug", (), np.array([[0.4, 0.0, 6.0]]), np.array([[0.06, 0.0, 6.0]]))
    places = set()
    for _ in range(150):
        walk.show()
        walk.act(walk.player.next_action(walk.pose, 0, corner, found=False))
        places.add(tuple(np.round(walk.pose.position, 1)))
    assert len(places) > 20


def test_an_agent_in_a_nook_that_its_map_does_not_know_gets_out():
    floor = ring()
    floor.free[178:183, 100:140] = False  # behind it a strip of 10 cm, narrower than its cells
    floor.free[176:178, 106:140] = False
    nook = pose_at(5.2, 8.85, EAST)
    walk = Walk(floor, nook)
    for _ in range(60):
        walk.show()
        walk.act(walk.player.next_action(walk.pose, 0, goals_at(0.6, 0.6), found=False))
    assert np.linalg.norm(walk.pose.position - nook.position) > 2.0


def test_reactive_moves_need_the_remembered_place_and_what_is_around_alone():
    walked, told = (Walk(ring(), pose_at(0.6, 9.4, NORTH), "reactive") for _ in range(2))
    for walk in (walked, told):
        walk.show(target=(0.4, 9.0))
    walked.along(NORTH, 8.75)
    walked.along(EAST, 5.0)
    goals = goals_at(0.4, 9.0)
    for pose in (pose_at(0.6, 3.0, EAST), pose_at(5.0, 0.6, NORTH), pose_at(9.4, 5.0, SOUTH)):
        actions = {walk.player.next_action(pose, 0, goals, False) for walk in (walked, told)}
        assert len(actions) == 1


def test_reactive_moves_reach_what_lies_round_no_corner():
    walk = Walk(ring(), pose_at(0.6, 9.4, NORTH), "reactive")
    walk.show(target=(0.6, 2.0))
    assert len(walk.until_found(goals_at(0.6, 2.0), most=60)) < 40


def test_moves_that_there_are_not_are_refused():
    with pytest.raises(UserError, match="moves='flying'"):
        Searcher(ring(), pose_at(1.0, 1.0, NORTH), OPTIONS, "flying")
