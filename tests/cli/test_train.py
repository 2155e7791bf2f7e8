"""`memo-habitat train` on real trainings that take seconds: who may work in a run folder."""

from __future__ import annotations

import json
import os
import shutil
from datetime import datetime
from pathlib import Path

import pytest

from memo_habitat.cli.main import main
from memo_habitat.errors import UserError
from memo_habitat.trainer.checkpoint import read_checkpoint, read_resume_state, write_resume_state
from memo_habitat.trainer.run_dir import RunFolder
from memo_habitat.trainer.trainer import MemoTrainer
from memo_habitat.utils.lock import hold

TRIAL, ENVS, TOTAL = 20, 4, 160
NEW = (
    "train",
    "--config-name=dark_key_to_door",
    "memory=lstm",
    "habitat.task.size=3",
    f"habitat.task.trial_steps={TRIAL}",
    "habitat.environment.max_episode_steps=10",
    f"habitat_baselines.num_environments={ENVS}",
    f"habitat_baselines.total_num_steps={TOTAL}",
    "habitat_baselines.num_checkpoints=1",
    "habitat_baselines.rl.ppo.num_mini_batch=1",
    "habitat_baselines.rl.ppo.ppo_epoch=1",
    "habitat_baselines.rl.memory.width=16",
    "habitat_baselines.rl.memory.hidden=16",
)
SONAR = "habitat_baselines.rl.encoder.auxiliary_sensor=sonar"


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert main([*NEW, "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def run(trained, tmp_path, monkeypatch) -> RunFolder:
    """A trained run, in the working directory."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, "run")
    return RunFolder(Path("run"))


def test_an_error_after_something_was_learned_says_how_to_go_on_and_is_in_the_log(
    run, capsys, monkeypatch
):
    update, updates = MemoTrainer._update_agent, []

    def one_update(trainer):
        updates.append(trainer)
        if len(updates) > 1:
            raise UserError("ZeroDivisionError: my bug")
        return update(trainer)

    monkeypatch.setattr(MemoTrainer, "_update_agent", one_update)
    assert main(["train", "--resume", "run", longer(2 * TOTAL)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("resume with: memo-habitat train --resume run")
    assert "my bug" in run.log_file.read_text().splitlines()[-1]
    # The first update fails: nothing new that a resume would go on from.
    assert main(["train", "--resume", "run"]) == 2
    assert "resume with" not in capsys.readouterr().err


def longer(total: int) -> str:
    return f"habitat_baselines.total_num_steps={total}"


def take_last_weights(run: RunFolder) -> None:
    """As a kill leaves it between the last update and the weights."""
    state = read_resume_state(run.checkpoint_dir)
    state["counts"]["checkpointed_at"] = -1
    write_resume_state(run.checkpoint_dir, state, state.pop("config"))
    run.latest_checkpoint.unlink()


def kept(run: RunFolder) -> dict[str, bytes]:
    """What lies in the folder, but for the locks."""
    files = (path for path in run.path.rglob("*") if path.is_file() and path not in run.locks)
    return {str(path): path.read_bytes() for path in files}


@pytest.mark.slow
@pytest.mark.parametrize("held", [0, 1], ids=["by a command", "by a trainer alone"])
def test_a_second_training_in_a_run_folder_is_refused_and_changes_nothing(run, held, capsys):
    before = kept(run)
    with hold(run.locks[held]):
        assert main(["train", "--resume", "run", longer(2 * TOTAL)]) == 2
        assert kept(run) == before
    err = capsys.readouterr().err
    assert f"process {os.getpid()} is at work in {run.locks[held].parent}" in err
    assert err.count("\n") == 1
    assert main(["train", "--resume", "run", longer(2 * TOTAL)]) == 0


def test_another_process_at_work_in_a_run_that_learned_nothing_yet_keeps_its_folder(run, capsys):
    run.progress_file.unlink()
    for path in run.checkpoint_dir.iterdir():
        path.unlink()
    before = kept(run)
    with hold(run.locks[0]):
        assert main(["train", "--resume", "run"]) == 2
    assert kept(run) == before


def test_a_new_run_that_the_trainer_refuses_is_gone_with_its_locks(tmp_path, capsys):
    assert main([*NEW, SONAR, "--out", str(tmp_path / "new")]) == 2
    assert "'sonar', which is not observed" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_of_two_runs_that_begin_in_one_folder_at_once_the_second_is_refused(tmp_path):
    from omegaconf import OmegaConf

    from memo_habitat.errors import UserError
    from memo_habitat.trainer.run_dir import create_run, plan_run

    first, second = (plan_run("dark", out=tmp_path / "run") for _ in range(2))
    create_run(first, "dark", OmegaConf.create({"habitat": {"seed": 1}}))
    before = kept(first)
    with pytest.raises(UserError, match=r"run: File exists; choose another with --out"):
        create_run(second, "dark", OmegaConf.create({"habitat": {"seed": 2}}))
    assert kept(first) == before


LR, SEED = "habitat_baselines.rl.ppo.lr", "habitat.seed"


def facts(run: RunFolder) -> dict:
    return json.loads(run.record_path.read_text())


@pytest.mark.slow
def test_what_a_resume_changes_is_told_and_stays(run, capsys):
    old, begun = run.config(), facts(run)
    assert main(["train", "--resume", "run", longer(2 * TOTAL), f"{SEED}=7", f"{LR}=3e-4"]) == 0
    assert main(["train", "--resume", "run", longer(3 * TOTAL)]) == 0
    first, second = facts(run)["resumed"]
    total = "habitat_baselines.total_num_steps"
    assert first["overrides"] == [longer(2 * TOTAL), f"{SEED}=7", f"{LR}=3e-4"]
    assert first["changed"] == {
        SEED: [old.habitat.seed, 7],
        total: [TOTAL, 2 * TOTAL],
        LR: [old.habitat_baselines.rl.ppo.lr, 3e-4],
    }
    assert second["changed"] == {total: [2 * TOTAL, 3 * TOTAL]}
    assert [entry["steps"] for entry in (first, second)] == [TOTAL, 2 * TOTAL]
    assert [entry["workers"] for entry in (first, second)] == [1, 1]
    assert first["command"] and datetime.fromisoformat(first["time"]).tzinfo
    assert {**facts(run), "resumed": []} == begun
    # What the second trained with, too, without having been told again.
    for config in (run.config(), read_checkpoint(run.latest_checkpoint)["config"]):
        assert (config.habitat.seed, config.habitat_baselines.rl.ppo.lr) == (7, 3e-4)
        assert config.habitat_baselines.total_num_steps == 3 * TOTAL
    assert main(["eval", "run", "--trials", "1"]) == 0
    assert main(["report", "run"]) == 0
    assert f"at {TOTAL} steps" in run.report_file.read_text()


REFUSED = {
    "another model": ("habitat_baselines.rl.memory.width=32", "width=32", False),
    "no such key": ("habitat.sed=1", "habitat.seed", False),
    "by the environments": ("habitat.task.size=0", "size", True),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_override_changes_nothing(run, case, capsys):
    override, named, begins = REFUSED[case]
    before, config = kept(run), read_resume_state(run.checkpoint_dir)["config"]
    assert main(["train", "--resume", "run", longer(2 * TOTAL), override]) == 2
    told, err = capsys.readouterr()
    assert named in err
    assert ("run folder: run" in told) == begins
    after = kept(run)
    state, log = str(run.resume_state), str(run.log_file)
    assert {k: v for k, v in after.items() if k not in (state, log)} == {
        k: v for k, v in before.items() if k not in (state, log)
    }
    assert read_resume_state(run.checkpoint_dir)["config"] == config


def test_a_run_that_was_moved_or_has_no_facts_goes_on(run, capsys):
    shutil.move("run", "moved")
    moved = RunFolder(Path("moved"))
    moved.record_path.unlink()
    written = moved.config_path.read_bytes()
    take_last_weights(moved)
    assert main(["train", "--resume", "moved"]) == 0
    assert moved.config_path.read_bytes() == written
    assert main(["train", "--resume", "moved", longer(2 * TOTAL)]) == 0
    unchanged, entry = facts(moved)["resumed"]
    assert unchanged["changed"] == {}
    assert list(entry["changed"]) == ["habitat_baselines.total_num_steps"]
    assert not Path("run").exists()


def test_facts_that_cannot_be_read_are_named_before_anything_is_written(run, capsys):
    run.record_path.write_text("{")
    before = kept(run)
    assert main(["train", "--resume", "run", longer(2 * TOTAL)]) == 2
    assert "run/run.json is malformed" in capsys.readouterr().err
    assert kept(run) == before


@pytest.mark.parametrize("total", [TOTAL, TOTAL // 2])
def test_a_run_at_its_end_says_so_and_how_it_would_go_on(run, total, capsys):
    before = kept(run)
    assert main(["train", "--resume", "run", longer(total), "--workers", "2"]) == 0
    told = capsys.readouterr().out.splitlines()[-1]
    assert told == (
        f"already at {TOTAL} of {total} steps; to continue: "
        "memo-habitat train --resume run habitat_baselines.total_num_steps=..."
    )
    assert kept(run) == before


def test_a_goal_in_updates_is_told_in_updates(run, capsys):
    goal = ("habitat_baselines.total_num_steps=-1", "habitat_baselines.num_updates=2")
    assert main(["train", "--resume", "run", *goal]) == 0
    assert "already at 2 of 2 updates" in capsys.readouterr().out
    assert main(["train", "--resume", "run", goal[0], "habitat_baselines.num_updates=3"]) == 0
    assert "trained; next" in capsys.readouterr().out


def test_a_run_whose_last_weights_were_not_written_is_trained_to_its_end(run, capsys):
    take_last_weights(run)
    assert main(["train", "--resume", "run"]) == 0
    assert "trained; next" in capsys.readouterr().out
    assert read_checkpoint(run.latest_checkpoint)["extra_state"]["step"] == TOTAL


EACH = "habitat_baselines.num_environments"


def note(run: RunFolder, workers: int, *overrides: str) -> str | None:
    from memo_habitat.trainer import launch
    from memo_habitat.trainer.resume import note_on_trials

    training = launch.resume_training(run.path, overrides, workers)
    return note_on_trials(training.run, training.config, training.workers)


@pytest.mark.slow
def test_other_trials_in_an_update_than_before_are_told_with_what_keeps_them(run, capsys):
    assert facts(run)["workers"] == 1
    assert note(run, 1) is None
    assert note(run, 2, f"{EACH}=2") is None
    was = f"was {ENVS} (1 × {ENVS})"
    assert note(run, 3) == (
        f"an update now learns from 12 trials (workers × environments: 3 × {ENVS}), {was}"
    )
    assert note(run, 2).endswith(f"{was}; {EACH}=2 keeps it")

    resume = {"command": [], "time": "", "overrides": [], "changed": {}, "workers": 2, "steps": 0}
    told = {**facts(run), "resumed": [resume]}  # what was last, not what was first
    run.record_path.write_text(json.dumps(told))
    capsys.readouterr()
    assert main(["train", "--resume", "run", longer(2 * TOTAL)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "run folder: run"
    assert any(line.endswith(f"was 8 (2 × {ENVS}); {EACH}=8 keeps it") for line in lines)
    assert main(["train", "--resume", "run", longer(3 * TOTAL)]) == 0
    assert "an update now" not in capsys.readouterr().out


def test_of_a_run_that_does_not_say_its_workers_nothing_is_told(run):
    run.record_path.unlink()
    assert note(run, 2) is None


def test_a_new_run_says_how_many_workers_it_has(tmp_path):
    from memo_habitat.trainer import launch

    new = launch.start_training("dark_key_to_door", out=tmp_path / "new", workers=3)
    assert facts(new.run)["workers"] == 3


def test_a_training_says_where_its_log_is(run, capsys):
    assert main(["train", "--resume", "run", longer(2 * TOTAL)]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[:2] == ["run folder: run", f"log: {run.log_file}"]
    assert f"Resumed at {TOTAL} steps" in run.log_file.read_text()


def test_the_config_that_a_resume_would_train_with_is_printed_and_nothing_done(run, capsys):
    before = kept(run)
    assert main(["train", "--resume", "run", "--cfg", longer(2 * TOTAL)]) == 0
    assert f"total_num_steps: {2 * TOTAL}.0\n" in capsys.readouterr().out
    assert kept(run) == before
