"""The command `memo-habitat plan`: a table or one JSON object, and warnings that end with 0."""

from __future__ import annotations

import json

import pytest

from memo_habitat.cli.main import main

CAMERA = "habitat.simulator.agents.main_agent.sim_sensors.head_rgb_sensor"
PLAN = (
    "plan",
    "--config-name=extobjnav/studio",
    f"{CAMERA}.width=16",
    f"{CAMERA}.height=16",
    "habitat_baselines.num_environments=2",
)
# Where the sizes do not matter: every step of a trial is followed.
SHORT = (
    *PLAN,
    "habitat.task.trial_steps=64",
    "habitat_baselines.rl.memory.layers=1",
    "habitat_baselines.rl.memory.segment_length=32",
    "habitat_baselines.rl.memory.summary_length=8",
)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
def test_json_is_one_object_with_all_figures(capsys, tmp_path):
    assert main([*SHORT, "--gpus", "2", "--gpu-memory", "80GB", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    plan = json.loads(line)
    assert plan["config"] == "extobjnav/studio"
    assert plan["workers"] == 2
    assert plan["usable_bytes"] == 64 * 10**9
    assert plan["measured"] is plan["throughput"] is None
    assert plan["warnings"] == []
    assert (plan["environments"], plan["num_mini_batch"]) == (2, 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_what_will_not_fit_is_a_warning_and_no_failure(capsys):
    assert main([*SHORT, "--gpu-memory", "1MB"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("not even one environment" in line for line in lines)
    assert any(line.startswith("throughput: not known without rates") for line in lines)
    warnings = [line for line in lines if line.startswith("warning: ")]
    assert "habitat_baselines.rl.ppo.num_mini_batch=4" in warnings[0]
    assert "habitat_baselines.num_environments=2" in warnings[0]


@pytest.mark.slow
def test_measured_stands_beside_planned(capsys):
    assert main([*PLAN, "--measure", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    measured = plan["measured"]
    assert plan["update_bytes"] == pytest.approx(measured["update_bytes"], rel=0.15)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--gpus", "0"), "--gpus 0"),
        (("--rates", "nowhere"), "nowhere is not a run folder"),
        (("--gpu-memory", "80"), "--gpu-memory 80"),
        (("--gpu-memory", "-5GB"), "--gpu-memory -5GB: give an amount above 0 with its unit"),
        (("habitat_baselines.num_environmens=2",), "did you mean"),
        (("zzz=2",), "`memo-habitat train --config-name=extobjnav/studio --cfg`"),
    ],
)
def test_bad_input_is_one_line(capsys, arguments, named):
    assert main([*PLAN, *arguments]) == 2
    error = capsys.readouterr().err
    assert named in error
    assert error.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["memo", "fct", "lstm"])
def test_environments_without_a_data_set_are_planned_as_well(capsys, kind):
    name = "dark_key_to_door"
    small = ("habitat_baselines.num_environments=4", "habitat.task.trial_steps=100")
    assert main(["plan", f"--config-name={name}", f"memory={kind}", "--json", *small]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["config"] == name
