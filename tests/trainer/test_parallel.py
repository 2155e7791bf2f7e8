"""Several workers by one command: what each is told, and how they end together."""

from __future__ import annotations

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
from memo_habitat.trainer import distributed, launch
from memo_habitat.trainer.distributed import (
    check_workers,
    run_workers,
    waits_for_others,
    worker_environment,
)
from memo_habitat.trainer.run_dir import RunFolder
from memo_habitat.trainer.signals import StopRequest
from memo_habitat.utils.processes import available_cores
from tests.trainer import parallel_work

WORKERS = 2


@pytest.fixture
def start(tmp_path):
    """Start the two workers with a function of parallel_work."""

    def go(work, logs=None):
        config = OmegaConf.create({"folder": str(tmp_path), "value": 7})
        return run_workers(work, config, WORKERS, logs)

    go.folder = tmp_path
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


def test_workers_get_the_config_their_ranks_and_one_place_to_meet(start):
    logs = start.folder / "logs"
    first, second = start(parallel_work.tell, logs)
    assert (first["LOCAL_RANK"], first["RANK"]) == ("0", "0")
    assert (second["LOCAL_RANK"], second["RANK"]) == ("1", "1")
    assert first["WORLD_SIZE"] == second["WORLD_SIZE"] == "2"
    assert first["MAIN_PORT"] == second["MAIN_PORT"]
    assert first["MAIN_ADDR"] == second["MAIN_ADDR"] == "127.0.0.1"
    assert first["config"] == second["config"] == 7
    # Ctrl-C at the terminal goes to a group: it must reach them by us alone.
    assert first["leads_its_group"]
    assert second["leads_its_group"]
    # The first has the terminal.
    assert (logs / "1.log").read_text() == "told to the log\n"
    assert (logs / "0.log").read_text() == ""


def test_workers_share_the_cores_unless_the_user_says_otherwise():
    cores = len(available_cores())
    assert worker_environment(0, 1, 5, {})["OMP_NUM_THREADS"] == str(cores)
    assert worker_environment(0, 10 * cores, 5, {})["OMP_NUM_THREADS"] == "1"
    assert worker_environment(0, 2, 5, {"OMP_NUM_THREADS": "3"})["OMP_NUM_THREADS"] == "3"
    own = worker_environment(1, 2, 5, {"GLOO_SOCKET_IFNAME": "eth7", "RANK": "9", "HOME": "x"})
    assert (own["GLOO_SOCKET_IFNAME"], own["RANK"], own["HOME"]) == ("eth7", "1", "x")


def test_trainings_at_the_same_time_meet_at_different_ports_which_can_be_listened_on():
    with distributed._reserved_port() as one, distributed._reserved_port() as other:
        assert one != other
        stores = [torch.distributed.TCPStore("127.0.0.1", port, 1, True) for port in (one, other)]
        assert [store.port for store in stores] == [one, other]


def test_what_the_user_can_mend_is_told_once(start):
    with pytest.raises(UserError, match=r"^value=7: give another$"):
        start(parallel_work.refuse)


def test_a_worker_that_fails_ends_the_others_and_is_named_with_its_log(start):
    logs = start.folder / "logs"
    message = f"^worker 1 of 2 failed: ValueError: too much of it; its log is {logs}/1.log$"
    with pytest.raises(WorkerError, match=message):
        start(parallel_work.fail, logs)
    assert "Traceback" in (logs / "1.log").read_text()


def test_a_killed_worker_ends_the_others_and_is_named_with_its_last_line(start):
    with pytest.raises(
        WorkerError,
        match=r"^worker 1 of 2 ended: killed by SIGKILL; its last line is 'the last words'$",
    ):
        start(parallel_work.die)


def test_the_one_that_was_killed_is_named_not_the_one_that_missed_it(start, monkeypatch):
    monkeypatch.setattr(distributed, "_POLL", 1.0)  # both are dead at one look
    with pytest.raises(WorkerError, match=r"^worker 1 of 2 ended: killed by SIGKILL$"):
        start(parallel_work.outlive_one_that_died)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_request_to_stop_reaches_every_worker_once(start, number):
    before = signal.getsignal(number)
    sender = signal_when(start.folder, ("ready", number))
    assert start(parallel_work.count_interrupts) == [1, 1]
    sender.join()
    assert signal.getsignal(number) == before


def test_the_second_request_ends_them(start):
    signal_when(start.folder, ("ready", signal.SIGINT), ("asked", signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        start(parallel_work.ignore_the_first)


def test_workers_whose_parent_is_killed_leave(tmp_path):
    code = (
        "from omegaconf import OmegaConf\n"
        "from memo_habitat.trainer.distributed import run_workers\n"
        "from tests.trainer import parallel_work as work; "
        f"run_workers(work.wait_forever, OmegaConf.create({{'folder': {str(tmp_path)!r}}}), 2)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
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


@pytest.mark.parametrize("variable", ["WORLD_SIZE", "SLURM_STEP_NUM_TASKS"])
def test_one_of_several_processes_starts_no_workers_of_its_own(variable, monkeypatch):
    monkeypatch.setenv(variable, "8")
    check_workers(1)
    with pytest.raises(UserError, match=f"{variable}=8: leave --workers out"):
        check_workers(2)
    monkeypatch.setenv(variable, "1")
    check_workers(2)


@pytest.fixture
def alone(monkeypatch):
    """No variables of torchrun or SLURM; returns what sets some."""

    def set_variables(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    for name in ("LOCAL_RANK", "RANK", "WORLD_SIZE", "SLURM_JOBID", "MAIN_ADDR", "MAIN_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("habitat_baselines.rl.ddppo.ddp_utils.SLURM_JOBID", None)
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
        "rank 1 of 2 (RANK, WORLD_SIZE): waits for the others at 127.0.0.1:8738; "
        "to train alone unset LOCAL_RANK, RANK and WORLD_SIZE"
    )
    alone(MAIN_ADDR="10.0.0.7", MAIN_PORT="4321")
    assert "at 10.0.0.7:4321;" in waits_for_others()


def test_a_task_of_a_job_is_told_the_port_of_that_job(alone, monkeypatch):
    alone(SLURM_JOBID="1000", SLURM_LOCALID="0", SLURM_PROCID="3", SLURM_NTASKS="4")
    monkeypatch.setattr("habitat_baselines.rl.ddppo.ddp_utils.SLURM_JOBID", "1000")
    assert waits_for_others() == (
        "rank 3 of 4 (SLURM_PROCID, SLURM_NTASKS): waits for the others at "
        f"127.0.0.1:{8738 + 1000 % 127}; to train alone unset SLURM_JOBID"
    )


def test_a_training_says_that_it_waits_before_it_does(alone, monkeypatch, capsys, tmp_path):
    alone(LOCAL_RANK="1", RANK="1", WORLD_SIZE="2")

    def work(config):
        assert "rank 1 of 2" in capsys.readouterr().err

    monkeypatch.setattr(launch, "work_at_training", work)
    assert launch.train(launch.Training(RunFolder(tmp_path), OmegaConf.create()))


@pytest.mark.parametrize("others", [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0)])
def test_workers_agree_on_stopping_and_on_being_queued_anew(others):
    stop = StopRequest()
    try:
        assert stop.agree(lambda own: own + torch.tensor(others)) == bool(others[0])
        assert stop.is_set == bool(others[0])
        assert REQUEUE.is_set() == bool(others[1])
    finally:
        REQUEUE.clear()
