"""Many agents, each in a house of its own, stepped together in one process without images.

What `EmbreeSim` does for one agent under Habitat, to the last bit, at a tenth of the time.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from habitat.config.default import get_agent_config
from habitat.sims.habitat_simulator.actions import HabitatSimActions

from memo_habitat.config.simulator import options_of
from memo_habitat.simulator.agent import action_sizes
from memo_habitat.simulator.arrangement import objects_of
from memo_habitat.simulator.embree.camera_rig import CameraRig, Pose
from memo_habitat.simulator.embree.distance_field import DistanceField, distance_from
from memo_habitat.simulator.embree.motion import walk
from memo_habitat.simulator.embree.queries import TaskQueries
from memo_habitat.simulator.embree.ray_kernels import count_hits, rays_near
from memo_habitat.simulator.embree.scene import Arrangement, Scene, load_scene, place_objects
from memo_habitat.simulator.embree.sim import agent_shape
from memo_habitat.utils.recent import Recent


class BatchedAgent(TaskQueries):
    """One of the agents, behind the interface `TaskSimulator`; its pose is a row of the batch."""

    def __init__(self, sim: BatchedSim, index: int) -> None:
        self._sim, self._index, self._rig = sim, index, sim.rig
        self._sizes, self._sliding = sim.sizes, sim.sliding
        self.scene: Scene = None  # type: ignore[assignment]
        self.arrangement: Arrangement = None  # type: ignore[assignment]

    @property
    def _pose(self) -> Pose:  # type: ignore[override]
        return self._sim.pose(self._index)

    @property
    def previous_step_collided(self) -> bool:
        """Whether the last step was stopped or slowed by an obstacle."""
        return bool(self._sim.collided[self._index])

    def start_next_episode_at(self, position: np.ndarray, heading: float) -> None:
        """Place the agent there, camera level."""
        self._sim.positions[self._index] = position
        self._sim.headings[self._index] = heading
        self._sim.tilts[self._index] = 0.0
        self._sim.collided[self._index] = False


class BatchedSim:
    """N agents.

    Attributes:
        config: the `habitat.simulator` node; scene and objects come from the episodes.
        agents: N of them, one by one.
        positions: [N, 3] m, floor points.
        headings, tilts: [N] rad.
        collided: bool [N], whether the last step was stopped or slowed.
    """

    def __init__(self, config: Any, num_agents: int, camera: str) -> None:
        """No agent is anywhere yet; pixels are counted of the camera with uuid `camera`."""
        self.config, options = config, options_of(config)
        self.rig = CameraRig(
            get_agent_config(config, 0), options.render_images, options.flat_shading
        )
        self._rays = self.rig.camera(camera).rays
        self.positions = np.zeros((num_agents, 3))
        self.headings = np.zeros(num_agents)
        self.tilts = np.zeros(num_agents)
        self.collided = np.zeros(num_agents, dtype=np.bool_)
        self.sizes = action_sizes(config)
        self.sliding = bool(config.habitat_sim_v0.allow_sliding)
        self.agents = [BatchedAgent(self, index) for index in range(num_agents)]
        # Every agent may be in another house, and come back to it.
        kept = max(options.cached_houses, num_agents)
        self._house_options = agent_shape(config), kept, options.cached_fields
        self._arrangements: Recent[tuple[Scene, Arrangement]] = Recent(2 * num_agents)

    def pose(self, index: int) -> Pose:
        """Where an agent is; its position is a row of the batch, not a copy."""
        return self.positions[index], float(self.headings[index]), float(self.tilts[index])

    def enter(self, index: int, episode: Any) -> None:
        """Bring an agent into an episode's house with the episode's objects."""

        def load() -> tuple[Scene, Arrangement]:
            scene = load_scene(episode.scene_id, episode.scene_dataset_config, *self._house_options)
            return scene, place_objects(scene, *objects_of(self.config, episode))

        key = (episode.scene_dataset_config, episode.scene_id, episode.episode_id)
        agent = self.agents[index]
        agent.scene, agent.arrangement = self._arrangements.get(key, load)

    def step(self, actions: np.ndarray, which: np.ndarray) -> None:
        """Take one step with some agents.

        Args:
            actions: [N] of `HabitatSimActions`.
            which: bool [N], those that take it.
        """
        left, right = HabitatSimActions.turn_left, HabitatSimActions.turn_right
        up, down = HabitatSimActions.look_up, HabitatSimActions.look_down
        self.collided[which] = False
        rows = which & ((actions == left) | (actions == right))
        if rows.any():
            angle = self.headings[rows] + np.where(actions[rows] == left, 1, -1) * self.sizes.turn
            self.headings[rows] = (angle + math.pi) % (2.0 * math.pi) - math.pi
        rows = which & ((actions == up) | (actions == down))
        if rows.any():
            tilt = self.tilts[rows] + np.where(actions[rows] == up, 1, -1) * self.sizes.tilt
            self.tilts[rows] = np.clip(tilt, -self.sizes.tilt_limit, self.sizes.tilt_limit)
        for index in np.flatnonzero(which & (actions == HabitatSimActions.move_forward)).tolist():
            floor_map = self.agents[index].scene.grid.floor_map
            position, heading = self.positions[index], float(self.headings[index])
            step = self.sizes.step
            self.collided[index] = walk(position, heading, step, self.sliding, floor_map)

    def picture(self, index: int, uuid: str) -> Any:
        """What the camera with this uuid observes from where an agent is."""
        geometry = self.agents[index].arrangement.geometry
        pictures = self.rig.render(geometry, self.pose(index), [uuid])
        return self.rig.sensors[uuid].get_observation(pictures)

    def distance(self, index: int, field: DistanceField) -> float:
        """Geodesic distance (m) of an agent to the goals that `field` belongs to."""
        floor_map = self.agents[index].scene.grid.floor_map
        return float(distance_from(self.positions[index], floor_map, field[:3]))

    def near_pixels(self, index: int, limit: float) -> tuple[np.ndarray, np.ndarray]:
        """Instances near an agent, and pixels that show each in its camera.

        Args:
            index: of the agent.
            limit: farthest horizontal distance, m.

        Returns:
            int64 [J], places in the arrangement, and int64 [J], counts.
        """
        arrangement = self.agents[index].arrangement
        near, origins, rays, ends = rays_near(
            arrangement.centres, arrangement.bounds, limit, self._rays, self.pose(index)
        )
        if not len(rays):
            return near, np.zeros(len(near), dtype=np.int64)
        triangle = arrangement.geometry.cast(origins, rays).triangle
        return near, count_hits(triangle, ends[:-1], ends[1:], arrangement.triangles[near])
