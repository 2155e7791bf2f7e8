"""A simulator of a user's own: this one file, registered by name, plays whole trials."""

from __future__ import annotations

import math

import habitat
import numpy as np
from gym import spaces
from habitat.core.registry import registry
from habitat.core.simulator import RGBSensor, SensorSuite, Simulator
from habitat.sims.habitat_simulator.actions import HabitatSimActions as Actions

from memo_habitat.simulator.interface import ActionSizes, Instance, TopDownMap
from memo_habitat.testing.tasks import episode_record, task_config, write_episodes

RADIUS = 4.0  # m
EYE = np.array([0.0, 1.2, 0.0])


class GreyCamera(RGBSensor):
    """A camera of 8 x 8 pixels that renders nothing."""

    def _get_uuid(self, *args, **kwargs):
        return "head_rgb"

    def _get_observation_space(self, *args, **kwargs):
        return spaces.Box(0, 255, (8, 8, 3), np.uint8)

    def get_observation(self, *args, **kwargs):
        return np.full((8, 8, 3), 128, np.uint8)


@registry.register_simulator(name="RoundPlaneSim-v0")
class RoundPlaneSim(Simulator):
    """A round plane without walls: distances are straight lines and nothing hides anything."""

    action_sizes = ActionSizes(0.25, math.radians(30), math.radians(30), math.radians(60))
    action_space = spaces.Discrete(6)
    sensor_suite = SensorSuite([GreyCamera(config=None)])
    camera_uuids = ("head_rgb",)
    previous_step_collided = False
    instances = ()

    # What Habitat asks.

    def __init__(self, config):
        self.habitat_config = config

    def seed(self, seed):
        pass

    def step_physics(self, delta):
        pass

    def close(self, destroy=True):
        pass

    def reconfigure(self, config, episode=None):
        numbers: dict[str, int] = {}
        placed = []
        for index, (name, transform) in enumerate(episode.rigid_objs):
            category = name.removesuffix(".object_config.json")
            number = numbers[category] = numbers.get(category, -1) + 1
            position = np.array(transform)[:3, 3]
            placed.append(Instance(f"{category}_:{number:04d}", category, index, position))
        self.instances = tuple(placed)

    def reset(self):
        self.position, self.heading = self.start
        self.tilt = 0.0
        return self.sensor_suite.get_observations()

    def step(self, action):
        sizes = self.action_sizes
        ahead = np.array([-math.sin(self.heading), 0.0, -math.cos(self.heading)])
        if action == Actions.move_forward:
            wanted = self.position + sizes.step * ahead
            reached = wanted * min(1.0, RADIUS / max(np.linalg.norm(wanted), 1e-9))
            self.previous_step_collided = not np.allclose(reached, wanted)
            self.position = reached
            return self.sensor_suite.get_observations()
        self.previous_step_collided = False
        self.heading += sizes.turn * (
            (action == Actions.turn_left) - (action == Actions.turn_right)
        )
        self.tilt += sizes.tilt * ((action == Actions.look_up) - (action == Actions.look_down))
        self.tilt = max(-sizes.tilt_limit, min(sizes.tilt_limit, self.tilt))
        return self.sensor_suite.get_observations()

    # What the task asks.

    def agent_pose(self):
        return self.position, self.heading

    def start_next_episode_at(self, position, heading):
        self.start = np.array(position), heading

    def sample_floor_point(self, rng):
        distance, angle = RADIUS * math.sqrt(rng.random()), rng.uniform(0.0, 2.0 * math.pi)
        return np.array([distance * math.cos(angle), 0.0, distance * math.sin(angle)])

    def floor_points_near(self, center, radius, spacing):
        ticks = spacing * np.arange(-round(RADIUS / spacing), round(RADIUS / spacing) + 1)
        points = np.stack(np.meshgrid(ticks, [0.0], ticks, indexing="ij"), axis=-1).reshape(-1, 3)
        near = np.linalg.norm((points - center)[:, [0, 2]], axis=1) <= radius
        return points[near & (np.linalg.norm(points, axis=1) <= RADIUS)]

    def sees_instance(self, eyes, instance_id):
        return np.ones(len(eyes), dtype=bool)

    def distance_to(self, position, goals):
        return float(np.linalg.norm(goals - position, axis=1).min())

    def image_size(self, sensor):
        return 8, 8

    def visible_pixels(self, instance_ids, sensor):
        """Of a view of 90 degrees: all pixels where the object's centre is in view, else none."""
        ways = np.array([self.instances[i].position for i in instance_ids]).reshape(-1, 3)
        ways = ways - self.position - EYE
        aside = np.arctan2(-ways[:, 0], -ways[:, 2]) - self.heading
        above = np.arctan2(ways[:, 1], np.hypot(ways[:, 0], ways[:, 2])) - self.tilt
        aside = (aside + np.pi) % (2 * np.pi) - np.pi
        return 64 * ((np.abs(aside) < np.pi / 4) & (np.abs(above) < np.pi / 4))

    def next_best_action(self, goals):
        ways = (goals - self.position)[:, [0, 2]]
        way = ways[np.linalg.norm(ways, axis=1).argmin()]
        if np.linalg.norm(way) <= self.action_sizes.step / 2:
            return None
        aside = math.atan2(-way[0], -way[1]) - self.heading
        aside = (aside + math.pi) % (2 * math.pi) - math.pi
        if abs(aside) <= self.action_sizes.turn / 2:
            return "move_forward"
        return "turn_left" if aside > 0 else "turn_right"

    def top_down_map(self, resolution):
        ticks = np.arange(-RADIUS, RADIUS, resolution) + resolution / 2
        free = np.hypot(ticks[:, None], ticks) <= RADIUS
        return TopDownMap(free, (-RADIUS, -RADIUS), resolution)


def test_a_simulator_in_one_file_plays_whole_trials_of_the_task(tmp_path):
    objects = [("cup", (2.0, 0.1, 0.0)), ("cup", (-3.0, 0.1, 1.0)), ("shoe", (0.0, 1.0, -3.0))]
    data = write_episodes(
        tmp_path / "test.json.gz", [episode_record(objects, episode_id=str(i)) for i in range(2)]
    )
    overrides = {"dataset.split": "test", "task.trial_steps": 150}
    config = task_config(data, simulator="RoundPlaneSim-v0", oracle=True, overrides=overrides)
    episodes = []
    with habitat.Env(config) as env:
        while len({e["episode_record"]["trial_id"] for e in episodes}) < 3:
            observations = env.reset()
            while not env.episode_over:
                observations = env.step(int(observations["oracle_action"][0]))
            episodes.append(env.get_metrics())
    played = [e for e in episodes if not e["episode_record"]["truncated"]]
    assert len(played) > 10
    assert all(e["extobjnav_success"] == 1.0 for e in played)
    assert np.mean([e["spl"] for e in played]) > 0.8
    assert {e["episode_record"]["target_category"] for e in played} == {"cup", "shoe"}
    last_steps = [e["episode_record"]["trial_step_end"] for e in episodes]
    assert last_steps.count(150) >= 2
