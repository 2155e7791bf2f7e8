"""`memo-habitat export`: a folder that tells of its agent and acts without the run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from omegaconf import OmegaConf

import memo_habitat as mh
from memo_habitat.cli.main import main
from memo_habitat.errors import UserError
from memo_habitat.evaluation.records import EvaluationMeta
from memo_habitat.trainer.checkpoint import read_checkpoint
from memo_habitat.trainer.run_dir import open_run
from tests.integration.conftest import TINY_DARK_KEY

NAME = "extobjnav/recall"
STEP = 1_769_472  # after which the agent that ships was saved
BUDGET = "habitat_baselines.rl.memory.token_budget"
MEASURES = {
    "spl": {"name": "spl", "kind": "rate", "unit": "", "better": "higher", "text": "SPL."},
}


def episode(trial: int, index: int, success: bool) -> str:
    """A line of records: two episodes of 50 steps make a trial."""
    return json.dumps(
        {
            "trial_id": f"house-{trial}/0/0",
            "scene_id": f"house-{trial}",
            "arrangement_id": "0",
            "repetition": 0,
            "episode_index": index,
            "target_category": "cup",
            "trial_step_start": 50 * index,
            "trial_step_end": 50 * (index + 1),
            "success": float(success),
            "num_steps": 50,
            "reward": 1.0,
            "start_distance": 2.0,
            "path_length": 3.0,
            "truncated": False,
            "spl": 0.5 * success,
        }
    )


def evaluate(
    run: Path, name: str, agent: str, step: int | None, finished: str | None, budget: int = 400
) -> None:
    """Leave an evaluation of four trials: three of four episodes succeed."""
    folder = run / "eval" / name
    folder.mkdir(parents=True)
    meta = EvaluationMeta.of_this_process(
        agent=agent,
        step=step,
        split="test",
        steps_per_trial=100,
        finished=finished,
        measures={},
        settings={BUDGET: budget, "habitat.dataset.data_path": "/home/me/data/x"} if step else {},
    )
    lines = [episode(trial, i, trial + i > 0) for trial in range(2) for i in range(2)]
    (folder / "meta.json").write_text(
        json.dumps({**meta.model_dump(mode="json"), "measures": MEASURES})
    )
    (folder / "records.jsonl").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def run(tmp_path_factory, checkout) -> Path:
    """A run of the agent that ships, with evaluations, on a machine of somebody's."""
    folder = tmp_path_factory.mktemp("runs") / "mine"
    shutil.copytree(checkout / "data/agents/recall", folder)
    (folder / "spaces.json").unlink()  # as in a run: an environment tells
    record = json.loads((folder / "run.json").read_text())
    command = ["memo-habitat", "train", "--config-name=extobjnav/recall", "--out", "/home/me/mine"]
    config = OmegaConf.load(folder / "config.yaml")
    config.habitat.dataset.data_path = str(checkout / config.habitat.dataset.data_path)
    OmegaConf.save(config, folder / "config.yaml")
    paths = ["--resume=/home/me/mine", "habitat.dataset.data_path=/home/me/data/x"]
    resume = {"time": "today", "workers": 1, "steps": 1, "overrides": paths[1:]}
    changed = {"habitat.dataset.data_path": [None, "/home/me/data/x"], "habitat.seed": [1, 2]}
    record["resumed"] = [{**resume, "command": ["memo-habitat", *paths], "changed": changed}]
    record.update(command=command, machine={"system": "secret", "processor": "x", "cores": 2})
    (folder / "run.json").write_text(json.dumps(record))
    evaluate(folder, "mine", "checkpoint", STEP, "today")
    evaluate(folder, "earlier", "checkpoint", 1000, "today")
    evaluate(folder, "tight", "checkpoint", STEP, "today", budget=40)
    evaluate(folder, "random", "random", None, "today")
    evaluate(folder, "unfinished", "random", None, None)
    (folder / "eval/killed").mkdir()  # before its first episode
    (folder / "eval/killed/records.jsonl").touch()
    return folder


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "mine"
    assert main(["export", str(run), "--out", str(folder), "--records"]) == 0
    return folder


def card(folder: Path) -> tuple[dict, str]:
    """Front matter and text."""
    _, front, text = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), text


def test_the_card_has_the_results_of_these_weights_with_intervals(exported):
    front, text = card(exported)
    assert front["license"] == "mit" and front["library_name"] == "memo-habitat"
    (entry,) = front["model-index"][0]["results"]
    assert entry["dataset"] == {"type": "data/lofts", "name": "data/lofts", "split": "test"}
    metrics = {metric["type"]: metric for metric in entry["metrics"]}
    assert metrics["success"]["value"] == 0.75
    low, high = metrics["success"]["args"]["interval"]
    assert low < 0.75 < high
    assert metrics["spl"]["value"] == 0.375
    assert metrics["targets"]["value"] == 15.0
    rows = re.findall(r"^\| (mine|random|earlier|unfinished|tight) \|", text, re.MULTILINE)
    assert sorted(rows) == ["mine", "random"]
    for told in (
        "EmbreeSim-v0",
        "1,769,472",
        "`stop`",
        "torch 2.",
        "--config-name=extobjnav/recall",
    ):
        assert told in text


def test_the_hub_reads_the_card(exported):
    hub = pytest.importorskip("huggingface_hub", reason="pip install 'memo-habitat[hub]'")
    results = hub.ModelCard.load(exported / "README.md").data.eval_results
    assert {result.metric_type for result in results} == {"success", "spl", "targets"}


def test_nothing_is_told_of_the_machine(exported, checkout):
    texts = [path for path in exported.rglob("*.*") if path.suffix != ".safetensors"]
    whole = "".join(path.read_text() for path in texts)
    assert "/home/me" not in whole and "secret" not in whole and str(exported.parent) not in whole
    assert str(checkout) not in whole
    record = open_run(exported).record()
    assert record.machine == {}
    assert record.resumed[0].command[1:] == ["--resume=mine", "habitat.dataset.data_path=data/x"]
    assert record.resumed[0].changed["habitat.dataset.data_path"] == (None, "data/x")


def test_the_weights_are_the_runs(run, exported):
    ours, theirs = (
        read_checkpoint(open_run(folder).find_checkpoint(None)) for folder in (exported, run)
    )
    assert ours["extra_state"]["step"] == STEP and ours["origin"] == theirs["origin"]
    assert ours["state_dict"].keys() == theirs["state_dict"].keys()
    assert all(
        torch.equal(ours["state_dict"][k], theirs["state_dict"][k]) for k in ours["state_dict"]
    )


def test_report_and_export_work_on_the_folder(exported, tmp_path, capsys):
    assert main(["report", str(exported), "--out", str(tmp_path / "report.html")]) == 0
    again = mh.export_agent(
        exported,
        tmp_path / "again",
        mh.ExportOptions(overrides=[f"{BUDGET}=200"]),
    )
    assert "the newest 200 tokens" in card(again)[1]
    assert "| mine |" not in card(again)[1]  # which was evaluated without a budget
    assert not (again / "eval").exists()
    with pytest.raises(UserError, match="name a new folder"):
        mh.export_agent(exported, tmp_path / "again")


@pytest.mark.parametrize("override", ["width=512", "kind=rmt", "token_budget=3", "top_k=off"])
def test_what_would_be_another_agent_is_refused(run, tmp_path, override):
    key = f"habitat_baselines.rl.memory.{override}"
    with pytest.raises(UserError):
        mh.export_agent(run, tmp_path / "out", mh.ExportOptions(overrides=[key]))
    assert not (tmp_path / "out").exists()


def test_where_training_began_from_stays_behind(run, tmp_path):
    changed = shutil.copytree(run, tmp_path / "run")
    config = OmegaConf.load(changed / "config.yaml")
    config.habitat_baselines.rl.ddppo.update(
        {"pretrained": True, "pretrained_weights": "/home/me/secret/weights.safetensors"}
    )
    OmegaConf.save(config, changed / "config.yaml")
    folder = mh.export_agent(changed, tmp_path / "out")
    assert "secret" not in (folder / "config.yaml").read_text()
    assert not mh.load_agent(folder).config.habitat_baselines.rl.ddppo.pretrained


def test_an_agent_of_a_task_outside_habitats_environments_acts_by_numbers(tmp_path):
    overrides = [*TINY_DARK_KEY, "habitat_baselines.total_num_steps=80"]
    training = mh.start_training("dark_key_to_door", overrides, out=tmp_path / "run")
    assert mh.train(training)
    for source in (training.run.path, mh.export_agent(training.run.path, tmp_path / "out")):
        assert mh.load_agent(source).spaces.actions == ["0", "1", "2", "3", "4"]


def test_what_has_no_graph_leaves_no_folder(exported, tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise UserError("no graph")

    monkeypatch.setattr("memo_habitat.export.onnx_graphs.export_onnx", refuse)
    with pytest.raises(UserError, match="no graph"):
        mh.export_agent(exported, tmp_path / "onnx", mh.ExportOptions(onnx=True))
    assert not (tmp_path / "onnx").exists()


@pytest.mark.slow
def test_the_snippet_of_the_docs_acts_in_a_fresh_process_without_the_run(
    exported, tmp_path, checkout
):
    """And the card has the same."""
    moved = shutil.copytree(exported, tmp_path / "elsewhere")
    text = (checkout / "docs/deploy.md").read_text()
    snippet = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)[0]
    assert snippet in card(exported)[1]
    code = f"{snippet.replace('DIR', str(moved))}\nprint(env.get_metrics()['num_steps'])"
    # Acting and training do without torch.compile, whose import takes seconds.
    code += "\nfrom memo_habitat.ppo.optimiser import build_optimiser"
    code += "\nbuild_optimiser(agent.policy, 'adam', 1e-3, 1e-5).step()"
    # What is deferred of torchvision does not come in the middle of torch's own imports.
    code += "\nimport sys, torch.distributed.tensor; print('torch._dynamo' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(checkout), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    steps, compiles = done.stdout.split()
    assert int(float(steps)) >= 1 and compiles == "False"


def observations(agent: object, trial_step: int) -> dict[str, np.ndarray]:
    """Zeros of everything, and what the agent does not know."""
    sensors = agent.spaces.observations.items()
    zeros = {name: np.zeros(sensor.shape, sensor.dtype) for name, sensor in sensors}
    return {**zeros, "trial_step": np.array([trial_step]), "unknown": np.zeros(1)}


def test_an_agent_needs_its_sensors_and_forgets_at_a_trials_start(exported):
    agent = mh.load_agent(exported, deterministic=True)
    first = [agent.act(observations(agent, step)) for step in range(5)]
    assert agent.policy.context_use().tokens.tolist() == [5]
    agent.reset()
    agent.act(observations(agent, 5))
    assert agent.policy.context_use().tokens.tolist() == [6]
    agent.reset()
    assert [agent.act(observations(agent, step)) for step in range(5)] == first
    lacking = observations(agent, 5)
    del lacking["gps"]
    with pytest.raises(UserError, match="observes gps"):
        agent.act(lacking)
