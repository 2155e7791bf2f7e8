"""Checkpoints: exact, atomic, and clear about what does not fit."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from memo_habitat.errors import UserError
from memo_habitat.trainer import checkpoint
from memo_habitat.trainer.run_dir import newest_checkpoint

CONFIG = OmegaConf.create({"habitat": {"seed": 3}})


def test_weights_config_and_extra_state_come_back(tmp_path):
    layer = nn.Linear(3, 2)
    path = tmp_path / "ckpt.0.safetensors"
    checkpoint.write_checkpoint(path, layer.state_dict(), CONFIG, {"step": 7})
    back = checkpoint.read_checkpoint(path)
    other = nn.Linear(3, 2)
    checkpoint.load_weights(other, back["state_dict"])
    assert torch.equal(layer.weight, other.weight)
    assert back["config"] == CONFIG
    assert back["extra_state"] == {"step": 7}
    assert [p.name for p in tmp_path.iterdir()] == ["ckpt.0.safetensors"]


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "latest.safetensors"
    checkpoint.write_checkpoint(path, nn.Linear(1, 1).state_dict(), CONFIG, {"step": 1})

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match="No space left"):
        checkpoint.write_checkpoint(path, nn.Linear(1, 1).state_dict(), CONFIG, {"step": 2})
    assert checkpoint.read_checkpoint(path)["extra_state"] == {"step": 1}
    assert len(list(tmp_path.iterdir())) == 1


def test_another_architecture_names_the_differing_keys():
    with pytest.raises(UserError, match=r"bias .*weight"):
        checkpoint.load_weights(nn.Linear(3, 2), nn.Linear(4, 5).state_dict())


@pytest.mark.parametrize("content", [b"", b"not a checkpoint at all"])
def test_a_corrupt_checkpoint_is_named(tmp_path, content):
    path = tmp_path / "ckpt.0.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"ckpt\.0\.safetensors"):
        checkpoint.read_checkpoint(path)


def test_random_generators_go_on_where_they_were(tmp_path):
    checkpoint.write_resume_state(tmp_path, {"counts": {"steps": 1}}, CONFIG)
    drawn = [random.random(), float(np.random.rand()), float(torch.rand(()))]
    state = checkpoint.read_resume_state(tmp_path)
    checkpoint.restore_random_state(state)
    assert [random.random(), float(np.random.rand()), float(torch.rand(()))] == drawn
    assert state["config"] == CONFIG


def test_an_empty_folder_has_nothing_to_resume_and_no_checkpoint(tmp_path):
    assert checkpoint.read_resume_state(tmp_path) is None
    with pytest.raises(UserError, match="train first"):
        newest_checkpoint(tmp_path)
