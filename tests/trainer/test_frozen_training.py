"""A frozen encoder in whole trainings: trained, resumed, evaluated from weights kept elsewhere."""

from __future__ import annotations

import json
import shutil

import pytest
from omegaconf import OmegaConf

from memo_habitat.config.compose import choices, compose_config
from memo_habitat.errors import UserError
from memo_habitat.trainer import launch
from memo_habitat.trainer.checkpoint import read_checkpoint
from memo_habitat.trainer.memory_estimate import estimate_memory, table
from tests.factories.frozen import BACKBONE, SIDE, WIDTH, vc1_shaped
from tests.factories.trainings import ONE_HOUSE, TINY_STUDIO

pytest.importorskip("timm", reason="timm is not installed (extra 'timm')")

ENCODER = "habitat_baselines.rl.encoder"
SIM_SENSORS = "habitat.simulator.agents.main_agent.sim_sensors"
WITH_DEPTH = f"""
defaults:
  - /extobjnav/studio
  - /habitat/simulator/sim_sensors@{SIM_SENSORS}.head_depth_sensor: head_depth_sensor
  - _self_
"""
FROZEN = (
    "encoder=vc1",
    f"{ENCODER}.backbone={BACKBONE}",
    f"{ENCODER}.image_size={SIDE}",
    f"{ENCODER}.features=16",
)


def evaluated(run, **options):
    options = {"trials": 1, "steps": 24, "overrides": ONE_HOUSE, **options}
    records = launch.evaluate(run, launch.EvalOptions(**options)) / "records.jsonl"
    return [json.loads(line) for line in records.read_text().splitlines()]


@pytest.mark.slow
def test_it_trains_resumes_and_is_evaluated_from_weights_that_have_moved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HABITAT_ENV_DEBUG", "1")
    weights = tmp_path / "vc1.bin"
    vc1_shaped(weights)
    given = f"{ENCODER}.weights={weights}"
    training = launch.start_training("extobjnav/studio", (*FROZEN, given, *TINY_STUDIO))
    run = training.run
    assert launch.train(training)
    first = evaluated(run, name="first")
    assert launch.train(
        launch.resume_training(str(run.path), ("habitat_baselines.total_num_steps=128",))
    )
    found = read_checkpoint(run.latest_checkpoint)
    assert found["extra_state"]["step"] == 128
    # The head behind the encoder, and not one weight of the encoder itself.
    assert not any("backbone" in name for name in found["state_dict"])
    assert run.latest_checkpoint.stat().st_size < weights.stat().st_size
    trained = found["config"].habitat_baselines.rl.encoder
    assert trained.weights == str(weights) and len(trained.weights_digest) == 64

    moved = tmp_path / "elsewhere.bin"
    shutil.move(weights, moved)
    with pytest.raises(UserError, match=r"vc1\.bin"):
        evaluated(run, name="missing")
    there = (*ONE_HOUSE, f"{ENCODER}.weights={moved}")
    checkpoint = str(run.checkpoint_dir / "ckpt.0.safetensors")
    again = evaluated(run, name="again", checkpoint=checkpoint, overrides=there)
    assert [e["reward"] for e in again] == [e["reward"] for e in first]
    vc1_shaped(moved, seed=1)
    with pytest.raises(UserError, match="training began with"):
        evaluated(run, name="other", overrides=there)


@pytest.mark.slow
def test_depth_and_colour_train_together(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HABITAT_ENV_DEBUG", "1")
    (tmp_path / "mine.yaml").write_text(WITH_DEPTH)
    sides = [f"{SIM_SENSORS}.head_depth_sensor.{side}=32" for side in ("width", "height")]
    both = f"{ENCODER}.cameras=[head_rgb,head_depth]"
    with pytest.raises(UserError, match="head_depth is configured and used by nothing"):
        launch.train(launch.start_training("mine.yaml", (*TINY_STUDIO, *sides)))
    for options in ((f"{ENCODER}.features=16",), (*FROZEN, f"{ENCODER}.weights=random")):
        training = launch.start_training("mine.yaml", (*options, *TINY_STUDIO, *sides, both))
        assert launch.train(training)
        assert evaluated(training.run)[-1]["trial_step_end"] == 24


PUBLISHED = {
    "habitat.simulator.type": "ExtObjNavSim-v0",
    "habitat.task.trial_steps": 4096,
    "habitat.environment.max_episode_steps": 500,
    "habitat_baselines.num_environments": 20,
    "habitat_baselines.total_num_steps": 1e9,
    "habitat_baselines.evaluator.steps_per_trial": 32000,
    "habitat_baselines.rl.encoder.backbone": "vit_base_patch16_224.mae",
    "habitat_baselines.rl.memory.segment_length": 256,
    "habitat_baselines.rl.memory.summary_length": 32,
    "habitat_baselines.rl.ppo.updates_per_trial": 16,
    "habitat_baselines.rl.ppo.lr": 4e-4,
    f"{SIM_SENSORS}.head_rgb_sensor.width": 256,
    f"{SIM_SENSORS}.head_rgb_sensor.height": 256,
}


@pytest.mark.parametrize("memory", choices("memory"))
def test_the_published_setting_is_one_config_for_every_memory(memory):
    config = compose_config("extobjnav/hssd", [f"memory={memory}"])
    assert {key: OmegaConf.select(config, key) for key in PUBLISHED} == PUBLISHED


def test_what_is_to_be_downloaded_is_told_with_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HABITAT_ENV_DEBUG", "1")
    with pytest.raises(UserError, match=r"vc1-base.*`memo-habitat data get vc1`"):
        launch.start_training("extobjnav/hssd", ["simulator=embree"])
    assert not list(tmp_path.iterdir())
    training = launch.start_training("extobjnav/hssd", ["simulator=embree", "encoder=cnn"])
    with pytest.raises(UserError, match=r"ExtObjNav.*`memo-habitat data get extobjnav`"):
        launch.train(training)
    assert not training.run.path.exists()


@pytest.mark.slow
def test_the_published_setting_is_planned_where_none_of_it_is():
    config = compose_config("extobjnav/hssd", (*FROZEN, *TINY_STUDIO))
    warnings = estimate_memory(config, 2**40).warnings
    assert len(warnings) == 1 and "memo-habitat data get extobjnav" in warnings[0]


@pytest.mark.slow
def test_the_small_twin_trains_with_nothing_to_download(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HABITAT_ENV_DEBUG", "1")
    training = launch.start_training("extobjnav/apartments_frozen", TINY_STUDIO)
    assert launch.train(training)
    assert evaluated(training.run, overrides=ONE_HOUSE[:1])[-1]["trial_step_end"] == 24


def planned(*overrides):
    return estimate_memory(compose_config("extobjnav/studio", (*TINY_STUDIO, *overrides)), 2**40)


@pytest.mark.slow
def test_a_plan_counts_features_instead_of_images_and_the_frozen_weights():
    blind = planned("encoder=blind")
    frozen = planned(*FROZEN)  # there is no file of weights, and none is needed
    features = WIDTH * 2  # bytes a step, float16
    assert frozen.rollout_bytes - blind.rollout_bytes == 33 * features
    assert features < 32 * 32 * 3
    assert 2 * 300_000 < frozen.frozen_bytes < 2 * 310_000
    assert blind.frozen_bytes == 0
    assert "frozen encoder" in table("x", frozen) and "frozen" not in table("x", blind)
    parts = frozen.held_bytes + frozen.gradient_bytes + frozen.activation_bytes
    assert parts == frozen.update_bytes
