"""How a training collects: environments in its own process all together, until asked to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import numpy as np
import torch
from habitat_baselines.common.obs_transformers import apply_obs_transforms_batch
from habitat_baselines.rl.ddppo.ddp_utils import EXIT, REQUEUE
from habitat_baselines.utils.common import inference_mode
from habitat_baselines.utils.timing import g_timer
from numpy.typing import NDArray
from torch import Tensor

from memo_habitat.tasks.vector_env import InProcessVectorEnv
from memo_habitat.utils.processes import handling, ranks

# Key of the store of all processes; the share of a rollout that DD-PPO of Habitat wants at least.
_ARRIVED, _SHORTEST = "arrived", 0.25
_UNHANDLED = (signal.SIG_DFL, signal.default_int_handler)
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class BatchedCollector:
    """Acts and steps without a loop over environments, to the effect of Habitat's collection.

    Habitat takes results apart into one observation, reward and info per environment, to stack
    them again: with 64 environments that costs more than a small policy and a grid world.
    """

    def __init__(self, envs: InProcessVectorEnv, agent: Any, obs_transforms: list[Any]) -> None:
        """Collect into the storage of `agent`, an agent access manager."""
        self._envs, self._agent, self._transforms = envs, agent, obs_transforms
        # Name -> [N], measures summed over the episodes that ended since they were taken.
        self._sums: dict[str, NDArray[np.float64]] = {}

    def step(self) -> int:
        """Step every environment once; how many steps that is."""
        storage, policy = self._agent.rollouts, self._agent.actor_critic
        with inference_mode():
            with g_timer.avg_time("trainer.sample_action"):
                now = storage.get_last_step()
                action = policy.act(now["observations"], None, now["prev_actions"], now["masks"])
            with g_timer.avg_time("trainer.step_env"):
                step = self._envs.step_batch(action.env_actions.squeeze(-1).cpu().numpy())
            with g_timer.avg_time("trainer.obs_insert"):
                # Views of arrays that the next step writes again: the storage copies them.
                observations = {k: torch.from_numpy(v) for k, v in step.observations.items()}
                if self._transforms:
                    observations = apply_obs_transforms_batch(observations, self._transforms)
                storage.insert(
                    next_observations=observations,
                    actions=action.actions,
                    action_log_probs=action.action_log_probs,
                    value_preds=action.values,
                    rewards=torch.from_numpy(step.rewards)[:, None],
                    next_masks=torch.from_numpy(~step.episode_ends)[:, None],
                )
                storage.advance_rollout()
                for name, values in step.measures.items():
                    sums = self._sums.setdefault(name, np.zeros(self._envs.num_envs))
                    np.add(sums, values, out=sums, where=step.episode_ends)
        return self._envs.num_envs

    def take_statistics(self, since: int, reward_before: Tensor) -> dict[str, Tensor]:
        """Sums [N, 1] over the episodes that ended from step `since` of the trial on.

        reward_before [N, 1] is what the running episode had earned before that step. It is updated
        in place: afterwards it is what the episode running now has earned.
        """
        storage = self._agent.rollouts
        rewards = storage.rewards[:, since : storage.steps].cpu()
        ends = storage.episode_starts[:, since + 1 : storage.steps + 1].cpu()
        # Steps behind an environment's last end belong to the episode that goes on.
        finished = ends.flip(1).cummax(1).values.flip(1)
        done = (rewards * finished).sum(1, keepdim=True)
        any_end = ends.any(1, keepdim=True)
        statistics = {
            "count": ends.sum(1, keepdim=True).float(),
            "reward": done + reward_before * any_end,
        }
        statistics |= {k: torch.from_numpy(v).float()[:, None] for k, v in self._sums.items()}
        reward_before *= ~any_end
        reward_before += (rewards * ~finished).sum(1, keepdim=True)
        self._sums = {}
        return statistics


class Pace:
    """How far this process collects before each update of a trial.

    All collect T / U steps, but for those that lag behind: once `rl.ddppo.sync_frac` of all have
    theirs, a process with a quarter of its own learns from that, as in DD-PPO. Here trials are
    whole: before the last update of a trial the rest is made up for. What is saved is the waiting
    for whoever happens to be slow, at each update another one; nothing where U is 1.
    """

    def __init__(self, config: Any, store: Any = None, update: int = 0) -> None:
        """Begin a trial, or go on with one.

        Args:
            config: of the training.
            store: shared by all processes; None: this one is alone.
            update: how many there were in the trial under way.
        """
        self._updates = config.habitat_baselines.rl.ppo.updates_per_trial
        self._length = config.habitat.task.trial_steps // self._updates
        # Asking takes a message to the first process.
        self._asks_every = max(1, self._length // 16)
        self._store, self._processes = store, ranks().size
        self._enough = config.habitat_baselines.rl.ddppo.sync_frac * self._processes
        self._arrived_before = 0  # of all processes, at the updates so far
        #: Of the trial, the first is 1.
        self.update = update

    def steps(self, storage: Any) -> Iterator[None]:
        """The steps to take before the next update; then the others are told that it is so far."""
        begun = storage.steps
        # A process on its own may resume in the middle of a trial that several began.
        in_step = self._store is None or begun == 0
        self.update = begun // self._length + 1 if in_step else self.update + 1
        while storage.steps < self.update * self._length:
            if self._is_late(storage.steps - begun):
                break
            yield
        if self._store is not None:
            self._store.add(_ARRIVED, 1)
            self._arrived_before += self._processes

    def _is_late(self, taken: int) -> bool:
        if (
            self._store is None
            or self.update == self._updates
            or taken < _SHORTEST * self._length
            or taken % self._asks_every
        ):
            return False
        return bool(self._store.add(_ARRIVED, 0) - self._arrived_before >= self._enough)


class StopRequest:
    """Whether somebody asked for the training to stop."""

    def __init__(self) -> None:
        self.by_user = False

    @property
    def is_set(self) -> bool:
        """Whether to stop, by the user or by a signal that Habitat handles."""
        return self.by_user or bool(EXIT.is_set())

    def agree(self, all_reduce: Callable[[Tensor], Tensor]) -> bool:
        """Whether to stop, the same on every worker: one that went on alone would wait forever.

        So would one that alone asked SLURM to queue the job again: that is agreed on as well.
        `all_reduce` sums a tensor over all workers.
        """
        asked = torch.tensor([float(self.is_set), float(REQUEUE.is_set())])
        stops, requeues = (bool(total) for total in all_reduce(asked))
        if stops:
            self.by_user = True
        if requeues:
            REQUEUE.set()
        return stops


@contextmanager
def stop_on_interrupt() -> Iterator[StopRequest]:
    """Within: the first Ctrl-C, SIGTERM or SIGUSR1 asks to stop after the step.

    The second stops at once. Schedulers announce by SIGUSR1 that the time is nearly over.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def on_interrupt(signum: int, frame: FrameType | None) -> None:
        request.by_user = True
        signal.signal(signum, signal.default_int_handler)

    # In a SLURM job Habitat has handlers of its own by now; they set what `is_set` asks.
    caught = [s for s in _STOPPING if signal.getsignal(s) in _UNHANDLED]
    with handling(caught, on_interrupt):
        yield request
