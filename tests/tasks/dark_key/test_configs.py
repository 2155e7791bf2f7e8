"""The configs' settings are those that the benchmark's code knows by name."""

from __future__ import annotations

import pytest

from memo_habitat.config.compose import choices, compose_config
from memo_habitat.errors import UserError
from memo_habitat.tasks.dark_key.layouts import SETTINGS, Setting
from memo_habitat.tasks.dark_key.vector_env import DarkKeyVectorEnvFactory

CONFIG = "dark_key_to_door"


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting_is_a_choice(setting):
    config = compose_config(CONFIG, [f"setting={setting}"])
    habitat = config.habitat
    found = Setting(
        habitat.task.size, habitat.environment.max_episode_steps, habitat.task.trial_steps
    )
    assert found == SETTINGS[setting]
    assert config.habitat_baselines.evaluator.steps_per_trial == found.trial_steps


@pytest.mark.parametrize("choice", choices("memory"))
def test_every_memory_is_a_choice_and_leaves_what_the_task_chose(choice):
    rl = compose_config(CONFIG, [f"memory={choice}"]).habitat_baselines.rl
    assert rl.memory.kind == choice.removesuffix("_fixed")
    assert (rl.memory.segment_jitter == 0) == choice.endswith("_fixed")
    assert (rl.memory.width, rl.memory.layers) == (128, 2)
    assert rl.encoder.state_sensors == ["grid", "grid_before", "last_reward", "trial_time"]


def test_no_training_draws_its_layouts_from_the_evaluations_seed():
    factory = DarkKeyVectorEnvFactory()
    config = compose_config(CONFIG, ["habitat.seed=3"])
    factory.construct_envs(config)
    config.habitat_baselines.evaluator.seed = 3
    with pytest.raises(UserError, match=r"habitat\.seed=3: .* such as habitat\.seed=4"):
        factory.construct_envs(config)
    factory.construct_envs(config, enforce_scenes_greater_eq_environments=True)
