"""`memo-habitat` from training to the report, and what it says of bad data."""

from __future__ import annotations

import gzip
import json
import shutil
import signal
from pathlib import Path

import pytest

from memo_habitat.cli.main import main
from tests.integration.conftest import TINY, run, start, stop, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.slow]
STUDIO = ("train", "--config-name=extobjnav/studio")


def test_train_stop_resume_evaluate_report(tmp_path, monkeypatch, capfd):
    endless = start(
        "memo-habitat", *STUDIO, *TINY, "habitat_baselines.total_num_steps=1000000", cwd=tmp_path
    )
    try:
        wait_for(lambda: len(list(tmp_path.glob("runs/*/progress.jsonl"))) == 1, endless)
        (progress,) = tmp_path.glob("runs/*/progress.jsonl")
        wait_for(lambda: progress.read_text().count("\n") >= 3, endless)
        endless.send_signal(signal.SIGINT)
        _, err = endless.communicate(timeout=600)
    finally:
        stop(endless)
    folder = str(progress.parent)
    assert endless.returncode == 130, err
    assert err == f"stopped; resume with: memo-habitat train --resume runs/{progress.parent.name}\n"

    rows = progress.read_text().splitlines()
    total = int(json.loads(rows[-1])["steps"]) + 128
    override = f"habitat_baselines.total_num_steps={total}"
    # Most of the rest in this process, which has long imported what a command needs seconds for.
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--resume", folder, override]) == 0
    assert json.loads(progress.read_text().splitlines()[-1])["steps"] >= total

    size = ("--trials", "1", "--steps", "48")
    done = run("memo-habitat", "eval", folder, *size, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""

    capfd.readouterr()
    for agent in ("random", "oracle"):
        assert main(["eval", folder, "--agent", agent, *size]) == 0
    assert main(["report", folder]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    report = Path(out.splitlines()[-1])
    assert "http-equiv" not in report.read_text()
    assert report.stat().st_size > 10_000

    name = rename_a_weight(Path(folder) / "checkpoints/latest.safetensors")
    assert main(["eval", folder, "--name", "other"]) == 2
    _, err = capfd.readouterr()
    assert "another architecture" in err
    assert name in err
    assert err.count("\n") == 1


def test_ctrl_c_ends_a_training_of_habitats_own_without_a_traceback(tmp_path, checkout):
    folder = tmp_path / "with space"
    name = "--config-name=nav/ppo_pointnav_studio"
    config = (name, "habitat_baselines.log_interval=1", "habitat_baselines.num_environments=2")
    training = start("memo-habitat", "train", *config, "--out", str(folder), cwd=checkout)
    try:
        log = folder / "train.log"
        wait_for(lambda: log.exists() and "update: 1" in log.read_text(), training)
        training.send_signal(signal.SIGINT)
        _, err = training.communicate(timeout=600)
    finally:
        stop(training)
    assert training.returncode == 130
    assert err.splitlines()[-1:] == ["interrupted"] and "Traceback" not in err


def rename_a_weight(checkpoint: Path) -> str:
    """Make a checkpoint that of another model; returns the key that is missing from it."""
    from memo_habitat.trainer.checkpoint import read_checkpoint, write_checkpoint

    found = read_checkpoint(checkpoint)
    weights = found["state_dict"]
    missing = sorted(weights)[0]
    weights[f"{missing}.of_another_model"] = weights.pop(missing)
    write_checkpoint(checkpoint, weights, found["config"], found["extra_state"])
    return missing


def edit(episodes: Path, change) -> None:
    """Change the first episode of an episode file."""
    document = json.loads(gzip.decompress(episodes.read_bytes()))
    change(document["episodes"][0])
    document["episodes"] = document["episodes"][:1]
    episodes.write_bytes(gzip.compress(json.dumps(document).encode()))


def without_scene(data: Path) -> str:
    for scene in data.glob("scenes/*"):
        scene.unlink()
    return "scene"


def with_corrupt_stages(data: Path) -> str:
    for stage in data.glob("stages/*.glb"):
        stage.write_bytes(b"no mesh")
    return ".glb"


def without_field(data: Path) -> str:
    edit(data / "episodes/train.json.gz", lambda episode: episode.pop("rigid_objs"))
    return "rigid_objs"


def with_unknown_category(data: Path) -> str:
    def change(episode):
        episode["rigid_objs"][0][0] = "unicorn.object_config.json"

    edit(data / "episodes/train.json.gz", change)
    return "unicorn"


def with_nothing_reachable(data: Path) -> str:
    def change(episode):
        for _, transform in episode["rigid_objs"]:
            transform[1][3] = 50.0

    edit(data / "episodes/train.json.gz", change)
    return "reach"


def without_gzip(data: Path) -> str:
    (data / "episodes/train.json.gz").write_text("{}")
    return "train.json.gz"


@pytest.mark.parametrize(
    "spoil",
    [
        without_scene,
        with_corrupt_stages,
        without_field,
        with_unknown_category,
        with_nothing_reachable,
        without_gzip,
    ],
    ids=lambda spoil: spoil.__name__,
)
def test_bad_data_gives_one_line_and_leaves_no_run(tmp_path, checkout, monkeypatch, capfd, spoil):
    data = tmp_path / "data/studios"
    shutil.copytree(checkout / "data/studios", data)
    named = spoil(data)
    # The data set in the working directory goes before the one that is installed.
    monkeypatch.chdir(tmp_path)
    assert main([*STUDIO, *TINY, "habitat_baselines.total_num_steps=128"]) == 2
    _, err = capfd.readouterr()
    assert named in err
    assert "Traceback" not in err
    assert err.count("\n") == 1, err
    assert not list(tmp_path.glob("runs/*"))
