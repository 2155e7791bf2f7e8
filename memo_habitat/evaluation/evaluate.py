"""Plays whole trials with an agent and records every episode as it ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from memo_habitat.errors import UserError
from memo_habitat.evaluation.agents import Agent
from memo_habitat.evaluation.recorder import Observer
from memo_habitat.evaluation.records import EpisodeRecord, RecordWriter
from memo_habitat.evaluation.schedule import (
    EvaluationPlan,
    Observation,
    StepResult,
    TrialKey,
    TrialVectorEnv,
    arrangements,
    assign_trials,
    planned_trials,
    recorded_fields,
    schedule,
    step_some,
    top_down_map,
)
from memo_habitat.policy.network import TRIAL_STEP, ContextUse
from memo_habitat.tasks.record_fields import (
    EPISODE_MEASURE,
    Declaration,
    RecordField,
    recorded_values,
)
from memo_habitat.utils.files import describe_error

Batch = Callable[[Sequence[Observation]], dict[str, Tensor]]


class Progress(Protocol):
    """The part of a tqdm bar that an evaluation uses."""

    def update(self, n: int) -> Any:
        """Add `n` steps."""
        ...

    def set_postfix_str(self, s: str, refresh: bool = True) -> Any:
        """Show `s` behind the bar."""
        ...


@dataclass
class _Seat:
    """State of one environment: the trials left to it, and its running episode."""

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


def evaluate(
    envs: TrialVectorEnv,
    agent: Agent,
    plan: EvaluationPlan,
    sink: RecordWriter,
    progress: Progress,
    batch: Batch,
    observer: Observer | None = None,
) -> dict[str, RecordField]:
    """Play the trials of `plan` that `sink` does not hold yet, and write a record per episode.

    Environments step together. One whose trials are all played is no longer stepped; the agent
    then sees its last observation again as the start of a trial, so that its memory stays empty.

    Args:
        envs: the environments; their `trial_step` sensor must be observed.
        agent: who acts.
        plan: which trials, how long.
        sink: where the records go; tells which trials are complete.
        progress: gets one tick per environment step, those of complete trials first.
        batch: stacks observations and puts them on the agent's device.
        observer: keeps frames, maps and traces, if given.

    Returns:
        what was recorded, by name: what the task declares, and what was found without being
        declared.

    Raises:
        UserError: an environment does not do what the plan says; names the setting to change.
    """
    available = arrangements(envs)
    planned = planned_trials([pair for own in available for pair in own], plan.trials_per_house)
    if not planned:
        raise UserError(
            "no environment has an arrangement to play; check habitat.dataset.data_path and split"
        )
    pending = [trial for trial in planned if trial.id not in sink.complete]
    progress.update((len(planned) - len(pending)) * plan.steps_per_trial)
    if observer is not None:
        observer.choose(planned)
    loop = _Loop(envs, agent, plan, sink, progress, observer)
    if not pending:
        return loop.fields
    dealt = assign_trials(pending, available)
    schedule(envs, dealt, plan.seed)
    loop.run([_Seat(list(own), seen) for own, seen in zip(dealt, envs.reset(), strict=True)], batch)
    return loop.fields


class _Loop:
    """The lockstep loop, one object per evaluation."""

    def __init__(
        self,
        envs: TrialVectorEnv,
        agent: Agent,
        plan: EvaluationPlan,
        sink: RecordWriter,
        progress: Progress,
        observer: Observer | None,
    ) -> None:
        self._envs = envs
        self._agent = agent
        self._plan = plan
        self._sink = sink
        self._progress = progress
        self._observer = observer
        self._declared: Declaration = envs.call_at(0, "record_fields")
        self.fields = recorded_fields(envs)
        self._episodes = 0
        self._successes = 0.0

    def run(self, seats: list[_Seat], batch: Batch) -> None:
        """Step until no seat has a trial left."""
        for index, seat in enumerate(seats):
            self._begin_trial(index, seat)
        while busy := [index for index, seat in enumerate(seats) if seat.trials]:
            observations = batch([seat.observation for seat in seats])
            device = observations[TRIAL_STEP].device
            actions = self._agent.act(
                observations,
                torch.tensor([seat.trial_start for seat in seats], device=device),
                torch.tensor([seat.episode_start for seat in seats], device=device),
            ).tolist()
            use = self._watch(seats, busy)
            for index, result in zip(busy, step_some(self._envs, busy, actions), strict=True):
                stopped = actions[index] == self._plan.stop_action
                self._advance(index, seats[index], result, stopped, use)
            self._progress.update(len(busy))

    def _watch(self, seats: Sequence[_Seat], busy: Sequence[int]) -> ContextUse | None:
        """Hand frames and context of this step to the observer; returns the context in use."""
        use, reading = self._agent.context(), self._agent.attention()
        if self._observer is None:
            return use
        for index in busy:
            seat = seats[index]
            frame = seat.observation.get(self._plan.camera)
            self._observer.see(index, seat.trial.id, seat.episode, seat.step, frame)
            if use is not None and self._observer.wants_trace(seat.trial.id, seat.step + 1):
                tokens, kv_bytes, full = _context_at(use, index)
                self._observer.trace(seat.trial.id, seat.step + 1, tokens, kv_bytes, full)
            if use is not None and reading is not None:
                log = self._observer.attention_log
                log.add(seat.trial.id, seat.step + 1, reading, use, index)
        return use

    def _advance(
        self, index: int, seat: _Seat, result: StepResult, stopped: bool, use: ContextUse | None
    ) -> None:
        observation, reward, done, info = result
        seat.observation = observation
        seat.step += 1
        seat.reward += float(reward)
        if self._observer is not None:
            self._observer.reward_log.add(seat.trial.id, seat.step, float(reward))
        seat.trial_start = False
        seat.episode_start = bool(done)
        if not done:
            return
        trial_over = _trial_step(observation) == 0
        record = self._record(index, seat, info, trial_over and not stopped, use)
        if trial_over and self._observer is not None:
            self._observer.end_trial(seat.trial.id)  # first: a trial with records is never replayed
        self._sink.write(record)
        self._episodes += 1
        self._successes += record.success
        self._progress.set_postfix_str(
            f"{self._episodes} episodes, success {self._successes / self._episodes:.1%}",
            refresh=False,
        )
        if self._observer is not None:
            self._observer.end_episode(index, record)
        seat.reward = 0.0
        seat.episode += 1
        if trial_over:
            seat.trials.pop(0)
            self._begin_trial(index, seat)

    def _begin_trial(self, index: int, seat: _Seat) -> None:
        seat.trial_start = True
        seat.episode_start = True
        seat.episode = 0
        seat.step = 0
        if not seat.trials:
            # Seen again at every step from now on: as a trial's start, it keeps the memory empty.
            zero = np.zeros_like(np.asarray(seat.observation[TRIAL_STEP]))
            seat.observation = {**seat.observation, TRIAL_STEP: zero}
            return
        if _trial_step(seat.observation) != 0:
            raise UserError(
                f"trial {seat.trial.id} begins at trial_step {_trial_step(seat.observation)}, not "
                "0; reset the environments before evaluating"
            )
        house = seat.trial.house
        if self._observer is not None and self._observer.needs_map(house):
            answer = top_down_map(self._envs, index, self._plan.map_resolution)
            self._observer.save_map(house, answer)

    def _record(
        self,
        index: int,
        seat: _Seat,
        info: Mapping[str, Any],
        truncated: bool,
        use: ContextUse | None,
    ) -> EpisodeRecord:
        values: dict[str, Any] = {"truncated": truncated, **_episode_info(info)}
        context = (None, None, None) if use is None else _context_at(use, index)
        names = ("context_tokens", "kv_bytes", "full_context_kv_bytes")
        values.update(zip(names, context, strict=True))
        try:
            for name, (field, value) in recorded_values(info, self._declared).items():
                self.fields.setdefault(name, field)
                values[name] = value
            values["reward"] = seat.reward
            record = EpisodeRecord.model_validate(_plain(values))
        except ValueError as error:
            raise UserError(
                f"trial {seat.trial.id}, episode {seat.episode}: the task's measures give no "
                f"record ({describe_error(error)}); check habitat.task.measurements"
            ) from error
        self._check(seat, record)
        return record

    def _check(self, seat: _Seat, record: EpisodeRecord) -> None:
        if (record.trial_id, record.episode_index) != (seat.trial.id, seat.episode):
            raise UserError(
                f"an environment played episode {record.episode_index} of trial {record.trial_id} "
                f"where episode {seat.episode} of {seat.trial.id} was due; reset the environments "
                "before evaluating"
            )
        limit, over = self._plan.steps_per_trial, _trial_step(seat.observation) == 0
        if seat.step > limit or over != (seat.step == limit):
            raise UserError(
                f"steps_per_trial is {limit}, but trial {seat.trial.id} "
                f"{'ended' if over else 'goes on'} at step {seat.step}; set "
                f"habitat.task.trial_steps={limit} too"
            )


def _trial_step(observation: Observation) -> int:
    if TRIAL_STEP not in observation:
        raise UserError(
            f"the sensor '{TRIAL_STEP}' is not among the observations {sorted(observation)}; add "
            "it to habitat.task.lab_sensors and habitat.gym.obs_keys"
        )
    return int(np.asarray(observation[TRIAL_STEP]).reshape(-1)[0])


def _episode_info(info: Mapping[str, Any]) -> Mapping[str, Any]:
    if EPISODE_MEASURE not in info:
        raise UserError(
            f"the measure '{EPISODE_MEASURE}' is missing from {sorted(info)}; add it to "
            "habitat.task.measurements for evaluation"
        )
    described: Mapping[str, Any] = info[EPISODE_MEASURE]
    return described


def _context_at(use: ContextUse, index: int) -> tuple[int, int, int]:
    return (
        int(use.tokens[index]),
        int(use.kv_bytes[index]),
        int(use.full_context_kv_bytes[index]),
    )


def _plain(value: Any) -> Any:
    """`value` with NumPy's arrays and scalars as Python's, coordinates rounded to millimetres."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, list | tuple):
        return [round(item, 3) if isinstance(item, float) else _plain(item) for item in value]
    return value
