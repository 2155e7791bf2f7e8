"""The detector learned from images, against the simulator's and as a training's observations."""

from __future__ import annotations

import json
import math

import pytest
import torch
from habitat.config.default import patch_config
from safetensors.torch import save_file

from memo_habitat.config.compose import compose_config
from memo_habitat.config.trainer import ImageDetectionsConfig
from memo_habitat.errors import UserError
from memo_habitat.policy.image_detector import (
    ImageDetections,
    ImageDetector,
    Seen,
    detector_loss,
    load_detector,
    table_of,
)
from memo_habitat.tasks.extobjnav.detections import AGENT_SCALE
from memo_habitat.tasks.extobjnav.vector_env import ExtObjNavVectorEnvFactory
from memo_habitat.trainer import launch
from memo_habitat.trainer.checkpoint import read_checkpoint

HOUSES = "habitat.dataset.content_scenes=[loft_0_val_000]"
CATEGORIES = 20


def some_weights(folder, categories=CATEGORIES):
    file = folder / "detector.safetensors"
    torch.manual_seed(0)
    state = ImageDetector(categories, channels=4).state_dict()
    save_file({name: value.contiguous() for name, value in state.items()}, file)
    return file


def as_tensors(observed, *uuids):
    return {uuid: torch.from_numpy(observed[uuid].copy()) for uuid in uuids}


@pytest.mark.slow
def test_what_is_seen_becomes_the_table_that_the_simulator_gives():
    config = compose_config(
        "extobjnav/recall",
        [HOUSES, "habitat.dataset.split=val", "habitat_baselines.num_environments=4"],
    )
    envs = ExtObjNavVectorEnvFactory().construct_envs(patch_config(config), False, False)
    observed, reported = envs.reset_batch(), 0
    for _ in range(40):
        told = as_tensors(observed, "detections", "gps", "compass")
        table = told["detections"]
        seen = Seen(
            20.0 * table[..., 0] - 10.0,
            table[..., 1:3] * AGENT_SCALE,
            table[..., 5].clamp(min=1e-9).log(),
        )
        torch.testing.assert_close(
            table_of(seen, 0.5, told["gps"], told["compass"]), table, atol=1e-5, rtol=1e-5
        )
        reported += int(table[..., 0].sum())
        envs.step_batch(observed["perfect_memory_action"][:, 0])
    assert reported > 20


def test_it_learns_what_is_there_and_on_which_side():
    generator = torch.Generator().manual_seed(0)

    def frames(count):
        """Noise with at most one bright square a category, whose colour is the category's."""
        images = torch.randint(0, 60, (count, 32, 32, 3), generator=generator, dtype=torch.uint8)
        tables = torch.zeros(count, 3, 6)
        for frame in range(count):
            for category in range(3):
                if torch.rand(1, generator=generator) < 0.5:
                    continue
                row, column = torch.randint(0, 26, (2,), generator=generator).tolist()
                images[frame, row : row + 6, column : column + 6, category] = 255
                left = 2.0 * (1.0 - (column + 3) / 16)
                tables[frame, category] = torch.tensor([1, 2 / 5, left / 5, 0, 0, 36 / 1024])
        return images, torch.zeros(count, 1), tables

    torch.manual_seed(0)
    detector = ImageDetector(3, channels=8)
    optimiser = torch.optim.Adam(detector.parameters(), 5e-3)
    for _ in range(120):
        images, tilts, tables = frames(32)
        optimiser.zero_grad()
        detector_loss(detector(images, tilts), tables).backward()
        optimiser.step()
    images, tilts, tables = frames(200)
    with torch.no_grad():
        seen = detector(images, tilts)
    there = tables[..., 0] > 0.0
    assert ((seen.logits > 0.0) == there).float().mean() > 0.9
    wrong = (seen.places[there] - AGENT_SCALE * tables[..., 1:3][there]).norm(dim=-1)
    assert wrong.median() < 0.5


def test_categories_of_another_data_set_and_missing_observations_are_refused(tmp_path):
    config = compose_config(
        "extobjnav/recall",
        ["encoder=image_detections", HOUSES, "habitat.dataset.split=val"],
    )
    envs = ExtObjNavVectorEnvFactory().construct_envs(patch_config(config), False, False)
    observed = envs.observation_spaces[0]

    def transformed(**options):
        node = ImageDetectionsConfig(reach=2.0, **options)
        return ImageDetections(node).transform_observation_space(observed)

    weights = str(some_weights(tmp_path))
    assert {"detections", "target_detection"} <= set(transformed(weights=weights).spaces)
    with pytest.raises(UserError, match="wrist_rgb"):
        transformed(weights=weights, camera="wrist_rgb")
    weights = str(some_weights(tmp_path, 3))
    with pytest.raises(UserError, match=r"3 categories and the data set has 20.*train_detector"):
        transformed(weights=weights)
    with pytest.raises(UserError, match=r"none.safetensors.*train_detector"):
        transformed(weights=str(tmp_path / "none.safetensors"))
    save_file({"other": torch.zeros(1)}, tmp_path / "other.safetensors")
    for wrong in ("other.safetensors", "."):
        with pytest.raises(UserError, match=r"is no detector.*train_detector"):
            transformed(weights=str(tmp_path / wrong))


@pytest.mark.slow
def test_a_training_from_images_begins_with_given_weights_and_is_evaluated(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sizes = (
        *("habitat_baselines.num_environments=2", "habitat_baselines.num_checkpoints=1"),
        *("habitat.task.trial_steps=32", "habitat_baselines.total_num_steps=64"),
        *("habitat_baselines.rl.ppo.num_mini_batch=1", "habitat_baselines.rl.memory.hidden=64"),
        "habitat_baselines.rl.memory.segment_length=16",
        *(HOUSES, "habitat.dataset.split=val", "habitat_baselines.eval.split=val"),
    )
    first = launch.start_training("extobjnav/recall", sizes)
    assert launch.train(first)
    given = first.run.latest_checkpoint
    weights = some_weights(tmp_path)
    transform = "habitat_baselines.rl.policy.main_agent.obs_transforms.image_detections"
    images = (
        "encoder=image_detections",
        f"{transform}.weights={weights}",
        "habitat_baselines.rl.ddppo.pretrained=true",
        f"habitat_baselines.rl.ddppo.pretrained_weights={given}",
        # Nothing is learned: what was given is what is saved.
        *("habitat_baselines.rl.ppo.lr=0.0", "habitat_baselines.rl.ppo.lr_final=0.0"),
    )
    second = launch.start_training("extobjnav/recall", (*sizes, *images))
    assert launch.train(second)
    before, after = (
        read_checkpoint(file)["state_dict"] for file in (given, second.run.latest_checkpoint)
    )
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    # What was given is not asked for again.
    given.unlink()
    size = launch.EvalOptions(trials=1, steps=40, overrides=(*sizes[:1], HOUSES))
    records = (launch.evaluate(second.run, size) / "records.jsonl").read_text().splitlines()
    assert json.loads(records[-1])["trial_step_end"] == 40
    assert "seen_earlier" in json.loads(records[0])


def test_the_cameras_field_of_view_is_kept_with_the_weights(tmp_path):
    torch.manual_seed(0)
    wide = ImageDetector(3, channels=4, hfov=2.0)
    save_file({k: v.contiguous() for k, v in wide.state_dict().items()}, tmp_path / "wide")
    images = torch.randint(0, 256, (5, 16, 16, 3), dtype=torch.uint8)
    again = load_detector(str(tmp_path / "wide"))
    expected, found = wide(images, torch.zeros(5, 1)), again(images, torch.zeros(5, 1))
    torch.testing.assert_close(found.places, expected.places)
    assert again.half_width == pytest.approx(math.tan(1.0))
