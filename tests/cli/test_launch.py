"""`memo-habitat launch`: the batch file, what is refused, and what is left where SLURM refuses."""

from __future__ import annotations

import re
import shlex
import subprocess

import pytest

from memo_habitat.cli.main import main
from memo_habitat.trainer.run_dir import open_run

LAUNCH = ("launch", "--config-name=dark_key_to_door", "setting=quick")


@pytest.fixture
def launch(capsys, monkeypatch, tmp_path):
    """The status of a command, and what it printed."""
    monkeypatch.chdir(tmp_path)

    def go(*arguments):
        status = main([*LAUNCH, *arguments])
        return status, *capsys.readouterr()

    return go


@pytest.fixture
def sbatch(tmp_path, monkeypatch):
    """A cluster's sbatch in PATH, which ends as told."""

    def make(script):
        program = tmp_path / "bin/sbatch"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")

    return make


def options(text):
    return dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", text, re.MULTILINE))


@pytest.mark.parametrize("slurm", [("--slurm",), ("--slurm", "partition=a100", "--slurm=time=60")])
def test_a_dry_run_prints_a_batch_file_that_bash_accepts(launch, slurm, tmp_path):
    status, text, _ = launch(*slurm, "--nodes", "2", "--gpus", "8", "--dry-run", "--out", "new run")
    assert status == 0
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    assert not [*tmp_path.iterdir()]
    found = options(text)
    assert (found["nodes"], found["ntasks-per-node"], found["gpus-per-node"]) == ("2", "8", "8")
    assert found.keys() >= {"requeue", "signal"}
    assert found["signal"].startswith("USR1@")
    assert found["time"] == ("1440" if slurm == ("--slurm",) else "60")
    assert ("partition" in found) == (len(slurm) > 1)
    # A folder with a blank in its name stays one word.
    assert shlex.split(text.splitlines()[-1])[-2:] == ["--resume", str(tmp_path / "new run")]


def test_gpus_may_be_asked_for_in_other_words_or_not_at_all(launch):
    for words in ("gres=gpu:a100:4", "gpus_per_task=1", "gpus_per_node=0"):
        _, text, _ = launch("--slurm", words, "--gpus", "4", "--dry-run")
        assert "gpus-per-node" not in options(text)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--slurm", "nodes=3"), "nodes=3: use --nodes"),
        (("--slurm", "ntasks_per_node=3"), "use --gpus"),
        (("--slurm", "time"), "no such option|KEY=VALUE|not allowed|unexpected|override"),
        (("--nodes", "2"), "--nodes 2 goes with --slurm"),
        (("--gpus", "0"), "--gpus 0: at least 1"),
        (("--slurm", "--resume", "runs/none"), "give one of"),
        (("--dry-run", "--resume", "runs/none"), "give one of"),
        (("--seed", "3"), "changed as habitat.seed=3"),
    ],
)
def test_what_cannot_be_launched_is_refused(launch, arguments, said, tmp_path):
    status, out, err = launch(*arguments)
    assert (status, out) == (2, "")
    assert re.search(said, err)
    assert not [*tmp_path.iterdir()]


def test_launched_bare_it_says_what_to_give(capsys):
    assert main(["launch"]) == 2
    assert "--config-name" in capsys.readouterr().err


def test_without_slurm_a_dry_run_prints_the_command(launch):
    _, out, _ = launch("--gpus", "3", "--dry-run", "--out", "x y")
    assert out == (
        "memo-habitat train --workers 3 --config-name=dark_key_to_door '--out=x y' setting=quick\n"
    )


def test_a_submitted_run_lies_ready_for_its_job(launch, sbatch, tmp_path):
    sbatch("echo '17;cluster'")
    status, out, _ = launch("--slurm", "--nodes", "2", "--out", "run")
    assert status == 0
    assert "submitted as job 17; its log: run/slurm-17.log" in out
    _, out, _ = launch("--slurm", "output=logs/%j.txt", "--out", "other")
    assert "its log: logs/17.txt" in out
    run = open_run(tmp_path / "run")
    assert run.record().workers == 2
    text = (run.path / "job.sbatch").read_text()
    assert shlex.split(text.splitlines()[-1])[-2:] == ["--resume", str(run.path)]


@pytest.mark.parametrize("script", ["echo 'error: invalid partition' >&2; exit 1", None])
def test_what_slurm_refuses_leaves_no_run(launch, sbatch, script, tmp_path, monkeypatch):
    if script is None:
        monkeypatch.setenv("PATH", str(tmp_path))
    else:
        sbatch(script)
    status, _, err = launch("--slurm", "--out", "run")
    assert status == 2
    assert ("no sbatch here" if script is None else "invalid partition") in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()
