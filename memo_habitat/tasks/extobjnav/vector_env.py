"""ExtObjNav stepped all together in the trainer's process: vector sensors only, no images.

The same trials, draws, observations and measures as Habitat's own environment, one by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from gym import spaces
from habitat.core.registry import registry
from habitat.sims.habitat_simulator.actions import HabitatSimActions
from habitat_baselines.common.env_factory import VectorEnvFactory
from numpy.typing import NDArray
from omegaconf import DictConfig

from memo_habitat.errors import UserError, check_at_least_one
from memo_habitat.simulator.embree.batched import BatchedSim
from memo_habitat.tasks.extobjnav import scoring
from memo_habitat.tasks.extobjnav.dataset import ExtObjNavDataset
from memo_habitat.tasks.extobjnav.detections import (
    WIDTH,
    DetectorOptions,
    in_range,
    write_detections,
)
from memo_habitat.tasks.extobjnav.episode import ExtObjNavEpisode, house_of
from memo_habitat.tasks.extobjnav.goals import CategoryGoals, GoalCache, GoalOptions
from memo_habitat.tasks.extobjnav.oracle import Oracle, OracleOptions
from memo_habitat.tasks.extobjnav.task import check_options, checked_distance, draw_episode
from memo_habitat.tasks.extobjnav.trial import Trial, TrialIterator
from memo_habitat.tasks.record_fields import EPISODE_MEASURE, Declaration, declared_fields
from memo_habitat.tasks.vector_env import BoolArray, InProcessVectorEnv, IntArray, Observation

#: Simulator whose houses can be stepped here.
SIMULATOR = "EmbreeSim-v0"


@dataclass
class _Player:
    """What one environment plays at the moment.

    Attributes:
        iterator: deals out its episodes.
        trial, episode, goals: those running.
        field: distances to the goals.
        rows: [I] category of each instance, as its place in the vocabulary.
        is_target: bool [I].
        miss_key: of the detector, for this episode.
        in_view: instances near the agent and the pixels they show; None after a move.
        frame: sine and cosine of the heading of the trial's frame.
        path: (x, z) of the episode so far; kept for records only.
        oracle: of this episode, where it is asked.
    """

    iterator: TrialIterator
    trial: Trial | None = None
    episode: ExtObjNavEpisode | None = None
    goals: CategoryGoals | None = None
    field: Any = None
    rows: Any = None
    is_target: Any = None
    miss_key: Any = None
    in_view: tuple[IntArray, IntArray] | None = None
    frame: tuple[float, float] = (0.0, 1.0)
    path: list[tuple[float, float]] | None = None
    oracle: Oracle | None = None


@dataclass
class Step:
    """What `step_batch` returns.

    Attributes:
        observations: uuid -> [N, ...], written again by the next step; the next episode's first
            ones where one ended.
        rewards: float32 [N].
        episode_ends: bool [N].
        measures: name -> [N], of the episode that the step belongs to.
    """

    observations: Observation
    rewards: NDArray[np.float32]
    episode_ends: BoolArray
    measures: Mapping[str, NDArray[Any]]


class ExtObjNavVectorEnv(InProcessVectorEnv):
    """N environments, each with its own trials."""

    def __init__(
        self, config: DictConfig, dataset: ExtObjNavDataset, iterators: Sequence[TrialIterator]
    ) -> None:
        """Environment i plays what `iterators[i]` deals out.

        Args:
            config: `habitat` at its root.
            dataset: for the vocabulary.
            iterators: one per environment.
        """
        habitat, count = config.habitat, len(iterators)
        task = habitat.task
        self._sim = BatchedSim(habitat.simulator, count, task.camera)
        check_options(task, self._sim.agents[0].camera_uuids)
        self._categories = {name: row for row, name in enumerate(dataset.categories)}
        self._goal_options, self._detector = GoalOptions.of(task), DetectorOptions.of(task)
        self._trial_steps, self._limit = task.trial_steps, habitat.environment.max_episode_steps
        self._names = list(task.actions)
        self._sim_actions = _sim_actions(self._names)
        self._image_pixels = int(np.prod(self._sim.agents[0].image_size(task.camera)))
        self._goal_cache = GoalCache(max(task.arrangements_kept, 4 * count))
        self._measures = _measures(task.measurements)
        self._weights = scoring.RewardWeights.of(task.measurements.extobjnav_reward)
        stand_in = SimpleNamespace(
            categories=dataset.categories,
            action_names=tuple(self._names),
            options=self._goal_options,
            simulator=self._sim.agents[0],
        )
        observed = _observed(habitat, stand_in)
        super().__init__(count, observed, spaces.Discrete(len(self._names)))
        self._players = [_Player(iterator) for iterator in iterators]
        self._allocate(observed, len(self._categories))

    def _allocate(self, observed: spaces.Dict, categories: int) -> None:
        count = self.num_envs
        self._observations = {
            uuid: np.zeros((count, *space.shape), dtype=space.dtype)
            for uuid, space in observed.spaces.items()
        }
        # Of each environment's trial.
        self._trial_step = np.zeros(count, dtype=np.int64)
        self._origin = np.zeros((count, 3))
        self._origin_heading = np.zeros(count)
        self._seen = np.zeros((count, categories), dtype=np.bool_)
        # Of its episode; lengths in m.
        self._steps = np.zeros(count, dtype=np.int64)
        self._collisions = np.zeros(count, dtype=np.int64)
        self._start_distance, self._distance = np.zeros(count), np.zeros(count)
        self._path_length = np.zeros(count)
        self._success = np.zeros(count, dtype=np.bool_)
        self._target = np.zeros(count, dtype=np.int64)
        self._seen_earlier = np.zeros(count)
        # Of what is detected now, and whether a stop would succeed.
        self._table = self._observations.get(
            "detections", np.zeros((count, categories, WIDTH), dtype=np.float32)
        )
        self._within_reach = np.zeros((count, categories), dtype=np.bool_)
        self._found = np.zeros(count, dtype=np.bool_)
        self._rewards = np.zeros(count)
        asked = {"detections", "target_detection", "target_seen_earlier"}
        self._detects = bool(asked & {*self._observations, *self._measures})
        self._always_looks = self._detects or "target_found" in self._observations

    # All at once --------------------------------------------------------------------------------

    def reset_batch(self) -> Observation:
        """Begin the next episode in every environment; observations are written again by steps."""
        everywhere = np.ones(self.num_envs, dtype=np.bool_)
        for index in range(self.num_envs):
            self._begin_episode(index)
        self._observe(everywhere)
        return self._observations

    def step_batch(self, actions: IntArray, only: BoolArray | None = None) -> Step:
        """One step of every environment, or of those where `only` [N] is True."""
        which = np.ones(self.num_envs, dtype=np.bool_) if only is None else only
        step, _ = self._step(np.asarray(actions), which)
        return step

    def step_with_infos(
        self, actions: IntArray, only: BoolArray
    ) -> tuple[Step, Mapping[int, dict[str, Any]]]:
        """Step those of `only`, and the measures of each."""
        step, records = self._step(np.asarray(actions), only)
        measures = {name: values.tolist() for name, values in step.measures.items()}
        infos = {
            index: {name: values[index] for name, values in measures.items()}
            for index in np.flatnonzero(only).tolist()
        }
        for index, record in records.items():
            infos[index][EPISODE_MEASURE] = record
        return step, infos

    def _step(self, actions: IntArray, which: BoolArray) -> tuple[Step, dict[int, dict]]:
        rows = np.flatnonzero(which)
        kinds = self._sim_actions[actions]
        before, distance_before = self._sim.positions.copy(), self._distance.copy()
        self._sim.step(kinds, which)
        self._trial_step[rows] += 1
        self._steps[rows] += 1
        self._collisions[rows] += self._sim.collided[rows]
        self._path_length[rows] += np.sqrt(((self._sim.positions - before)[rows] ** 2).sum(1))
        for index in np.flatnonzero(which & (kinds == HabitatSimActions.move_forward)).tolist():
            self._distance[index] = self._distance_now(index)
        stops = which & (kinds == HabitatSimActions.stop)
        for index in np.flatnonzero(which & ~stops).tolist():
            self._players[index].in_view = None
        self._look(np.flatnonzero(which) if self._always_looks else np.flatnonzero(stops))
        self._success[rows] = (stops & self._found)[rows]
        self._follow(rows, actions)
        rewards = scoring.step_reward(distance_before, self._distance, self._success, self._weights)
        self._rewards[rows] = rewards[rows]
        trial_ends = which & (self._trial_step >= self._trial_steps)
        ends = stops | trial_ends
        if self._limit:
            ends |= which & (self._steps >= self._limit)
        measures = {name: self._measure(name) for name in self._measures if name != EPISODE_MEASURE}
        rewards = self._rewards.astype(np.float32)
        ended = np.flatnonzero(ends).tolist()
        records = {
            index: self._record(index, bool(trial_ends[index] and not stops[index]))
            for index in ended
            if EPISODE_MEASURE in self._measures
        }
        for index in ended:
            self._end_episode(index, bool(trial_ends[index]))
            self._begin_episode(index)
        if self._always_looks and ended:
            self._look(np.array(ended))
        self._observe(which, look=False)
        return Step(self._observations, rewards, ends, measures), records

    # What evaluations ask -----------------------------------------------------------------------

    def arrangements(self, index: int) -> list[tuple[str, str]]:
        """The (house, arrangement) pairs that environment `index` can play."""
        episodes = self._players[index].iterator.episodes
        return [(house_of(episode.scene_id), episode.episode_id) for episode in episodes]

    def schedule_trials(self, index: int, trials: list[tuple[str, str, int]], seed: int) -> None:
        """From its next reset on environment `index` plays these trials, drawn from `seed`."""
        iterator = self._players[index].iterator
        iterator.seed = seed
        iterator.play(trials)

    def top_down_map(self, index: int, resolution: float) -> dict[str, Any]:
        """Where the agent can stand in the present house of environment `index`."""
        found = self._sim.agents[index].top_down_map(resolution)
        return {"free": found.free, "origin": found.origin, "resolution": found.resolution}

    def record_fields(self, index: int) -> Declaration:
        """How the measures are recorded."""
        return declared_fields(self._measures)

    # Episodes -----------------------------------------------------------------------------------

    def _begin_episode(self, index: int) -> None:
        player, agent = self._players[index], self._sim.agents[index]
        episode = player.episode = next(player.iterator)
        if episode.trial is not player.trial:
            self._begin_trial(index, episode)
        goals, start, player.miss_key = draw_episode(
            episode, self._goal_cache, agent, self._goal_options
        )
        player.goals, player.oracle, player.in_view = goals, None, None
        player.field = agent.scene.geodesics.field(goals.viewpoints)
        if episode.episode_index == 0:
            self._origin[index], self._origin_heading[index] = start.position, start.heading
            player.frame = float(np.sin(start.heading)), float(np.cos(start.heading))
        row = self._target[index] = self._categories[goals.category]
        player.is_target = player.rows == row
        agent.start_next_episode_at(start.position, start.heading)
        self._seen_earlier[index] = self._seen[index, row]
        self._steps[index] = self._collisions[index] = 0
        self._path_length[index], self._success[index] = 0.0, False
        self._start_distance[index] = self._distance[index] = self._distance_now(index)
        if EPISODE_MEASURE in self._measures:
            player.path = [(float(start.position[0]), float(start.position[2]))]

    def _begin_trial(self, index: int, episode: ExtObjNavEpisode) -> None:
        player, agent = self._players[index], self._sim.agents[index]
        self._sim.enter(index, episode)
        player.trial = episode.trial
        player.rows = np.array([self._categories[i.category] for i in agent.instances])
        self._trial_step[index] = 0
        self._seen[index] = False
        self._rewards[index] = 0.0

    def _end_episode(self, index: int, trial_is_over: bool) -> None:
        trial = self._players[index].trial
        if trial is not None:
            trial.steps, trial.over = int(self._trial_step[index]), trial_is_over

    def _distance_now(self, index: int) -> float:
        player = self._players[index]
        goals, episode = player.goals, player.episode
        distance = self._sim.distance(index, player.field, goals.viewpoints)
        return checked_distance(distance, self._sim.positions[index], episode)

    def _follow(self, rows: IntArray, actions: IntArray) -> None:
        """Tell paths and oracles of a step, where they are asked for."""
        for index in rows.tolist():
            player = self._players[index]
            if player.path is not None:
                x, _, z = self._sim.positions[index].tolist()
                player.path.append((x, z))
            if player.oracle is not None:
                player.oracle.saw_action(self._names[int(actions[index])])

    # What is seen -------------------------------------------------------------------------------

    def _look(self, rows: IntArray) -> None:
        """Count the pixels of what is near, and write what is detected of it."""
        sim, detector, options = self._sim, self._detector, self._goal_options
        limit = max(detector.range, options.radius) if self._detects else options.radius
        for index in rows.tolist():
            player = self._players[index]
            centres = sim.agents[index].arrangement.centres
            if player.in_view is None:
                near = in_range(sim.positions[index], centres, limit)
                player.in_view = near, sim.visible_pixels(index, near)
            near, pixels = player.in_view
            self._found[index] = self._is_found(index, near, pixels)
            if not self._detects:
                continue
            write_detections(
                sim.positions[index],
                float(sim.headings[index]),
                self._origin[index],
                float(self._origin_heading[index]),
                near,
                pixels,
                centres,
                player.rows,
                detector.range,
                detector.min_pixels,
                self._image_pixels,
                (player.miss_key, int(self._trial_step[index]), detector.miss_probability),
                detector.reach,
                self._table[index],
                self._within_reach[index],
            )
        if self._detects:
            self._seen[rows] |= self._table[rows, :, 0] > 0.0

    def _is_found(self, index: int, near: IntArray, pixels: IntArray) -> bool:
        """Whether a stop would succeed by one of the instances `near`, which show `pixels`."""
        player = self._players[index]
        shown = near[player.is_target[near] & (pixels >= self._detector.min_pixels)]
        if not len(shown):
            return False
        centres = self._sim.agents[index].arrangement.centres[shown]
        distances = scoring.horizontal_distance(self._sim.positions[index], centres)
        return bool((distances <= self._goal_options.radius).any())

    def _observe(self, which: BoolArray, look: bool = True) -> None:
        """Write the observations of some environments."""
        rows = np.flatnonzero(which)
        if look and self._always_looks:
            self._look(rows)
        out, sim = self._observations, self._sim
        if "one_hot_target_sensor" in out:
            out["one_hot_target_sensor"][rows] = 0.0
            out["one_hot_target_sensor"][rows, self._target[rows]] = 1.0
        if "gps" in out:
            sin, cos = np.array([self._players[i].frame for i in rows]).T
            x, _, z = (sim.positions - self._origin)[rows].T
            out["gps"][rows] = np.stack([-sin * x - cos * z, -cos * x + sin * z], axis=1)
        if "compass" in out:
            turned = (sim.headings - self._origin_heading)[rows]
            out["compass"][rows, 0] = [scoring.wrap_angle(angle) for angle in turned.tolist()]
        if "trial_step" in out:
            out["trial_step"][rows, 0] = self._trial_step[rows]
        if "last_reward" in out:
            out["last_reward"][rows, 0] = self._rewards[rows] * (self._trial_step[rows] > 0)
        if "target_found" in out:
            out["target_found"][rows, 0] = self._found[rows]
        if "target_detection" in out:
            target = self._target[rows]
            out["target_detection"][rows, :WIDTH] = self._table[rows, target]
            out["target_detection"][rows, WIDTH] = self._within_reach[rows, target]
        if "oracle_action" in out:
            out["oracle_action"][rows, 0] = [self._best_action(i) for i in rows.tolist()]

    def _best_action(self, index: int) -> int:
        player, agent = self._players[index], self._sim.agents[index]

        def found() -> bool:
            near = np.flatnonzero(player.is_target)
            return self._is_found(index, near, self._sim.visible_pixels(index, near))

        if player.oracle is None:
            options = OracleOptions.of(
                agent.action_sizes,
                self._names,
                self._goal_options.eye_height,
                self._goal_options.radius,
            )
            player.oracle = Oracle(agent, player.goals, options, found)
        pose = scoring.Pose(*agent.agent_pose())
        return self._names.index(player.oracle.next_action(pose))

    # What is measured ---------------------------------------------------------------------------

    def _measure(self, name: str) -> NDArray[Any]:
        """[N], a copy: values of the episodes now running."""
        if name == "extobjnav_success":
            return self._success.astype(np.float64)
        if name == "spl":
            return scoring.spl(self._success, self._start_distance, self._path_length)
        if name == "soft_spl":
            return scoring.soft_spl(self._start_distance, self._distance, self._path_length)
        if name == "extobjnav_reward":
            return self._rewards.copy()
        kept = {
            "distance_to_goal": self._distance,
            "num_steps": self._steps,
            "collisions": self._collisions,
            "target_seen_earlier": self._seen_earlier,
        }
        return kept[name].copy()

    def _record(self, index: int, truncated: bool) -> dict[str, Any]:
        """What `measures.EpisodeRecord` says at an episode's end."""
        player = self._players[index]
        episode, trial, goals = player.episode, player.trial, player.goals
        end = int(self._trial_step[index])
        return {
            "trial_id": trial.trial_id,
            "scene_id": episode.scene_id,
            "arrangement_id": episode.episode_id,
            "repetition": trial.repetition,
            "episode_index": episode.episode_index,
            "target_category": episode.target_category,
            "trial_step_start": end - int(self._steps[index]),
            "trial_step_end": end,
            "truncated": truncated,
            "start_distance": float(self._start_distance[index]),
            "path_length": float(self._path_length[index]),
            "start_position": list(episode.start_position),
            "start_heading": 2.0 * float(np.arctan2(*episode.start_rotation[1::2])),
            "goal_positions": goals.positions.tolist(),
            "path": player.path,
        }


def _sim_actions(names: Sequence[str]) -> IntArray:
    """`HabitatSimActions` of the task's actions."""
    known = ("stop", "move_forward", "turn_left", "turn_right", "look_up", "look_down")
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(
            f"habitat.task.actions has {', '.join(unknown)}, which environments in one process do"
            f" not know; there are {', '.join(known)}, or take the default vector_env_factory"
        )
    return np.array([HabitatSimActions[name] for name in names], dtype=np.int64)


_MEASURES = (
    "extobjnav_success",
    "spl",
    "soft_spl",
    "distance_to_goal",
    "num_steps",
    "collisions",
    "target_seen_earlier",
    "extobjnav_reward",
    EPISODE_MEASURE,
)
_SENSORS = (
    "one_hot_target_sensor",
    "gps",
    "compass",
    "trial_step",
    "detections",
    "target_detection",
    "target_found",
    "last_reward",
    "oracle_action",
)


def _measures(nodes: Mapping[str, Any]) -> dict[str, Any]:
    """Uuid -> class of the measures of `habitat.task.measurements`."""
    classes = [registry.get_measure(node.type) for node in nodes.values()]
    found = {getattr(cls, "cls_uuid", cls.__name__): cls for cls in classes}
    _check_known("measurements", tuple(found), _MEASURES)
    return found


def _observed(habitat: DictConfig, task: Any) -> spaces.Dict:
    """The space of one environment's observations, as its sensors declare it to `task`."""
    sensors = [
        registry.get_sensor(node.type)(config=node, task=task)
        for node in habitat.task.lab_sensors.values()
    ]
    _check_known("lab_sensors", [sensor.uuid for sensor in sensors], _SENSORS)
    keys = habitat.gym.obs_keys
    return spaces.Dict(
        {s.uuid: s.observation_space for s in sensors if keys is None or s.uuid in keys}
    )


def _check_known(group: str, uuids: Sequence[str], known: Sequence[str]) -> None:
    unknown = [uuid for uuid in uuids if uuid not in known]
    if unknown:
        raise UserError(
            f"habitat.task.{group} has {', '.join(unknown)}, which environments in one process do"
            " not know; take it out, or take the default vector_env_factory"
        )


class ExtObjNavVectorEnvFactory(VectorEnvFactory):
    """ExtObjNav in the trainer's own process, with houses dealt out as to workers."""

    def construct_envs(
        self,
        config: DictConfig,
        workers_ignore_signals: bool = False,
        enforce_scenes_greater_eq_environments: bool = False,
        is_first_rank: bool = True,
    ) -> ExtObjNavVectorEnv:
        """The environments of a training, or, where the third argument is True, an evaluation."""
        is_eval = enforce_scenes_greater_eq_environments
        habitat, count = config.habitat, config.habitat_baselines.num_environments
        check_at_least_one("habitat_baselines.num_environments", count)
        _check_simulator(habitat.simulator)
        dataset = ExtObjNavDataset(habitat.dataset)
        houses = sorted({house_of(episode.scene_id) for episode in dataset.episodes})
        if is_eval:
            count = min(count, len(houses))
        options = {str(k).lower(): v for k, v in habitat.environment.iterator_options.items()}
        iterators = []
        for index in range(count):
            own = houses[index::count] if len(houses) >= count else houses
            episodes = [e for e in dataset.episodes if house_of(e.scene_id) in own]
            seed = habitat.seed + (0 if is_eval else index)
            iterators.append(TrialIterator(episodes, **{**options, "seed": seed}))
        return ExtObjNavVectorEnv(config, dataset, iterators)


def _check_simulator(simulator: DictConfig) -> None:
    if simulator.type != SIMULATOR:
        raise UserError(
            f"habitat.simulator.type={simulator.type}: environments in one process need"
            f" {SIMULATOR}; take the default vector_env_factory"
        )
    if simulator.get("render_images", True):
        raise UserError(
            "environments in one process draw no images: set habitat.simulator.render_images=false,"
            " or take the default vector_env_factory"
        )
