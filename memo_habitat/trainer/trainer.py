"""The trainer `memo`: Habitat's DD-PPO trainer with trials as rollouts."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import hydra
import torch
from habitat import logger
from habitat.config import read_write
from habitat_baselines.common.baseline_registry import baseline_registry
from habitat_baselines.rl.ddppo.ddp_utils import rank0_only
from habitat_baselines.rl.ppo.ppo_trainer import get_device
from habitat_baselines.utils.common import inference_mode
from habitat_baselines.utils.timing import g_timer
from omegaconf import DictConfig
from torch.profiler import record_function

from memo_habitat.config.evaluation import evaluation_config
from memo_habitat.errors import UserError
from memo_habitat.policy.network import TRIAL_STEP
from memo_habitat.register import import_plugins
from memo_habitat.tasks.vector_env import InProcessVectorEnv
from memo_habitat.trainer import rendezvous, scheduler
from memo_habitat.trainer.checkpoint import read_checkpoint, read_resume_state
from memo_habitat.trainer.collection import (
    BatchedCollector,
    Pace,
    StopRequest,
    stop_on_interrupt,
)
from memo_habitat.trainer.nonfinite import dumped_if_not_finite
from memo_habitat.trainer.observations import observation_transforms
from memo_habitat.trainer.profile import COLLECT, LEARN, profiled_updates
from memo_habitat.trainer.progress import (
    ProgressFile,
    ended_in_window,
    leave_out_undefined,
    steps_bar,
)
from memo_habitat.trainer.resumable import ResumableTrainer
from memo_habitat.trainer.run_dir import (
    TRAIN_LOCK,
    config_of_run,
    newest_checkpoint,
    record_resume,
    record_start,
)
from memo_habitat.trainer.threads import SpareCores, acting_threads
from memo_habitat.trainer.validation import (
    check_and_pin_weights,
    check_model_config,
    check_resumed_model,
    check_training_settings,
)
from memo_habitat.trainer.worker_envs import (
    allow_restarts,
    begin_trials,
    closed_at_the_end,
    leave_out_lost,
)
from memo_habitat.trainer.writers import make_writer, training_writer
from memo_habitat.utils.files import remove_unfinished
from memo_habitat.utils.lock import hold
from memo_habitat.utils.processes import is_first_process, ranks

# Among the losses of a trial's last update: the trials of one worker that were played to that end,
# and the sum of their undiscounted returns.
_TRIALS, _RETURNS = "trials", "trial_returns"
# Likewise, the memory in use: name -> field of `ContextUse`.
_USE = {
    "memory_tokens": "tokens",
    "memory_kv_bytes": "kv_bytes",
    "memory_kv_bytes_full_context": "full_context_kv_bytes",
}


@baseline_registry.register_trainer(name="memo")
class MemoTrainer(ResumableTrainer):
    """A rollout is one trial of every environment; its last update is the full one.

    Inherited from Habitat: making environments and agent (`_init_train`), stepping worker
    environments, statistics over episodes, TensorBoard tags, and when training is done. Training
    can be left at any step and goes on from the last update: what was collected after it is
    collected again.
    """

    supported_tasks = ["ExtObjNavTask-v0"]

    def __init__(self, config: DictConfig | None = None) -> None:
        rendezvous.install()
        super().__init__(config)
        if config is not None:  # memories, and sometimes environments, are made in this process
            import_plugins(config)

    # Training -----------------------------------------------------------------------------------

    def train(self) -> None:
        """Train until the configured number of steps or updates, or until asked to stop."""
        check_and_pin_weights(self.config)
        folder = Path(self.config.habitat_baselines.checkpoint_folder)
        with hold(folder / TRAIN_LOCK):
            if is_first_process():
                remove_unfinished(folder)
            resume = read_resume_state(folder)
            if resume is None and is_first_process():
                record_start(self.config, ranks().size)
            try:
                self._train_from(resume)
            except UserError as error:
                logger.info(f"Ended: {error}")  # into the log alone: the terminal gets the error
                raise
        if not self.is_done():
            logger.info(f"Stopped at {self.num_steps_done} steps; the state to resume is saved")
            scheduler.requeue_if_due()

    def _train_from(self, resume: dict[str, Any] | None) -> None:
        if resume is not None:
            saved = resume["config"]
            # Habitat goes on with the config that is here, whichever it was given.
            resume["config"] = own = config_of_run(self.config) or saved
            import_plugins(own)
            check_training_settings(own)
            for config in (self.config, own):
                check_resumed_model(config, saved)
            if is_first_process():
                record_resume(self.config, ranks().size, resume["counts"]["num_steps_done"])
        self._prepare(resume)
        with closed_at_the_end(self), dumped_if_not_finite(self):
            self._init_train(resume)
            if resume is not None:
                self._resume(resume)
            allow_restarts(self.envs, self.config)
            store = getattr(self, "num_rollouts_done_store", None)
            self._pace = Pace(self.config, store, self._updates_in_trial)
            # Environments in this process are stepped together; workers by Habitat's own loop.
            self._collector = None
            if isinstance(self.envs, InProcessVectorEnv):
                self._collector = BatchedCollector(self.envs, self._agent, self.obs_transforms)
            purge = int(self.num_steps_done) + 1
            with (
                training_writer(self.config, self.flush_secs, purge) as writer,
                stop_on_interrupt() as stop,
                steps_bar(self.num_steps_done, self._agent.total_steps) as bar,
                profiled_updates(self.config) as update_is_over,
                closing(SpareCores(self.device)) as self._spare_cores,
            ):
                self._agent.updater.after_pass = self._spare_cores.look
                self._note_state()
                # Progress, like TensorBoard and all that is saved, is the first worker's to write.
                file = self.config.habitat_baselines.progress_file
                progress = ProgressFile(file, self.num_steps_done) if rank0_only() else None
                while not self.is_done() and self._train_update(stop):
                    update_is_over()
                    self._log_update(writer, progress)
                    bar.update(self.num_steps_done - bar.n)
                    self._save_after_update(writer)
            self._save_at_end()

    def _train_update(self, stop: StopRequest) -> bool:
        """Collect and learn once; False if asked to stop, with nothing learned from a part."""
        self._agent.pre_rollout()
        self._agent.eval()
        with (
            g_timer.avg_time("trainer.rollout_collect"),
            record_function(COLLECT),
            acting_threads(self.device),
        ):
            collected = self._collect(stop)
        # An update of a part of a trial would be another one than that of an undisturbed training.
        if collected is None:
            return False
        with record_function(LEARN), self._spare_cores.learning():
            losses = self._update_agent()
        self._finite_sums = leave_out_undefined(self.running_episode_stats, self._finite_sums)
        self._losses = self._coalesce_post_step(losses, collected)
        for name, sums in self._finite_sums.items():
            self.running_episode_stats[name].copy_(sums.total)
        self.num_updates_done += 1
        return True

    def _collect(self, stop: StopRequest) -> int | None:
        """Step all environments to the next update; the steps taken, None if asked to stop."""
        storage = self._agent.rollouts
        if storage.steps == 0:
            if bool(storage.observations[TRIAL_STEP][:, 0].any()):
                raise UserError(
                    "environments and trainer disagree on where trials begin; trial_steps="
                    f"{storage.trial_steps} must be the same for both"
                )
            self._begun_at = self.num_steps_done
            self._agent.actor_critic.begin_trials(self.config.habitat.seed, self._begun_at)
            begin_trials(self.envs)
        begun, collected = storage.steps, 0
        for _ in self._pace.steps(storage):
            # Among several workers all stop at the same place, after the last step: see `agree`.
            if stop.is_set and not self._is_distributed:
                return None
            if self._collector is not None:
                collected += self._collector.step()
            else:
                self._compute_actions_and_step_envs()
                collected += int(self._collect_environment_result())
        if stop.agree(self._all_reduce):
            return None
        leave_out_lost(self.envs, storage, self.current_episode_reward)
        if self._collector is not None:
            statistics = self._collector.take_statistics(begun, self.current_episode_reward)
            for name, sums in statistics.items():
                self.running_episode_stats.setdefault(name, torch.zeros_like(sums))
                self.running_episode_stats[name] += sums
        return collected

    @g_timer.avg_time("trainer.update_agent")
    def _update_agent(self) -> dict[str, float]:
        rollouts, policy = self._agent.rollouts, self._agent.actor_critic
        # Before the value of the next step and the refresh: what acting held at the trial's end.
        use, memory = policy.context_use(), {}
        if use is not None:
            memory = {name: float(getattr(use, of).float().mean()) for name, of in _USE.items()}
        # The value of the step after the last one. It enters the cache, which is recomputed below.
        with inference_mode():
            step = rollouts.get_last_step()
            next_value = policy.get_value(
                step["observations"], None, step["prev_actions"], step["masks"]
            )
        cfg = self._ppo_cfg
        rollouts.compute_returns(
            next_value, cfg.use_gae, cfg.gamma, cfg.tau, cfg.returns_across_episodes
        )
        # Averaged over workers with the losses, hence among them until it is logged; as a sum, for
        # a worker may have lost some of its trials.
        trials = {}
        if rollouts.trial_complete:
            live = float(rollouts.live.sum())
            trials = {_RETURNS: live * rollouts.mean_return(), _TRIALS: live}
        self._agent.train()
        losses: dict[str, float] = self._agent.updater.update(rollouts)
        rollouts.after_update()
        self._agent.after_update()
        return {**losses, **memory, **trials}

    # Logging ------------------------------------------------------------------------------------

    def _log_update(self, writer: Any, progress: ProgressFile | None) -> None:
        if progress is None:
            return
        trials = None
        if _TRIALS in self._losses:
            live = self._losses.pop(_TRIALS)
            mean_return = self._losses.pop(_RETURNS) / live
            trials = {"count": round(live * ranks().size), "return": mean_return}
            writer.add_scalar("trials/return", trials["return"], self.num_steps_done)
        self._training_log(writer, self._losses, self._earlier_seconds)
        for name in self._losses.keys() & _USE.keys():
            writer.add_scalar(name.replace("_", "/", 1), self._losses[name], self.num_steps_done)
        progress.append(
            {
                "steps": self.num_steps_done,
                "updates": self.num_updates_done,
                "seconds": round(self._seconds(), 3),
                **({} if trials is None else {"trials": trials}),
                **ended_in_window(self.window_episode_stats),
                "learner": self._losses,
                "timers": {name: timer.mean for name, timer in g_timer.items()},
            }
        )

    def _create_obs_transforms(self) -> None:
        """As Habitat, and the frozen encoder: all that follows knows its features, no images."""
        self.obs_transforms = observation_transforms(self.config, self._env_spec, self.device)

    # Evaluation ---------------------------------------------------------------------------------

    def eval(self) -> None:
        """Evaluate one checkpoint file, or the latest of a folder, or an agent without one."""
        baselines, checkpoint = self.config.habitat_baselines, ""
        if baselines.eval.should_load_ckpt:
            checkpoint = str(newest_checkpoint(Path(baselines.eval_ckpt_path_dir)))
        if self._is_distributed:
            rendezvous.take_own_part(self.config)
            self._is_distributed = False  # nothing is done together
        self.device = get_device(self.config)
        with make_writer(self.config, self.flush_secs) as writer:
            self._eval_checkpoint(checkpoint, writer)

    def load_checkpoint(self, checkpoint_path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Weights, config and extra state of a checkpoint."""
        return read_checkpoint(Path(checkpoint_path))

    def _eval_checkpoint(
        self, checkpoint_path: str, writer: Any, checkpoint_index: int = 0
    ) -> None:
        """The model comes from the checkpoint's config, everything else from the config given."""
        checkpoint = self.load_checkpoint(checkpoint_path) if checkpoint_path else None
        config = evaluation_config(self.config, checkpoint["config"] if checkpoint else None)
        if checkpoint_path:
            with read_write(config):
                # Of a folder the file that was chosen: the evaluation is called by its name.
                config.habitat_baselines.eval_ckpt_path_dir = checkpoint_path
        check_model_config(config)
        with closed_at_the_end(self):
            self._init_envs(config, is_eval=True)
            self.config = config
            self._agent = self._create_agent(None)
            step = checkpoint_index
            if checkpoint is not None:
                self._agent.load_ckpt_state_dict(checkpoint)
                step = checkpoint["extra_state"]["step"]
            self._agent.eval()
            evaluator = hydra.utils.instantiate(config.habitat_baselines.evaluator)
            # One thread wherever environments are: sums are the same on every number of cores.
            with acting_threads(self.device):
                evaluator.evaluate_agent(
                    *(self._agent, self.envs, config, checkpoint_index, step, writer, self.device),
                    *(self.obs_transforms, self._env_spec, self._rank0_keys),
                )
