"""The jobs of a sweep with pretended runs: order, failures, stops, kills, locks, SLURM.

Processes are real; SLURM is a few scripts that do what it would.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from memo_habitat.cli.main import main
from memo_habitat.sweep import runner, spec
from memo_habitat.sweep.jobs import SweepJob
from memo_habitat.sweep.runner import Places, Queue, core_share, last_return, say
from memo_habitat.sweep.spec import Request, plan_sweep, read_sweep, write_sweep
from memo_habitat.trainer.run_dir import SWEEP_LOCK, RunFolder
from memo_habitat.utils.lock import HeldError, hold
from tests.sweep.command import stand_in

NEW = ("sweep", "--config-name=dark_key_to_door", "--out", "runs/dark")
AGAIN = ("sweep", "--resume", "runs/dark")
DARK = Path("runs/dark")
RUN = DARK / "memo/seed_0"
KNOWN = (("dark_key_to_door",), ("memo", "fct", "rmt"))

pytestmark = pytest.mark.slow  # every test starts processes


@pytest.fixture(autouse=True)
def _pretend(tmp_path, monkeypatch, checkout):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(checkout))
    monkeypatch.setattr(runner, "PROGRAM", "tests.sweep.pretend_job")
    monkeypatch.setattr(spec, "check_sweep", lambda sweep: None)
    monkeypatch.setitem(sys.modules, "memo_habitat.report.sweep", stand_in())


def start(*arguments: str, output: int = subprocess.PIPE) -> subprocess.Popen[str]:
    """The command in a process that can be killed without its jobs."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.sweep.command", *arguments],
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
    )


def start_holding(tmp_path: Path, *arguments: str, runs: tuple[Path, ...] = (RUN,)):
    """The command, at the point where `runs` wait before their last update until "go" is there."""
    sweep = start(*NEW, "--seeds", "0", *arguments, f"pretend.hold={tmp_path}/go")
    wait_for(lambda: all(map(holds, runs)), "the runs wait")
    return sweep


def make_sweep(*request) -> None:
    """What the command writes first."""
    write_sweep(plan_sweep(Request("dark_key_to_door", *request), DARK, Path(), *KNOWN))


def read_until(sweep: subprocess.Popen[str], text: str) -> None:
    while text not in (line := sweep.stdout.readline()):
        assert line, f"ended before it said {text!r}"


def process_of(run: Path) -> int:
    return int((run / SWEEP_LOCK).read_text().split()[0])


def wait_for(condition: Callable[[], bool], what: str) -> None:
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.02)
    pytest.fail(f"never: {what}")


def is_held(run: Path) -> bool:
    try:
        with hold(run / SWEEP_LOCK):
            return False
    except HeldError:
        return True


def holds(run: Path) -> bool:
    """Whether the training waits before its last update."""
    progress = run / "progress.jsonl"
    return progress.is_file() and progress.read_text().count("\n") == 3


def began_at(run: Path) -> list[int]:
    return [int(line) for line in (run / "began_at.txt").read_text().split()]


def contents(folder: Path) -> dict[Path, int]:
    """When each file of the runs was last written."""
    files = [path for path in folder.glob("*/**/*") if path.is_file()]
    return {path: path.stat().st_mtime_ns for path in files}


def test_every_run_is_trained_and_evaluated_and_so_are_the_references(capsys):
    assert main([*NEW, "--variants", "memo,fct", "--seeds", "0,2", "--trials", "3"]) == 0
    told = capsys.readouterr().out
    for variant in ("memo", "fct"):
        for seed in (0, 2):
            run = DARK / variant / f"seed_{seed}"
            meta = json.loads((run / "eval/final/meta.json").read_text())
            assert meta == {"trials_per_house": 3, "step": 40, "finished": "now"}
            options = json.loads((run / "pretend.json").read_text())
            assert options["memory"] == variant
            assert int(options["habitat.seed"]) == spec.habitat_seed(seed)
            assert f"{variant} seed {seed}: finished" in told
    for agent in ("oracle", "random"):
        assert (DARK / f"reference/eval/{agent}/records.jsonl").is_file()
    assert told.endswith("report: runs/dark/report.html\n")
    assert told.index("memo seed 0: starts") < told.index("fct seed 0: starts")
    assert told.index("fct seed 0: starts") < told.index("memo seed 2: starts")


def test_a_config_of_ones_own_is_what_every_run_begins_with():
    Path("own.yaml").touch()
    assert main(["sweep", "--config-name=own.yaml", "--out", "runs/dark", "--seeds", "0"]) == 0
    begun = json.loads((RUN / "pretend.json").read_text())
    assert begun["--config-name"] == str(Path("own.yaml").resolve())


def test_what_is_finished_is_left_alone_and_what_is_added_is_run(capsys):
    assert main([*NEW, "--seeds", "0"]) == 0
    before = contents(DARK)
    assert main([*NEW, "--seeds", "0"]) == 0
    assert contents(DARK) == before
    assert "[2/2] memo seed 0: finished before" in capsys.readouterr().out
    assert main([*AGAIN, "--seeds", "1"]) == 0
    after = contents(DARK)
    assert {path: after[path] for path in before} == before
    assert (DARK / "memo/seed_1/eval/final/records.jsonl").is_file()


def test_more_trials_evaluate_again_without_training():
    assert main([*NEW, "--seeds", "0"]) == 0
    assert main([*AGAIN, "--trials", "9"]) == 0
    for folder in ("memo/seed_0/eval/final", "reference/eval/oracle"):
        assert json.loads((DARK / folder / "meta.json").read_text())["trials_per_house"] == 9
    assert began_at(DARK / "memo/seed_0") == [0]


def test_a_run_that_was_trained_further_is_evaluated_again_and_keeps_what_it_had():
    assert main([*NEW, "--seeds", "0"]) == 0
    meta = RUN / "eval/final/meta.json"
    meta.write_text(json.dumps({**json.loads(meta.read_text()), "step": 30}))
    assert main(AGAIN) == 0
    assert json.loads(meta.read_text())["step"] == 40
    assert json.loads((RUN / "eval/final-30/meta.json").read_text())["step"] == 30
    assert began_at(RUN) == [0]


def test_a_failed_run_is_told_of_stops_no_other_and_is_tried_again(capsys):
    refused = "pretend.refused=fct"
    assert main([*NEW, "--variants", "fct,memo", "--seeds", "0..1", refused]) == 1
    told = capsys.readouterr()
    for seed in (0, 1):
        assert (DARK / f"memo/seed_{seed}/eval/final/records.jsonl").is_file()
        assert f"runs/dark/fct/seed_{seed}/sweep.log" in told.err
    assert told.err.count("exit status 2: memo-habitat train: pretended to be refused") == 2
    assert "2 failed; resume with: memo-habitat sweep --resume runs/dark" in told.err
    assert "report: runs/dark/report.html" in told.out
    logs = [DARK / f"fct/seed_{seed}/sweep.log" for seed in (0, 1)]
    sizes = [log.stat().st_size for log in logs]
    assert main(AGAIN) == 1
    assert all(log.stat().st_size > size for log, size in zip(logs, sizes, strict=True))


def test_an_unreadable_run_fails_alone(capsys):
    assert main([*NEW, "--seeds", "0"]) == 0
    broken = DARK / "memo/seed_0/checkpoints/latest.safetensors"
    broken.write_bytes(b"no")
    shutil.rmtree(DARK / "reference")
    assert main([*AGAIN, "--variants", "fct", "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert f"memo seed 0: fails, {broken} is damaged" in told
    assert "fct seed 0: starts" in told
    assert main([*AGAIN, "--variants", "fct"]) == 1
    assert f"memo seed 0  not started: {broken} is damaged" in capsys.readouterr().err
    assert (DARK / "fct/seed_0/eval/final/records.jsonl").is_file()
    assert (DARK / "reference/eval/oracle/records.jsonl").is_file()


def test_where_nothing_was_evaluated_there_is_no_report(capsys):
    refused = "pretend.refused=memo"
    assert main([*NEW, "--seeds", "0", refused]) == 1
    assert "report:" not in capsys.readouterr().out
    assert not (DARK / "report.html").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_sweep_waits_for_its_runs_and_goes_on(number, tmp_path):
    runs = (RUN, DARK / "fct/seed_0")
    sweep = start_holding(tmp_path, "--variants", "memo,fct", "--jobs", "2", runs=runs)
    sweep.send_signal(number)
    told, _ = sweep.communicate(timeout=600)
    assert sweep.returncode == 130, told
    assert told.endswith("stopped; resume with: memo-habitat sweep --resume runs/dark\n")
    assert "failed" not in told
    assert not any(map(is_held, runs))
    Path("go").touch()
    assert main([*AGAIN, "--jobs", "2"]) == 0
    assert [began_at(run) for run in runs] == [[0, 30], [0, 30]]


def test_runs_that_are_terminated_with_their_sweep_have_not_failed(tmp_path):
    sweep = start_holding(tmp_path)
    job = process_of(RUN)
    os.kill(job, signal.SIGSTOP)  # so that it ends by the signal, not by its pipe
    sweep.send_signal(signal.SIGTERM)
    read_until(sweep, "stopping")
    os.kill(job, signal.SIGTERM)
    os.kill(job, signal.SIGCONT)
    told, _ = sweep.communicate(timeout=600)
    assert sweep.returncode == 130, told
    assert "failed" not in told


def test_a_killed_run_has_failed_and_goes_on_the_next_time(tmp_path):
    sweep = start_holding(tmp_path, "--variants", "memo,fct")
    os.kill(process_of(RUN), signal.SIGKILL)
    Path("go").touch()
    told, _ = sweep.communicate(timeout=600)
    assert sweep.returncode == 1
    assert "memo seed 0: failed (killed by SIGKILL)" in told
    assert (DARK / "fct/seed_0/eval/final/records.jsonl").is_file()
    assert main(AGAIN) == 0
    assert began_at(RUN) == [0, 30]


def test_the_runs_of_a_killed_sweep_leave_and_the_next_one_goes_on(tmp_path):
    sweep = start_holding(tmp_path)
    job = process_of(RUN)
    os.kill(job, signal.SIGSTOP)  # still at work, as in a long update
    sweep.kill()
    sweep.communicate(timeout=600)
    again = start(*AGAIN)
    read_until(again, "memo seed 0: goes on at 30 steps")
    log = RUN / "sweep.log"
    wait_for(lambda: log.read_text().count("== 2") == 2, "the second job waits")
    assert began_at(RUN) == [0]
    os.kill(job, signal.SIGCONT)
    wait_for(lambda: began_at(RUN) == [0, 30], "the run goes on")
    Path("go").touch()
    told, _ = again.communicate(timeout=600)
    assert again.returncode == 0, told
    assert (RUN / "eval/final/records.jsonl").is_file()


def test_a_second_interrupt_kills(tmp_path):
    sweep = start_holding(tmp_path)
    # A run that cannot leave, as in a long update.
    os.kill(process_of(RUN), signal.SIGSTOP)
    sweep.send_signal(signal.SIGINT)
    read_until(sweep, "stopping")
    sweep.send_signal(signal.SIGINT)
    sweep.communicate(timeout=600)
    assert sweep.returncode == 130
    assert not is_held(RUN)


def test_an_interrupted_sweep_that_waits_for_another_process_is_not_finished():
    make_sweep(None, (0,))
    with hold(RUN / SWEEP_LOCK):
        sweep = start(*AGAIN)
        wait_for((RUN / "sweep.log").exists, "the job waits")
        sweep.send_signal(signal.SIGINT)
        told, _ = sweep.communicate(timeout=600)
    assert sweep.returncode == 130, told
    assert "memo seed 0: stopped, starts next time" in told
    assert told.endswith("stopped; resume with: memo-habitat sweep --resume runs/dark\n")


def test_the_end_of_the_terminal_lets_the_runs_save(tmp_path):
    master, terminal = os.openpty()
    options = (f"pretend.hold={tmp_path}/go", f"pretend.saving={tmp_path}/save")
    sweep = start(*NEW, "--seeds", "0", *options, output=terminal)
    os.close(terminal)
    wait_for(lambda: holds(RUN), "the run waits")
    os.close(master)
    sweep.send_signal(signal.SIGHUP)
    wait_for((RUN / "saving").exists, "the run saves")
    # It stays with the run: its end would be a second interrupt.
    with pytest.raises(subprocess.TimeoutExpired):
        sweep.wait(timeout=1)
    Path("save").touch()
    sweep.wait(timeout=600)
    assert (RUN / "saved").exists()
    assert not is_held(RUN)


def test_a_sweep_that_breaks_interrupts_its_runs_once(tmp_path):
    def broken(line: str) -> None:
        wait_for(lambda: holds(RUN), "the run waits")
        raise RuntimeError(line)

    overrides = (f"pretend.hold={tmp_path}/go", f"pretend.saving={tmp_path}/save")
    make_sweep(None, (0,), overrides)
    with pytest.raises(RuntimeError, match="starts"):
        queue(say=broken).run()
    wait_for((RUN / "saving").exists, "the run saves")
    Path("save").touch()
    wait_for(lambda: not is_held(RUN), "the run leaves")
    assert (RUN / "saved").exists()


def queue(jobs: int = 1, say: Callable[[str], None] = say) -> Queue:
    sweep = read_sweep(DARK)
    return Queue(sweep, Places(sweep, jobs), say)


def test_a_run_that_another_process_is_at_work_on_is_refused_by_its_number(monkeypatch):
    monkeypatch.setenv("PRETEND_PATIENCE", "0.5")
    make_sweep(("memo", "fct"), (0,))
    with hold(RUN / SWEEP_LOCK):
        outcome = queue(jobs=2).run()
    (failure,) = outcome.failures
    assert failure.name == "memo seed 0"
    assert f"process {os.getpid()} is at work in runs/dark/memo/seed_0" in failure.said
    assert outcome.finished == 2
    assert sorted(path.name for path in RUN.iterdir()) == [SWEEP_LOCK, "sweep.log"]


def test_two_sweeps_in_one_folder_are_refused(capsys):
    make_sweep(None, (0,))
    with hold(DARK / SWEEP_LOCK):
        assert main(AGAIN) == 2
    assert f"process {os.getpid()} is at work in runs/dark" in capsys.readouterr().err


def test_perfect_memory_is_evaluated_too_where_the_task_has_it():
    assert main([*NEW, "--seeds", "0"]) == 0
    references = SweepJob(read_sweep(DARK), None)
    assert references.pending() is None
    config = DARK / "reference/config.yaml"
    task = {"habitat": {"task": {"type": "ExtObjNavTask-v0"}}}
    config.write_text(json.dumps({**json.loads(config.read_text()), **task}))
    (command,) = references.pending().commands
    assert command[-2:] == ("--agent", "perfect_memory")
    assert main(AGAIN) == 0
    assert (DARK / "reference/eval/perfect_memory/records.jsonl").is_file()


def test_a_training_cut_off_before_its_weights_were_written_is_not_taken_for_finished(capsys):
    assert main([*NEW, "--seeds", "0"]) == 0
    job = SweepJob(read_sweep(DARK), read_sweep(DARK).runs()[0])
    assert job.pending() is None
    with (RUN / "progress.jsonl").open("a") as file:
        file.write(json.dumps({"steps": 50, "updates": 5}) + "\n")
    assert job.pending().commands[0] == ("train", "--resume", str(RUN))
    (RUN / "checkpoints/latest.safetensors").unlink()
    assert job.pending().commands[0] == ("train", "--resume", str(RUN))
    (RUN / "checkpoints/.habitat-resume-state.pth").unlink()
    assert job.pending().starts
    (RUN / "checkpoints/ckpt.0.safetensors").touch()
    kept = contents(RUN)
    assert main(AGAIN) == 1
    said = "runs/dark/memo/seed_0 holds ckpt.0.safetensors .* remove the folder to begin again"
    assert re.search(said, capsys.readouterr().err)
    assert {path: contents(RUN)[path] for path in kept} == kept


def test_what_a_kill_left_of_a_start_goes_and_the_log_stays():
    make_sweep(None, (0,))
    (RUN / "checkpoints").mkdir(parents=True)
    (RUN / "config.yaml").write_text("habitat: {")
    (RUN / "sweep.log").write_text("from before\n")
    assert main(AGAIN) == 0
    assert (RUN / "sweep.log").read_text().startswith("from before\n== ")


def test_a_run_that_a_command_has_begun_to_train_is_not_taken_for_what_a_kill_left(capsys):
    make_sweep(None, (0,))
    run = RunFolder(RUN)
    run.checkpoint_dir.mkdir(parents=True)
    run.config_path.write_text("habitat: {}")
    for lock in run.locks:
        with hold(lock):
            assert main(AGAIN) == 1
        assert f"process {os.getpid()} is at work in" in capsys.readouterr().err
        assert run.config_path.is_file()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores cannot be chosen here")
def test_runs_at_once_share_the_cores(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert main([*NEW, "--seeds", "0..1", "--jobs", "2"]) == 0
    runs = [DARK / f"memo/seed_{seed}" for seed in (0, 1)]
    seen = [json.loads((run / "pretend.json").read_text()) for run in runs]
    shares = [core_share(place, 2) for place in (0, 1)]
    assert [one["cores"] for one in seen] == shares
    assert [int(one["threads"]) for one in seen] == [len(share) for share in shares]
    assert {*seen[0]["cores"], *seen[1]["cores"]} == os.sched_getaffinity(0)


@pytest.mark.parametrize("cores", [1, 2, 3, 8])
@pytest.mark.parametrize("jobs", [1, 2, 3, 5])
def test_shares_are_even_and_leave_no_core_out(monkeypatch, cores, jobs):
    own = set(range(10, 10 + cores))
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: own, raising=False)
    shares = [core_share(place, jobs) for place in range(jobs)]
    sizes = [len(share) for share in shares]
    assert min(sizes) >= max(1, cores // jobs)
    assert max(sizes) - min(sizes) <= 1
    if jobs <= cores:
        assert sorted(core for share in shares for core in share) == sorted(own)


@pytest.mark.parametrize("option", ["--jobs", "--trials"])
def test_none_at_all_is_refused_by_the_options_name(option, capsys):
    assert main([*NEW, option, "0"]) == 2
    assert f"{option} 0: at least 1 is needed" in capsys.readouterr().err
    assert not DARK.exists()


def test_the_dry_run_lists_the_queue_and_writes_nothing(capsys):
    assert main([*NEW, "--variants", "memo,fct", "--seeds", "0", "--dry-run", "a=1"]) == 0
    told = capsys.readouterr().out
    assert "memo seed 0: starts (habitat.seed=100)" in told
    assert "fct seed 0: starts" in told
    assert "SLURM" not in told
    assert main([*NEW, "--dry-run", "--slurm", "partition=gpu", "--slurm", "time=60"]) == 0
    assert "each a job of SLURM: partition=gpu time=60, all at once" in capsys.readouterr().out
    assert list(Path().iterdir()) == []


def test_what_is_done_of_the_training_is_measured():
    make_sweep(None, (0, 1, 2))
    assert queue().training_done() == 0
    for seed, steps in ((0, 100), (1, 50)):
        run = DARK / f"memo/seed_{seed}"
        run.mkdir(parents=True)
        goal = {"habitat_baselines": {"total_num_steps": 100, "num_updates": -1}}
        (run / "config.yaml").write_text(json.dumps(goal))
        row = {"steps": steps, "updates": steps // 10, "trials": {"count": 2, "return": 1.5}}
        # The last row is being written.
        (run / "progress.jsonl").write_text(json.dumps(row) + '\n{"steps": 99')
    assert queue().training_done() == 1.5
    assert last_return(RUN / "progress.jsonl") == "last return 1.50"
    (DARK / "memo/seed_1/config.yaml").write_text("habitat_baselines: {")
    assert queue().training_done() == 1


SLURM = {
    "sbatch": """
        id=$(($(ls jobs | grep -c sh$) + 17)); cp $1 jobs/$id.sh; echo "Submitted batch job $id"
        SLURM_JOB_ID=$id SLURM_PROCID=0 setsid sh jobs/$id.sh > /dev/null 2>&1 &
    """,
    "srun": """
        while [ "${1#-}" != "$1" ]; do [ $1 = --unbuffered ] || shift; shift; done
        echo $$ > jobs/$SLURM_JOB_ID; exec "$@"
    """,
    "sacct": """
        echo "JobID|State|NodeList"
        for job in jobs/*[0-9]; do
            kill -0 $(cat $job) && state=RUNNING || state=FAILED
            [ -e $job.requeued ] && state=REQUEUED
            echo "${job#jobs/}|$state|here"
        done
    """,
    "scancel": """
        case $1 in --signal=INT) kill -INT $(cat jobs/$2) ;; --state=PENDING) ;; esac
    """,
    "scontrol": """
        touch jobs/$2.requeued; (
            while kill -0 $(cat jobs/$2); do sleep 0.1; done
            SLURM_JOB_ID=$2 SLURM_PROCID=0 setsid sh jobs/$2.sh > /dev/null; rm jobs/$2.requeued
        ) > /dev/null 2>&1 &
    """,
}
BY_SLURM = ("--slurm", "partition=gpu", "--slurm", "gpus_per_node=1")


@pytest.fixture
def _slurm(tmp_path, monkeypatch):
    for name, script in SLURM.items():
        path = tmp_path / f"bin/{name}"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\ncd {tmp_path}\n{script}")
        path.chmod(0o755)
    (tmp_path / "jobs").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")


@pytest.mark.usefixtures("_slurm")
def test_on_a_cluster_all_runs_are_submitted_at_once_and_saved_on_a_stop(tmp_path):
    runs = (RUN, DARK / "fct/seed_0")
    sweep = start_holding(tmp_path, "--variants", "memo,fct", *BY_SLURM, runs=runs)
    script = Path("jobs/17.sh").read_text()
    assert "#SBATCH --partition=gpu\n" in script
    assert "#SBATCH --gpus-per-node=1\n" in script
    # Habitat would take the run for one of several processes.
    assert json.loads((RUN / "pretend.json").read_text())["slurm"] == []
    sweep.send_signal(signal.SIGINT)
    told, _ = sweep.communicate(timeout=600)
    assert sweep.returncode == 130, told
    assert "failed" not in told
    assert all((run / "saved").exists() for run in runs)
    Path("go").touch()
    again = start(*AGAIN, *BY_SLURM)
    told, _ = again.communicate(timeout=600)
    assert again.returncode == 0, told
    assert [began_at(run) for run in runs] == [[0, 30], [0, 30]]
    assert (DARK / "reference/eval/oracle/records.jsonl").is_file()


@pytest.mark.usefixtures("_slurm")
def test_a_job_at_its_time_limit_saves_and_is_queued_again(tmp_path):
    sweep = start_holding(tmp_path, *BY_SLURM)
    os.kill(process_of(RUN), signal.SIGUSR2)
    wait_for(lambda: began_at(RUN) == [0, 30], "the job begins again")
    assert (RUN / "saved").exists()
    Path("go").touch()
    told, _ = sweep.communicate(timeout=600)
    assert sweep.returncode == 0, told
    assert told.count("memo seed 0: ") == 2  # starts, finished


def test_where_there_is_no_slurm_or_no_such_option_it_is_said(
    capsys, request, monkeypatch, tmp_path
):
    with monkeypatch.context() as without:
        without.setenv("PATH", str(tmp_path))
        assert main([*NEW, "--seeds", "0", "--slurm", "partition=gpu"]) == 2
    assert '--slurm partition=gpu: Could not detect "srun"' in capsys.readouterr().err
    request.getfixturevalue("_slurm")
    assert main([*NEW, "--seeds", "0", "--slurm", "colour=red"]) == 2
    assert "Unavailable parameter(s): ['colour']" in capsys.readouterr().err
