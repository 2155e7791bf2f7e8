"""`EmbreeSim-v0`: a complete Habitat simulator that casts rays and needs no Habitat-Sim."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import quaternion
from gym import spaces
from habitat.config.default import get_agent_config
from habitat.core.registry import registry
from habitat.core.simulator import AgentState, Observations, SensorSuite, Simulator
from habitat.sims.habitat_simulator.actions import HabitatSimActions

from memo_habitat.config.simulator import options_of
from memo_habitat.errors import UserError
from memo_habitat.simulator.agent import action_index, action_sizes, camera_to_render
from memo_habitat.simulator.arrangement import objects_of
from memo_habitat.simulator.embree.camera_rig import CameraRig, Pose
from memo_habitat.simulator.embree.motion import walk
from memo_habitat.simulator.embree.navgrid import AgentShape
from memo_habitat.simulator.embree.queries import GreedyFollower, PathFinder, TaskQueries
from memo_habitat.simulator.embree.scene import Arrangement, Scene, load_scene, place_objects


@registry.register_simulator(name="EmbreeSim-v0")
class EmbreeSim(TaskQueries, Simulator):
    """A house, small objects in it, and one cylinder agent with cameras.

    Takes Habitat's stock simulator and sensor configs; what it adds to them is `EmbreeOptions`.
    """

    def __init__(self, config: Any) -> None:
        """Loads `config.scene`; raises `UserError` for what it cannot use."""
        if len(config.agents) != 1:
            raise UserError(
                f"habitat.simulator.agents has {len(config.agents)} agents: EmbreeSim-v0 moves one"
            )
        self._rng = np.random.default_rng(int(config.get("seed", 0) or 0))
        options = options_of(config)
        self._rig = CameraRig(
            get_agent_config(config, 0), options.render_images, options.flat_shading
        )
        self._scene: Scene | None = None
        self._arrangement: Arrangement | None = None
        self._entered: tuple[Any, ...] | None = None
        self._arranged: tuple[Any, ...] | None = None
        self._position = np.zeros(3)
        self._heading = 0.0
        self._tilt = 0.0
        self._next_start: tuple[np.ndarray, float] | None = None
        self._prev_sim_obs: dict[str, Any] = {}
        self.reconfigure(config)

    # What Habitat asks of a simulator.

    @property
    def sensor_suite(self) -> SensorSuite:
        """Habitat's sensors of the agent."""
        return self._rig.suite

    @property
    def action_space(self) -> spaces.Discrete:
        """stop, move_forward, turn_left, turn_right, look_up, look_down."""
        return spaces.Discrete(6)

    @property
    def up_vector(self) -> np.ndarray:
        """[3]: +Y."""
        return np.array([0.0, 1.0, 0.0])

    @property
    def forward_vector(self) -> np.ndarray:
        """[3]: -Z."""
        return np.array([0.0, 0.0, -1.0])

    @property
    def previous_step_collided(self) -> bool:  # type: ignore[override]
        """Whether the last step was stopped or slowed by an obstacle."""
        return bool(self._prev_sim_obs.get("collided", False))

    def seed(self, seed: int) -> None:
        """Restarts the random points; nothing else is random."""
        self._rng = np.random.default_rng(seed)
        self._pathfinder = PathFinder(self.scene, self._rng)

    def reconfigure(self, config: Any, episode: Any = None) -> None:
        """Enters the house of `config` with the objects of `episode`; cheap when both stay."""
        self.habitat_config, options = config, options_of(config)
        self._sizes = action_sizes(config)
        self._sliding = bool(config.habitat_sim_v0.allow_sliding)
        wanted = str(config.scene), str(config.get("scene_dataset", "default")), agent_shape(config)
        scene = self._scene
        if scene is None or wanted != self._entered:
            scene = load_scene(*wanted, options.cached_houses, options.cached_fields)
        is_new, self._entered = scene is not self._scene, wanted
        if is_new:
            self._scene, self._pathfinder = scene, PathFinder(scene, self._rng)
        objects = objects_of(config, episode)
        if is_new or objects != self._arranged:
            self._arrangement, self._arranged = place_objects(scene, *objects), objects
        if not self._set_configured_start() and is_new:
            self._position = self._pathfinder.get_random_navigable_point(island_index=0)

    def _set_configured_start(self) -> bool:
        agent = get_agent_config(self.habitat_config, 0)
        if not agent.is_set_start_state:
            return False
        return self.set_agent_state(list(agent.start_position), list(agent.start_rotation))

    def start_next_episode_at(self, position: np.ndarray, heading: float) -> None:
        """The next reset starts there."""
        self._next_start = np.array(position, dtype=np.float64).reshape(3), float(heading)

    def reset(self) -> Observations:
        """Places the agent at its start, camera level, and looks."""
        self._tilt = 0.0
        if self._next_start is not None:
            (self._position, self._heading), self._next_start = self._next_start, None
        else:
            self._set_configured_start()
        return self._observe(has_collided=False)

    def step(self, action: Any, *args: Any, **kwargs: Any) -> Observations:
        """Takes an action of `HabitatSimActions` (index or name; None: none) and looks."""
        action, has_collided = action_index(action, "EmbreeSim-v0"), False
        if action == HabitatSimActions.move_forward:
            floor_map = self.scene.grid.floor_map
            step, sliding = self._sizes.step, self._sliding
            has_collided = walk(self._position, self._heading, step, sliding, floor_map)
        elif action in (HabitatSimActions.turn_left, HabitatSimActions.turn_right):
            sign = 1 if action == HabitatSimActions.turn_left else -1
            angle = self._heading + sign * self._sizes.turn
            self._heading = (angle + math.pi) % (2.0 * math.pi) - math.pi
        elif action == HabitatSimActions.look_up:
            self.look(self._sizes.tilt)
        elif action == HabitatSimActions.look_down:
            self.look(-self._sizes.tilt)
        return self._observe(has_collided)

    def step_physics(self, delta: float) -> None:
        """Nothing moves by itself here."""

    def look(self, angle: float) -> None:
        """Tilts the cameras up by `angle` rad (down when negative) as far as the limit allows."""
        limit = self._sizes.tilt_limit
        self._tilt = min(max(self._tilt + angle, -limit), limit)

    def render(self, mode: str = "rgb") -> Any:
        """The picture from the current pose of the sensor with uuid `mode`; for "rgb" and
        "rgb_array", where no sensor has that name, of the first colour camera."""
        mode = camera_to_render(mode, self._rig.sensors)
        pictures = self._rig.render(self.arrangement.geometry, self._pose, [mode])
        return self._rig.sensors[mode].get_observation(pictures)

    def close(self, destroy: bool = True) -> None:
        """Lets go of the arrangement; houses stay cached for the process's other simulators."""
        if destroy:
            self._scene, self._arrangement, self._arranged = None, None, None

    def geodesic_distance(self, position_a: Any, position_b: Any, episode: Any = None) -> float:
        """Length in m of the shortest path from a point [3] to the nearest of one or more points
        ([3] or [G, 3]); inf when there is none. One field is kept per set of points."""
        goals = np.asarray(position_b, dtype=np.float64).reshape(-1, 3)
        return self.scene.geodesics.distance(np.asarray(position_a), goals)

    def get_straight_shortest_path_points(self, position_a: Any, position_b: Any) -> list[Any]:
        """Corners of the shortest path between two points, both included; [] when there is none."""
        goals = np.asarray(position_b, dtype=np.float64).reshape(-1, 3)
        return list(self.scene.geodesics.path(np.asarray(position_a), goals))

    def action_space_shortest_path(
        self, source: AgentState, targets: Sequence[AgentState], agent_id: int = 0
    ) -> list[Any]:
        """Not offered, as in Habitat-Sim: a greedy follower serves."""
        raise NotImplementedError(
            "action_space_shortest_path is no longer part of Habitat-Sim and not of EmbreeSim-v0: "
            "use next_best_action or make_greedy_follower"
        )

    def get_agent_state(self, agent_id: int = 0) -> AgentState:
        """Position [3] m and rotation (a quaternion) of the agent."""
        half = self._heading / 2.0
        rotation = quaternion.quaternion(math.cos(half), 0.0, math.sin(half), 0.0)
        return AgentState(self._position.copy(), rotation)

    def set_agent_state(
        self, position: Any, rotation: Any, agent_id: int = 0, reset_sensors: bool = True
    ) -> bool:
        """Puts the agent at a point [3] with a rotation (quaternion, or [x, y, z, w]), of which the
        heading counts; levels the cameras unless told otherwise."""
        self._position = np.array(position, dtype=np.float64).reshape(3)
        self._heading = heading_of(rotation)
        if reset_sensors:
            self._tilt = 0.0
        return True

    def get_sensor_observations(self, agent_ids: Any = 0) -> dict[str, Any]:
        """Raw pictures by uuid from the current pose."""
        return self._rig.render(self.arrangement.geometry, self._pose)

    def get_observations_at(
        self, position: Any = None, rotation: Any = None, keep_agent_at_new_pose: bool = False
    ) -> Observations | None:
        """What the agent would see elsewhere, with its present tilt."""
        before = self._position, self._heading
        if position is not None and rotation is not None:
            self.set_agent_state(position, rotation, reset_sensors=False)
        observations = self._observe(has_collided=False)
        if not keep_agent_at_new_pose:
            self._position, self._heading = before
        return observations

    def sample_navigable_point(self) -> list[float]:
        """A random point [3] m where the agent can stand."""
        return [float(value) for value in self.pathfinder.get_random_navigable_point()]

    def is_navigable(self, point: Any) -> bool:
        """Whether the agent can stand at a point [3] m."""
        return self.pathfinder.is_navigable(point)

    def island_radius(self, position: Any) -> float:
        """Size in m of the connected floor around a point."""
        return self.pathfinder.island_radius(position)

    def distance_to_closest_obstacle(self, position: Any, max_search_radius: float = 2.0) -> float:
        """Distance in m from a point [3] to the nearest obstacle, at most the radius."""
        return self.pathfinder.distance_to_closest_obstacle(position, max_search_radius)

    @property
    def pathfinder(self) -> PathFinder:
        """Navigability under the names that Habitat-Sim gives it."""
        return self._pathfinder

    @property
    def sensors(self) -> dict[str, Any]:
        """The sensors by uuid, as Habitat-Sim 0.3.4 offers them."""
        return dict(self._rig.sensors)

    def get_sensor(self, name: str) -> Any:
        """The sensor with a uuid."""
        self._rig.camera(name)
        return self._rig.sensors[name]

    def get_agent(self, agent_id: int = 0) -> Any:
        """What Habitat's maps ask of an agent: its state."""
        return SimpleNamespace(
            state=self.get_agent_state(agent_id), get_state=lambda: self.get_agent_state(agent_id)
        )

    def make_greedy_follower(
        self,
        agent_id: int = 0,
        goal_radius: float | None = None,
        *,
        stop_key: Any = None,
        forward_key: Any = "move_forward",
        left_key: Any = "turn_left",
        right_key: Any = "turn_right",
    ) -> GreedyFollower:
        """A follower for Habitat's `ShortestPathFollower`; near enough is half a step."""
        keys = {"stop": stop_key, "move_forward": forward_key}
        keys.update(turn_left=left_key, turn_right=right_key)
        radius = self._sizes.step / 2 if goal_radius is None else goal_radius
        return GreedyFollower(self._action_towards, keys, radius)

    @property
    def _pose(self) -> Pose:  # type: ignore[override]
        return self._position, self._heading, self._tilt

    @property
    def scene(self) -> Scene:  # type: ignore[override]
        """The house the agent is in."""
        if self._scene is None:
            raise RuntimeError("the simulator is closed: make a new one")
        return self._scene

    @property
    def arrangement(self) -> Arrangement:  # type: ignore[override]
        """The house with the small objects of the episode."""
        if self._arrangement is None:
            raise RuntimeError("the simulator is closed: make a new one")
        return self._arrangement

    def _observe(self, has_collided: bool) -> Observations:
        pictures = self.get_sensor_observations()
        self._prev_sim_obs = {**pictures, "collided": has_collided}
        return self._rig.suite.get_observations(pictures)


def agent_shape(config: Any) -> AgentShape:
    """The cylinder that a `habitat.simulator` node describes, and the grid it moves on."""
    agent, options = get_agent_config(config, 0), options_of(config)
    return AgentShape(
        float(agent.radius),
        float(agent.height),
        float(agent.max_climb),
        math.radians(float(agent.max_slope)),
        options.navigation_cell,
        options.min_island_area,
    )


def heading_of(rotation: Any) -> float:
    """Heading in rad about +Y of a rotation: a quaternion, or [x, y, z, w]."""
    if isinstance(rotation, quaternion.quaternion):
        w, x, y, z = quaternion.as_float_array(rotation)
    else:
        x, y, z, w = np.asarray(rotation, dtype=np.float64).reshape(4)
    norm = x * x + y * y + z * z + w * w
    if not norm > 0.0 or not math.isfinite(norm):
        raise UserError(f"rotation {rotation!r} is no quaternion: give [x, y, z, w]")
    # The image of -Z, seen from above.
    ahead_x = -2.0 * (x * z + y * w) / norm
    ahead_z = -(1.0 - 2.0 * (x * x + y * y) / norm)
    return math.atan2(-ahead_x, -ahead_z)
