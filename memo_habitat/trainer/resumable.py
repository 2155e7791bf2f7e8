"""What a training saves of itself after every update, and how it goes on from there.

In one process it goes on in the middle of a trial, as if it had never stopped: the same trials, the
same draws, the same weights to the last bit. Among several the first saves for all, and each begins
another trial.
"""

from __future__ import annotations

import math
import time
from functools import cached_property
from pathlib import Path
from typing import Any

import hydra
import torch
from habitat import logger
from habitat.config import read_write
from habitat_baselines.common.obs_transformers import apply_obs_transforms_batch
from habitat_baselines.common.tensorboard_utils import TensorboardWriter
from habitat_baselines.rl.ddppo.ddp_utils import rank0_only
from habitat_baselines.rl.ppo.ppo_trainer import PPOTrainer
from habitat_baselines.utils.common import batch_obs
from omegaconf import DictConfig, OmegaConf

from memo_habitat.errors import UserError
from memo_habitat.trainer.checkpoint import (
    random_state,
    restore_random_state,
    write_checkpoint,
    write_resume_state,
)
from memo_habitat.trainer.run_dir import LATEST
from memo_habitat.trainer.trial_replay import environments_digest, replay, skip_trials
from memo_habitat.trainer.worker_envs import are_as_made
from memo_habitat.utils.processes import ranks

# Counts that a resumed training goes on from; in the state without the leading underscore.
_COUNTS = (
    *("num_steps_done", "num_updates_done", "_last_checkpoint_percent"),
    *("_count_checkpoints", "_checkpointed_at", "_updates_seen"),
)


# The state is saved after every update as long as that takes no more than these seconds, or no
# more than this share of the time; that of a large model after several.
_CHEAP_SECONDS, _CHEAP_SHARE = 0.1, 0.1


class ResumableTrainer(PPOTrainer):
    """Saves and goes on; what it does between two saves is `MemoTrainer`'s."""

    config: DictConfig
    envs: Any
    num_steps_done: int
    num_updates_done: int
    device: torch.device
    _agent: Any
    _is_distributed: bool

    # Going on -----------------------------------------------------------------------------------

    def _prepare(self, state: dict[str, Any] | None) -> None:
        """Before environments are made: what they will play, at the beginning or after `state`."""
        self._count_checkpoints, self._checkpointed_at, self._earlier_seconds = 0, -1, 0.0
        self._updates_seen = 0
        # Of the environments: what is added to their seed, and how many trials each has played.
        self._seed_offset = self._trials_done = 0
        self._can_skip = True
        self._unfinished: dict[str, Any] | None = None
        self._state: dict[str, Any] = {}  # of the last update's end
        self._is_saved = False
        self._saved_at, self._save_seconds = time.monotonic(), math.inf
        if state is None:
            return
        trial = state.get("trial")
        if (
            trial is None
            or not self._alone()
            or trial["environments"] != environments_digest(state["config"])
        ):
            # With the same seed they would play the same trials again.
            if state["counts"]["num_steps_done"]:
                logger.info("Another trial begins: the one under way cannot be gone on with here")
            self._seed_offset = state["counts"]["num_steps_done"]
        else:
            self._seed_offset, self._trials_done = trial["seed_offset"], trial["trials"]
            self._unfinished = trial

    def _alone(self) -> bool:
        """No other process trains with this one: they would have to go on from the same step."""
        return ranks().size == 1 and not self._is_distributed

    def _init_envs(self, config: DictConfig | None = None, is_eval: bool = False) -> None:
        config = (self.config if config is None else config).copy()
        if not is_eval:
            with read_write(config):
                config.habitat.seed += self._seed_offset
        super()._init_envs(config, is_eval)
        if not is_eval:
            self._skip_trials()

    def _skip_trials(self) -> None:
        self._can_skip = not self._trials_done or skip_trials(self.envs, self._trials_done)

    def _resume(self, state: dict[str, Any]) -> None:
        """Go on from `state`, with environments at the beginning of a trial."""
        self._agent.load_state_dict(state)
        counts, saved = state["counts"], state["statistics"]
        for name in _COUNTS:
            key = name.lstrip("_")
            # Of before: trials were over when a state was saved.
            setattr(self, name, counts.get(key, counts["num_updates_done"]))
        self._earlier_seconds = counts["seconds"]
        if self._is_distributed:
            # The state is rank 0's: draws and counts of its own for every worker.
            torch.manual_seed(self.config.habitat.seed + self.num_steps_done)
        else:
            # Sums are kept for each environment of a worker: another number of them begins afresh.
            same_envs = len(saved["running"]["count"]) == self.envs.num_envs
            if same_envs and saved["workers"] == 1:
                self.running_episode_stats = saved["running"]
                for key, values in saved["window"].items():
                    self.window_episode_stats[key].extend(values)
            if self._unfinished is not None:
                self._go_on_with_trial(self._unfinished)
            restore_random_state(state)
        logger.info(f"Resumed at {self.num_steps_done} steps")
        if "instead" in state:
            logger.warning(state["instead"])

    def _go_on_with_trial(self, trial: dict[str, Any]) -> None:
        storage, policy, steps = self._agent.rollouts, self._agent.actor_critic, trial["storage"]
        try:
            if not self._can_skip:
                raise UserError("these environments cannot skip the trials before")
            replay(steps, storage, self.envs, self.obs_transforms, self.device)
        except UserError as error:
            logger.warning(f"the trial under way is left and others are begun: {error}")
            self._begin_other_trials()
            return
        if storage.steps:
            begun = self.num_steps_done - storage.steps * self.envs.num_envs
            policy.begin_trials(self.config.habitat.seed, begun)
            self._agent.refresh_memory()
        self.current_episode_reward = trial["episode_reward"]
        policy.led = None if trial["led"] is None else trial["led"].to(self.device)

    def _begin_other_trials(self) -> None:
        """New environments with another seed; what was learned stays."""
        self.envs.close()
        self._seed_offset, self._trials_done = self.num_steps_done, 0
        self._init_envs()
        batch = batch_obs(self.envs.post_step(self.envs.reset()), device=self.device)
        self._agent.rollouts.steps = self._agent.rollouts.loss_start = 0
        self._agent.rollouts.insert_first_observations(
            apply_obs_transforms_batch(batch, self.obs_transforms)
        )

    # Saving -------------------------------------------------------------------------------------

    def _save_after_update(self, writer: Any) -> None:
        """A checkpoint where a trial has ended and one is due, and the state to resume from.

        The state comes last: a kill in between leaves nothing behind that it does not know of.
        """
        trial_ended = self._agent.rollouts.steps == 0
        if trial_ended:
            self._trials_done += 1
            if rank0_only() and self.should_checkpoint():
                self._checkpoint_now()
        self._note_state()
        since = time.monotonic() - self._saved_at
        first = self._save_seconds == math.inf
        cheap = self._save_seconds <= max(_CHEAP_SECONDS, _CHEAP_SHARE * since)
        if trial_ended or first or cheap:
            if isinstance(writer, TensorboardWriter):
                writer.flush()
            self._write_state()

    def _save_at_end(self) -> None:
        """At the end a checkpoint; after a stop only what `latest` and a resume need."""
        if self._checkpointed_at != self.num_steps_done:
            if self.is_done():
                self._checkpoint_now()
                self._note_state()
            else:
                self.save_checkpoint(LATEST, self._extra_state())
        if not self._is_saved:
            self._write_state()

    def should_checkpoint(self) -> bool:
        """Whether one is due.

        Habitat asks whether the number of updates is a multiple of the interval; trials may end
        between two of them.
        """
        interval = self.config.habitat_baselines.checkpoint_interval
        if interval == -1:
            return bool(super().should_checkpoint())
        due = self.num_updates_done // interval > self._updates_seen // interval
        self._updates_seen = self.num_updates_done
        return bool(due)

    def _extra_state(self) -> dict[str, Any]:
        return {"step": self.num_steps_done, "wall_time": self._seconds()}

    def _seconds(self) -> float:
        """Of training so far, those before an interruption included."""
        return time.time() - self.t_start + self._earlier_seconds

    def _checkpoint_now(self) -> None:
        self.save_checkpoint(f"ckpt.{self._count_checkpoints}.safetensors", self._extra_state())
        self._count_checkpoints += 1
        self._checkpointed_at = self.num_steps_done

    @rank0_only
    def save_checkpoint(self, file_name: str, extra_state: dict[str, Any] | None = None) -> None:
        """Write `file_name` and the same as latest."""
        folder = Path(self.config.habitat_baselines.checkpoint_folder)
        weights = self._agent.actor_critic.state_dict()
        for name in dict.fromkeys((file_name, LATEST)):
            write_checkpoint(folder / name, weights, self.config, extra_state or {})
        callback = self.config.habitat_baselines.on_save_ckpt_callback
        if callback is not None:
            hydra.utils.call(callback, save_file_path=str(folder / file_name))

    def _note_state(self) -> None:
        """Keep what collecting changes; what only an update changes is as it is until then.

        A stop in the middle of a rollout goes back here: the steps taken since are taken again, by
        the same draws.
        """
        counts = {name.lstrip("_"): getattr(self, name) for name in _COUNTS}
        counts["seconds"] = self._seconds()
        statistics = {
            "running": {k: v.clone() for k, v in self.running_episode_stats.items()},
            "window": {k: list(v) for k, v in self.window_episode_stats.items()},
            "workers": ranks().size,
        }
        self._state = {"counts": counts, "statistics": statistics, "random": random_state()}
        if self._alone() and are_as_made(self.envs):
            led = self._agent.actor_critic.led
            self._state["trial"] = {
                "environments": self._environments,
                "seed_offset": self._seed_offset,
                "trials": self._trials_done,
                "storage": self._agent.rollouts.unfinished(),
                "episode_reward": self.current_episode_reward.clone(),
                "led": None if led is None else led.clone(),
            }
        self._is_saved = False

    @rank0_only
    def _write_state(self) -> None:
        begun = time.monotonic()
        folder = Path(self.config.habitat_baselines.checkpoint_folder)
        state = {**self._agent.get_resume_state(), **self._state}
        write_resume_state(folder, state, self._config_text)
        self._is_saved, self._saved_at = True, time.monotonic()
        # The least of all: what a busy disk takes once says nothing of the next time.
        self._save_seconds = min(self._save_seconds, self._saved_at - begun)

    @cached_property
    def _config_text(self) -> str:
        """Takes longer to write than the weights of a small agent."""
        return OmegaConf.to_yaml(self.config)

    @cached_property
    def _environments(self) -> str:
        return environments_digest(self.config)
