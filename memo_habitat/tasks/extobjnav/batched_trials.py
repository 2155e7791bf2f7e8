"""N trials of ExtObjNav stepped together: the task's rules over arrays instead of one episode.

Draws, distances, detections and measures are those of `ExtObjNavTask`, by the same functions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
from habitat.sims.habitat_simulator.actions import HabitatSimActions
from numpy.typing import NDArray
from omegaconf import DictConfig

from memo_habitat.simulator.embree.batched import BatchedSim
from memo_habitat.tasks.extobjnav.detections import (
    WIDTH,
    DetectorOptions,
    stop_succeeds,
    write_detections,
)
from memo_habitat.tasks.extobjnav.episode import ExtObjNavEpisode
from memo_habitat.tasks.extobjnav.goals import (
    CategoryGoals,
    GoalCache,
    GoalOptions,
    Pose,
    RewardWeights,
    soft_spl,
    spl,
    step_reward,
)
from memo_habitat.tasks.extobjnav.measures import start_of_record
from memo_habitat.tasks.extobjnav.oracle import Oracle, OracleOptions
from memo_habitat.tasks.extobjnav.task import check_options, checked_distance, draw_episode
from memo_habitat.tasks.extobjnav.trial import Trial, TrialIterator
from memo_habitat.tasks.vector_env import BoolArray, IntArray

_STOP, _FORWARD = HabitatSimActions.stop, HabitatSimActions.move_forward


@dataclass
class _Player:
    """What one environment plays at the moment.

    Attributes:
        iterator: deals out its episodes.
        trial, episode, goals: those running; None before the first reset.
        field: distances to the goals.
        rows: [I] category of each instance, as its place in the vocabulary.
        is_target: bool [I].
        miss_key: of the detector, for this episode.
        in_view: instances near the agent and the pixels they show; None after a move.
        path: (x, z) of the episode so far; kept for records only.
        oracle: of this episode, where it is asked.
    """

    iterator: TrialIterator
    trial: Trial = None  # type: ignore[assignment]
    episode: ExtObjNavEpisode = None  # type: ignore[assignment]
    goals: CategoryGoals = None  # type: ignore[assignment]
    field: Any = None
    rows: Any = None
    is_target: Any = None
    miss_key: Any = None
    in_view: tuple[IntArray, IntArray] | None = None
    path: list[tuple[float, float]] | None = None
    oracle: Oracle | None = None


class Outcome(NamedTuple):
    """What a step led to.

    Attributes:
        rewards: [N].
        episode_ends: bool [N].
        measures: name -> [N], copies, of the episode that the step belongs to.
        records: environment -> `measures.EpisodeRecord` of the episode that ended there.
    """

    rewards: NDArray[np.float64]
    episode_ends: BoolArray
    measures: Mapping[str, NDArray[Any]]
    records: Mapping[int, dict[str, Any]]


class BatchedTrials:
    """The rules and the state of N environments; the arrays are read by observations.

    Attributes:
        sim: where the agents are.
        iterators: one per environment, dealing out its episodes.
        trial_step: int64 [N], steps taken in the trial.
        origin, origin_heading: [N, 3] m and [N] rad, of the trial's frame.
        target: int64 [N], the target's place in the vocabulary.
        rewards: [N], of the last step; 0 at a trial's first one.
        table, within_reach: [N, C, 6] float32 and bool [N, C], see `Detections`.
        found: bool [N], whether a stop would succeed.
    """

    def __init__(
        self,
        habitat: DictConfig,
        categories: Sequence[str],
        iterators: Sequence[TrialIterator],
        measures: Sequence[str],
        looks: bool,
        detects: bool,
        records: bool,
    ) -> None:
        """Environment i plays what `iterators[i]` deals out; nothing has begun.

        Args:
            habitat: the config's node.
            categories: the vocabulary.
            iterators: one per environment.
            measures: names of the scalar measures to give.
            looks: work out `found` at every step, not only at stops.
            detects: work out `table` and `within_reach`; with it `found`.
            records: give records of the episodes that end.
        """
        task, count = habitat.task, len(iterators)
        self.sim = BatchedSim(habitat.simulator, count, task.camera)
        check_options(task, self.sim.agents[0].camera_uuids)
        self.iterators = iterators
        self.goal_options, self._detector = GoalOptions.of(task), DetectorOptions.of(task)
        self._categories = {name: row for row, name in enumerate(categories)}
        self._trial_steps, self._limit = task.trial_steps, habitat.environment.max_episode_steps
        height, width = self.sim.agents[0].image_size(task.camera)
        self._limits = self._detector.limits(height * width)
        self._goal_cache = GoalCache(max(task.arrangements_kept, 4 * count))
        self._weights = RewardWeights.of(task.measurements.extobjnav_reward)
        self._measures, self._records = measures, records
        self._looks, self._detects = looks or detects, detects
        self._players = [_Player(iterator) for iterator in iterators]
        # Of each environment's trial.
        self.trial_step = np.zeros(count, dtype=np.int64)
        self.origin, self.origin_heading = np.zeros((count, 3)), np.zeros(count)
        self.rewards = np.zeros(count)
        self._seen = np.zeros((count, len(categories)), dtype=np.bool_)
        # Of its episode; lengths in m.
        self.target = np.zeros(count, dtype=np.int64)
        self._steps = np.zeros(count, dtype=np.int64)
        self._collisions = np.zeros(count, dtype=np.int64)
        self._start_distance, self._distance = np.zeros(count), np.zeros(count)
        self._path_length, self._seen_earlier = np.zeros(count), np.zeros(count)
        self._success = np.zeros(count, dtype=np.bool_)
        # Of what is in view.
        self.table = np.zeros((count, len(categories), WIDTH), dtype=np.float32)
        self.within_reach = np.zeros((count, len(categories)), dtype=np.bool_)
        self.found = np.zeros(count, dtype=np.bool_)

    def reset(self) -> None:
        """Begin the next episode in every environment."""
        for index in range(len(self._players)):
            self._begin_episode(index)
        self._look(range(len(self._players)))

    def step(self, actions: IntArray, which: BoolArray, names: Sequence[str]) -> Outcome:
        """Take a step in some environments; where an episode ends, the next one begins.

        Args:
            actions: [N] of `HabitatSimActions`.
            which: bool [N], the environments that take it.
            names: [N] what the task calls the actions, for the oracle.
        """
        rows, sim = np.flatnonzero(which), self.sim
        before, distance_before = sim.positions.copy(), self._distance.copy()
        sim.step(actions, which)
        self.trial_step[rows] += 1
        self._steps[rows] += 1
        self._collisions[rows] += sim.collided[rows]
        self._path_length[rows] += np.sqrt(((sim.positions - before)[rows] ** 2).sum(1))
        for index in np.flatnonzero(which & (actions == _FORWARD)).tolist():
            self._distance[index] = self._distance_now(index)
        stops = which & (actions == _STOP)
        for index in np.flatnonzero(which & ~stops).tolist():
            self._players[index].in_view = None  # a stop looks no second time: nothing moved
        self._follow(rows, names)
        self._look(rows.tolist() if self._looks else np.flatnonzero(stops).tolist())
        self._success[rows] = (stops & self.found)[rows]
        earned = step_reward(distance_before, self._distance, self._success, self._weights)
        self.rewards[rows] = earned[rows]
        trial_ends = which & (self.trial_step >= self._trial_steps)
        ends = stops | trial_ends
        if self._limit:
            ends |= which & (self._steps >= self._limit)
        measures = {name: self._measure(name) for name in self._measures}
        rewards, records = self.rewards.copy(), {}
        ended = np.flatnonzero(ends).tolist()
        for index in ended:
            if self._records:
                records[index] = self._record(index, bool(trial_ends[index] and not stops[index]))
            trial = self._players[index].trial
            trial.steps, trial.over = int(self.trial_step[index]), bool(trial_ends[index])
            self._begin_episode(index)
        if self._looks:
            self._look(ended)
        return Outcome(rewards, ends, measures, records)

    def best_action(self, index: int, options: OracleOptions) -> str:
        """Name of the oracle's action now; it must be asked at every step or never."""
        player, agent = self._players[index], self.sim.agents[index]
        reach = self.goal_options.radius

        def found() -> bool:
            in_view = player.in_view or self.sim.near_pixels(index, reach)
            return self._stop_succeeds(index, *in_view)

        if player.oracle is None:
            player.oracle = Oracle(agent, player.goals, options, found)
        return player.oracle.next_action(Pose(*agent.agent_pose()))

    # Episodes -----------------------------------------------------------------------------------

    def _begin_episode(self, index: int) -> None:
        player, agent = self._players[index], self.sim.agents[index]
        episode = player.episode = next(player.iterator)
        if player.iterator.trial is not player.trial:
            self.sim.enter(index, episode)
            player.trial = cast(Trial, player.iterator.trial)
            player.rows = np.array([self._categories[i.category] for i in agent.instances])
            self.trial_step[index], self.rewards[index] = 0, 0.0
            self._seen[index] = False
        goals, start, player.miss_key = draw_episode(
            episode, self._goal_cache, agent, self.goal_options
        )
        player.goals, player.oracle, player.in_view = goals, None, None
        player.field = agent.scene.geodesics.field(goals.viewpoints)
        if episode.episode_index == 0:
            self.origin[index], self.origin_heading[index] = start.position, start.heading
        row = self.target[index] = self._categories[goals.category]
        player.is_target = player.rows == row
        agent.start_next_episode_at(start.position, start.heading)
        self._seen_earlier[index] = self._seen[index, row]
        self._steps[index] = self._collisions[index] = 0
        self._path_length[index], self._success[index] = 0.0, False
        self._start_distance[index] = self._distance[index] = self._distance_now(index)
        if self._records:
            player.path = [(float(start.position[0]), float(start.position[2]))]

    def _distance_now(self, index: int) -> float:
        player = self._players[index]
        distance = self.sim.distance(index, player.field, player.goals.viewpoints)
        return checked_distance(distance, self.sim.positions[index], player.episode)

    def _follow(self, rows: IntArray, names: Sequence[str]) -> None:
        """Tell paths and oracles of a step, where they are asked for."""
        for index in rows.tolist():
            player = self._players[index]
            if player.path is not None:
                x, _, z = self.sim.positions[index].tolist()
                player.path.append((x, z))
            if player.oracle is not None:
                player.oracle.saw_action(names[index])

    # What is seen -------------------------------------------------------------------------------

    def _look(self, rows: Sequence[int]) -> None:
        """Count the pixels of what is near, and write what is detected of it."""
        sim, detector, reach = self.sim, self._detector, self.goal_options.radius
        limit = max(detector.range, reach) if self._detects else reach
        for index in rows:
            player = self._players[index]
            if player.in_view is None:
                player.in_view = sim.near_pixels(index, limit)
            near, pixels = player.in_view
            self.found[index] = self._stop_succeeds(index, near, pixels)
            if not self._detects:
                continue
            write_detections(
                (sim.positions[index], float(sim.headings[index])),
                (self.origin[index], float(self.origin_heading[index])),
                player.in_view,
                (sim.agents[index].arrangement.centres, player.rows),
                self._limits,
                (player.miss_key, int(self.trial_step[index]), detector.miss_probability),
                (self.table[index], self.within_reach[index]),
            )
            self._seen[index] |= self.table[index, :, 0] > 0.0

    def _stop_succeeds(self, index: int, near: IntArray, pixels: IntArray) -> bool:
        centres = self.sim.agents[index].arrangement.centres
        is_target, detector = self._players[index].is_target, self._detector
        position = self.sim.positions[index]
        return bool(
            stop_succeeds(
                position, near, pixels, centres, is_target, detector.min_pixels, detector.reach
            )
        )

    # What is measured ---------------------------------------------------------------------------

    def _measure(self, name: str) -> NDArray[Any]:
        """[N], a copy: values of the episodes now running."""
        if name == "extobjnav_success":
            return self._success.astype(np.float64)
        if name == "spl":
            return spl(self._success, self._start_distance, self._path_length)
        if name == "soft_spl":
            return soft_spl(self._start_distance, self._distance, self._path_length)
        kept = {
            "distance_to_goal": self._distance,
            "num_steps": self._steps,
            "collisions": self._collisions,
            "target_seen_earlier": self._seen_earlier,
            "extobjnav_reward": self.rewards,
        }
        return kept[name].copy()

    def _record(self, index: int, truncated: bool) -> dict[str, Any]:
        """What `measures.EpisodeRecord` says at an episode's end."""
        player = self._players[index]
        rotation, end = player.episode.start_rotation, int(self.trial_step[index])
        return {
            **start_of_record(player.trial, player.episode, player.goals),
            "trial_step_start": end - int(self._steps[index]),
            "trial_step_end": end,
            "truncated": truncated,
            "start_distance": float(self._start_distance[index]),
            "start_heading": 2.0 * math.atan2(rotation[1], rotation[3]),
            "path_length": float(self._path_length[index]),
            "path": player.path,
        }
