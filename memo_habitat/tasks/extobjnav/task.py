"""The ExtObjNav task: draws targets and starts, counts the trial's steps, and keeps the account."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from habitat.config import read_write
from habitat.config.default import get_agent_config
from habitat.core.embodied_task import EmbodiedTask, SimulatorTaskAction
from habitat.core.registry import registry
from habitat.core.simulator import Observations, Simulator
from habitat.sims.habitat_simulator.actions import HabitatSimActions
from omegaconf import DictConfig

from memo_habitat.errors import UserError
from memo_habitat.simulator.interface import TaskSimulator, task_simulator
from memo_habitat.tasks.extobjnav.dataset import ExtObjNavDataset
from memo_habitat.tasks.extobjnav.detections import (
    WIDTH,
    Detections,
    Detector,
    stop_succeeds,
    write_detections,
)
from memo_habitat.tasks.extobjnav.episode import ExtObjNavEpisode, Progress, Trial
from memo_habitat.tasks.extobjnav.goals import (
    CategoryGoals,
    GoalOptions,
    Pose,
    find_goals,
    horizontal_distance,
)
from memo_habitat.utils.recent import Recent


@registry.register_task_action(name="ExtObjNavLookUpAction")
class LookUpAction(SimulatorTaskAction):
    """Tilt the camera up by the simulator's tilt angle, as far as its limit allows."""

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """Take the action and return the simulator's observations."""
        return self._sim.step(HabitatSimActions.look_up)


@registry.register_task_action(name="ExtObjNavLookDownAction")
class LookDownAction(SimulatorTaskAction):
    """Tilt the camera down by the simulator's tilt angle, as far as its limit allows."""

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """Take the action and return the simulator's observations."""
        return self._sim.step(HabitatSimActions.look_down)


@registry.register_task(name="ExtObjNavTask-v0")
class ExtObjNavTask(EmbodiedTask):
    """Find an object of a category, again and again, in a house that stays as it is for a trial.

    Sensors and measures read `episode`, `trial`, `pose`, `distance`, `goals` and `progress`; each
    is worked out at most once per step. An episode ends at stop or with its trial; Habitat's
    `max_episode_steps` ends it besides.
    """

    def __init__(
        self, config: DictConfig, sim: Simulator, dataset: ExtObjNavDataset | None = None
    ) -> None:
        """Check the options and build actions, sensors and measures."""
        if dataset is None:
            raise UserError("ExtObjNavTask-v0 needs habitat.dataset.type=ExtObjNav-v0")
        self.simulator = task_simulator(sim)
        check_options(config, self.simulator.camera_uuids)
        self.categories = dataset.categories
        self.options = GoalOptions.of(config)
        self.camera: str = config.camera
        self._trial_steps: int = config.trial_steps
        self.detector = Detector.of(config, self.simulator.image_size(self.camera))
        self.action_names: tuple[str, ...] = tuple(config.actions)
        self.is_stop_called = False
        self.episode: ExtObjNavEpisode | None = None
        self._goal_cache: Recent[dict[str, CategoryGoals]] = Recent(config.arrangements_kept)
        self._goals: CategoryGoals | None = None
        self._trial: Trial | None = None
        self._configured_trial: Trial | None = None
        self._progress: Progress | None = None
        self._pose: Pose | None = None
        self._distance: float | None = None
        self._detections: Detections | None = None
        self._row_of = {name: row for row, name in enumerate(self.categories)}
        super().__init__(config=config, sim=sim, dataset=dataset)

    @property
    def trial(self) -> Trial:
        """The running trial."""
        return _begun(self._trial)

    @property
    def origin(self) -> Pose:
        """First start pose of the running trial."""
        return _begun(self.trial.origin)

    @property
    def goals(self) -> CategoryGoals:
        """Instances and viewpoints of the target."""
        return _begun(self._goals)

    @property
    def progress(self) -> Progress:
        """Account of the running episode."""
        return _begun(self._progress)

    @property
    def pose(self) -> Pose:
        """Where the agent stands now."""
        if self._pose is None:
            position, heading = self.simulator.agent_pose()
            self._pose = Pose(np.array(position, dtype=np.float64), float(heading))
        return self._pose

    @property
    def distance(self) -> float:
        """Geodesic distance (m) to the nearest viewpoint of the target now.

        Raises:
            UserError: it is infinite, negative or not a number.
        """
        if self._distance is None:
            self._distance = self._distance_from(self.pose.position)
        return self._distance

    @property
    def detections(self) -> Detections:
        """What the detector reports from here; the trial remembers which categories it has."""
        if self._detections is None:
            self._detections = self._detect()
            self.trial.categories_seen.update(
                self.categories[row] for row in np.flatnonzero(self._detections.seen)
            )
        return self._detections

    @property
    def target_row(self) -> int:
        """Place of the target among the `categories`."""
        return self._row_of[self.goals.category]

    def _detect(self) -> Detections:
        pose, origin = self.pose, self.origin
        distances = horizontal_distance(pose.position, self._positions)
        candidates = np.flatnonzero(distances <= self.detector.range)
        pixels = self.simulator.visible_pixels(self._ids[candidates], self.camera)
        found = Detections(
            np.zeros((len(self.categories), WIDTH), dtype=np.float32),
            np.zeros(len(self.categories), dtype=np.bool_),
        )
        write_detections(
            (pose.position, pose.heading),
            (np.asarray(origin.position, dtype=np.float64), origin.heading),
            (candidates, pixels),
            (self._positions, self._rows),
            self.detector,
            (self._miss_key, self.trial.steps),
            (found.table, found.within_reach),
        )
        return found

    def overwrite_sim_config(self, sim_config: Any, episode: ExtObjNavEpisode) -> Any:
        """Write the episode's scene, search paths and start into the simulator's config.

        Within a trial they stay, but for the start, which `reset` tells the simulator itself.
        """
        if episode.trial is not None and episode.trial is self._configured_trial:
            return sim_config
        self._configured_trial = episode.trial
        # Habitat hands this config to `Simulator.reconfigure`, which loads the house.
        with read_write(sim_config):
            simulator = sim_config.simulator
            simulator.scene = episode.scene_id
            simulator.scene_dataset = episode.scene_dataset_config
            simulator.additional_object_paths = list(episode.additional_obj_config_paths)
            agent = get_agent_config(simulator)
            agent.start_position = list(episode.start_position)
            agent.start_rotation = list(episode.start_rotation)
            agent.is_set_start_state = True
        return sim_config

    def reset(self, episode: ExtObjNavEpisode) -> Observations:
        """Draw the episode's target and start, place the agent, and return what it observes."""
        if episode.trial is None:
            raise UserError(
                f"episode {episode.episode_id!r} belongs to no trial; take episodes from the data"
                " set's iterator (get_episode_iterator)"
            )
        self.episode, self._trial = episode, episode.trial
        self._goals, start, self._miss_key = draw_episode(
            episode, self._goal_cache, self.simulator, self.options
        )
        self._rows = np.array([self._row_of[i.category] for i in self.simulator.instances])
        self._positions = np.stack([np.asarray(i.position) for i in self.simulator.instances])
        self._ids = np.array([i.id for i in self.simulator.instances])
        seen_earlier = self.goals.category in self.trial.categories_seen
        distance = self._distance_from(start.position)
        self._progress = Progress(distance, start.position, seen_earlier)
        self.is_stop_called = False
        self._pose = self._distance = self._detections = None
        self.simulator.start_next_episode_at(start.position, start.heading)
        return super().reset(episode)

    def step(self, action: dict[str, Any], episode: ExtObjNavEpisode) -> Observations:
        """Take one step of the episode and of its trial."""
        trial = self.trial
        # Before the simulator moves: sensors and `_check_episode_is_active` read it in this step.
        trial.steps += 1
        trial.over = trial.over or trial.steps >= self._trial_steps
        self._pose = self._distance = self._detections = None
        observations = super().step(action, episode)
        progress = self.progress
        # A stop asks nothing of the simulator, which still tells of the step before.
        collided = not self.is_stop_called and self.simulator.previous_step_collided
        progress.advance(self.pose.position, self.distance, collided)
        if self.is_stop_called:
            progress.stopped = 1.0
            progress.near = float(len(self._near_goals()) > 0)
            progress.success = float(self.target_is_found())
        return observations

    def target_is_found(self) -> bool:
        """Whether stopping here and now succeeds."""
        positions, near = self.goals.positions, self._near_goals()
        ids = [self.goals.instances[i].id for i in near]
        pixels = self.simulator.visible_pixels(ids, self.camera)
        of_target = np.ones(len(positions), dtype=np.bool_)
        limits = self.detector.min_pixels, self.detector.reach
        return bool(stop_succeeds(self.pose.position, near, pixels, positions, of_target, *limits))

    def _near_goals(self) -> np.ndarray:
        """Indices [J] of the target's instances within reach, seen or not."""
        distances = horizontal_distance(self.pose.position, self.goals.positions)
        return np.flatnonzero(distances <= self.options.radius)

    def _check_episode_is_active(self, *args: Any, **kwargs: Any) -> bool:
        return not (self.is_stop_called or self.trial.over)

    def _distance_from(self, position: np.ndarray) -> float:
        distance = float(self.simulator.distance_to(position, self.goals.viewpoints))
        return checked_distance(distance, position, _begun(self.episode))


def draw_episode(
    episode: ExtObjNavEpisode,
    cache: Recent[dict[str, CategoryGoals]],
    simulator: TaskSimulator,
    options: GoalOptions,
) -> tuple[CategoryGoals, Pose, np.uint64]:
    """Draw an episode's target, start and the key of its detector's misses, in the trial's order.

    Target and start are written into the episode, the first start into the trial as its origin.

    Raises:
        UserError: none of its categories can be reached.
    """
    trial = _begun(episode.trial)
    found = cache.get(
        (episode.scene_dataset_config, episode.scene_id, episode.episode_id),
        lambda: find_goals(simulator, options),
    )
    # Sorted by name, so that the order of the objects in the file changes no draw.
    reachable = [goals for goals in found.values() if goals.reachable]
    if not reachable:
        raise UserError(
            f"nothing is reachable in scene {episode.scene_id}, episode"
            f" {episode.episode_id!r}: no viewpoint for any of its categories"
            f" ({', '.join(found) or 'no objects placed'}); leave the house out with"
            " habitat.dataset.content_scenes, or generate it again"
        )
    generator = trial.generator(episode.episode_index)
    goals = reachable[int(generator.integers(len(reachable)))]
    start = Pose(
        np.asarray(simulator.sample_floor_point(generator), dtype=np.float64),
        float(generator.uniform(0.0, 2.0 * math.pi)),
    )
    episode.set_task(goals.category, start)
    if trial.origin is None:
        trial.origin = start
    # Drawn last, so that target and start do not depend on there being a detector.
    return goals, start, np.uint64(generator.integers(2**63))


def checked_distance(distance: float, position: np.ndarray, episode: ExtObjNavEpisode) -> float:
    """The distance (m) from a position [3] to the episode's target.

    Raises:
        UserError: it is infinite, negative or not a number.
    """
    if not 0.0 <= distance < math.inf:
        raise UserError(
            f"the distance to the nearest viewpoint of {episode.target_category!r} is {distance} in"
            f" scene {episode.scene_id}, episode {episode.episode_id!r}, from position"
            f" {[round(float(x), 4) for x in position]}; check the house for floor that is not"
            " connected, or leave it out with habitat.dataset.content_scenes"
        )
    return distance


def _begun(value: Any) -> Any:
    if value is None:
        raise RuntimeError("no episode has begun yet: call reset() first")
    return value


def check_options(config: DictConfig, cameras: Sequence[str]) -> None:
    """Refuse options that cannot work, before anything is built on them."""
    name = "habitat.task"
    for option in ("trial_steps", "min_visible_pixels", "arrangements_kept"):
        if config[option] < 1:
            raise UserError(f"{name}.{option}={config[option]}; give a whole number from 1 on")
    for option in ("success_distance", "viewpoint_spacing", "eye_height", "detection_range"):
        if not (math.isfinite(config[option]) and config[option] > 0.0):
            raise UserError(f"{name}.{option}={config[option]}; give a length in m above 0")
    for option in ("slack_reward", "success_reward"):
        if config[option] != 0.0:
            raise UserError(
                f"{name}.{option}={config[option]} would be counted a second time; set"
                f" {name}.measurements.extobjnav_reward.{option} instead and leave this at 0"
            )
    if not 0.0 <= config.detection_miss_probability <= 1.0:
        raise UserError(
            f"{name}.detection_miss_probability={config.detection_miss_probability}; give a number"
            " from 0 to 1"
        )
    if config.camera not in cameras:
        raise UserError(
            f"{name}.camera={config.camera!r} is not a sensor of the simulator; it has"
            f" {', '.join(cameras) or 'none'}"
        )
