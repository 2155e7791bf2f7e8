"""Holds one trial of every environment: it grows over the partial updates, then is filled again."""

from __future__ import annotations

from collections.abc import Container, Iterator
from copy import copy
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from gym import spaces
from habitat_baselines.common.baseline_registry import baseline_registry
from habitat_baselines.common.storage import Storage
from torch import Tensor

from memo_habitat.errors import NonFiniteError, UserError
from memo_habitat.rollout.batch import STEP_FIELDS, TrialBatch
from memo_habitat.rollout.gae import cuts, generalised_advantages

# What a state to resume from holds of the steps taken, and, of the step about to be acted on too.
_OF_STEPS = ("order", "actions", "log_probs", "values", "rewards")
_OF_NEXT_STEP = ("prev_actions", "episode_starts")


@baseline_registry.register_storage(name="TrialStorage")
class TrialStorage(Storage):
    """Steps of one trial, environments first: `[N, T, ...]`, preallocated.

    `steps` of T are filled; those from `loss_start` on have not been learned from. Index `steps` of
    the observations, previous actions and episode starts is the step about to be acted on. Of an
    environment that is not `live` the trial broke off: it is learned from no more, while its row
    is filled with anything that keeps the others in step.

    Observations that `in_host` names are kept in host memory; what is read of them is copied to the
    `device` of all others.
    """

    def __init__(
        self, num_envs: int, trial_steps: int, observation_space: spaces.Dict, feature_width: int
    ) -> None:
        self.trial_steps = trial_steps
        self.device = torch.device("cpu")
        self.in_host: frozenset[str] = frozenset()
        self._newest: tuple[int, dict[str, Tensor]] = (-1, {})  # a step, and those on the device
        self.steps = 0
        self.loss_start = 0
        # What is known of a step before it is acted on has a place for the step after the last one.
        shape, longer = (num_envs, trial_steps), (num_envs, trial_steps + 1)
        self.observations = {
            uuid: torch.zeros((*longer, *space.shape), dtype=_torch_dtype(space.dtype))
            for uuid, space in observation_space.spaces.items()
        }
        self.features = torch.zeros((*shape, feature_width))
        self.prev_actions = torch.zeros(longer, dtype=torch.long)
        self.episode_starts = torch.ones(longer, dtype=torch.bool)
        self.actions = torch.zeros(shape, dtype=torch.long)
        self.log_probs, self.values = torch.zeros(shape), torch.zeros(shape)
        self.rewards, self.returns = torch.zeros(shape), torch.zeros(shape)
        self.advantages = torch.zeros(shape)
        self.live = torch.ones(num_envs, dtype=torch.bool)
        # The step of the trial at which each was taken: another place than its own once episodes
        # were shuffled.
        self.order = torch.arange(trial_steps, dtype=torch.int32).repeat(num_envs, 1)

    # Collection ---------------------------------------------------------------------------------

    @property
    def trial_complete(self) -> bool:
        """All T steps are there: the next update is the full one."""
        return self.steps == self.trial_steps

    def insert_first_observations(self, batch: dict[str, Tensor]) -> None:
        """Begin the first trial with the observations [N, ...] of the environments' reset."""
        self._write_observations(0, batch)
        self.prev_actions[:, 0] = 0
        self.episode_starts[:, 0] = True

    def insert(
        self,
        next_observations: dict[str, Tensor] | None = None,
        next_recurrent_hidden_states: Any = None,
        actions: Tensor | None = None,
        action_log_probs: Tensor | None = None,
        value_preds: Tensor | None = None,
        rewards: Tensor | None = None,
        next_masks: Tensor | None = None,
        buffer_index: int = 0,
        **kwargs: Any,
    ) -> None:
        """Fill in what has become known of the current step; tensors are [N, 1]."""
        if actions is not None and action_log_probs is not None and value_preds is not None:
            self.actions[:, self.steps] = actions.squeeze(-1)
            self.log_probs[:, self.steps] = action_log_probs.squeeze(-1)
            self.values[:, self.steps] = value_preds.squeeze(-1)
            self.order[:, self.steps] = self.steps
        if next_observations is not None and rewards is not None and next_masks is not None:
            self._write_observations(self.steps + 1, next_observations)
            self.rewards[:, self.steps] = rewards.squeeze(-1)
            starts = ~next_masks.squeeze(-1).to(self.episode_starts.device)
            self.episode_starts[:, self.steps + 1] = starts
            self.prev_actions[:, self.steps + 1] = self.actions[:, self.steps]

    def advance_rollout(self, buffer_index: int = 0) -> None:
        """Go on to the next step."""
        self.steps += 1

    def get_current_step(self, env_slice: slice, buffer_index: int) -> dict[str, Any]:
        """What `policy.act` is called with: the step about to be acted on."""
        step, newest = self._newest
        known = newest if step == self.steps else {}
        only = self.observed(env_slice, slice(self.steps, self.steps + 1), known.keys())
        observations = {k: v[:, 0] for k, v in only.items()}
        return {
            "observations": observations | {k: v[env_slice] for k, v in known.items()},
            "recurrent_hidden_states": None,
            "prev_actions": self.prev_actions[env_slice, self.steps, None],
            "masks": ~self.episode_starts[env_slice, self.steps, None],
        }

    def get_last_step(self) -> dict[str, Any]:
        """The same for all environments."""
        return self.get_current_step(slice(None), 0)

    def observed(
        self, rows: slice | Tensor, steps: slice, but: Container[str] = ()
    ) -> dict[str, Tensor]:
        """Observations [B, t, ...] of some environments in some steps, on the device."""
        return {
            uuid: self._copied(buffer, rows, steps) if uuid in self.in_host else buffer[rows, steps]
            for uuid, buffer in self.observations.items()
            if uuid not in but
        }

    def _copied(self, buffer: Tensor, rows: slice | Tensor, steps: slice) -> Tensor:
        """The same of one that is in host memory."""
        numbers = torch.arange(len(buffer))[rows].tolist()
        shape = buffer[0, steps].shape
        found = torch.empty((len(numbers), *shape), dtype=buffer.dtype, device=self.device)
        # Row by row: each is one piece of pinned memory, which is copied while the GPU computes.
        # An index would first put all of them together in memory that is not pinned.
        for place, row in enumerate(numbers):
            found[place].copy_(buffer[row, steps], non_blocking=True)
        return found

    def mean_return(self) -> float:
        """Sum of the rewards so far, undiscounted, averaged over the live trials."""
        return float(self.rewards[self.live, : self.steps].sum(1).mean())

    # Learning -----------------------------------------------------------------------------------

    def compute_returns(
        self,
        next_value: Tensor,
        use_gae: bool,
        gamma: float,
        tau: float,
        across_episodes: bool = False,
    ) -> None:
        """Advantages and returns of all steps so far; `next_value` is [N] or [N, 1].

        NonFiniteError where a reward of a live trial is not finite: it would be learned from.
        """
        n = self.steps
        wrong = ~self.rewards[:, :n].isfinite() & self.live[:, None]
        if bool(wrong.any()):
            where = [f"environment {row} at step {step}" for row, step in wrong.nonzero().tolist()]
            raise NonFiniteError("reward", where)
        cut = cuts(self.episode_starts[:, 1 : n + 1], self.trial_complete, across_episodes)
        values = self.values[:, :n]
        self.advantages[:, :n] = generalised_advantages(
            self.rewards[:, :n], values, next_value.reshape(-1), cut, gamma, tau if use_gae else 1.0
        )
        self.returns[:, :n] = self.advantages[:, :n] + values

    def minibatches(
        self, count: int, generator: torch.Generator | None = None
    ) -> Iterator[TrialBatch]:
        """Split the live environments, never time, into random groups of about equal size.

        There are `count` of them, or one an environment, live or not: each may be an optimiser
        step, of which all workers of a training make the same number. Too few live ones are
        repeated, all as often.
        """
        groups = min(count, len(self.live))
        live = self.live.nonzero().flatten().cpu()
        order = live[torch.randperm(len(live), generator=generator)]
        for rows in order.repeat(-(-groups // len(live))).tensor_split(groups):
            yield self.batch(rows)

    def batch(self, rows: Tensor) -> TrialBatch:
        """The trials so far of the environments `rows`, long [B]."""
        return TrialBatch(
            observations=self.observed(rows, slice(self.steps)),
            features=self.features[rows, : self.steps],
            loss_start=0 if self.trial_complete else self.loss_start,
            **{name: getattr(self, name)[rows, : self.steps] for name in STEP_FIELDS},
        )

    def with_old_policy(self, log_probs: Tensor, values: Tensor) -> TrialStorage:
        """The same rollout, but for what the update compares with, both [N, t - loss_start].

        Returns and advantages stay those of the values that were predicted in acting.
        """
        other = copy(self)
        other.log_probs, other.values = self.log_probs.clone(), self.values.clone()
        for mine, theirs in ((other.log_probs, log_probs), (other.values, values)):
            mine[:, self.steps - theirs.shape[1] : self.steps] = theirs
        return other

    def after_update(self) -> None:
        """Go on with the trial, or begin the next one where this one is complete."""
        if not self.trial_complete:
            self.loss_start = self.steps
            return
        for tensor in (*self.observations.values(), self.prev_actions, self.episode_starts):
            tensor[:, 0] = tensor[:, self.steps]
        self.prev_actions[:, 0] = 0
        # Where a trial broke off nothing has ended, and yet another one begins.
        self.episode_starts[:, 0] = True
        self.live[:] = True
        self.steps = self.loss_start = 0

    def shuffle_episodes(self) -> None:
        """Put each trial's finished episodes into a random order; the running one stays last.

        All that is known of a step moves with it, also what it observed of the step before and of
        the time: that is what the policy acted on. Cached keys and values are of the old order.
        """
        n = self.steps
        moved = [*self.observations.values(), self.features]
        moved += [getattr(self, name) for name in (*STEP_FIELDS, "rewards", "order")]
        for row, starts in enumerate(self.episode_starts[:, : n + 1].tolist()):
            borders = [step for step in range(n + 1) if starts[step]]
            episodes = [torch.arange(*ends) for ends in pairwise(borders)]
            if len(episodes) < 2:
                continue
            order = [episodes[i] for i in torch.randperm(len(episodes)).tolist()]
            for tensor in moved:  # row by row: a copy of one at a time exists
                tensor[row, : borders[-1]] = tensor[row, torch.cat(order)]

    # Stopping and going on ----------------------------------------------------------------------

    def unfinished(self) -> dict[str, Any]:
        """Copies of what is known of the trial under way, but for observations and features.

        Those are a thousand times as much, and follow from the actions.
        """
        n = self.steps
        kept = {name: getattr(self, name)[:, :n] for name in _OF_STEPS}
        kept |= {name: getattr(self, name)[:, : n + 1] for name in _OF_NEXT_STEP}
        copies = {name: tensor.cpu().clone() for name, tensor in kept.items()}
        return {"steps": n, "loss_start": self.loss_start, **copies}

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on from `unfinished`; observations and features are still to be filled in."""
        self.steps, self.loss_start = saved["steps"], saved["loss_start"]
        for name in (*_OF_STEPS, *_OF_NEXT_STEP):
            getattr(self, name)[:, : saved[name].shape[1]] = saved[name]

    def write_observations(self, places: Tensor, observations: dict[str, Tensor]) -> None:
        """Put one step's observations [N, ...] to the places [N] along each trial."""
        rows, self._newest = torch.arange(len(places)), (-1, {})
        for uuid, buffer in self.observations.items():
            buffer[rows, places] = observations[uuid].to(buffer.device, buffer.dtype)

    # Housekeeping -------------------------------------------------------------------------------

    def to(self, device: torch.device, gigabytes: float | None = None) -> None:
        """Move every buffer to `device`, but of the observations no more than so many GB (10^9).

        Those that are small go first. What is left, images as a rule, stays in host memory, pinned
        beside a GPU.
        """
        self.device, self._newest = torch.device(device), (-1, {})
        left, in_host = float("inf") if gigabytes is None else 1e9 * gigabytes, set()
        for uuid, buffer in sorted(self.observations.items(), key=lambda item: item[1].nbytes):
            left -= buffer.nbytes
            if left >= 0:
                self.observations[uuid] = buffer.to(device)
            else:
                in_host.add(uuid)
                pinned = self.device.type == "cuda"
                self.observations[uuid] = buffer.pin_memory() if pinned else buffer
        self.in_host = frozenset(in_host)
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, value.to(device))

    def host_bytes(self) -> int:
        """Bytes of what is in host memory beside a device."""
        return sum(self.observations[uuid].nbytes for uuid in self.in_host)

    def _write_observations(self, index: int, batch: dict[str, Tensor]) -> None:
        for uuid, buffer in self.observations.items():
            given = batch[uuid]
            if given.shape[1:] != buffer.shape[2:]:
                raise UserError(
                    f"observation '{uuid}' has shape {tuple(given.shape[1:])}, and its space says "
                    f"{tuple(buffer.shape[2:])}: correct the sensor's observation or its space"
                )
            # From a GPU to host memory this waits for all that is copied from there before.
            buffer[:, index] = given.to(buffer.dtype)
        # The next step is acted on where it came from: it need not be copied back.
        self._newest = (
            index,
            {
                uuid: batch[uuid].to(self.device, self.observations[uuid].dtype, copy=True)
                for uuid in self.in_host
            },
        )


def _torch_dtype(dtype: np.dtype[Any]) -> torch.dtype:
    return torch.from_numpy(np.zeros(0, dtype=dtype)).dtype
