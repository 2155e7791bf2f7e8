"""The measures of ExtObjNav: each reads the task's account of the episode."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from habitat.core.embodied_task import Measure
from habitat.core.registry import registry

from memo_habitat.tasks import record_fields
from memo_habitat.tasks.extobjnav.episode import ExtObjNavEpisode, Progress
from memo_habitat.tasks.extobjnav.goals import (
    CategoryGoals,
    RewardWeights,
    soft_spl,
    spl,
    step_reward,
)
from memo_habitat.tasks.extobjnav.task import ExtObjNavTask
from memo_habitat.tasks.extobjnav.trial import Trial
from memo_habitat.tasks.record_fields import EPISODE_MEASURE, RecordField


class EpisodeMeasure(Measure):
    """A number read from the running episode's account.

    The account is kept by the task, so measures need each other neither present nor in any order.
    """

    cls_uuid: str

    def __init__(self, *args: Any, config: Any, task: ExtObjNavTask, **kwargs: Any) -> None:
        """Keep the options and the task."""
        self._config = config
        self._task = task
        super().__init__(**kwargs)

    def _get_uuid(self, *args: Any, **kwargs: Any) -> str:
        return self.cls_uuid

    def reset_metric(self, *args: Any, episode: ExtObjNavEpisode, **kwargs: Any) -> None:
        """Read the account at the episode's start."""
        self._metric = self.read(self._task.progress)

    def update_metric(self, *args: Any, episode: ExtObjNavEpisode, **kwargs: Any) -> None:
        """Read the account after a step."""
        self._metric = self.read(self._task.progress)

    def read(self, progress: Progress) -> Any:
        """Return the value for this state of the episode."""
        raise NotImplementedError


@registry.register_measure(name="ExtObjNavSuccess")
class Success(EpisodeMeasure):
    """1 when the agent stopped within reach and in view of an instance of its target, else 0."""

    cls_uuid = "extobjnav_success"
    record = replace(
        record_fields.SUCCESS,
        text="Share of episodes in which the agent called stop within reach of an instance of the "
        "target category and saw it. A stop anywhere else, or none in time, is a failure.",
    )

    def read(self, progress: Progress) -> float:
        """See the class."""
        return float(progress.success)


@registry.register_measure(name="ExtObjNavSPL")
class SPL(EpisodeMeasure):
    """Success weighted by path length."""

    cls_uuid = "spl"
    record = replace(
        record_fields.SPL,
        text="Success × d / max(d, p), mean over episodes: d is the shortest distance from the "
        "start to where the target can be seen, p the length of the way taken, both in metres.",
    )

    def read(self, progress: Progress) -> float:
        """See the class."""
        return float(spl(progress.success, progress.start_distance, progress.path_length))


@registry.register_measure(name="ExtObjNavSoftSPL")
class SoftSPL(EpisodeMeasure):
    """Progress towards the target weighted by path length."""

    cls_uuid = "soft_spl"
    record = replace(
        record_fields.SOFT_SPL,
        text="As SPL, with the share of the distance covered, max(0, 1 − distance left / d), in "
        "place of success.",
    )

    def read(self, progress: Progress) -> float:
        """See the class."""
        start, left = progress.start_distance, progress.distance
        return float(soft_spl(start, left, progress.path_length))


@registry.register_measure(name="ExtObjNavDistanceToGoal")
class DistanceToGoal(EpisodeMeasure):
    """Geodesic distance (m) to the nearest viewpoint of the target."""

    cls_uuid = "distance_to_goal"
    record = replace(
        record_fields.DISTANCE_TO_GOAL,
        text="Shortest distance from the episode’s end to where the target can be seen.",
    )

    def read(self, progress: Progress) -> float:
        """See the class."""
        return progress.distance


@registry.register_measure(name="ExtObjNavNumSteps")
class NumSteps(EpisodeMeasure):
    """Steps of the episode so far, stop included."""

    cls_uuid = "num_steps"
    record = record_fields.NUM_STEPS

    def read(self, progress: Progress) -> int:
        """See the class."""
        return progress.steps


@registry.register_measure(name="ExtObjNavCollisions")
class Collisions(EpisodeMeasure):
    """Steps of the episode so far that ran into something."""

    cls_uuid = "collisions"
    record = record_fields.COLLISIONS

    def read(self, progress: Progress) -> int:
        """See the class."""
        return progress.collisions


@registry.register_measure(name="ExtObjNavTargetSeenEarlier")
class TargetSeenEarlier(EpisodeMeasure):
    """1 when the target's category was detected in the trial before this episode began, else 0."""

    cls_uuid = "target_seen_earlier"
    record = RecordField(
        "condition",
        "seen_earlier",
        title="Target seen earlier",
        text="Whether the target's category was detected in the trial before the episode began.",
    )

    def read(self, progress: Progress) -> float:
        """See the class."""
        _ = self._task.detections  # looked at every step, whether a sensor asks for them or not
        return float(self._task.target_seen_earlier)


@registry.register_measure(name="ExtObjNavReward")
class Reward(EpisodeMeasure):
    """The whole reward of the last step; Habitat's environment adds nothing to it.

    Habitat's `task.slack_reward` and `task.success_reward` stay 0 (the task refuses others), so
    that slack and success are counted once, whoever reads the measure.
    """

    cls_uuid = "extobjnav_reward"
    record = None  # of the last step alone: the evaluator sums what the environment pays

    def __init__(self, *args: Any, config: Any, **kwargs: Any) -> None:
        """Read the weights."""
        self._weights = RewardWeights.of(config)
        super().__init__(*args, config=config, **kwargs)

    def read(self, progress: Progress) -> float:
        """Reward of the last step; 0 before the first."""
        if progress.steps == 0:
            return 0.0
        before, now = progress.previous_distance, progress.distance
        return float(step_reward(before, now, progress.success, self._weights))


def start_of_record(
    trial: Trial, episode: ExtObjNavEpisode, goals: CategoryGoals
) -> dict[str, Any]:
    """What `EpisodeRecord` says of an episode that is known before its first step."""
    return {
        "trial_id": trial.trial_id,
        "scene_id": episode.scene_id,
        "arrangement_id": episode.episode_id,
        "repetition": trial.repetition,
        "episode_index": episode.episode_index,
        "target_category": episode.target_category,
        "start_position": list(episode.start_position),
        "goal_positions": goals.positions.tolist(),
    }


@registry.register_measure(name="ExtObjNavEpisodeRecord")
class EpisodeRecord(EpisodeMeasure):
    """What an evaluation writes down about an episode, beside the numbers above.

    A dict: trial_id, scene_id, arrangement_id, repetition, episode_index, target_category,
    trial_step_start, trial_step_end, truncated (cut by the trial's end), start_distance (m),
    path_length (m), start_position `[3]`, start_heading (rad), goal_positions `[I][3]`,
    path `[steps + 1][2]` (x, z).
    """

    cls_uuid = EPISODE_MEASURE

    def reset_metric(self, *args: Any, episode: ExtObjNavEpisode, **kwargs: Any) -> None:
        """Write down what stays as it is through the episode."""
        progress = self._task.progress
        self._fixed = {
            **start_of_record(self._task.trial, episode, self._task.goals),
            "trial_step_start": progress.first_step,
            "start_distance": progress.start_distance,
            "start_heading": self._task.pose.heading,
        }
        self._metric = self.read(progress)

    def read(self, progress: Progress) -> dict[str, Any]:
        """See the class."""
        trial = self._task.trial
        return {
            **self._fixed,
            "trial_step_end": trial.steps,
            "truncated": trial.over and not progress.stopped,
            "path_length": progress.path_length,
            "path": progress.path,
        }
