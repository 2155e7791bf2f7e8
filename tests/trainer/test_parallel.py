"""Several workers by one command: what each is told, and how they end together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from habitat_baselines.rl.ddppo.ddp_utils import REQUEUE
from omegaconf import OmegaConf

from memo_habitat.errors import UserError, WorkerError
from memo_habitat.trainer import launch, rendezvous
from memo_habitat.trainer.collection import StopRequest
from memo_habitat.trainer.distributed import check_workers, run_workers
from memo_habitat.trainer.rendezvous import waits_for_others
from memo_habitat.trainer.run_dir import RunFolder
from memo_habitat.utils.processes import available_cores, ranks
from tests.trainer import parallel_work

WORKERS = 2
RANKS = ("LOCAL_RANK", "RANK", "WORLD_SIZE")
starts_workers = pytest.mark.slow  # programs that import torch and meet, several of them
PARENT = """
import sys
from pathlib import Path
from omegaconf import OmegaConf
from memo_habitat.trainer.distributed import run_workers
from tests.trainer import parallel_work
folder = sys.argv[1]
work = getattr(parallel_work, sys.argv[2])
run_workers(work, OmegaConf.create({"folder": folder}), 2, Path(folder))
"""


@pytest.fixture
def start(tmp_path):
    """Run a function of parallel_work in the two workers; what each tells."""

    def go(work):
        config = OmegaConf.create({"folder": str(tmp_path), "value": 7})
        run_workers(work, config, WORKERS, go.logs)
        return [json.loads((tmp_path / f"answer{rank}.json").read_text()) for rank in (0, 1)]

    go.folder, go.logs = tmp_path, tmp_path / "logs"
    return go


def wait_for(folder, *names):
    for _ in range(6000):
        if all((folder / name).exists() for name in names):
            return
        time.sleep(0.02)
    raise AssertionError(f"{names} never came in {folder}")


def signal_when(folder, *sent):
    """In a thread: when the marks of a stage are there, send this process its signal."""

    def send():
        for stage, number in sent:
            wait_for(folder, *(f"{stage}{rank}" for rank in range(WORKERS)))
            os.kill(os.getpid(), number)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    return thread


@starts_workers
def test_workers_get_the_config_their_ranks_and_one_place_to_meet(start):
    first, second = start(parallel_work.tell)
    assert (first["LOCAL_RANK"], first["RANK"]) == ("0", "0")
    assert (second["LOCAL_RANK"], second["RANK"]) == ("1", "1")
    assert first["WORLD_SIZE"] == second["WORLD_SIZE"] == "2"
    assert first["sum"] == second["sum"] == 3  # of rank + 1, over both
    assert first["config"] == second["config"] == 7
    # Ctrl-C at the terminal goes to a group: it must reach them by us alone.
    assert first["leads_its_group"]
    assert second["leads_its_group"]
    # The first has the terminal.
    header, said = (start.logs / "1.log").read_text().splitlines()
    assert header.startswith("== ")
    assert said == "told to the log"
    assert not (start.logs / "0.log").exists()


@starts_workers
def test_workers_share_the_cores_unless_the_user_says_otherwise(start, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS")
    share = str(max(1, len(available_cores()) // WORKERS))
    assert start(parallel_work.tell_threads) == [share, share]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert start(parallel_work.tell_threads) == ["3", "3"]


@starts_workers
def test_what_the_user_can_mend_is_told_once(start):
    with pytest.raises(UserError, match=r"^value=7: give another$"):
        start(parallel_work.refuse)


@starts_workers
def test_a_worker_that_fails_ends_the_others_and_is_named_with_its_log(start):
    log = start.logs / "1.log"
    message = f"^worker 1 of 2 failed: ValueError: too much of it; its log is {log}$"
    with pytest.raises(WorkerError, match=message):
        start(parallel_work.fail)
    assert "Traceback" in log.read_text()


@starts_workers
def test_a_killed_worker_ends_the_others_and_is_named_with_its_last_line(start):
    said = "its last line is 'the last words'; its log is .*1.log"
    with pytest.raises(WorkerError, match=f"^worker 1 of 2 ended: killed by SIGKILL; {said}$"):
        start(parallel_work.die)


@starts_workers
def test_the_one_that_was_killed_is_named_not_the_one_that_missed_it(start):
    with pytest.raises(
        WorkerError, match=r"^worker 1 of 2 ended: killed by SIGKILL; its log is .*1.log$"
    ):
        start(parallel_work.outlive_one_that_died)


@starts_workers
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_request_to_stop_reaches_every_worker_once(start, number):
    before = signal.getsignal(number)
    sender = signal_when(start.folder, ("ready", number))
    assert start(parallel_work.count_interrupts) == [1, 1]
    sender.join()
    assert signal.getsignal(number) == before


@starts_workers
def test_the_second_request_ends_them(start):
    signal_when(start.folder, ("ready", signal.SIGINT), ("asked", signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        start(parallel_work.ignore_the_first)


@starts_workers
def test_slurms_announcement_stops_all_and_queues_the_job_again(tmp_path, monkeypatch):
    scontrol = tmp_path / "bin/scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/requeued\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scontrol.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_JOB_NAME", "training")
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path), "count_interrupts"])
    wait_for(tmp_path, "ready0", "ready1")
    parent.send_signal(signal.SIGUSR1)
    assert parent.wait() == 0
    assert (tmp_path / "requeued").read_text() == "requeue 17\n"


@starts_workers
def test_workers_whose_parent_is_killed_leave(tmp_path):
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path), "wait_forever"])
    wait_for(tmp_path, "ready0", "ready1")
    parent.kill()
    parent.wait()
    wait_for(tmp_path, "left0", "left1")


def test_numbers_of_workers_that_cannot_start_are_refused(monkeypatch):
    with pytest.raises(UserError, match="--workers 0: at least 1"):
        check_workers(0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_workers(2)
    with pytest.raises(UserError, match="--workers 3: every worker takes one GPU and 2"):
        check_workers(3)


@pytest.mark.parametrize(
    ("variable", "others"),
    [
        ("WORLD_SIZE", ("LOCAL_RANK", "RANK")),
        ("SLURM_STEP_NUM_TASKS", ("SLURM_LOCALID", "SLURM_PROCID")),
    ],
)
def test_one_of_several_processes_starts_no_workers_of_its_own(variable, others, alone):
    alone(**{variable: "8"}, **dict.fromkeys(others, "0"))
    check_workers(1)
    with pytest.raises(UserError, match=f"{variable}=8: leave --workers out"):
        check_workers(2)
    alone(**{variable: "1"})
    check_workers(2)


@pytest.fixture
def alone(monkeypatch):
    """No variables of torchrun or SLURM; returns what sets some."""

    def set_variables(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    for name in [*os.environ]:
        if name.startswith(("SLURM_", "MAIN_", "MASTER_")) or name in RANKS:
            monkeypatch.delenv(name)
    return set_variables


def test_who_trains_alone_waits_for_nobody(alone):
    assert waits_for_others() is None
    alone(RANK="1", WORLD_SIZE="2")  # Habitat does not look at these without LOCAL_RANK
    assert waits_for_others() is None
    alone(LOCAL_RANK="0", RANK="0", WORLD_SIZE="1")
    assert waits_for_others() is None


def test_who_waits_for_others_is_told_where_and_what_to_unset(alone):
    alone(LOCAL_RANK="1", RANK="1", WORLD_SIZE="2")
    assert waits_for_others() == (
        "rank 1 of 2 (RANK, WORLD_SIZE): waits for the others at 127.0.0.1; "
        "to train alone unset LOCAL_RANK, RANK and WORLD_SIZE"
    )
    alone(MAIN_ADDR="10.0.0.7")
    assert "at 10.0.0.7;" in waits_for_others()
    alone(MASTER_ADDR="10.0.0.8")
    assert "at 10.0.0.8;" in waits_for_others()


def test_a_task_of_a_step_is_told_what_to_unset(alone):
    alone(SLURM_JOBID="1000", SLURM_LOCALID="0", SLURM_PROCID="3", SLURM_STEP_NUM_TASKS="4")
    alone(SLURM_STEP_NODELIST="rack[07-08,11]-ib")
    assert waits_for_others() == (
        "rank 3 of 4 (SLURM_PROCID, SLURM_STEP_NUM_TASKS): waits for the others at rack07-ib; "
        "to train alone unset SLURM_STEP_NUM_TASKS"
    )


def test_within_a_job_but_no_step_of_srun_a_process_is_alone(alone):
    # As a batch script has them, that asked for four tasks and has started none.
    alone(SLURM_JOBID="1000", SLURM_LOCALID="0", SLURM_PROCID="0", SLURM_NTASKS="4")
    assert waits_for_others() is None
    assert ranks() == (0, 0, 1)
    alone(SLURM_STEP_NUM_TASKS="2")
    assert ranks() == (0, 0, 2)


def test_a_training_says_that_it_waits_before_it_does(alone, monkeypatch, capsys, tmp_path):
    alone(LOCAL_RANK="0", RANK="0", WORLD_SIZE="2")

    def announce(folder):
        assert folder == tmp_path
        assert "rank 0 of 2" in capsys.readouterr().err

    monkeypatch.setattr(rendezvous, "announce", announce)
    monkeypatch.setattr(launch, "work_at_training", lambda config: None)
    assert launch.train(launch.Training(RunFolder(tmp_path), OmegaConf.create()))


@pytest.mark.parametrize("others", [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0)])
def test_workers_agree_on_stopping_and_on_being_queued_again(others):
    stop = StopRequest()
    try:
        assert stop.agree(lambda own: own + torch.tensor(others)) == bool(others[0])
        assert stop.is_set == bool(others[0])
        assert REQUEUE.is_set() == bool(others[1])
    finally:
        REQUEUE.clear()
