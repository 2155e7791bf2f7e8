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
from memo_habitat.simulator.interface import TopDownMap
from memo_habitat.tasks.extobjnav.detections import WIDTH, Detector, stop_succeeds, write_detections
from memo_habitat.tasks.extobjnav.episode import Account, ExtObjNavEpisode, Trial, TrialIterator
from memo_habitat.tasks.extobjnav.floor_map import floor_of, scan
from memo_habitat.tasks.extobjnav.goals import (
    CategoryGoals,
    GoalOptions,
    Pose,
    horizontal_distance,
)
from memo_habitat.tasks.extobjnav.measures import EpisodeMeasure, record_of
from memo_habitat.tasks.extobjnav.oracle import Oracle, OracleOptions
from memo_habitat.tasks.extobjnav.searcher import Searcher
from memo_habitat.tasks.extobjnav.task import check_options, checked_distance, draw_episode
from memo_habitat.tasks.vector_env import BoolArray, IntArray
from memo_habitat.utils.recent import Recent

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
        searcher: of this trial, likewise.
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
    searcher: Searcher | None = None


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
        account: of the N episodes that are running.
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
        measures: Mapping[str, EpisodeMeasure],
        looks: bool,
        detects: bool,
        records: bool,
    ) -> None:
        """Environment i plays what `iterators[i]` deals out; nothing has begun.

        Args:
            habitat: the config's node.
            categories: the vocabulary.
            iterators: one per environment.
            measures: the numbers to give, by name; the reward among them.
            looks: work out `found` at every step, not only at stops.
            detects: work out `table` and `within_reach`; with it `found`.
            records: give records of the episodes that end.
        """
        task, count = habitat.task, len(iterators)
        self.sim = BatchedSim(habitat.simulator, count, task.camera)
        check_options(task, self.sim.agents[0].camera_uuids)
        self.iterators = iterators
        self.goal_options = GoalOptions.of(task)
        self._detector = Detector.of(task, self.sim.agents[0].image_size(task.camera))
        self._categories = {name: row for row, name in enumerate(categories)}
        self._trial_steps, self._limit = task.trial_steps, habitat.environment.max_episode_steps
        self._goal_cache: Recent[dict[str, CategoryGoals]] = Recent(
            max(task.arrangements_kept, 4 * count)
        )
        self._measures, self._reward = measures, measures[task.reward_measure]
        self._records = records
        self._looks, self._detects = looks or detects, detects
        self._floors: dict[str, TopDownMap] = {}  # by scene
        self._players = [_Player(iterator) for iterator in iterators]
        self.account = Account.of_many(count)
        self.trial_step = np.zeros(count, dtype=np.int64)
        self.origin, self.origin_heading = np.zeros((count, 3)), np.zeros(count)
        self.rewards = np.zeros(count)
        self.target = np.zeros(count, dtype=np.int64)
        # What has been detected in the trial, and what is in view.
        self._seen = np.zeros((count, len(categories)), dtype=np.bool_)
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
        rows, sim, account = np.flatnonzero(which), self.sim, self.account
        before = sim.positions.copy()
        sim.step(actions, which)
        self.trial_step[rows] += 1
        account.steps[rows] += 1
        account.collided[rows] = sim.collided[rows]
        account.collisions[rows] += account.collided[rows]
        account.path_length[rows] += np.sqrt(((sim.positions - before)[rows] ** 2).sum(1))
        account.previous_distance[rows] = account.distance[rows]
        # Turning changes no distance, and a query of it costs more than the rest of a turn.
        for index in np.flatnonzero(which & (actions == _FORWARD)).tolist():
            account.distance[index] = self._distance_now(index)
        stops = which & (actions == _STOP)
        for index in np.flatnonzero(which & ~stops).tolist():
            self._players[index].in_view = None  # a stop looks no second time: nothing moved
        self._follow(rows, names)
        self._look(rows.tolist() if self._looks else np.flatnonzero(stops).tolist())
        account.success[rows] = (stops & self.found)[rows]
        account.stopped[rows] = stops[rows]
        for index in np.flatnonzero(stops).tolist():
            positions = self._players[index].goals.positions
            distances = horizontal_distance(sim.positions[index], positions)
            account.near[index] = (distances <= self.goal_options.radius).any()
        self.rewards[rows] = self._reward.read(account)[rows]
        trial_ends = which & (self.trial_step >= self._trial_steps)
        ends = stops | trial_ends
        if self._limit:
            ends |= which & (account.steps >= self._limit)
        # Copies: where an episode ended, the next one's account takes its place.
        entries = [each.entries(account) for each in self._measures.values()]
        measures = {name: np.array(values) for each in entries for name, values in each.items()}
        rewards, records = self.rewards.copy(), {}
        ended = np.flatnonzero(ends).tolist()
        for index in ended:
            # By `over` the iterator knows whether the next episode begins another trial.
            player = self._players[index]
            trial = player.trial
            trial.steps, trial.over = int(self.trial_step[index]), bool(trial_ends[index])
            if player.searcher is not None:  # as a sensor would, sees where the episode ended
                self._ask_searcher(index, player.searcher)
            if self._records:
                records[index] = self._record(index, bool(stops[index]))
            self._begin_episode(index)
        if self._looks:
            self._look(ended)  # observations are those of the next episode's first step
        return Outcome(rewards, ends, measures, records)

    def goals_of(self, index: int) -> CategoryGoals:
        """Where the running episode's target is."""
        return self._players[index].goals

    def best_action(self, index: int, options: OracleOptions) -> str:
        """Name of the oracle's action now; it must be asked at every step or never."""
        player, agent = self._players[index], self.sim.agents[index]

        def found() -> bool:
            in_view = player.in_view or self.sim.near_pixels(index, self.goal_options.radius)
            return self._stop_succeeds(index, *in_view)

        if player.oracle is None:
            player.oracle = Oracle(agent, player.goals, options, found)
        return player.oracle.next_action(Pose(*agent.agent_pose()))

    def searcher_action(self, index: int, options: OracleOptions, moves: str) -> str:
        """The same of the player that knows what its trial has shown; detections are needed."""
        player = self._players[index]
        if player.searcher is None:
            origin = Pose(self.origin[index].copy(), float(self.origin_heading[index]))
            player.searcher = Searcher(self._floor(index), origin, options, moves)
        return self._ask_searcher(index, player.searcher)

    def _ask_searcher(self, index: int, searcher: Searcher) -> str:
        pose = Pose(*self.sim.agents[index].agent_pose())
        searcher.look(pose, self.table[index])
        goals, found = self._players[index].goals, bool(self.found[index])
        return searcher.next_action(pose, int(self.target[index]), goals, found)

    def range_scan(self, index: int) -> NDArray[np.float32]:
        """[12] m, see `floor_map.scan`."""
        return scan(self._floor(index), Pose(*self.sim.agents[index].agent_pose()))

    def _floor(self, index: int) -> TopDownMap:
        scene = self._players[index].episode.scene_id
        if scene not in self._floors:
            self._floors[scene] = floor_of(self.sim.agents[index])
        return self._floors[scene]

    def _begin_episode(self, index: int) -> None:
        player, agent, account = self._players[index], self.sim.agents[index], self.account
        episode = player.episode = next(player.iterator)
        if player.iterator.trial is not player.trial:  # another arrangement, maybe another house
            self.sim.enter(index, episode)
            player.trial = cast(Trial, player.iterator.trial)
            player.rows = np.array([self._categories[i.category] for i in agent.instances])
            self.trial_step[index], self.rewards[index] = 0, 0.0
            self._seen[index] = False
            player.searcher = None
        if player.searcher is not None:
            player.searcher.begin_episode()
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
        for values in vars(account).values():
            values[index] = 0
        account.seen_earlier[index] = self._seen[index, row]
        distance = self._distance_now(index)
        account.start_distance[index] = account.distance[index] = distance
        account.previous_distance[index] = distance
        if self._records:
            player.path = [(float(start.position[0]), float(start.position[2]))]

    def _distance_now(self, index: int) -> float:
        player = self._players[index]
        distance = self.sim.distance(index, player.field)
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
            if player.searcher is not None:
                player.searcher.saw_action(names[index])

    def _look(self, rows: Sequence[int]) -> None:
        """Count the pixels of what is near, and write what is detected of it."""
        sim, detector = self.sim, self._detector
        limit = max(detector.range, detector.reach) if self._detects else detector.reach
        for index in rows:
            player = self._players[index]
            if player.in_view is None:
                player.in_view = sim.near_pixels(index, limit)
            self.found[index] = self._stop_succeeds(index, *player.in_view)
            if not self._detects:
                continue
            write_detections(
                (sim.positions[index], float(sim.headings[index])),
                (self.origin[index], float(self.origin_heading[index])),
                player.in_view,
                (sim.agents[index].arrangement.centres, player.rows),
                detector,
                (player.miss_key, int(self.trial_step[index])),
                (self.table[index], self.within_reach[index]),
            )
            self._seen[index] |= self.table[index, :, 0] > 0.0

    def _stop_succeeds(self, index: int, near: IntArray, pixels: IntArray) -> bool:
        centres, detector = self.sim.agents[index].arrangement.centres, self._detector
        is_target, position = self._players[index].is_target, self.sim.positions[index]
        limits = detector.min_pixels, detector.reach
        return bool(stop_succeeds(position, near, pixels, centres, is_target, *limits))

    def _record(self, index: int, stopped: bool) -> dict[str, Any]:
        player = self._players[index]
        trial, episode = player.trial, player.episode
        rotation, account = episode.start_rotation, self.account.one(index)
        heading = 2.0 * math.atan2(rotation[1], rotation[3])
        record = record_of(trial, episode, player.goals, account, heading, player.path)
        return {**record, "truncated": trial.over and not stopped}
