"""What a training saves of itself after every update, and how it goes on from there.

It goes on in the middle of a trial, as if it had never stopped: the same trials, the same draws,
the same weights to the last bit. Of several processes the first writes down what all of them are
at, in one file, so that no kill can leave parts of different updates; another number of them begins
other trials.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
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
from memo_habitat.trainer.collection import Pace
from memo_habitat.trainer.progress import MeasureSums, leave_out_undefined
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
CHEAP_SECONDS, CHEAP_SHARE = 0.1, 0.1


class ResumableTrainer(PPOTrainer):
    """Saves and goes on; what it does between two saves is `MemoTrainer`'s."""

    config: DictConfig
    envs: Any
    num_steps_done: int
    num_updates_done: int
    device: torch.device
    _agent: Any
    _pace: Pace
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
        # Of the trial under way: `num_steps_done` where it began, and its updates so far.
        self._begun_at = self._updates_in_trial = 0
        self._state: dict[str, Any] = {}  # of the last update's end
        self._is_saved = False
        self._saved_at, self._save_seconds = time.monotonic(), math.inf
        self._finite_sums: Mapping[str, MeasureSums] = {}  # of the last update's end
        if state is None:
            return
        parts = [state, *state.get("others", ())]
        if (
            len(parts) != ranks().size
            or not all("trial" in part for part in parts)
            # The first one's stands for all: of the others, seeds are different.
            or state["trial"]["environments"] != environments_digest(state["config"])
        ):
            # With the same seed they would play the same trials again.
            if state["counts"]["num_steps_done"]:
                logger.info("Another trial begins: the one under way cannot be continued here")
            self._seed_offset = state["counts"]["num_steps_done"]
        else:
            trial = parts[ranks().rank]["trial"]
            self._seed_offset, self._trials_done = trial["seed_offset"], trial["trials"]
            self._unfinished = trial

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
        counts, parts = state["counts"], [state, *state.get("others", ())]
        same_processes = len(parts) == ranks().size
        for name in _COUNTS:
            setattr(self, name, counts[name.lstrip("_")])
        self._earlier_seconds = counts["seconds"]
        own = parts[ranks().rank] if same_processes else state
        saved, running = state["statistics"], own["statistics"]["running"]
        # Sums are kept for each environment of a process: another number of them begins afresh.
        same_envs = len(running["count"]) == self.envs.num_envs
        if same_envs and same_processes and saved["workers"] == ranks().size:
            self.running_episode_stats = running
            self._finite_sums = leave_out_undefined(running, {})
            for key, values in saved["window"].items():
                self.window_episode_stats[key].extend(values)
        if self._unfinished is not None:
            self._go_on_with_trial(self._unfinished)
        if self._is_distributed and not same_processes:
            # The draws in the state are another process's: draws of its own for each.
            torch.manual_seed(self.config.habitat.seed + self.num_steps_done)
        else:
            restore_random_state(own)
        logger.info(f"Resumed at {self.num_steps_done} steps")
        if "instead" in state:
            logger.warning(state["instead"])

    def _go_on_with_trial(self, trial: dict[str, Any]) -> None:
        storage, policy, steps = self._agent.rollouts, self._agent.actor_critic, trial["storage"]
        problem: object = None
        try:
            if not self._can_skip:
                raise UserError("these environments cannot skip the trials before")
            replay(steps, storage, self.envs, self.obs_transforms, self.device)
        except UserError as error:
            problem = error
        # All or none: trials of all processes end together.
        if self._all_reduce(torch.tensor([float(problem is not None)])).item():
            problem = problem or "another process cannot go on with its own"
            logger.warning(f"the trial under way is left and others are begun: {problem}")
            self._begin_other_trials()
            return
        if storage.steps:
            self._begun_at, self._updates_in_trial = trial["begun"], trial["updates"]
            policy.begin_trials(self.config.habitat.seed, self._begun_at)
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
        cheap = self._save_seconds <= max(CHEAP_SECONDS, CHEAP_SHARE * since)
        if trial_ended or self._first_says(first or cheap):
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
        if self._first_says(not self._is_saved):
            self._write_state()

    def _first_says(self, so: bool) -> bool:
        """Whether it is so for the first process: saving takes all of them."""
        return bool(self._all_reduce(torch.tensor([float(so and rank0_only())])).item())

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
        if are_as_made(self.envs):
            # On the CPU: another process, which may have no such GPU, writes it to disk.
            led = self._agent.actor_critic.led
            self._state["trial"] = {
                "environments": self._environments,
                "seed_offset": self._seed_offset,
                "trials": self._trials_done,
                "begun": self._begun_at,
                "updates": self._pace.update,
                "storage": self._agent.rollouts.unfinished(),
                "episode_reward": self.current_episode_reward.clone(),
                "led": None if led is None else led.to("cpu", copy=True),
            }
        self._is_saved = False

    def _write_state(self) -> None:
        """By the first process, of all of them: all must come here."""
        begun = time.monotonic()
        # Of the others no counts and no window of statistics: those are the same for all.
        own = {name: part for name, part in self._state.items() if name in ("random", "trial")}
        own["statistics"] = {"running": self._state["statistics"]["running"]}
        parts: list[Any] = [own]
        if self._is_distributed:
            parts = [None] * ranks().size
            torch.distributed.gather_object(own, parts if rank0_only() else None)
        if rank0_only():
            folder = Path(self.config.habitat_baselines.checkpoint_folder)
            state = {**self._agent.get_resume_state(), **self._state}
            if len(parts) > 1:
                state["others"] = parts[1:]
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
