"""The queue with pretended runs: order, failures, stops, kills, locks; processes are real."""

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
from memo_habitat.sweep import job, spec
from memo_habitat.sweep.runner import Queue, core_shares
from memo_habitat.sweep.spec import Request, plan_sweep, read_sweep, write_sweep
from memo_habitat.sweep.status import Estimate, Terminal, last_return
from memo_habitat.sweep.tasks import RunTask
from memo_habitat.trainer.run_dir import SWEEP_LOCK
from memo_habitat.utils.lock import HeldError, lock
from tests.sweep.command import stand_in

NEW = ("sweep", "--config-name=dark_key_to_door", "--out", "runs/dark")
AGAIN = ("sweep", "--resume", "runs/dark")
DARK = Path("runs/dark")
KNOWN = (("dark_key_to_door",), ("memo", "fct", "rmt"))


@pytest.fixture(autouse=True)
def _pretend(tmp_path, monkeypatch, checkout):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(checkout))
    monkeypatch.setattr(job, "WORKER", "tests.sweep.pretend_worker")
    monkeypatch.setattr(spec, "check_sweep", lambda sweep: None)
    monkeypatch.setitem(sys.modules, "memo_habitat.report.sweep", stand_in())


def start(*arguments: str, output: int = subprocess.PIPE) -> subprocess.Popen[str]:
    """The command in a process that can be killed without its workers."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.sweep.command", *arguments],
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(condition: Callable[[], bool], what: str) -> None:
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.02)
    pytest.fail(f"never: {what}")


def is_held(run: Path) -> bool:
    if not run.is_dir():
        return False
    try:
        os.close(lock(run / SWEEP_LOCK))
    except HeldError:
        return True
    return False


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


def test_what_is_finished_is_left_alone_and_what_is_added_is_run(capsys):
    assert main([*NEW, "--seeds", "0"]) == 0
    before = contents(DARK)
    assert main([*NEW, "--seeds", "0"]) == 0
    assert contents(DARK) == before
    assert "finished before: 2 of 2" in capsys.readouterr().out
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


def test_a_failed_run_is_told_of_stops_no_other_and_is_tried_again(capsys):
    refused = "pretend.refused=fct"
    assert main([*NEW, "--variants", "fct,memo", "--seeds", "0..1", refused]) == 1
    told = capsys.readouterr()
    for seed in (0, 1):
        assert (DARK / f"memo/seed_{seed}/eval/final/records.jsonl").is_file()
        assert f"runs/dark/fct/seed_{seed}/sweep.log" in told.err
    assert told.err.count("exit status 2: memo-habitat train: pretended to be refused") == 2
    assert "2 failed; go on with: memo-habitat sweep --resume runs/dark" in told.err
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
    assert f"memo seed 0: fails, cannot read the checkpoint {broken}" in told
    assert "fct seed 0: starts" in told
    assert main([*AGAIN, "--variants", "fct"]) == 1
    assert f"memo seed 0  not started: cannot read the checkpoint {broken}" in (
        capsys.readouterr().err
    )
    assert (DARK / "fct/seed_0/eval/final/records.jsonl").is_file()
    assert (DARK / "reference/eval/oracle/records.jsonl").is_file()


def test_where_nothing_was_evaluated_there_is_no_report(capsys):
    refused = "pretend.refused=memo"
    assert main([*NEW, "--seeds", "0", refused]) == 1
    assert "report:" not in capsys.readouterr().out
    assert not (DARK / "report.html").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_sweep_waits_for_its_runs_and_goes_on(number, tmp_path):
    variants = ("--variants", "memo,fct", "--seeds", "0", "--jobs", "2")
    sweep = start(*NEW, *variants, f"pretend.hold={tmp_path}/go")
    runs = [DARK / "memo/seed_0", DARK / "fct/seed_0"]
    wait_for(lambda: all(map(holds, runs)), "both runs wait")
    sweep.send_signal(number)
    told, _ = sweep.communicate(timeout=120)
    assert sweep.returncode == 130, told
    assert told.endswith("stopped; go on with: memo-habitat sweep --resume runs/dark\n")
    assert "failed" not in told
    assert not any(map(is_held, runs))
    Path("go").touch()
    assert main([*AGAIN, "--jobs", "2"]) == 0
    assert [began_at(run) for run in runs] == [[0, 30], [0, 30]]


def test_runs_that_are_terminated_with_their_sweep_have_not_failed(tmp_path):
    sweep = start(*NEW, "--seeds", "0", f"pretend.hold={tmp_path}/go")
    run = DARK / "memo/seed_0"
    wait_for(lambda: holds(run), "the run waits")
    worker = int((run / SWEEP_LOCK).read_text())
    os.kill(worker, signal.SIGSTOP)  # so that it ends by the signal, not by its pipe
    sweep.send_signal(signal.SIGTERM)
    while "stopping" not in sweep.stdout.readline():
        assert sweep.poll() is None
    os.kill(worker, signal.SIGTERM)
    os.kill(worker, signal.SIGCONT)
    told, _ = sweep.communicate(timeout=120)
    assert sweep.returncode == 130, told
    assert "failed" not in told


def test_a_killed_run_has_failed_and_goes_on_the_next_time(tmp_path, capsys):
    sweep = start(*NEW, "--variants", "memo,fct", "--seeds", "0", f"pretend.hold={tmp_path}/go")
    run = DARK / "memo/seed_0"
    wait_for(lambda: holds(run), "the run waits")
    os.kill(int((run / SWEEP_LOCK).read_text()), signal.SIGKILL)
    Path("go").touch()
    told, _ = sweep.communicate(timeout=120)
    assert sweep.returncode == 1
    assert "memo seed 0: failed (killed by SIGKILL)" in told
    assert (DARK / "fct/seed_0/eval/final/records.jsonl").is_file()
    assert main(AGAIN) == 0
    assert began_at(run) == [0, 30]


def test_the_runs_of_a_killed_sweep_leave_and_the_next_one_goes_on(tmp_path):
    sweep = start(*NEW, "--seeds", "0", f"pretend.hold={tmp_path}/go")
    run = DARK / "memo/seed_0"
    wait_for(lambda: holds(run), "the run waits")
    worker = int((run / SWEEP_LOCK).read_text())
    os.kill(worker, signal.SIGSTOP)  # still at work, as in a long update
    sweep.kill()
    sweep.communicate(timeout=120)
    again = start(*AGAIN)
    while "memo seed 0: waits, for" not in again.stdout.readline():
        assert again.poll() is None
    os.kill(worker, signal.SIGCONT)
    wait_for(lambda: began_at(run) == [0, 30], "the run goes on")
    Path("go").touch()
    told, _ = again.communicate(timeout=120)
    assert again.returncode == 0, told
    assert (run / "eval/final/records.jsonl").is_file()


def test_the_run_of_a_killed_sweep_does_not_stay(tmp_path):
    sweep = start(*NEW, "--seeds", "0", f"pretend.hold={tmp_path}/go")
    run = DARK / "memo/seed_0"
    wait_for(lambda: holds(run), "the run waits")
    assert is_held(run)
    sweep.kill()
    sweep.communicate(timeout=120)
    wait_for(lambda: not is_held(run), "the run leaves")


def test_a_second_interrupt_kills(tmp_path):
    sweep = start(*NEW, "--seeds", "0", f"pretend.hold={tmp_path}/go")
    run = DARK / "memo/seed_0"
    wait_for(lambda: holds(run), "the run waits")
    # A run that cannot leave, as in a long update.
    os.kill(int((run / SWEEP_LOCK).read_text()), signal.SIGSTOP)
    sweep.send_signal(signal.SIGINT)
    while "stopping" not in sweep.stdout.readline():
        assert sweep.poll() is None
    sweep.send_signal(signal.SIGINT)
    sweep.communicate(timeout=120)
    assert sweep.returncode == 130
    assert not is_held(run)


def test_an_interrupted_sweep_that_waits_for_another_process_is_not_finished():
    run = DARK / "memo/seed_0"
    write_sweep(plan_sweep(Request(KNOWN[0][0], None, (0,)), DARK, Path("runs"), *KNOWN))
    run.mkdir(parents=True)
    held = lock(run / SWEEP_LOCK)
    try:
        sweep = start(*AGAIN)
        while "memo seed 0: waits, for" not in sweep.stdout.readline():
            assert sweep.poll() is None
        sweep.send_signal(signal.SIGINT)
        told, _ = sweep.communicate(timeout=120)
    finally:
        os.close(held)
    assert sweep.returncode == 130, told
    assert told == "stopped; go on with: memo-habitat sweep --resume runs/dark\n"


def test_the_end_of_the_terminal_lets_the_runs_save(tmp_path):
    master, terminal = os.openpty()
    options = (f"pretend.hold={tmp_path}/go", f"pretend.saving={tmp_path}/save")
    sweep = start(*NEW, "--seeds", "0", *options, output=terminal)
    os.close(terminal)
    run = DARK / "memo/seed_0"
    wait_for(lambda: holds(run), "the run waits")
    os.close(master)
    sweep.send_signal(signal.SIGHUP)
    wait_for((run / "saving").exists, "the run saves")
    # It stays with the run: its end would be a second interrupt.
    with pytest.raises(subprocess.TimeoutExpired):
        sweep.wait(timeout=1)
    Path("save").touch()
    sweep.wait(timeout=120)
    assert (run / "saved").exists()
    assert not is_held(run)


def test_a_sweep_that_breaks_interrupts_its_runs_once(tmp_path):
    class Broken(Terminal):
        def say(self, line: str) -> None:
            wait_for(lambda: holds(run), "the run waits")
            raise RuntimeError(line)

    overrides = (f"pretend.hold={tmp_path}/go", f"pretend.saving={tmp_path}/save")
    request = Request(KNOWN[0][0], None, (0,), overrides)
    sweep = plan_sweep(request, DARK, Path("runs"), *KNOWN)
    run = sweep.members()[0].path
    broken = Queue(sweep, 1, Broken())
    with pytest.raises(RuntimeError, match="starts"):
        broken.run()
    wait_for((run / "saving").exists, "the run saves")
    for worker in broken._running():  # as at the end of the process
        worker.close()
    time.sleep(0.5)
    Path("save").touch()
    wait_for(lambda: not is_held(run), "the run leaves")
    assert (run / "saved").exists()


def queue(*, patience: float, jobs: int = 1) -> Queue:
    return Queue(read_sweep(DARK), jobs, Terminal(), patience)


def test_a_run_that_another_process_is_at_work_on_is_refused_by_its_number():
    request = Request(KNOWN[0][0], ("memo", "fct"), (0,))
    write_sweep(plan_sweep(request, DARK, Path("runs"), *KNOWN))
    run = DARK / "memo/seed_0"
    run.mkdir(parents=True)
    held = lock(run / SWEEP_LOCK)
    try:
        outcome = queue(patience=0).run()
    finally:
        os.close(held)
    (failure,) = outcome.failures
    assert failure.name == "memo seed 0"
    assert f"process {os.getpid()} is at work in runs/dark/memo/seed_0" in failure.said
    assert outcome.finished == 2
    assert sorted(path.name for path in run.iterdir()) == [SWEEP_LOCK]


def test_two_sweeps_in_one_folder_are_refused(capsys):
    assert main([*NEW, "--seeds", "0"]) == 0
    held = lock(DARK / SWEEP_LOCK)
    try:
        assert main(AGAIN) == 2
    finally:
        os.close(held)
    assert f"process {os.getpid()} is at work in runs/dark" in capsys.readouterr().err


def test_a_training_cut_off_before_its_weights_were_written_is_not_taken_for_finished(capsys):
    assert main([*NEW, "--seeds", "0"]) == 0
    run = DARK / "memo/seed_0"
    task = RunTask(read_sweep(DARK), read_sweep(DARK).members()[0])
    assert task.todo().commands == ()
    with (run / "progress.jsonl").open("a") as file:
        file.write(json.dumps({"steps": 50, "updates": 5}) + "\n")
    assert task.todo().commands[0] == ("train", "--resume", str(run))
    (run / "checkpoints/latest.safetensors").unlink()
    assert task.todo().commands[0] == ("train", "--resume", str(run))
    (run / "checkpoints/.habitat-resume-state.pth").unlink()
    assert task.todo().anew
    (run / "checkpoints/ckpt.0.safetensors").touch()
    kept = contents(run)
    assert main(AGAIN) == 1
    said = "runs/dark/memo/seed_0 holds ckpt.0.safetensors .* remove the folder to begin anew"
    assert re.search(said, capsys.readouterr().err)
    assert {path: contents(run)[path] for path in kept} == kept


def test_what_a_kill_left_of_a_start_goes_and_the_log_stays():
    run = DARK / "memo/seed_0"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").write_text("habitat: {")
    (run / "sweep.log").write_text("from before\n")
    write_sweep(plan_sweep(Request(KNOWN[0][0], None, (0,)), DARK.parent / "new", Path(), *KNOWN))
    (DARK.parent / "new/sweep.json").rename(DARK / "sweep.json")
    assert main(AGAIN) == 0
    assert (run / "sweep.log").read_text().startswith("from before\n== ")


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores cannot be chosen here")
def test_runs_at_once_share_the_cores(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert main([*NEW, "--seeds", "0..1", "--jobs", "2"]) == 0
    runs = [DARK / f"memo/seed_{seed}" for seed in (0, 1)]
    seen = [json.loads((run / "pretend.json").read_text()) for run in runs]
    cores = os.sched_getaffinity(0)
    assert [set(one["cores"]) for one in seen] == [set(share) for share in core_shares(2)]
    assert [int(one["threads"]) for one in seen] == [max(1, len(share)) for share in core_shares(2)]
    assert set(seen[0]["cores"]) | set(seen[1]["cores"]) == cores


@pytest.mark.parametrize("cores", [1, 2, 3, 8])
@pytest.mark.parametrize("jobs", [1, 2, 3, 5])
def test_shares_are_even_and_leave_no_core_out(monkeypatch, cores, jobs):
    own = set(range(10, 10 + cores))
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: own, raising=False)
    shares = core_shares(jobs)
    sizes = [len(share) for share in shares]
    assert len(shares) == jobs
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
    assert list(Path().iterdir()) == []


def test_the_estimate_is_of_measured_rates():
    write_sweep(plan_sweep(Request(KNOWN[0][0], None, (0, 1, 2)), DARK, Path("runs"), *KNOWN))
    sweep = read_sweep(DARK)
    assert Estimate(sweep, 1).line(0, 4) == "0/4 done · training 0 %"
    for seed, steps in ((0, 100), (1, 50)):
        run = DARK / f"memo/seed_{seed}"
        run.mkdir(parents=True)
        goal = {"habitat_baselines": {"total_num_steps": 100, "num_updates": -1}}
        (run / "config.yaml").write_text(json.dumps(goal))
        # A minute each 10 steps; the last row is being written.
        row = {"steps": steps, "updates": steps // 10, "seconds": steps * 6}
        row["trials"] = {"count": 2, "return": 1.5}
        (run / "progress.jsonl").write_text(json.dumps(row) + '\n{"steps": 99')
    assert Estimate(sweep, 1).line(1, 4).endswith("training 50 % · about 15 min of training left")
    assert Estimate(sweep, 2).line(1, 4).endswith("about 8 min of training left")
    assert last_return(DARK / "memo/seed_0/progress.jsonl") == "last return 1.50"
    (DARK / "memo/seed_1/config.yaml").write_text("habitat_baselines: {")
    assert "training 33 %" in Estimate(sweep, 1).line(1, 4)
