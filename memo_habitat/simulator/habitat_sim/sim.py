"""`ExtObjNavSim-v0`: Habitat's own simulator over Habitat-Sim, with what the task asks of it."""

from __future__ import annotations

import atexit
import math
import threading
import weakref
from collections.abc import Sequence
from typing import Any

import habitat_sim
import numpy as np
from gym import spaces
from habitat.core.registry import registry
from habitat.core.simulator import Observations, SensorSuite
from habitat.sims.habitat_simulator.actions import HabitatSimActions
from habitat.sims.habitat_simulator.habitat_simulator import HabitatSim

from memo_habitat.config.simulator import options_of
from memo_habitat.errors import UserError
from memo_habitat.simulator.agent import (
    action_index,
    action_sizes,
    camera_to_render,
    check_camera,
    first_action,
    instance_with,
    possible_turns,
)
from memo_habitat.simulator.arrangement import objects_of
from memo_habitat.simulator.embree.scene_dataset import find_scene
from memo_habitat.simulator.habitat_sim.cameras import add_panoptic_twins, pixels_of, tilt_cameras
from memo_habitat.simulator.habitat_sim.device import no_image_based_lighting, rendering_device
from memo_habitat.simulator.habitat_sim.house import Furnished, house_key
from memo_habitat.simulator.interface import ActionSizes, Instance, TopDownMap

#: Distances in Habitat-Sim are of single precision, m.
_UNCERTAIN = 1e-6


@registry.register_simulator(name="ExtObjNavSim-v0")
class ExtObjNavSim(HabitatSim):
    """Habitat-Sim with the small objects of an episode, look actions and the task's questions.

    Takes Habitat's stock simulator and sensor configs; what it adds to them is `SimulatorOptions`.
    Cameras are drawn when somebody looks: those that are observed at every step, a panoptic one
    when pixels are to be counted.
    """

    _sensor_suite: SensorSuite  # made by Habitat, which has no types

    def __init__(self, config: Any) -> None:
        """Loads `config.scene`; raises `UserError` for what it cannot use."""
        if len(config.agents) != 1:
            raise UserError(
                f"habitat.simulator.agents has {len(config.agents)} agents: ExtObjNavSim-v0 moves"
                " one"
            )
        self._initialized = False  # what `close` asks, however far we come
        _claim_thread(self)
        self._rng = np.random.default_rng(int(config.get("seed", 0) or 0))
        self._rooms = Furnished(self)
        self._entered: tuple[Any, ...] | None = None
        self._arranged: tuple[Any, ...] | None = None
        self._tilt = 0.0
        self._next_start: tuple[np.ndarray, float] | None = None
        self._twins: dict[str, str] = {}
        self._panoptic: dict[str, np.ndarray] = {}
        super().__init__(config)
        self._cameras = self._sensor_suite.sensors
        if not options_of(config).render_images:
            self._sensor_suite = SensorSuite([])
        self._action_space = spaces.Discrete(6)
        self._prev_sim_obs: dict[str, Any] = {}
        self._enter(config)
        self.reconfigure(config)

    # What Habitat asks of a simulator.

    def create_sim_config(self, _sensor_suite: SensorSuite) -> habitat_sim.Configuration:
        """Habitat's, in the scene that the data set means, with a panoptic twin of each camera."""
        made = super().create_sim_config(_sensor_suite)
        config, backend = self.habitat_config, made.sim_cfg
        dataset, scene = find_scene(str(config.scene), str(config.scene_dataset))
        # Names that contain each other are mistaken for one another: whole paths are not. A scene
        # that is written into the data set's config has none.
        source = dataset.source
        backend.scene_id = scene.name if scene.source == source else str(scene.source.absolute())
        backend.scene_dataset_config_file = str(source.absolute()) if source else "default"
        backend.gpu_device_id = rendering_device(int(config.habitat_sim_v0.gpu_device_id))
        backend.enable_physics = True  # or it adds no objects; nothing is ever stepped
        backend.navmesh_settings = None  # built, or read from disk, once the furniture stands
        specs = made.agents[0].sensor_specifications
        self._twins = add_panoptic_twins(specs)
        if not options_of(config).render_images:  # then no textures are loaded either
            made.agents[0].sensor_specifications = [
                spec for spec in specs if spec.uuid in self._twins.values()
            ]
        if not self._initialized and not config.get("image_based_lighting", True):
            with no_image_based_lighting():
                made.metadata_mediator = habitat_sim.metadata.MetadataMediator(backend)
        return made

    def reconfigure(
        self, habitat_config: Any, ep_info: Any = None, should_close_on_new_scene: bool = False
    ) -> None:
        """Enters the house of the config with the objects of the episode; cheap when both stay.

        The renderer stays whatever house it is: to make another takes 10 s.
        """
        self.habitat_config = habitat_config
        self._sizes = action_sizes(habitat_config)
        self.config.sim_cfg.allow_sliding = bool(habitat_config.habitat_sim_v0.allow_sliding)
        is_new = house_key(habitat_config) != self._entered
        if is_new:
            self._move_to(habitat_config)
        objects = objects_of(habitat_config, ep_info)
        if is_new or objects != self._arranged:
            self._rooms.place(*objects)
            self._arranged = objects
        self._panoptic.clear()
        if not self._update_agents_state() and is_new:
            self.set_agent_state(self.sample_navigable_point(), [0.0, 0.0, 0.0, 1.0])

    def _move_to(self, config: Any) -> None:
        self._rooms.leave()
        self.sim_config = self.create_sim_config(SensorSuite(list(self._cameras.values())))
        if self.sim_config != self.config:
            for uuid in list(self.sensors):
                self.remove_sensor(uuid)  # or the scene graph of the left house keeps its images
            habitat_sim.Simulator.reconfigure(self, self.sim_config)
            self._current_scene = config.scene
        self._enter(config)

    def _enter(self, config: Any) -> None:
        self._rooms.enter(config)
        self._entered, self._arranged = house_key(config), None

    def reset(self) -> Observations:
        """Places the agent at its start, cameras level, and looks.

        Habitat-Sim's own reset is not called: it moves small objects to the origin.
        """
        if self._next_start is not None:
            (position, heading), self._next_start = self._next_start, None
            rotation = [0.0, math.sin(heading / 2.0), 0.0, math.cos(heading / 2.0)]
            self.set_agent_state(position, rotation)
        elif not self._update_agents_state():
            self.look(-self._tilt)
        return self._observe(has_collided=False)

    def step(self, action: Any, *args: Any, **kwargs: Any) -> Observations:
        """Takes an action of `HabitatSimActions` (index or name; None: none) and looks."""
        action, has_collided = action_index(action, "ExtObjNavSim-v0"), False
        if action == HabitatSimActions.look_up:
            self.look(self._sizes.tilt)
        elif action == HabitatSimActions.look_down:
            self.look(-self._sizes.tilt)
        elif action is not None and action != HabitatSimActions.stop:
            self._panoptic.clear()
            has_collided = bool(self.get_agent(0).act(int(action)))
        return self._observe(has_collided)

    def look(self, angle: float) -> None:
        """Tilts the cameras up by `angle` rad (down when negative) as far as the limit allows."""
        limit = self._sizes.tilt_limit
        self._tilt = min(max(self._tilt + angle, -limit), limit)
        tilt_cameras(self.get_agent(0).sensors, self._tilt)
        self._panoptic.clear()

    def set_agent_state(
        self, position: Any, rotation: Any, agent_id: int = 0, reset_sensors: bool = True
    ) -> bool:
        """Puts the agent at a point [3] with a rotation (quaternion, or [x, y, z, w]); levels the
        cameras unless told otherwise."""
        self._panoptic.clear()
        if reset_sensors:
            self._tilt = 0.0
        point = np.asarray(position, dtype=np.float32)
        return bool(super().set_agent_state(point, rotation, agent_id, reset_sensors))

    def get_sensor_observations(self, agent_ids: int | list[int] = 0) -> Any:
        """Raw pictures, from the current pose, of the cameras that are observed."""
        observed = [self.sensors[uuid] for uuid in self._sensor_suite.sensors]
        pictures = self.render_sensors(observed)
        return pictures if isinstance(agent_ids, int) else dict.fromkeys(agent_ids, pictures)

    def render(self, mode: str = "rgb") -> Any:
        """The picture from the current pose of the camera that `camera_to_render` means."""
        mode = camera_to_render(mode, self._cameras)
        if mode not in self.sensors:
            raise UserError(
                f"camera {mode!r} is not drawn with habitat.simulator.render_images=false"
            )
        return self._cameras[mode].get_observation(self.render_sensors([self.sensors[mode]]))

    def geodesic_distance(self, position_a: Any, position_b: Any, episode: Any = None) -> float:
        """Length in m of the shortest path from a point [3] to the nearest of one or more points
        ([3] or [G, 3]); inf when there is none."""
        goals = np.asarray(position_b, dtype=np.float64).reshape(-1, 3)
        return self.distance_to(np.asarray(position_a), goals)

    def sample_navigable_point(self) -> list[float]:
        """A random point [3] m of the largest island; Habitat-Sim's own is C's, one a process."""
        return [float(value) for value in self.sample_floor_point(self._rng)]

    def seed(self, new_seed: int) -> None:
        """Restarts the random points."""
        super().seed(new_seed)
        self._rng = np.random.default_rng(new_seed)

    def close(self, destroy: bool = True) -> None:
        """Frees all; the simulator cannot be used any more."""
        if self._initialized:
            self._rooms.leave()
            self._entered = self._arranged = None
            super().close(destroy)
            self._initialized = False

    def _observe(self, has_collided: bool) -> Observations:
        pictures = self.get_sensor_observations()
        self._prev_sim_obs = {**pictures, "collided": has_collided}
        return self._sensor_suite.get_observations(pictures)

    # What the task asks (`TaskSimulator`).

    @property
    def action_sizes(self) -> ActionSizes:
        """As configured."""
        return self._sizes

    @property
    def instances(self) -> tuple[Instance, ...]:
        """The small objects of the arrangement."""
        return self._rooms.instances

    def agent_pose(self) -> tuple[np.ndarray, float]:
        """Floor point [3] m and heading in rad."""
        node = self.get_agent(0).scene_node
        rotation = node.rotation
        heading = 2.0 * math.atan2(float(rotation.vector.y), float(rotation.scalar))
        position = np.array([float(value) for value in node.absolute_translation])
        return position, (heading + math.pi) % (2.0 * math.pi) - math.pi

    def start_next_episode_at(self, position: np.ndarray, heading: float) -> None:
        """The next reset starts there."""
        self._next_start = np.array(position, dtype=np.float64).reshape(3), float(heading)

    def sample_floor_point(self, rng: np.random.Generator) -> np.ndarray:
        """[3] m, uniform on the largest island."""
        return self._rooms.navmesh.floor.sample(rng)

    def floor_points_near(self, center: np.ndarray, radius: float, spacing: float) -> np.ndarray:
        """[P, 3] m: grid points of the largest island within the radius."""
        return self._rooms.navmesh.floor.near(center, radius, spacing)

    def sees_instance(self, eyes: np.ndarray, instance_id: int) -> np.ndarray:
        """[P] bool: nothing is between each eye and the centre of the instance."""
        return self._rooms.sees(eyes, instance_id)

    def distance_to(self, position: np.ndarray, goals: np.ndarray) -> float:
        """Geodesic distance in m to the nearest goal."""
        return self._rooms.navmesh.distance(position, goals)

    @property
    def camera_uuids(self) -> tuple[str, ...]:
        """The agent's cameras."""
        return tuple(self._cameras)

    def image_size(self, sensor: str) -> tuple[int, int]:
        """Height and width of a camera's image."""
        check_camera(sensor, self._cameras)
        height, width = self._cameras[sensor].observation_space.shape[:2]
        return int(height), int(width)

    def visible_pixels(self, instance_ids: Sequence[int] | np.ndarray, sensor: str) -> np.ndarray:
        """[I] int64: pixels of each instance in a camera's image from here."""
        check_camera(sensor, self._cameras)
        ids = [instance_with(int(identity), self.instances).id for identity in instance_ids]
        if not ids:
            return np.zeros(0, dtype=np.int64)
        if sensor not in self._twins:
            raise UserError(f"camera {sensor!r} is no pinhole camera: its pixels are not counted")
        twin = self._twins[sensor]
        if twin not in self._panoptic:
            self._panoptic[twin] = self.render_sensors([self.sensors[twin]])[twin]
        return np.asarray(pixels_of(self._panoptic[twin], ids))

    def next_best_action(self, goals: np.ndarray) -> str | None:
        """The first action of the best sequence "turn k times one way, then step" towards the goal
        that is nearest."""
        sizes, (position, heading) = self._sizes, self.agent_pose()
        left, goal = self._rooms.navmesh.nearest(position, np.asarray(goals, dtype=np.float64))
        if left <= sizes.step / 2 or not math.isfinite(left):
            return None
        turns, ahead = possible_turns(sizes.turn), []
        for angle in (heading + turns * sizes.turn).tolist():
            end = position + sizes.step * np.array([-math.sin(angle), 0.0, -math.cos(angle)])
            place = self.step_filter(position.astype(np.float32), end.astype(np.float32))
            ahead.append(self.distance_to(np.asarray(place), goal))
        return first_action(turns, np.array(ahead), left, sizes.step, _UNCERTAIN)

    def top_down_map(self, resolution: float) -> TopDownMap:
        """The largest island from above."""
        return self._rooms.navmesh.floor.map(resolution)


#: The simulator of each thread, by the thread's number.
_open: dict[int, weakref.ref[ExtObjNavSim]] = {}


def _claim_thread(sim: ExtObjNavSim) -> None:
    """An OpenGL context belongs to a thread, and Habitat-Sim takes whichever is there for its own:
    of two simulators one would draw with the other's textures."""
    thread = threading.get_ident()
    other = _open[thread]() if thread in _open else None
    if other is not None and other._initialized:
        raise UserError(
            "this thread has an open ExtObjNavSim-v0 already, and Habitat-Sim draws for one alone:"
            " close() it first, or run environments in worker processes"
        )
    _open[thread] = weakref.ref(sim)


@atexit.register
def _close_all() -> None:
    # Later, as the interpreter ends, it is too late to free what OpenGL holds.
    for reference in _open.values():
        if (sim := reference()) is not None:
            sim.close()
