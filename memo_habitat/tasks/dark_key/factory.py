"""Makes the vector environment from the composed config, as Habitat-Baselines asks for it."""

from __future__ import annotations

from gym import spaces
from habitat_baselines.common.env_factory import VectorEnvFactory
from habitat_baselines.common.env_spec import EnvironmentSpec
from omegaconf import DictConfig

from memo_habitat.errors import UserError, check_at_least_one
from memo_habitat.tasks.dark_key.layouts import ACTIONS, Setting
from memo_habitat.tasks.dark_key.vector_env import DarkKeyVectorEnv, observation_space


class DarkKeyVectorEnvFactory(VectorEnvFactory):
    """Dark-Key-To-Door in the trainer's own process.

    Read from the config: `habitat.task.size`, `habitat.task.trial_steps`,
    `habitat.environment.max_episode_steps`, `habitat.seed`, `habitat_baselines.num_environments`,
    and in evaluations `habitat_baselines.evaluator.agent`.
    """

    def construct_envs(
        self,
        config: DictConfig,
        workers_ignore_signals: bool = False,
        enforce_scenes_greater_eq_environments: bool = False,
        is_first_rank: bool = True,
    ) -> DarkKeyVectorEnv:
        """The environments of a training, or, where the third argument is True, an evaluation."""
        is_eval = enforce_scenes_greater_eq_environments
        baselines, task = config.habitat_baselines, config.habitat.task
        count = baselines.num_environments
        check_at_least_one("habitat_baselines.num_environments", count)
        if not is_eval:
            _check_seed(config)
        setting = Setting(task.size, config.habitat.environment.max_episode_steps, task.trial_steps)
        return DarkKeyVectorEnv(
            setting,
            count,
            config.habitat.seed,
            oracle=is_eval and baselines.evaluator.agent == "oracle",
            records=is_eval,
        )

    def environment_spec(self) -> EnvironmentSpec:
        """Spaces of one environment as training observes it; they depend on no setting."""
        actions = spaces.Discrete(len(ACTIONS))
        return EnvironmentSpec(
            observation_space=observation_space(),
            action_space=actions,
            orig_action_space=actions,
        )


def _check_seed(config: DictConfig) -> None:
    """Refuse to train on the layouts that evaluations play."""
    seed = config.habitat.seed
    if seed == config.habitat_baselines.evaluator.seed:
        raise UserError(
            f"habitat.seed={seed}: evaluations draw their layouts from that seed "
            "(habitat_baselines.evaluator.seed), and a training would know them; take another, "
            f"such as habitat.seed={seed + 1}"
        )
