"""Weights & Biases: one run through resumes; what is missing is named before anything starts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from memo_habitat.errors import UserError
from memo_habitat.trainer import wandb_writer
from memo_habitat.trainer.writers import make_writer


@pytest.fixture
def config(tmp_path):
    return OmegaConf.create(
        {
            "habitat_baselines": {
                "writer_type": "wb",
                "checkpoint_folder": str(tmp_path / "run/checkpoints"),
                "wb": {"project_name": "memory", "run_name": "", "entity": "", "group": "g"},
            }
        }
    )


class Service:
    """The part of wandb that is used; keeps what it is told."""

    def __init__(self) -> None:
        self.begun, self.points, self.ends = [], [], []

    def init(self, **given):
        self.begun.append(given)
        return SimpleNamespace(
            id=given["id"],
            define_metric=lambda *args, **more: None,
            log=self.points.append,
            finish=lambda exit_code: self.ends.append(exit_code),
        )


@pytest.fixture
def service(monkeypatch):
    found = Service()
    monkeypatch.setattr(wandb_writer, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "wandb", found)
    return found


def test_a_resumed_training_goes_on_in_its_run(config, service, tmp_path):
    with make_writer(config, 30, purge_step=1) as writer:
        writer.add_scalar("learner/loss", 0.5, 64)
    with pytest.raises(KeyboardInterrupt), make_writer(config, 30) as writer:
        writer.add_scalars("eval", {"a b": 1.0}, 32)
        raise KeyboardInterrupt
    with pytest.raises(ValueError, match="broken"), make_writer(config, 30):
        raise ValueError("broken")
    first, *others = service.begun
    assert {"project", "group"} <= set(first) and "entity" not in first
    assert first["resume"] == "allow" and first["dir"] == str(tmp_path / "run")
    stored = json.loads((tmp_path / "run/wandb.json").read_text())
    assert {each["id"] for each in service.begun} == {stored["id"]} and len(others) == 2
    # Steps may go back after a resume: they are an axis, not the service's own count.
    assert service.points == [
        {"learner/loss": 0.5, "environment_steps": 64},
        {"eval/ab": 1.0, "environment_steps": 32},
    ]
    assert service.ends == [0, 0, 1]


def test_what_is_missing_is_named_with_what_to_install(config, monkeypatch):
    monkeypatch.setattr(wandb_writer, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"writer_type=wb needs .* pip install 'memo-habitat\[wan"):
        make_writer(config, 30)
    config.habitat_baselines.writer_type = "paper"
    with pytest.raises(UserError, match="writer_type='paper': choose one of tb, wb"):
        make_writer(config, 30)


@pytest.mark.slow
def test_the_real_package_offline(config, monkeypatch, tmp_path):
    pytest.importorskip("wandb", reason="pip install 'memo-habitat[wandb]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    ids = set()
    for step in (64, 32):
        with make_writer(config, 30) as writer:
            writer.add_scalar("learner/loss", 0.5, step)
            ids.add(writer.get_run_id())
    assert len(ids) == 1
    folders = [path.name for path in Path(tmp_path / "run/wandb").glob("offline-run-*")]
    assert folders and all(name.endswith(min(ids)) for name in folders)
