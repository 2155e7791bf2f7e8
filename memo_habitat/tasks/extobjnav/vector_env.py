"""ExtObjNav stepped all together in the trainer's process.

The same trials, draws, observations and measures as Habitat's own environment, one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from gym import spaces
from habitat.core.registry import registry
from habitat.core.simulator import SensorSuite
from habitat.sims.habitat_simulator.actions import HabitatSimActions
from numpy.typing import NDArray
from omegaconf import DictConfig

from memo_habitat.errors import UserError
from memo_habitat.simulator.interface import TopDownMap
from memo_habitat.tasks.extobjnav.batched_trials import BatchedTrials
from memo_habitat.tasks.extobjnav.dataset import ExtObjNavDataset
from memo_habitat.tasks.extobjnav.episode import TrialIterator, house_of
from memo_habitat.tasks.extobjnav.floor_map import RANGE
from memo_habitat.tasks.extobjnav.goals import turned, wrap_angle
from memo_habitat.tasks.extobjnav.measures import EpisodeMeasure, top_down_scene
from memo_habitat.tasks.extobjnav.oracle import OracleOptions
from memo_habitat.tasks.record_fields import EPISODE_MEASURE, Declaration, declared_fields
from memo_habitat.tasks.vector_env import (
    BatchedStep,
    BoolArray,
    InProcessVectorEnv,
    InProcessVectorEnvFactory,
    IntArray,
    Observation,
    deal_houses,
    measures_of,
)

#: Simulator whose houses can be stepped here.
SIMULATOR = "EmbreeSim-v0"
_ACTIONS = ("stop", "move_forward", "turn_left", "turn_right", "look_up", "look_down")
#: What is asked of these is worked out from detections.
_OF_DETECTIONS = {"detections", "target_detection", "target_seen_earlier", "perfect_memory_action"}
_SEARCHER = "PerfectMemoryActionSensor"
_USE_WORKERS = (
    "set habitat_baselines.vector_env_factory._target_="
    "memo_habitat.trainer.env_factory.MemoVectorEnvFactory"
)


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
        _check_known("actions", self._names, _ACTIONS)
        self._sim_actions = np.array([HabitatSimActions[name] for name in self._names], np.int64)
        self._measures = _measures(habitat.task)
        types = [node.type for node in habitat.task.lab_sensors.values()]
        sensors = {_uuid(registry.get_sensor(kind), kind) for kind in types}
        asked = {*sensors, *self._measures}
        self._trials = BatchedTrials(
            habitat,
            dataset.categories,
            iterators,
            measures={k: v for k, v in self._measures.items() if k != EPISODE_MEASURE},
            looks="target_found" in sensors,
            detects=bool(asked & _OF_DETECTIONS),
            records=EPISODE_MEASURE in self._measures,
        )
        agent, options = self._trials.sim.agents[0], self._trials.goal_options
        # What sensors read of a task to describe what they observe.
        stand_in: Any = SimpleNamespace(
            categories=dataset.categories,
            action_names=tuple(self._names),
            options=options,
            simulator=agent,
        )
        self._readers = self._sensor_readers(len(dataset.categories))
        _check_known("lab_sensors", sensors, self._readers)
        for uuid in self._trials.sim.rig.suite.sensors:
            self._readers[uuid] = self._pictures(uuid)
        observed = _observed(habitat, stand_in, self._trials.sim.rig.suite)
        super().__init__(len(iterators), observed, spaces.Discrete(len(self._names)))
        self._observations = {
            uuid: np.zeros((self.num_envs, *space.shape), dtype=space.dtype)
            for uuid, space in observed.spaces.items()
        }
        if {"oracle_action", "perfect_memory_action"} & set(observed.spaces):
            self._oracle_options = OracleOptions.of(
                agent.action_sizes, self._names, options.eye_height, options.radius
            )
        # By type: a node of one's own may have any name.
        searchers = [n for n in habitat.task.lab_sensors.values() if n.type == _SEARCHER]
        self._moves = searchers[-1].moves if searchers else ""

    # All at once --------------------------------------------------------------------------------

    def reset_batch(self) -> Observation:
        """Begin the next episode in every environment; observations are written again by steps."""
        self._trials.reset()
        self._observe(np.arange(self.num_envs))
        return self._observations

    def skip_trials(self, count: int) -> bool:
        """Let the next reset begin the trials that come after `count` whole ones."""
        for iterator in self._trials.iterators:
            iterator.skip_trials(count)
        return True

    def step_batch(self, actions: IntArray, only: BoolArray | None = None) -> BatchedStep:
        """One step of every environment, or of those where `only` [N] is True."""
        which = np.ones(self.num_envs, dtype=np.bool_) if only is None else only
        return self._step(np.asarray(actions), which)[0]

    def step_with_infos(
        self, actions: IntArray, only: BoolArray
    ) -> tuple[BatchedStep, Mapping[int, dict[str, Any]]]:
        """Step those of `only`, and the measures of each."""
        step, records = self._step(np.asarray(actions), only)
        infos = measures_of(step, only)
        for index, record in records.items():
            infos[index][EPISODE_MEASURE] = record
        return step, infos

    def _step(
        self, actions: IntArray, which: BoolArray
    ) -> tuple[BatchedStep, Mapping[int, dict[str, Any]]]:
        names = [self._names[action] for action in actions.tolist()]
        outcome = self._trials.step(self._sim_actions[actions], which, names)
        self._observe(np.flatnonzero(which))
        rewards = outcome.rewards.astype(np.float32)
        step = BatchedStep(self._observations, rewards, outcome.episode_ends, outcome.measures)
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

    def top_down_map(self, index: int, resolution: float) -> TopDownMap:
        """Where the agent can stand in the present house of environment `index`."""
        return self._trials.sim.agents[index].top_down_map(resolution)

    def top_down_scene(self, index: int) -> dict[str, Any]:
        """Where the agent of environment `index` stands and what it looks for, for videos."""
        sim, goals = self._trials.sim, self._trials.goals_of(index)
        return top_down_scene(sim.positions[index], float(sim.headings[index]), goals)

    def record_fields(self, index: int) -> Declaration:
        """How the measures are recorded."""
        return declared_fields(self._measures)

    # What is observed ---------------------------------------------------------------------------

    def _observe(self, rows: IntArray) -> None:
        """Write the observations of the environments `rows`."""
        for uuid, array in self._observations.items():
            array[rows] = self._readers[uuid](rows)

    def _pictures(self, uuid: str) -> Callable[[IntArray], Any]:
        return lambda rows: [self._trials.sim.picture(index, uuid) for index in rows.tolist()]

    def _sensor_readers(self, categories: int) -> dict[str, Callable[[IntArray], Any]]:
        """Uuid -> observations [M, ...] of the environments [M], as the sensor makes one."""
        trials, sim, one_hot = self._trials, self._trials.sim, np.eye(categories)

        def gps(rows: IntArray) -> NDArray[np.float64]:
            x, _, z = (sim.positions - trials.origin)[rows].T
            return np.stack(turned(x, z, trials.origin_heading[rows]), axis=1)

        def compass(rows: IntArray) -> list[list[float]]:
            # One by one, because NumPy has no remainder that rounds to the nearest.
            turned = (sim.headings - trials.origin_heading)[rows]
            return [[wrap_angle(angle)] for angle in turned.tolist()]

        def target_detection(rows: IntArray) -> NDArray[np.float32]:
            its = rows, trials.target[rows]
            return np.column_stack([trials.table[its], trials.within_reach[its]])

        def oracle_action(rows: IntArray) -> list[list[int]]:
            best = [trials.best_action(index, self._oracle_options) for index in rows.tolist()]
            return [[self._names.index(name)] for name in best]

        def perfect_memory_action(rows: IntArray) -> list[list[int]]:
            asked = self._oracle_options, self._moves
            best = [trials.searcher_action(index, *asked) for index in rows.tolist()]
            return [[self._names.index(name)] for name in best]

        return {
            "one_hot_target_sensor": lambda rows: one_hot[trials.target[rows]],
            "gps": gps,
            "compass": compass,
            "trial_step": lambda rows: trials.trial_step[rows, None],
            "last_reward": lambda rows: trials.rewards[rows, None],
            "detections": lambda rows: trials.table[rows],
            "target_detection": target_detection,
            "target_found": lambda rows: trials.found[rows, None],
            "oracle_action": oracle_action,
            "perfect_memory_action": perfect_memory_action,
            "range_scan": lambda rows: [
                trials.range_scan(index) / RANGE for index in rows.tolist()
            ],
            "camera_tilt": lambda rows: sim.tilts[rows, None],
        }


def _measures(task: DictConfig) -> dict[str, EpisodeMeasure]:
    """By uuid, those of `habitat.task.measurements`: made for their formulas, they see no task."""
    nodes = task.measurements.values()
    classes = [registry.get_measure(node.type) for node in nodes]
    names = [_uuid(cls, node.type) for cls, node in zip(classes, nodes, strict=True)]
    own = [
        cls.cls_uuid
        for cls in classes
        if cls is not None and cls.__module__ == EpisodeMeasure.__module__
    ]
    _check_known("measurements", names, own)
    if task.reward_measure not in names:
        raise UserError(
            f"habitat.task.reward_measure={task.reward_measure} is not among"
            f" habitat.task.measurements; there are {', '.join(names)}"
        )
    return {
        name: cls(config=node, task=None)
        for name, cls, node in zip(names, classes, nodes, strict=True)
    }


def _observed(habitat: DictConfig, task: Any, cameras: SensorSuite) -> spaces.Dict:
    """The space of one environment's observations: what its sensors declare to `task`, images."""
    sensors = [
        registry.get_sensor(node.type)(config=node, task=task)
        for node in habitat.task.lab_sensors.values()
    ]
    # As in Habitat, what is configured and not among these is not observed.
    keys = habitat.gym.obs_keys
    declared = {s.uuid: s.observation_space for s in sensors}
    declared |= cameras.observation_spaces.spaces
    return spaces.Dict({k: v for k, v in declared.items() if keys is None or k in keys})


def _uuid(registered: type | None, name: str) -> str:
    """What a sensor or measure is called; its type where nothing of its own is known of it."""
    return getattr(registered, "cls_uuid", name)


def _check_known(group: str, names: Collection[str], known: Collection[str]) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(
            f"habitat.task.{group} has {', '.join(unknown)}, which environments in one process do"
            f" not know; take it out, or {_USE_WORKERS}"
        )


class ExtObjNavVectorEnvFactory(InProcessVectorEnvFactory):
    """ExtObjNav in the trainer's own process, with houses dealt out as to workers."""

    def make_envs(self, config: DictConfig, count: int, is_eval: bool) -> ExtObjNavVectorEnv:
        """A trial is the same wherever it runs: in evaluations any environment may play it."""
        habitat = config.habitat
        if habitat.simulator.type != SIMULATOR:
            raise UserError(
                f"habitat.simulator.type={habitat.simulator.type}: environments in one process need"
                f" {SIMULATOR}; {_USE_WORKERS}"
            )
        dataset = ExtObjNavDataset(habitat.dataset)
        houses = sorted({house_of(episode.scene_id) for episode in dataset.episodes})
        options = {str(k).lower(): v for k, v in habitat.environment.iterator_options.items()}
        iterators = []
        for index, own in enumerate(deal_houses(houses, count, is_eval)):
            episodes = [e for e in dataset.episodes if is_eval or house_of(e.scene_id) in own]
            options["seed"] = habitat.seed + (0 if is_eval else index)
            iterators.append(TrialIterator(episodes, **options))
        return ExtObjNavVectorEnv(config, dataset, iterators)
