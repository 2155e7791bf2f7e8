"""Many agents, each in a house of its own, stepped together in one process without images.

What `EmbreeSim` does for one agent under Habitat, to the last bit, at a tenth of the time.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

import numpy as np
from habitat.config.default import get_agent_config
from habitat.sims.habitat_simulator.actions import HabitatSimActions

from memo_habitat.config.simulator import options_of
from memo_habitat.simulator.embree.camera_rig import CameraRig
from memo_habitat.simulator.embree.distance_field import DistanceField, distance_from
from memo_habitat.simulator.embree.motion import collided, point_ahead, walk
from memo_habitat.simulator.embree.queries import TaskQueries
from memo_habitat.simulator.embree.ray_kernels import count_in_boxes, rays_near
from memo_habitat.simulator.embree.scene import Arrangement, Scene, load_scene, place_objects
from memo_habitat.simulator.embree.sim import agent_shape


class BatchedAgent(TaskQueries):
    """One of the agents, behind the interface `TaskSimulator`; its pose is a row of the batch."""

    def __init__(self, sim: BatchedSim, index: int) -> None:
        self.habitat_config = sim.config
        self._sim, self._index, self._rig = sim, index, sim.rig
        self._step_length, self._turn_angle, self._sliding = sim.step_sizes
        self.scene: Scene = None  # type: ignore[assignment]
        self.arrangement: Arrangement = None  # type: ignore[assignment]

    @property
    def _position(self) -> np.ndarray:  # type: ignore[override]
        return self._sim.positions[self._index]

    @property
    def _heading(self) -> float:  # type: ignore[override]
        return float(self._sim.headings[self._index])

    @property
    def _tilt(self) -> float:  # type: ignore[override]
        return float(self._sim.tilts[self._index])

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
        headings: [N] rad.
        tilts: [N] rad.
        collided: bool [N], whether the last step was stopped or slowed.
    """

    def __init__(self, config: Any, num_agents: int, camera: str) -> None:
        """No agent is anywhere yet.

        Args:
            config: the `habitat.simulator` node.
            num_agents: N.
            camera: uuid of the camera whose pixels are counted.
        """
        options = options_of(config)
        self.config = config
        self.rig = CameraRig(get_agent_config(config, 0), render_images=False)
        self.positions = np.zeros((num_agents, 3))
        self.headings = np.zeros(num_agents)
        self.tilts = np.zeros(num_agents)
        self.collided = np.zeros(num_agents, dtype=np.bool_)
        self._step_length = float(config.forward_step_size)
        self._turn_angle = math.radians(float(config.turn_angle))
        self._sliding = bool(config.habitat_sim_v0.allow_sliding)
        self.step_sizes = self._step_length, self._turn_angle, self._sliding
        self.agents = [BatchedAgent(self, index) for index in range(num_agents)]
        self._pixel_rays = self.rig.camera(camera).pixel_rays()
        self._shape = agent_shape(config)
        # Every agent may be in another house, and come back to it.
        self._kept = max(options.cached_houses, num_agents), options.cached_fields
        self._arrangements: OrderedDict[Hashable, tuple[Scene, Arrangement]] = OrderedDict()
        self._arrangements_kept = 2 * num_agents
        self._tilt_angle = math.radians(options.tilt_angle)
        self._tilt_limit = math.radians(options.tilt_limit)

    def enter(self, index: int, episode: Any) -> None:
        """Bring an agent into an episode's house with the episode's objects."""
        key = (episode.scene_dataset_config, episode.scene_id, episode.episode_id)
        if key not in self._arrangements:
            scene = load_scene(
                episode.scene_id, episode.scene_dataset_config, self._shape, *self._kept
            )
            folders = [
                *episode.additional_obj_config_paths,
                *self.config.get("additional_object_paths", ()),
            ]
            first_id = int(self.config.get("object_ids_start", 100))
            self._arrangements[key] = (
                scene,
                place_objects(scene, episode.rigid_objs, folders, first_id),
            )
            if len(self._arrangements) > self._arrangements_kept:
                self._arrangements.popitem(last=False)
        self._arrangements.move_to_end(key)
        agent = self.agents[index]
        agent.scene, agent.arrangement = self._arrangements[key]

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
            angle = self.headings[rows] + np.where(actions[rows] == left, 1, -1) * self._turn_angle
            self.headings[rows] = (angle + math.pi) % (2.0 * math.pi) - math.pi
        rows = which & ((actions == up) | (actions == down))
        if rows.any():
            tilt = self.tilts[rows] + np.where(actions[rows] == up, 1, -1) * self._tilt_angle
            self.tilts[rows] = np.clip(tilt, -self._tilt_limit, self._tilt_limit)
        for index in np.flatnonzero(which & (actions == HabitatSimActions.move_forward)).tolist():
            self._move_forward(index)

    def distance(self, index: int, field: DistanceField, goals: np.ndarray) -> float:
        """Geodesic distance (m) of an agent to the goals [G, 3] m that `field` belongs to."""
        scene, position = self.agents[index].scene, self.positions[index]
        found = distance_from(
            position, scene.grid.floor_map, field.waypoint, field.places, field.lengths
        )
        return float(found) if found >= 0.0 else scene.geodesics.distance(position, goals)

    def near_pixels(self, index: int, limit: float) -> tuple[np.ndarray, np.ndarray]:
        """Instances near an agent, and pixels that show each in its camera.

        Args:
            index: of the agent.
            limit: farthest horizontal distance, m.

        Returns:
            int64 [J], places in the arrangement, and int64 [J], counts.
        """
        arrangement = self.agents[index].arrangement
        pose = self.positions[index], float(self.headings[index]), float(self.tilts[index])
        near, origins, rays, ends = rays_near(
            arrangement.centres, arrangement.bounds, limit, self._pixel_rays, pose
        )
        if not len(rays):
            return near, np.zeros(len(near), dtype=np.int64)
        triangle = arrangement.geometry.cast(origins, rays).triangle
        return near, count_in_boxes(triangle, ends, arrangement.triangles[near])

    def _move_forward(self, index: int) -> None:
        position, heading = self.positions[index], float(self.headings[index])
        mover = self.agents[index].scene.mover
        hit = walk(
            position, heading, self._step_length, self._sliding, mover.normals, mover.floor_map
        )
        if hit < 0:
            # On the border of the free floor, where rounding decides: as one agent would.
            asked = point_ahead(position, heading, self._step_length)
            reached = mover.try_step(position, asked, self._sliding)
            hit = collided(position, asked, reached)
            position[:] = reached
        self.collided[index] = bool(hit)
