"""A player that knows the house: walks to the nearest viewpoint, looks at the instance, stops."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from memo_habitat.errors import UserError
from memo_habitat.simulator.interface import ActionSizes, TaskSimulator
from memo_habitat.tasks.extobjnav.goals import (
    CategoryGoals,
    Pose,
    heading_to,
    horizontal_distance,
    pitch_to,
    wrap_angle,
)

STOP, LEFT, RIGHT, UP, DOWN = "stop", "turn_left", "turn_right", "look_up", "look_down"
_NEEDED = (STOP, "move_forward", LEFT, RIGHT)


@dataclass(frozen=True)
class OracleOptions:
    """How the agent moves, and when the oracle changes its mind.

    Attributes:
        turn_angle: rad of one turn.
        tilt_angle: rad of one look up or down; 0 where the task has no such actions.
        tilt_limit: rad from level at which the camera stays.
        eye_height: m of the camera above the floor.
        reach: farthest horizontal distance (m) at which an instance counts.
        spent_radius: viewpoints within this distance (m) of a place that turned out useless are
            given up with it.
        patience: steps without coming closer after which the nearest viewpoints are given up.
    """

    turn_angle: float
    tilt_angle: float
    tilt_limit: float
    eye_height: float
    reach: float
    spent_radius: float = 0.5
    patience: int = 40

    @classmethod
    def of(
        cls, sizes: ActionSizes, actions: Sequence[str], eye_height: float, reach: float
    ) -> OracleOptions:
        """The options for a simulator's action sizes and the names of the task's actions.

        Raises:
            UserError: an action is missing that the oracle cannot do without.
        """
        missing = [name for name in _NEEDED if name not in actions]
        if missing:
            raise UserError(
                "the sensors oracle_action and perfect_memory_action need the action(s)"
                f" {', '.join(missing)}; add them to habitat.task.actions"
            )
        return cls(
            turn_angle=sizes.turn,
            tilt_angle=sizes.tilt if {UP, DOWN} <= set(actions) else 0.0,
            tilt_limit=sizes.tilt_limit,
            eye_height=eye_height,
            reach=reach,
        )


class Gaze:
    """Where a player's camera looks, by the actions that were made, and how to move it."""

    def __init__(self, options: OracleOptions) -> None:
        """Begin with a level camera."""
        self._options = options
        self._tilt = self._most_tilts = 0  # looks up from level, and how many there can be
        if options.tilt_angle > 0:
            self._most_tilts = int(options.tilt_limit / options.tilt_angle + 1e-6)

    def saw_action(self, action: str) -> None:
        """Account for a camera movement that was made."""
        self._tilt = self._limited(self._tilt + {UP: 1, DOWN: -1}.get(action, 0))

    def level(self) -> str | None:
        """The action that brings the camera nearer to level; None where it is level."""
        return self._tilt_to(0)

    def towards(self, pose: Pose, target: np.ndarray) -> str | None:
        """Turn, then tilt towards a point [3] m; None once it should be in view."""
        turn = wrap_angle(heading_to(pose.position, target) - pose.heading)
        if abs(turn) > self._options.turn_angle / 2 + 1e-6:
            return LEFT if turn > 0 else RIGHT
        if self._options.tilt_angle <= 0:
            return None
        eye = pose.position + np.array([0.0, self._options.eye_height, 0.0])
        return self._tilt_to(self._limited(round(pitch_to(eye, target) / self._options.tilt_angle)))

    def _tilt_to(self, wanted: int) -> str | None:
        if wanted == self._tilt:
            return None
        return UP if wanted > self._tilt else DOWN

    def _limited(self, tilt: int) -> int:
        return max(-self._most_tilts, min(self._most_tilts, tilt))


@dataclass
class _Looking:
    """What is still to be looked at from one place."""

    place: np.ndarray
    targets: list[np.ndarray] = field(default_factory=list)


class Oracle:
    """Chooses actions for one episode; knows the house through the simulator's interface alone.

    It never goes round in circles: each place is looked around from once, then its viewpoints are
    given up; so are viewpoints it cannot get closer to. With none left it stops.
    """

    def __init__(
        self,
        simulator: TaskSimulator,
        goals: CategoryGoals,
        options: OracleOptions,
        found: Callable[[], bool],
    ) -> None:
        """Begin an episode with a level camera.

        Args:
            simulator: what is known of the house.
            goals: viewpoints and instances of the target.
            options: angles and limits.
            found: whether stopping now would succeed.
        """
        self._simulator = simulator
        self._positions = goals.positions
        self._viewpoints = goals.viewpoints
        self._options = options
        self._found = found
        self._gaze = Gaze(options)
        self._looking: _Looking | None = None
        self._closest = math.inf
        self._waited = 0

    def saw_action(self, action: str) -> None:
        """Account for a camera movement that was made."""
        self._gaze.saw_action(action)

    def next_action(self, pose: Pose) -> str:
        """Return the name of the best action at `pose`."""
        if self._found():
            return STOP
        while True:
            if self._looking is not None and np.allclose(self._looking.place, pose.position):
                action = self._look(pose, self._looking)
                if action is not None:
                    return action
                self._give_up_around(pose.position)
            self._looking = None
            if not len(self._viewpoints):
                return STOP
            if self._is_stuck(pose):
                self._give_up_nearest(pose)
                continue
            walk = self._simulator.next_best_action(self._viewpoints)
            if walk is not None:
                return walk
            self._looking = _Looking(pose.position.copy(), self._in_reach(pose))

    def _look(self, pose: Pose, looking: _Looking) -> str | None:
        """Turn and tilt towards each target in turn; None when all have been looked at."""
        while looking.targets:
            action = self._gaze.towards(pose, looking.targets[0])
            if action is not None:
                return action
            looking.targets.pop(0)
        return None

    def _in_reach(self, pose: Pose) -> list[np.ndarray]:
        distances = horizontal_distance(pose.position, self._positions)
        order = np.argsort(distances, kind="stable")
        return [self._positions[i] for i in order if distances[i] <= self._options.reach]

    def _is_stuck(self, pose: Pose) -> bool:
        distance = self._simulator.distance_to(pose.position, self._viewpoints)
        if distance < self._closest - 0.05:
            self._closest, self._waited = distance, 0
            return False
        self._waited += 1
        return self._waited > self._options.patience

    def _give_up_nearest(self, pose: Pose) -> None:
        nearest = int(np.argmin(horizontal_distance(pose.position, self._viewpoints)))
        self._give_up_around(self._viewpoints[nearest])

    def _give_up_around(self, place: np.ndarray) -> None:
        far = horizontal_distance(place, self._viewpoints) > self._options.spent_radius
        self._viewpoints = self._viewpoints[far]
        self._closest, self._waited = math.inf, 0
