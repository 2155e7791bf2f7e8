"""`memo-habitat eval --inspect-memory` reaches the evaluator, in runs of any age."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from memo_habitat.cli.main import parse
from memo_habitat.trainer import launch


def test_the_option_is_off_unless_given() -> None:
    assert not parse(["eval", "RUN"]).inspect_memory
    assert parse(["eval", "RUN", "--inspect-memory"]).inspect_memory


def test_the_option_sets_the_evaluator_of_a_run_from_before_there_was_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(launch, "_execute", lambda config, kind: seen.append(config))
    run, _ = launch.start_training("extobjnav/studio", out=tmp_path / "run")
    config = yaml.safe_load(run.config_path.read_text())
    for key in ("inspect_memory", "inspect_every"):
        del config["habitat_baselines"]["evaluator"][key]
    run.config_path.write_text(yaml.safe_dump(config))
    (run.checkpoint_dir / "latest.safetensors").touch()
    launch.evaluate(run, launch.EvalOptions(inspect_memory=True))
    launch.evaluate(run, launch.EvalOptions())
    assert seen[0].habitat_baselines.evaluator.inspect_memory is True
    assert "inspect_memory" not in seen[1].habitat_baselines.evaluator
