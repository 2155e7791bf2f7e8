"""The configs' settings are those that the benchmark's code knows by name."""

from __future__ import annotations

import pytest

from memo_habitat.config.compose import compose_config, known_configs
from memo_habitat.errors import UserError
from memo_habitat.tasks.dark_key.factory import DarkKeyVectorEnvFactory
from memo_habitat.tasks.dark_key.layouts import SETTINGS, Setting

VARIANTS = [name for name in known_configs() if name.startswith("dark_key_to_door/")]


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_has_every_setting(name, setting):
    config = compose_config(name, [f"dark_key_to_door/setting={setting}"])
    habitat = config.habitat
    found = Setting(
        habitat.task.size, habitat.environment.max_episode_steps, habitat.task.trial_steps
    )
    assert found == SETTINGS[setting]
    assert config.habitat_baselines.evaluator.steps_per_trial == found.trial_steps
    memory, variant = config.habitat_baselines.rl.memory, name.rpartition("/")[2]
    assert memory.kind == variant.removesuffix("_fixed")
    assert (memory.segment_jitter == 0) == variant.endswith("_fixed")


def test_a_setting_is_no_experiment_of_its_own():
    assert len(VARIANTS) == 7


def test_no_training_draws_its_layouts_from_the_evaluations_seed():
    factory = DarkKeyVectorEnvFactory()
    config = compose_config("dark_key_to_door/memo", ["habitat.seed=3"])
    factory.construct_envs(config)
    config.habitat_baselines.evaluator.seed = 3
    with pytest.raises(UserError, match=r"habitat\.seed=3: .* such as habitat\.seed=4"):
        factory.construct_envs(config)
    factory.construct_envs(config, enforce_scenes_greater_eq_environments=True)
