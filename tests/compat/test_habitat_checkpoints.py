"""Pickles of Habitat's trainers: what a config is made of is read, nothing else is."""

from __future__ import annotations

import os
import pickle
from collections import deque
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from memo_habitat.compat.habitat_checkpoints import Window, config_classes
from memo_habitat.config.compose import compose_config


def load(path: Path):
    """As Habitat's trainers do once configs are allowed."""
    with torch.serialization.safe_globals(config_classes()):
        return torch.load(path, weights_only=True)


class Code:
    """Runs when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("name", ["nav/ppo_pointnav_studio", "extobjnav/studio"])
def test_a_checkpoint_with_its_config_comes_back(tmp_path, name):
    config = compose_config(name)
    OmegaConf.register_new_resolver("noted", lambda: "now", use_cache=True, replace=True)
    config.run_dir = "runs/${noted:}"
    assert config.run_dir == "runs/now"  # the cache, a defaultdict, is filled
    window = deque([torch.ones(1)], maxlen=2)
    torch.save({"config": config, "window": window, "w": torch.eye(2)}, tmp_path / "ckpt.0.pth")
    found = load(tmp_path / "ckpt.0.pth")
    assert found["config"] == config
    assert found["config"].run_dir == "runs/now"
    assert type(found["config"]._metadata) is type(config._metadata)
    assert torch.equal(found["w"], torch.eye(2))
    for value in range(3):
        found["window"].append(value)
    assert found["window"] == [1, 2]


def test_a_window_is_saved_as_the_deque_that_it_was(tmp_path):
    torch.save(Window([1, 2, 3], maxlen=3), tmp_path / "state.pth")
    assert torch.load(tmp_path / "state.pth", weights_only=False) == deque([1, 2, 3], maxlen=3)


def test_a_pickle_that_would_run_code_is_refused_and_runs_none(tmp_path):
    torch.save({"config": Code(tmp_path / "made")}, tmp_path / "ckpt.0.pth")
    with pytest.raises(pickle.UnpicklingError, match="mkdir"):
        load(tmp_path / "ckpt.0.pth")
    assert not (tmp_path / "made").exists()
