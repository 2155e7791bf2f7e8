"""Plays whole trials with an agent and records every episode as it ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from memo_habitat.config.evaluation import EvaluationPlan, Shard
from memo_habitat.errors import UserError
from memo_habitat.evaluation.agents import Agent
from memo_habitat.evaluation.recorder import Recorder, context_at
from memo_habitat.evaluation.records import EpisodeRecord
from memo_habitat.evaluation.schedule import (
    Observation,
    TrialKey,
    TrialVectorEnv,
    arrangements,
    assign_trials,
    planned_trials,
    trial_seed,
)
from memo_habitat.evaluation.video import Moment
from memo_habitat.policy.network import TRIAL_STEP, ContextUse
from memo_habitat.simulator.interface import TopDownMap
from memo_habitat.tasks.record_fields import (
    EPISODE_MEASURE,
    REWARD,
    Declaration,
    RecordField,
    recorded_values,
)
from memo_habitat.utils.files import describe_error

Batch = Callable[[Observation], dict[str, Tensor]]


def recorded_fields(envs: TrialVectorEnv) -> dict[str, RecordField]:
    """What the environments declare of their episodes' records, by name, the return first."""
    declared = envs.call_at(0, "record_fields")
    return {field.name: field for field in (REWARD, *declared.values()) if field is not None}


def all_trials(envs: TrialVectorEnv, plan: EvaluationPlan) -> list[TrialKey]:
    """The trials of `plan` in the order of the records, those of all shards."""
    pairs = [pair for own in arrangements(envs) for pair in own]
    return planned_trials(pairs, plan.trials_per_house)


def evaluate(
    envs: TrialVectorEnv,
    agents: Sequence[Agent],
    plan: EvaluationPlan,
    recorder: Recorder,
    progress: Any,
    batch: Batch,
) -> dict[str, RecordField]:
    """Play the trials of `plan` that `recorder` does not hold yet, with a record per episode.

    Environments step at the same time, but each has an agent of its own that sees nothing of the
    others, and every trial has a seed of its own: what is recorded of a trial depends neither on
    where nor beside which others it is played.

    Args:
        envs: the environments; their `trial_step` sensor must be observed.
        agents: who acts in each of them.
        plan: which trials, how long.
        recorder: where the records go; tells which trials are complete.
        progress: a tqdm bar; one tick per environment step, those of complete trials first.
        batch: makes a batch of one of an observation, on the agent's device.

    Returns:
        what was recorded, by name: what the task declares, and what was found without being
        declared.

    Raises:
        UserError: an environment does not do what the plan says; names the setting to change.
    """
    everything = all_trials(envs, plan)
    if not everything:
        raise UserError(
            "no environment has an arrangement to play; check habitat.dataset.data_path and split"
        )
    planned = Shard.parse(plan.shard).of(everything)
    pending = [trial for trial in planned if trial.id not in recorder.complete]
    progress.update((len(planned) - len(pending)) * plan.steps_per_trial)
    recorder.choose_filmed(everything)
    loop = _Loop(envs, agents, plan, recorder, progress, recorded_fields(envs))
    if pending:
        dealt = assign_trials(pending, arrangements(envs))
        for index, trials in enumerate(dealt):
            if trials:
                chosen = {"trials": [tuple(trial) for trial in trials], "seed": plan.seed}
                envs.call_at(index, "schedule_trials", chosen)
        loop.run(list(map(_EnvState, dealt, envs.reset())), batch)
    recorder.put_in_order([trial.id for trial in planned])
    return loop.fields


@dataclass
class _EnvState:
    """One environment: the trials left to it, and its running episode."""

    trials: list[TrialKey]
    observation: Observation
    trial_start: bool = True
    episode_start: bool = True
    episode: int = 0
    step: int = 0
    reward: float = 0.0

    @property
    def trial(self) -> TrialKey:
        return self.trials[0]

    @property
    def is_at_trial_start(self) -> bool:
        """Whether the observation is a trial's first."""
        if TRIAL_STEP not in self.observation:
            raise UserError(
                f"the sensor '{TRIAL_STEP}' is not among the observations "
                f"{sorted(self.observation)}; add it to habitat.task.lab_sensors and "
                "habitat.gym.obs_keys"
            )
        return int(np.asarray(self.observation[TRIAL_STEP]).item()) == 0


@dataclass
class _Loop:
    """Steps all environments, one object per evaluation."""

    envs: TrialVectorEnv
    agents: Sequence[Agent]
    plan: EvaluationPlan
    recorder: Recorder
    progress: Any
    fields: dict[str, RecordField]
    episodes: int = 0
    successes: float = 0.0
    # Of the houses in which environments are filmed.
    maps: dict[int, TopDownMap] = field(default_factory=dict)

    def run(self, states: list[_EnvState], batch: Batch) -> None:
        """Step until no environment has a trial left."""
        declared = self.envs.call_at(0, "record_fields")
        for index, state in enumerate(states):
            self._begin_trial(index, state)
        uses: dict[int, ContextUse | None] = {}
        while busy := [index for index, state in enumerate(states) if state.trials]:
            # A worker takes its step while the next environment's action is chosen.
            for index in busy:
                state, agent = states[index], self.agents[index]
                frame = state.observation.get(self.plan.camera)
                self.recorder.see(index, state.trial.id, state.episode, state.step, frame)
                action = self._act(agent, state, batch)
                use = uses[index] = agent.context()
                self.recorder.remember(state.trial.id, state.step + 1, use, agent.attention())
                self._film(index, state, use)
                self.envs.async_step_at(index, action)
            for index in busy:
                state, use = states[index], uses[index]
                state.observation, reward, done, info = self.envs.wait_step_at(index)
                state.trial_start, state.episode_start = False, bool(done)
                state.step += 1
                state.reward += float(reward)
                self.recorder.reward(state.trial.id, state.step, float(reward))
                if done:
                    context = {} if use is None else context_at(use)
                    record = self._record(state, info, declared, context)
                    self._end_episode(index, state, record)
            self.progress.update(len(busy))

    def _film(self, index: int, state: _EnvState, use: ContextUse | None) -> None:
        videos, trial = self.recorder.videos, state.trial.id
        if videos is None or not videos.films(trial):
            return
        if state.step == 0:
            resolution = {"resolution": self.plan.map_resolution or 0.05}
            self.maps[index] = self.envs.call_at(index, "top_down_map", resolution)
        moment = Moment(
            state.step,
            state.episode,
            state.observation.get(self.plan.camera),
            self.envs.call_at(index, "top_down_scene"),
            state.observation.get("detections"),
            None if use is None else int(use.tokens),
        )
        videos.add(trial, self.maps[index], moment)

    def _act(self, agent: Agent, state: _EnvState, batch: Batch) -> int:
        observations = batch(state.observation)
        starts = (state.trial_start, state.episode_start)
        device = observations[TRIAL_STEP].device
        flags = (torch.tensor([start], device=device) for start in starts)
        return int(agent.act(observations, *flags))

    def _end_episode(self, index: int, state: _EnvState, record: EpisodeRecord) -> None:
        trial_over = state.is_at_trial_start
        self._check(state, record, trial_over)
        self.recorder.end_episode(index, record, trial_over)
        self.episodes += 1
        self.successes += record.success
        text = f"{self.episodes} episodes, success {self.successes / self.episodes:.1%}"
        self.progress.set_postfix_str(text, refresh=False)
        state.reward = 0.0
        state.episode += 1
        if trial_over:
            state.trials.pop(0)
            self._begin_trial(index, state)

    def _begin_trial(self, index: int, state: _EnvState) -> None:
        state.trial_start = state.episode_start = True
        state.episode = state.step = 0
        if not state.trials:
            return
        if not state.is_at_trial_start:
            raise UserError(
                f"trial {state.trial.id} does not begin at trial_step 0; reset the environments "
                "before evaluating"
            )
        self.agents[index].begin_trial(trial_seed(state.trial.id, self.plan.seed))
        if self.recorder.needs_map(state.trial.house):
            resolution = {"resolution": self.plan.map_resolution}
            found = self.envs.call_at(index, "top_down_map", resolution)
            self.recorder.save_map(state.trial.house, found)

    def _record(
        self,
        state: _EnvState,
        info: Mapping[str, Any],
        declared: Declaration,
        context: dict[str, int],
    ) -> EpisodeRecord:
        if EPISODE_MEASURE not in info:
            raise UserError(
                f"the measure '{EPISODE_MEASURE}' is missing from {sorted(info)}; add it to "
                "habitat.task.measurements for evaluation, or, in an InProcessVectorEnv of your "
                "own, to what step_with_infos tells where an episode ends, under "
                "tasks.record_fields.EPISODE_MEASURE"
            )
        try:
            measured = recorded_values(info, declared)
            for name, (field, _) in measured.items():
                self.fields.setdefault(name, field)
            values = {name: value for name, (_, value) in measured.items()}
            own = {**info[EPISODE_MEASURE], **values, "reward": state.reward, **context}
            return EpisodeRecord.model_validate(_plain(own))
        except ValueError as error:
            raise UserError(
                f"trial {state.trial.id}, episode {state.episode}: the task's measures give no "
                f"record ({describe_error(error)}); check habitat.task.measurements"
            ) from error

    def _check(self, state: _EnvState, record: EpisodeRecord, trial_over: bool) -> None:
        if (record.trial_id, record.episode_index) != (state.trial.id, state.episode):
            raise UserError(
                f"an environment played episode {record.episode_index} of trial {record.trial_id} "
                f"where episode {state.episode} of {state.trial.id} was due; reset the "
                "environments before evaluating"
            )
        limit = self.plan.steps_per_trial
        if state.step > limit or trial_over != (state.step == limit):
            raise UserError(
                f"steps_per_trial is {limit}, but trial {state.trial.id} "
                f"{'ended' if trial_over else 'goes on'} at step {state.step}; set "
                f"habitat.task.trial_steps={limit} too"
            )


def _plain(value: Any) -> Any:
    """`value` with NumPy's arrays and scalars as Python's, coordinates rounded to millimetres."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [round(item, 3) if isinstance(item, float) else _plain(item) for item in value]
    return value
