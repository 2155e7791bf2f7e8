"""The measures of ExtObjNav: each reads the account of the episode."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from habitat.core.embodied_task import Measure
from habitat.core.registry import registry

from memo_habitat.tasks import record_fields
from memo_habitat.tasks.extobjnav.detections import AGENT_SCALE
from memo_habitat.tasks.extobjnav.episode import Account, ExtObjNavEpisode, Trial
from memo_habitat.tasks.extobjnav.goals import CategoryGoals, RewardWeights, step_reward
from memo_habitat.tasks.extobjnav.task import ExtObjNavTask
from memo_habitat.tasks.record_fields import EPISODE_MEASURE, RecordField


class EpisodeMeasure(Measure):
    """A number read from the running episode's account.

    The account is kept by the task, so measures need each other neither present nor in any order.
    Where many environments are stepped together, `read` gives the numbers of all of them.

    Attributes:
        cls_uuid: its uuid.
        entry: the entry of `Account` that it is.
    """

    cls_uuid: str
    entry: str

    def __init__(self, *args: Any, config: Any, task: ExtObjNavTask, **kwargs: Any) -> None:
        """Keep the task."""
        self._task = task
        super().__init__(**kwargs)

    def _get_uuid(self, *args: Any, **kwargs: Any) -> str:
        return self.cls_uuid

    def reset_metric(self, *args: Any, episode: ExtObjNavEpisode, **kwargs: Any) -> None:
        """Read the account at the episode's start."""
        self.update_metric(episode=episode)

    def update_metric(self, *args: Any, episode: ExtObjNavEpisode, **kwargs: Any) -> None:
        """Read the account after a step."""
        value = self.read(self._task.progress)
        self._metric = value.item() if isinstance(value, np.generic | np.ndarray) else value

    def read(self, account: Account) -> Any:
        """The value of one episode, or the values [N] of many; a mapping where it has several."""
        return getattr(account, self.entry)

    def entries(self, account: Account) -> dict[str, Any]:
        """The same by name, in the names that Habitat gives to the entries of a mapping."""
        value = self.read(account)
        if isinstance(value, dict):
            return {f"{self.cls_uuid}.{key}": part for key, part in value.items()}
        return {self.cls_uuid: value}


@registry.register_measure(name="ExtObjNavSuccess")
class Success(EpisodeMeasure):
    """1 when the agent stopped within reach and in view of an instance of its target, else 0."""

    cls_uuid, entry = "extobjnav_success", "success"
    record = replace(
        record_fields.SUCCESS,
        text="Share of episodes in which the agent called stop within reach of an instance of the "
        "target category and saw it. A stop anywhere else, or none in time, is a failure.",
    )


@registry.register_measure(name="ExtObjNavSPL")
class SPL(EpisodeMeasure):
    """Success weighted by path length."""

    cls_uuid = entry = "spl"
    record = replace(
        record_fields.SPL,
        text="Success × d / max(d, p), mean over episodes: d is the shortest distance from the "
        "start to where the target can be seen, p the length of the way taken, both in metres.",
    )


@registry.register_measure(name="ExtObjNavSoftSPL")
class SoftSPL(EpisodeMeasure):
    """Progress towards the target weighted by path length."""

    cls_uuid = entry = "soft_spl"
    record = replace(
        record_fields.SOFT_SPL,
        text="As SPL, with the share of the distance covered, max(0, 1 − distance left / d), in "
        "place of success.",
    )


@registry.register_measure(name="ExtObjNavDistanceToGoal")
class DistanceToGoal(EpisodeMeasure):
    """Geodesic distance (m) to the nearest viewpoint of the target."""

    cls_uuid, entry = "distance_to_goal", "distance"
    record = replace(
        record_fields.DISTANCE_TO_GOAL,
        text="Shortest distance from the episode’s end to where the target can be seen.",
    )


@registry.register_measure(name="ExtObjNavNumSteps")
class NumSteps(EpisodeMeasure):
    """Steps of the episode so far, stop included."""

    cls_uuid, entry = "num_steps", "steps"
    record = record_fields.NUM_STEPS


@registry.register_measure(name="ExtObjNavCollisions")
class Collisions(EpisodeMeasure):
    """Steps of the episode so far that ran into something, and whether the last one did.

    In the form of Habitat's own measure of this name, which its code for pictures reads.
    """

    cls_uuid = "collisions"
    record = {"count": record_fields.COLLISIONS, "is_collision": None}

    def read(self, account: Account) -> Any:
        """Of one episode, or [N] of many."""
        return {"count": account.collisions, "is_collision": account.collided > 0}


@registry.register_measure(name="ExtObjNavFailure")
class Failure(EpisodeMeasure):
    """Why the episode failed, read where it has ended; of a success nothing holds."""

    cls_uuid = "failure"
    record = {
        cause: RecordField("failure", f"failure_{cause}", "", "lower", title, text)
        for cause, title, text in (
            ("time_out", "Time-out", "No stop within the steps of an episode."),
            ("far", "Stopped far", "A stop beyond reach of every instance of the target."),
            (
                "unseen",
                "Stopped near, not seen",
                "A stop within reach of an instance, out of view.",
            ),
        )
    }

    def read(self, account: Account) -> Any:
        """Of one episode, or [N] of many."""
        failed, stopped, near = 1.0 - account.success, account.stopped, account.near
        return {
            "time_out": failed * (1.0 - stopped),
            "far": failed * stopped * (1.0 - near),
            "unseen": failed * stopped * near,
        }


@registry.register_measure(name="ExtObjNavTargetSeenEarlier")
class TargetSeenEarlier(EpisodeMeasure):
    """1 when the target's category was detected in the trial before this episode began, else 0."""

    cls_uuid, entry = "target_seen_earlier", "seen_earlier"
    record = RecordField(
        "condition",
        "seen_earlier",
        title="Target seen earlier",
        text="Whether the target's category was detected in the trial before the episode began.",
    )

    def update_metric(self, *args: Any, episode: ExtObjNavEpisode, **kwargs: Any) -> None:
        """Look at every step, whether a sensor asks for detections or not."""
        _ = self._task.detections
        super().update_metric(episode=episode)


@registry.register_measure(name="ExtObjNavReward")
class Reward(EpisodeMeasure):
    """The whole reward of the last step, 0 before the first; Habitat's environment adds nothing.

    Habitat's `task.slack_reward` and `task.success_reward` stay 0 (the task refuses others), so
    that slack and success are counted once, whoever reads the measure.
    """

    cls_uuid = "extobjnav_reward"
    record = None  # of the last step alone: the evaluator sums what the environment pays

    def __init__(self, *args: Any, config: Any, **kwargs: Any) -> None:
        """Read the weights."""
        self._weights = RewardWeights(
            config.distance_reward, config.slack_reward, config.success_reward
        )
        super().__init__(*args, config=config, **kwargs)

    def read(self, account: Account) -> Any:
        """Of one episode, or [N] of many."""
        # Habitat asks at the reset too, where no step has been taken that slack is owed for.
        before, now = account.previous_distance, account.distance
        earned = step_reward(before, now, account.success, self._weights)
        return np.where(np.equal(account.steps, 0), 0.0, earned)


@registry.register_measure(name="ExtObjNavEpisodeRecord")
class EpisodeRecord(EpisodeMeasure):
    """What an evaluation writes down about an episode, beside the numbers above."""

    cls_uuid = EPISODE_MEASURE

    def reset_metric(self, *args: Any, episode: ExtObjNavEpisode, **kwargs: Any) -> None:
        """Note where the agent looks before the first step."""
        self._start_heading = self._task.pose.heading
        self.update_metric(episode=episode)

    def update_metric(self, *args: Any, episode: ExtObjNavEpisode, **kwargs: Any) -> None:
        """Write down everything again: Habitat reads measures at every step."""
        task, progress = self._task, self._task.progress
        self._metric = record_of(
            task.trial, episode, task.goals, progress, self._start_heading, progress.path
        )
        self._metric["truncated"] = task.trial.over and not progress.stopped


def record_of(
    trial: Trial,
    episode: ExtObjNavEpisode,
    goals: CategoryGoals,
    account: Account,
    start_heading: float,
    path: Any,
) -> dict[str, Any]:
    """The entries of `evaluation.records.EpisodeRecord` that the numbers above do not give.

    `truncated`, whether the trial's end cut the episode off, is for the caller to add.

    Args:
        trial: with the steps taken so far.
        episode: of the trial.
        goals: of its target.
        account: of the episode.
        start_heading: rad.
        path: (x, z) in m of the start and of each step's end.
    """
    return {
        "trial_id": trial.trial_id,
        "scene_id": episode.scene_id,
        "arrangement_id": episode.episode_id,
        "repetition": trial.repetition,
        "episode_index": episode.episode_index,
        "target_category": episode.target_category,
        "trial_step_start": trial.steps - account.steps,
        "trial_step_end": trial.steps,
        "start_distance": account.start_distance,
        "path_length": account.path_length,
        "start_position": list(episode.start_position),
        "start_heading": start_heading,
        "goal_positions": goals.positions.tolist(),
        "path": path,
    }


def top_down_scene(position: Any, heading: float, goals: CategoryGoals) -> dict[str, Any]:
    """What `evaluation.schedule.TrialVectorEnv` asks for videos; position [3] m."""
    return {
        "position": (float(position[0]), float(position[2])),
        "heading": heading,
        "goals": [(x, z) for x, _, z in goals.positions.tolist()],
        "target": goals.category,
        "detection_scale": AGENT_SCALE,
    }
