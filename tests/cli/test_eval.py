"""`memo-habitat eval`: what may be changed of a run, and what is refused."""

from __future__ import annotations

import pickle
import signal
import threading
import time
from pathlib import Path

import pytest

from memo_habitat.cli import eval_processes
from memo_habitat.cli.eval import ShardJob
from memo_habitat.cli.main import main
from memo_habitat.errors import UserError, WorkerError
from memo_habitat.trainer import launch

MEMORY, ENCODER = "habitat_baselines.rl.memory", "habitat_baselines.rl.encoder"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    return launch.start_training("dark_key_to_door", out=folder).run


@pytest.mark.parametrize(
    ("override", "named"),
    [
        (f"{MEMORY}.top_k=2", "top_k=2.*trained with 0"),
        (f"{MEMORY}.kind=fct", "kind=fct.*trained with memo"),
        (f"{ENCODER}.fourier_features=3", "fourier_features=3.*trained with 8"),
    ],
)
def test_another_model_than_the_trained_one_is_refused(run, override, named):
    with pytest.raises(UserError, match=named):
        launch.evaluate(run, launch.EvalOptions(overrides=[override]))


@pytest.mark.parametrize("override", [f"{MEMORY}.token_budget=80", "habitat.task.size=5"])
def test_how_it_is_run_and_on_what_may_be_changed(run, override):
    with pytest.raises(UserError, match="no checkpoint"):  # as far as it gets without one
        launch.evaluate(run, launch.EvalOptions(overrides=[override]))


def test_inspecting_the_memory_reaches_the_evaluator(run, monkeypatch):
    seen = []
    monkeypatch.setattr("habitat_baselines.run.execute_exp", lambda config, _: seen.append(config))
    run.latest_checkpoint.touch()
    launch.evaluate(run, launch.EvalOptions(checkpoint="latest", inspect_memory=True))
    launch.evaluate(run, launch.EvalOptions(checkpoint="latest"))
    assert [config.habitat_baselines.evaluator.inspect_memory for config in seen] == [True, False]


def test_forgetting_reaches_the_evaluator_and_has_a_folder_of_its_own(run, monkeypatch):
    seen = []
    monkeypatch.setattr("habitat_baselines.run.execute_exp", lambda config, _: seen.append(config))
    run.latest_checkpoint.touch()
    folders = [
        launch.evaluate(run, launch.EvalOptions(checkpoint="latest", forget=True)),
        launch.evaluate(run, launch.EvalOptions(checkpoint="latest", forget=True, name="own")),
        launch.evaluate(
            run,
            launch.EvalOptions(
                checkpoint="latest", overrides=["habitat_baselines.evaluator.forget=True"]
            ),
        ),
        launch.evaluate(run, launch.EvalOptions(checkpoint="latest")),
    ]
    assert [folder.name for folder in folders] == [
        "latest-forget",
        "own",
        "latest-forget",
        "latest",
    ]
    evaluators = [config.habitat_baselines.evaluator for config in seen]
    assert [evaluator.forget for evaluator in evaluators] == [True, True, True, False]
    assert [evaluator.name for evaluator in evaluators] == [folder.name for folder in folders]


def test_a_name_that_no_folder_may_have_leads_to_the_same_folder_everywhere(run, capsys):
    for name in ("c e", "c/e"):
        options = launch.EvalOptions(agent="random", name=name)
        (prepared,) = launch.prepare_evaluations(run, options)
        assert prepared.folder == run.eval_dir(name) == run.path / "eval/c-e"
        assert main(["eval", str(run.path), "--merge", "--name", name]) == 2
        assert f"{run.path}/eval/c-e holds no shards" in capsys.readouterr().err


def evaluated(run, monkeypatch, **options):
    """The configs that are given to Habitat."""
    seen = []
    monkeypatch.setattr("habitat_baselines.run.execute_exp", lambda config, _: seen.append(config))
    launch.evaluate(run, launch.EvalOptions(**options))
    return [config.habitat_baselines for config in seen]


def test_the_likeliest_action_by_a_key_too_and_keys_of_options_are_refused(run, monkeypatch):
    (run.checkpoint_dir / "latest.safetensors").touch()
    key = "habitat_baselines.evaluator.deterministic=true"
    assert evaluated(run, monkeypatch, overrides=[key])[0].evaluator.deterministic
    assert not evaluated(run, monkeypatch)[0].evaluator.deterministic
    for override, option in (
        ("habitat_baselines.evaluator.agent=random", "--agent"),
        ("habitat_baselines.evaluator.name=mine", "--name"),
        ("habitat_baselines.eval_ckpt_path_dir=elsewhere", "--checkpoint"),
        ("habitat.dataset.split=val", "--split"),
    ):
        with pytest.raises(UserError, match=f"{override}: use {option}"):
            launch.evaluate(run, launch.EvalOptions(overrides=[override]))
    for given in ({"checkpoint": "latest"}, {"deterministic": True}):
        with pytest.raises(UserError, match="--agent random has no weights: no --checkpoint"):
            launch.evaluate(run, launch.EvalOptions(agent="random", **given))


def test_all_checkpoints_are_evaluated_in_the_order_in_which_they_were_made(run, monkeypatch):
    for number in (10, 9, 0):
        (run.checkpoint_dir / f"ckpt.{number}.safetensors").touch()
    names = [b.evaluator.name for b in evaluated(run, monkeypatch, checkpoint="all")]
    assert names == ["ckpt.0", "ckpt.9", "ckpt.10"]
    with pytest.raises(UserError, match="--name x with all checkpoints"):
        launch.evaluate(run, launch.EvalOptions(checkpoint="all", name="x"))


def test_ranks_take_shards_by_themselves(run, monkeypatch):
    assert evaluated(run, monkeypatch, agent="random")[0].evaluator.shard == ""
    assert evaluated(run, monkeypatch, agent="random", shard="2/3")[0].evaluator.shard == "2/3"
    for name, value in (("LOCAL_RANK", "1"), ("RANK", "5"), ("WORLD_SIZE", "8")):
        monkeypatch.setenv(name, value)
    assert evaluated(run, monkeypatch, agent="random")[0].evaluator.shard == "6/8"
    with pytest.raises(UserError, match="--shard 2/3 within torchrun"):
        launch.evaluate(run, launch.EvalOptions(agent="random", shard="2/3"))


@pytest.mark.parametrize("shard", ["0/3", "4/3", "3", "a/b"])
def test_a_shard_is_written_as_which_of_how_many(run, shard):
    with pytest.raises(UserError, match="such as 3/16"):
        launch.evaluate(run, launch.EvalOptions(agent="random", shard=shard))


def test_houses_that_a_training_chose_are_not_those_of_its_evaluation(tmp_path, monkeypatch):
    houses = "habitat.dataset.content_scenes"
    seen = []
    monkeypatch.setattr("habitat_baselines.run.execute_exp", lambda config, _: seen.append(config))
    run = launch.start_training(
        "extobjnav/recall", [f"{houses}=[loft_0_train_000]"], out=tmp_path / "run"
    ).run
    launch.evaluate(run, launch.EvalOptions(agent="random"))
    launch.evaluate(run, launch.EvalOptions(agent="random", overrides=[f"{houses}=[attic]"]))
    assert [list(config.habitat.dataset.content_scenes) for config in seen] == [["*"], ["attic"]]


def test_a_job_is_made_for_each_shard(run, capsys, monkeypatch):
    words = ["eval", str(run.path), "--agent", "random", "--shards=2", "--slurm", "partition=gpu"]
    monkeypatch.setattr("sys.argv", ["memo-habitat", *words, "--dry-run"])
    assert main([*words, "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "2 jobs of SLURM: time=1440 partition=gpu",
        f"memo-habitat eval {run.path} --agent random --shard 1/2",
        f"memo-habitat eval {run.path} --agent random --shard 2/2",
    ]
    assert not (run.path / "slurm").exists()
    job = pickle.loads(pickle.dumps(ShardJob(("eval", "--help"))))
    assert job() == 0 and "--shard" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--slurm", "time=3"], "go with --shards"),
        (["--dry-run"], "go with --shards"),
        (["--shards", "0"], "--shards 0: at least 1"),
        (["--shards", "2", "--shard", "1/2"], "give one of them"),
        (["--merge", "--trials", "3"], "--merge plays nothing"),
        (["--merge", "--shards", "3"], "--merge plays nothing"),
        (["--shards", "2", "--name", "x", "--checkpoint", "all"], "--name x with all checkpoints"),
    ],
)
def test_options_that_do_not_go_together_are_named(run, capsys, words, told):
    assert main(["eval", str(run.path), *words]) == 2
    assert told in capsys.readouterr().err


def test_jobs_do_not_evaluate_a_checkpoint_that_may_change_before_they_begin(run, capsys):
    run.latest_checkpoint.touch()
    (run.checkpoint_dir / "ckpt.3.safetensors").touch()
    run.progress_file.write_text('{"steps": 1, "updates": 1}\n')
    words = ["eval", str(run.path), "--shards", "2", "--slurm", "time=3", "--dry-run"]
    assert main(words) == 2
    assert "has not ended" in (error := capsys.readouterr().err) and "ckpt.3" in error
    assert main([*words, "--checkpoint", "ckpt.3"]) == 0
    run.progress_file.unlink()


def test_a_failed_shard_is_told_with_its_log_and_the_others_end(run, monkeypatch):
    """Of three processes, one is killed and two end."""
    monkeypatch.setattr(eval_processes, "PROGRAM", "tests.factories.shard_process")
    told = launch.EvalOptions(agent="random")
    with pytest.raises(
        WorkerError, match=r"2/3 ended \(killed by SIGKILL\): about to die; its log"
    ):
        eval_processes.evaluate_in_processes(run, [told], 3)
    log = run.workers_dir / "random-shard-{}-of-3.log"
    assert [Path(str(log).format(k)).read_text().count("done") for k in (1, 3)] == [1, 1]


def test_a_refused_shard_is_told_in_its_words_alone(run, monkeypatch):
    monkeypatch.setattr(eval_processes, "PROGRAM", "tests.factories.shard_process")
    told = launch.EvalOptions(agent="random", name="refused")
    with pytest.raises(UserError) as refused:
        eval_processes.evaluate_in_processes(run, [told], 2)
    assert str(refused.value) == "shard 1/2: seed is 3, now 4: remove it"
    with pytest.raises(UserError, match=r"^shard 1/3: it said nothing$"):
        eval_processes.evaluate_in_processes(run, [told], 3)


def test_a_shard_says_on_one_line_why_it_is_refused(run, monkeypatch, capsys):
    def refuse(*_: object) -> None:
        raise UserError("no checkpoint:\n  train first")

    monkeypatch.setattr(eval_processes, "write_into", lambda *_: None)
    monkeypatch.setattr(launch, "evaluate", refuse)
    assert eval_processes.work(str(run.path), Path("unused"), [{"shard": "1/2"}]) == 2
    assert capsys.readouterr().out == "no checkpoint: train first\n"


def test_only_eval_says_that_the_same_command_goes_on(run, monkeypatch, capsys):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("memo_habitat.cli.eval.evaluate_in_processes", stop)
    assert main(["eval", str(run.path), "--agent", "random", "--shards", "2"]) == 130
    assert capsys.readouterr().err == (
        "stopped; the same command goes on with the trials that are left\n"
    )


def test_an_interrupt_ends_all_shards(run, monkeypatch):
    monkeypatch.setattr(eval_processes, "PROGRAM", "tests.factories.shard_process")
    told = launch.EvalOptions(agent="random", name="waits")
    logs = [run.workers_dir / f"waits-shard-{number}-of-2.log" for number in (1, 2)]

    def interrupt() -> None:
        while not all(log.is_file() and "waits" in log.read_text() for log in logs):
            time.sleep(0.05)
        signal.raise_signal(signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        eval_processes.evaluate_in_processes(run, [told], 2)
    assert all(log.read_text().endswith("interrupted\n") for log in logs)
