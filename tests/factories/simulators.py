"""A flat empty room as a simulator with exact distances."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gym import spaces
from habitat.core.registry import registry
from habitat.core.simulator import (
    AgentState,
    Observations,
    RGBSensor,
    SensorSuite,
    Simulator,
)
from habitat.sims.habitat_simulator.actions import HabitatSimActions
from omegaconf import DictConfig

from memo_habitat.simulator.interface import ActionSizes, Instance, TopDownMap
from memo_habitat.tasks.extobjnav.goals import heading_to, quaternion_of, wrap_angle
from memo_habitat.testing.tasks import task_config

#: Inner size of the room, m: x in [-4, 4], z in [-3, 3]; the agent may stand everywhere in it.
HALF_X, HALF_Z = 4.0, 3.0
EYE_HEIGHT = 1.2
TILT = math.radians(30.0)
OBJECT_SIZE = 0.3
_FOCAL_PIXELS = 32.0  # of a 64 x 64 image with a field of view of 90 degrees


class _BlankCamera(RGBSensor):
    """A camera that shows nothing; what it would see is worked out by `visible_pixels`."""

    def _get_uuid(self, *args: Any, **kwargs: Any) -> str:
        return "head_rgb"

    def _get_observation_space(self, *args: Any, **kwargs: Any) -> spaces.Box:
        return spaces.Box(low=0, high=255, shape=(4, 4, 3), dtype=np.uint8)

    def get_observation(self, *args: Any, **kwargs: Any) -> np.ndarray:
        """Return black pixels."""
        return np.zeros((4, 4, 3), dtype=np.uint8)


@registry.register_simulator(name="FlatRoomSim-v0")
class FlatRoomSim(Simulator):
    """An empty rectangular room: Euclidean distances, nothing in the way, walls that stop.

    Objects stand where the episode puts them, also outside the room; one more than 2 m outside has
    no viewpoint. Implements Habitat's `Simulator` and the task's `TaskSimulator`.
    """

    def __init__(self, config: Any) -> None:
        """Begin in the middle."""
        self.habitat_config = config
        self._sensor_suite = SensorSuite([_BlankCamera(config=None)])
        self._instances: tuple[Instance, ...] = ()
        self._next: tuple[np.ndarray, float] | None = None
        self._position = np.zeros(3)
        self._heading = 0.0
        self._tilt = 0.0
        self._collided = False
        self.distance_searches = 0

    # What Habitat asks of a simulator.

    @property
    def sensor_suite(self) -> SensorSuite:
        """The one camera."""
        return self._sensor_suite

    @property
    def action_space(self) -> spaces.Discrete:
        """The discrete actions."""
        return spaces.Discrete(6)

    @property
    def previous_step_collided(self) -> bool:  # type: ignore[override]
        """Whether the last step was stopped by a wall."""
        return self._collided

    def seed(self, seed: int) -> None:
        """Nothing here is random."""

    def reconfigure(self, config: Any, episode: Any = None) -> None:
        """Place the episode's objects."""
        self.habitat_config = config
        counts: dict[str, int] = {}
        instances = []
        for index, (name, transform) in enumerate(episode.rigid_objs):
            category = name.split(".")[0]
            number = counts.get(category, 0)
            counts[category] = number + 1
            position = np.asarray(transform, dtype=np.float64)[:3, 3]
            instances.append(Instance(f"{category}_:{number:04d}", category, 100 + index, position))
        self._instances = tuple(instances)

    def reset(self) -> Observations:
        """Go to the start that was announced."""
        if self._next is not None:
            (self._position, self._heading), self._next = self._next, None
        self._tilt, self._collided = 0.0, False
        return self._sensor_suite.get_observations()

    def step(self, action: Any, *args: Any, **kwargs: Any) -> Observations:
        """Move, turn or tilt; None changes nothing."""
        self._collided = False
        turn = math.radians(self.habitat_config.turn_angle)
        if action == HabitatSimActions.move_forward:
            self._move(self.habitat_config.forward_step_size)
        elif action == HabitatSimActions.turn_left:
            self._heading = wrap_angle(self._heading + turn)
        elif action == HabitatSimActions.turn_right:
            self._heading = wrap_angle(self._heading - turn)
        elif action == HabitatSimActions.look_up:
            self._tilt = min(self._tilt + TILT, 2 * TILT)
        elif action == HabitatSimActions.look_down:
            self._tilt = max(self._tilt - TILT, -2 * TILT)
        return self._sensor_suite.get_observations()

    def step_physics(self, delta: float) -> None:
        """Nothing falls here."""

    def get_agent_state(self, agent_id: int = 0) -> AgentState:
        """Return position and rotation."""
        return AgentState(self._position.copy(), quaternion_of(self._heading))

    # What the task asks of a simulator.

    @property
    def action_sizes(self) -> ActionSizes:
        turn = math.radians(self.habitat_config.turn_angle)
        return ActionSizes(self.habitat_config.forward_step_size, turn, TILT, 2 * TILT)

    @property
    def instances(self) -> tuple[Instance, ...]:
        return self._instances

    def agent_pose(self) -> tuple[np.ndarray, float]:
        return self._position.copy(), self._heading

    def start_next_episode_at(self, position: np.ndarray, heading: float) -> None:
        self._next = (np.array(position, dtype=np.float64), float(heading))

    def sample_floor_point(self, rng: np.random.Generator) -> np.ndarray:
        return np.array([rng.uniform(-HALF_X, HALF_X), 0.0, rng.uniform(-HALF_Z, HALF_Z)])

    def floor_points_near(self, center: np.ndarray, radius: float, spacing: float) -> np.ndarray:
        x = np.arange(-round(HALF_X / spacing), round(HALF_X / spacing) + 1) * spacing
        z = np.arange(-round(HALF_Z / spacing), round(HALF_Z / spacing) + 1) * spacing
        points = np.stack(np.meshgrid(x, [0.0], z, indexing="ij"), axis=-1).reshape(-1, 3)
        near = np.hypot(points[:, 0] - center[0], points[:, 2] - center[2]) <= radius
        return points[near]

    def sees_instance(self, eyes: np.ndarray, instance_id: int) -> np.ndarray:
        return np.ones(len(eyes), dtype=bool)

    def distance_to(self, position: np.ndarray, goals: np.ndarray) -> float:
        self.distance_searches += 1
        return float(np.linalg.norm(goals - position, axis=1).min())

    @property
    def camera_uuids(self) -> tuple[str, ...]:
        return tuple(self._sensor_suite.sensors)

    def image_size(self, sensor: str) -> tuple[int, int]:
        return 64, 64

    def visible_pixels(self, instance_ids: Sequence[int] | np.ndarray, sensor: str) -> np.ndarray:
        return np.array([self._pixels_of(int(i)) for i in instance_ids], dtype=np.int64)

    def _pixels_of(self, instance_id: int) -> int:
        target = next(i.position for i in self._instances if i.id == instance_id)
        offset = target - (self._position + np.array([0.0, EYE_HEIGHT, 0.0]))
        horizontal = math.hypot(offset[0], offset[2])
        aside = wrap_angle(heading_to(self._position, target) - self._heading)
        above = math.atan2(offset[1], horizontal) - self._tilt
        if abs(aside) > math.pi / 4 or abs(above) > math.pi / 4:
            return 0
        return int((_FOCAL_PIXELS * OBJECT_SIZE / float(np.linalg.norm(offset))) ** 2)

    def next_best_action(self, goals: np.ndarray) -> str | None:
        nearest = goals[np.linalg.norm(goals - self._position, axis=1).argmin()]
        step = self.habitat_config.forward_step_size
        if float(np.linalg.norm(nearest - self._position)) <= step / 2:
            return None
        turn = wrap_angle(heading_to(self._position, nearest) - self._heading)
        if abs(turn) <= math.radians(self.habitat_config.turn_angle) / 2 + 1e-6:
            return "move_forward"
        return "turn_left" if turn > 0 else "turn_right"

    def top_down_map(self, resolution: float) -> TopDownMap:
        shape = (round(2 * HALF_Z / resolution), round(2 * HALF_X / resolution))
        return TopDownMap(np.ones(shape, dtype=bool), (-HALF_X, -HALF_Z), resolution)

    def _move(self, length: float) -> None:
        forward = np.array([-math.sin(self._heading), 0.0, -math.cos(self._heading)])
        wanted = self._position + length * forward
        self._position = np.clip(wanted, [-HALF_X, 0.0, -HALF_Z], [HALF_X, 0.0, HALF_Z])
        self._collided = not np.allclose(self._position, wanted)


def flat_room_config(data_path: Path, **options: Any) -> DictConfig:
    """`memo_habitat.testing.tasks.task_config` in this simulator."""
    return task_config(data_path, "FlatRoomSim-v0", **options)
