"""Every drill passes, and says so; one that meets what it is for, and cannot go on, fails."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from memo_habitat.cli.main import main
from memo_habitat.trainer.drills import DRILLS

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def done(capfd, *words):
    """Exit status, and the lines that the drill has printed."""
    status = main(["drill", *words])
    return status, capfd.readouterr().out.splitlines()


@pytest.mark.parametrize("name", DRILLS)
def test_every_drill_passes(name, checkout, monkeypatch, capfd):
    if name == "lose-rank" and not Path("/proc/self/environ").exists():
        pytest.skip("no /proc to find a process by its rank")
    monkeypatch.chdir(checkout)
    status, lines = done(capfd, name)
    assert (status, lines[0].split(" (")[0]) == (0, f"PASS {name}"), "\n".join(lines)
    assert len(lines) > 3  # what was compared


def test_what_a_drill_counts_on_cannot_be_changed(capfd):
    assert main(["drill", "preempt", "habitat_baselines.num_environments=3"]) == 2
    assert "num_environments=3: the size of a drill" in capfd.readouterr().err


def test_a_training_that_does_not_survive_fails_and_its_folder_is_kept(
    checkout, monkeypatch, capfd
):
    monkeypatch.chdir(checkout)
    status, lines = done(capfd, "kill-worker", "habitat_baselines.max_worker_restarts=0")
    folder = Path(lines[-1].partition("the runs: ")[2])
    assert (folder / "run/config.yaml").is_file()
    shutil.rmtree(folder)
    assert (status, lines[0].split(" (")[0]) == (1, "FAIL kill-worker")
    assert "not so: the training comes to its end" in lines[1]
    assert "environment 1 was killed by SIGKILL" in lines[1]


def test_an_unknown_drill_is_refused(capsys):
    assert main(["drill", "fire"]) == 2
    assert "choose one of preempt, kill-worker" in capsys.readouterr().err
