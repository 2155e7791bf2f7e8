"""The agent access manager: policy, storage, updater, and when caches are renewed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from habitat_baselines.common.baseline_registry import baseline_registry
from habitat_baselines.rl.ppo.single_agent_access_mgr import SingleAgentAccessMgr
from habitat_baselines.utils.timing import g_timer

from memo_habitat.policy.policy import MemoPolicy
from memo_habitat.ppo.optimiser import LearningRate
from memo_habitat.rollout.storage import TrialStorage
from memo_habitat.trainer.checkpoint import acting_weights, load_weights, read_checkpoint
from memo_habitat.utils.data_paths import resolve
from memo_habitat.utils.processes import ranks


@baseline_registry.register_agent_access_mgr(name="MemoAgentAccessMgr")
class MemoAgentAccessMgr(SingleAgentAccessMgr):
    """Habitat's single-agent manager over trials instead of fixed-length rollouts."""

    _updater: Any  # None in an evaluation
    total_steps: float  # of the environments in the whole training, summed over all workers

    def _init_policy_and_updater(
        self, lr_schedule_fn: Callable[[float], float], resume_state: dict[str, Any] | None
    ) -> None:
        self._actor_critic: MemoPolicy = self._create_policy()
        ddppo = self._config.habitat_baselines.rl.ddppo
        if ddppo.pretrained and resume_state is None:
            self.load_ckpt_state_dict(read_checkpoint(resolve(ddppo.pretrained_weights)))
        # An evaluation learns nothing, and an optimiser imports torch.compile, for two seconds.
        learns = not self._config.habitat_baselines.evaluate
        self._updater = self._create_updater(self._actor_critic) if learns else None
        # Habitat's schedules count updates; ours is asked before each rollout, see `pre_rollout`.
        self._lr_scheduler = None
        ppo, baselines = self._ppo_cfg, self._config.habitat_baselines
        steps_per_update = self._config.habitat.task.trial_steps / ppo.updates_per_trial
        self.total_steps = float(baselines.total_num_steps)
        if baselines.total_num_steps == -1:  # the config counts updates instead
            environments = self._num_envs * ranks().size
            self.total_steps = baselines.num_updates * steps_per_update * environments
        self._schedule = LearningRate(
            ppo.lr, ppo.lr_warmup_steps, ppo.lr_warmup_start, ppo.lr_final, self.total_steps
        )

    def _create_policy(self) -> MemoPolicy:
        name = self._config.habitat_baselines.rl.policy[self.agent_name].name
        policy: MemoPolicy = baseline_registry.get_policy(name).from_config(
            self._config,
            self._env_spec.observation_space,
            self._env_spec.action_space,
            agent_name=self.agent_name,
        )
        return policy.to(self._device)

    def _create_storage(self, num_envs: int, env_spec: Any, **kwargs: Any) -> TrialStorage:
        storage_class = baseline_registry.get_storage(
            self._config.habitat_baselines.rollout_storage_name
        )
        storage: TrialStorage = storage_class(
            num_envs,
            self._config.habitat.task.trial_steps,
            env_spec.observation_space,
            self._actor_critic.network.kept_features,
        )
        storage.to(self._device, self._ppo_cfg.rollout_gpu_gb)
        return storage

    def pre_rollout(self) -> None:
        """Set the learning rate and the entropy coefficient for the steps done so far."""
        done = self._percent_done_fn()
        self._updater.set_learning_rate(self._schedule.at(done * self.total_steps))
        self._updater.anneal(done)

    def after_update(self) -> None:
        """With new weights every cached key and value is stale: recompute them."""
        if self._ppo_cfg.shuffle_episodes:
            self._rollouts.shuffle_episodes()
        self.refresh_memory()

    def refresh_memory(self) -> None:
        """Compute the memory of the trial under way from the stored steps."""
        with g_timer.avg_time("trainer.refresh"):
            self._actor_critic.refresh(
                self._rollouts, self._ppo_cfg.refresh_chunk, self._ppo_cfg.refresh_values
            )

    def load_ckpt_state_dict(self, ckpt: dict[str, Any]) -> None:
        """Load the weights of a checkpoint; another architecture is an error."""
        weights = ckpt["state_dict"]
        if self._actor_critic.network.auxiliary is None:  # evaluations do without
            weights = acting_weights(weights)
        load_weights(self._actor_critic, weights)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load weights and the optimiser's state."""
        self.load_ckpt_state_dict(state)
        if "optim_state" in state:
            self._updater.load_state_dict(state)
