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
from memo_habitat.tasks.extobjnav.batched_trials import BatchedTrials
from memo_habitat.tasks.extobjnav.dataset import ExtObjNavDataset
from memo_habitat.tasks.extobjnav.episode import house_of
from memo_habitat.tasks.extobjnav.goals import wrap_angle
from memo_habitat.tasks.extobjnav.oracle import OracleOptions
from memo_habitat.tasks.extobjnav.trial import TrialIterator
from memo_habitat.tasks.record_fields import EPISODE_MEASURE, Declaration, declared_fields
from memo_habitat.tasks.vector_env import (
    BoolArray,
    InProcessVectorEnv,
    IntArray,
    Observation,
    measures_of,
)

#: Simulator whose houses can be stepped here.
SIMULATOR = "EmbreeSim-v0"


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
        habitat = config.habitat
        self._names = list(habitat.task.actions)
        self._sim_actions = _sim_actions(self._names)
        self._measures = _measures(habitat.task.measurements)
        sensors = {registry.get_sensor(n.type).cls_uuid for n in habitat.task.lab_sensors.values()}
        asked = {*sensors, *self._measures}
        self._trials = BatchedTrials(
            habitat,
            dataset.categories,
            iterators,
            measures=[name for name in self._measures if name != EPISODE_MEASURE],
            looks="target_found" in sensors,
            detects=bool(asked & {"detections", "target_detection", "target_seen_earlier"}),
            records=EPISODE_MEASURE in self._measures,
        )
        stand_in = SimpleNamespace(
            categories=dataset.categories,
            action_names=tuple(self._names),
            options=self._trials.goal_options,
            simulator=self._trials.sim.agents[0],
        )
        observed = _observed(habitat, stand_in)
        super().__init__(len(iterators), observed, spaces.Discrete(len(self._names)))
        self._observations = {
            uuid: np.zeros((self.num_envs, *space.shape), dtype=space.dtype)
            for uuid, space in observed.spaces.items()
        }
        options = self._trials.goal_options
        if "oracle_action" in self._observations:
            self._oracle_options = OracleOptions.of(
                self._trials.sim.agents[0].action_sizes,
                self._names,
                options.eye_height,
                options.radius,
            )

    # All at once --------------------------------------------------------------------------------

    def reset_batch(self) -> Observation:
        """Begin the next episode in every environment; observations are written again by steps."""
        self._trials.reset()
        self._observe(np.arange(self.num_envs))
        return self._observations

    def step_batch(self, actions: IntArray, only: BoolArray | None = None) -> Step:
        """One step of every environment, or of those where `only` [N] is True."""
        which = np.ones(self.num_envs, dtype=np.bool_) if only is None else only
        return self._step(np.asarray(actions), which)[0]

    def step_with_infos(
        self, actions: IntArray, only: BoolArray
    ) -> tuple[Step, Mapping[int, dict[str, Any]]]:
        """Step those of `only`, and the measures of each."""
        step, records = self._step(np.asarray(actions), only)
        infos = measures_of(step, only)
        for index, record in records.items():
            infos[index][EPISODE_MEASURE] = record
        return step, infos

    def _step(
        self, actions: IntArray, which: BoolArray
    ) -> tuple[Step, Mapping[int, dict[str, Any]]]:
        names = [self._names[action] for action in actions.tolist()]
        outcome = self._trials.step(self._sim_actions[actions], which, names)
        self._observe(np.flatnonzero(which))
        rewards = outcome.rewards.astype(np.float32)
        step = Step(self._observations, rewards, outcome.episode_ends, outcome.measures)
        return step, outcome.records

    # What evaluations ask -----------------------------------------------------------------------

    def arrangements(self, index: int) -> list[tuple[str, str]]:
        """The (house, arrangement) pairs that environment `index` can play."""
        episodes = self._trials.iterators[index].episodes
        return [(house_of(episode.scene_id), episode.episode_id) for episode in episodes]

    def schedule_trials(self, index: int, trials: list[tuple[str, str, int]], seed: int) -> None:
        """From its next reset on environment `index` plays these trials, drawn from `seed`."""
        iterator = self._trials.iterators[index]
        iterator.seed = seed
        iterator.play(trials)

    def top_down_map(self, index: int, resolution: float) -> dict[str, Any]:
        """Where the agent can stand in the present house of environment `index`."""
        found = self._trials.sim.agents[index].top_down_map(resolution)
        return {"free": found.free, "origin": found.origin, "resolution": found.resolution}

    def record_fields(self, index: int) -> Declaration:
        """How the measures are recorded."""
        return declared_fields(self._measures)

    def _observe(self, rows: IntArray) -> None:
        """Write the observations of the environments `rows`."""
        out, trials, sim = self._observations, self._trials, self._trials.sim
        target = trials.target[rows]
        if "one_hot_target_sensor" in out:
            out["one_hot_target_sensor"][rows] = 0.0
            out["one_hot_target_sensor"][rows, target] = 1.0
        if "gps" in out:
            sin, cos = np.sin(trials.origin_heading[rows]), np.cos(trials.origin_heading[rows])
            x, _, z = (sim.positions - trials.origin)[rows].T
            out["gps"][rows] = np.stack([-sin * x - cos * z, -cos * x + sin * z], axis=1)
        if "compass" in out:
            turned = (sim.headings - trials.origin_heading)[rows]
            out["compass"][rows, 0] = [wrap_angle(angle) for angle in turned.tolist()]
        if "trial_step" in out:
            out["trial_step"][rows, 0] = trials.trial_step[rows]
        if "last_reward" in out:
            out["last_reward"][rows, 0] = trials.rewards[rows]
        if "detections" in out:
            out["detections"][rows] = trials.table[rows]
        if "target_detection" in out:
            out["target_detection"][rows, :-1] = trials.table[rows, target]
            out["target_detection"][rows, -1] = trials.within_reach[rows, target]
        if "target_found" in out:
            out["target_found"][rows, 0] = trials.found[rows]
        if "oracle_action" in out:
            best = [trials.best_action(index, self._oracle_options) for index in rows.tolist()]
            out["oracle_action"][rows, 0] = [self._names.index(name) for name in best]


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
        options = {str(k).lower(): v for k, v in habitat.environment.iterator_options.items()}
        iterators = []
        for index in range(count):
            # A trial is the same wherever it runs: in evaluations any environment may play it.
            shared = is_eval or len(houses) < count
            own = houses if shared else houses[index::count]
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
