"""Where processes of one training meet, what a signal does meanwhile, and who starts again."""

from __future__ import annotations

import functools
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from memo_habitat.cli.main import main
from memo_habitat.config.compose import compose_config
from memo_habitat.errors import UserError
from memo_habitat.trainer import rendezvous
from memo_habitat.trainer.launch import start_training
from memo_habitat.trainer.rendezvous import (
    agree_on_start,
    device_index,
    interface_towards,
    join,
    meeting_point,
)
from memo_habitat.trainer.resume import find_restarted
from memo_habitat.trainer.run_dir import open_run
from tests.integration.conftest import TINY_DARK_KEY

WAIT = """
from memo_habitat.trainer.rendezvous import meet
import torch.distributed
print("waits", flush=True)
meet()
"""


@pytest.fixture
def env(monkeypatch):
    """No variables of torchrun or SLURM; returns what sets some."""
    started = ("SLURM_", "MAIN_", "MASTER_", "TORCHELASTIC_")
    for name in [*os.environ]:
        if name.startswith(started) or name in ("LOCAL_RANK", "RANK", "WORLD_SIZE"):
            monkeypatch.delenv(name)

    def set_variables(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, str(value))

    return set_variables


def test_main_and_master_say_where_and_slurm_lets_all_tasks_guess_the_same(env):
    assert meeting_point() == ("127.0.0.1", 8738)  # as Habitat
    env(SLURM_JOB_ID=41, SLURM_STEP_ID=0, SLURM_JOB_NODELIST="gpu[003-004,7],login")
    guess = meeting_point()
    assert guess[0] == "gpu003"
    env(SLURM_STEP_ID=1)
    assert meeting_point()[1] != guess[1]  # steps side by side
    env(SLURM_STEP_NODELIST="a12,gpu[003-004]")
    assert meeting_point()[0] == "a12"
    env(MAIN_ADDR="10.0.0.1", MAIN_PORT=1234)
    assert meeting_point() == ("10.0.0.1", 1234)
    env(MASTER_ADDR="10.0.0.2", MASTER_PORT=4321)  # torchrun's own
    assert meeting_point() == ("10.0.0.2", 4321)
    env(MASTER_PORT="http")
    with pytest.raises(UserError, match="'http': give a number"):
        meeting_point()


def test_every_rank_has_a_gpu_of_those_that_it_sees(monkeypatch):
    for visible, expected in ((1, [0, 0, 0, 0]), (2, [0, 1, 0, 1]), (8, [0, 1, 2, 3])):
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=visible: count)
        assert [device_index(local) for local in range(4)] == expected


def test_the_interface_is_the_one_that_leads_to_the_first_process():
    names = {name for _, name in socket.if_nameindex()}
    assert interface_towards("127.0.0.1") in names & {"lo", "lo0"}
    assert interface_towards("no.such.machine.invalid") is None


def test_nccl_without_a_gpu_is_refused_by_its_key(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="distrib_backend=NCCL needs a GPU"):
        join("NCCL")


def test_a_start_has_a_name_of_its_own_in_a_store_that_outlives_the_one_before():
    store, size = torch.distributed.HashStore(), 3  # as torchrun's, which it keeps
    store.set_timeout(timedelta(seconds=20))
    names = []
    for _ in range(2):
        with ThreadPoolExecutor(size) as pool:
            found = [*pool.map(lambda rank: agree_on_start(store, rank, size), range(size))]
        assert len(set(found)) == 1
        names.append(found[0])
    assert names[0] != names[1]


def test_who_waited_for_the_others_in_vain_does_not_wait_again(env, monkeypatch):
    env(LOCAL_RANK=0, RANK=0, WORLD_SIZE=2)
    waited = []

    def in_vain():
        waited.append(1)
        raise rendezvous.NotMetError("they did not come")

    monkeypatch.setattr(rendezvous, "meet", in_vain)
    with pytest.raises(rendezvous.NotMetError), rendezvous.leading():
        rendezvous.announce(Path("run"))
    assert len(waited) == 1


def test_what_an_earlier_torchrun_left_behind_is_told_before_it_waits(env, monkeypatch, capsys):
    env(LOCAL_RANK=0, RANK=0, WORLD_SIZE=2)
    told = []

    @functools.cache
    def in_vain():
        told.append(capsys.readouterr().err)
        raise rendezvous.NotMetError("they did not come")

    monkeypatch.setattr(rendezvous, "meet", in_vain)
    assert main(["train", "--config-name=typo"]) == 2
    assert "no training: " in told[0] and "'typo'" in told[0]
    assert "unset LOCAL_RANK, RANK and WORLD_SIZE" in told[0]
    for words in (["--list"], ["--config-name=dark_key_to_door", "--cfg"]):
        assert main(["train", *words]) == 0
    assert len(told) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rank", "number"), [(0, signal.SIGTERM), (1, signal.SIGINT), (1, signal.SIGUSR1)]
)
def test_a_signal_ends_who_waits_for_the_others(rank, number, tmp_path):
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/requeued\n')
    scontrol.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    place = {"LOCAL_RANK": rank, "RANK": rank, "WORLD_SIZE": 2, "MAIN_PORT": port}
    job = {"SLURM_JOB_ID": 17, "SLURM_JOB_NAME": "training"}
    process = subprocess.Popen(
        [sys.executable, "-c", WAIT],
        env={
            **os.environ,
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            **{name: str(value) for name, value in {**place, **job}.items()},
        },
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "waits\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=1)
        process.send_signal(number)
        assert process.wait(timeout=20) == 128 + number
    finally:
        process.kill()
        process.communicate()
    announced = number == signal.SIGUSR1
    assert (tmp_path / "requeued").exists() == announced


@pytest.fixture
def begin(tmp_path, env):
    """Begin a run in a folder of runs."""

    def go(*overrides):
        return start_training("dark_key_to_door", [*TINY_DARK_KEY, *overrides], root=tmp_path)

    go.root = tmp_path
    return go


def test_a_job_that_is_queued_again_goes_on_in_its_run(begin, env):
    env(SLURM_JOB_ID=17, SLURM_CLUSTER_NAME="c")
    first = begin().run.path
    second = begin().run.path  # the same twice in one job: two runs
    assert first != second
    env(SLURM_RESTART_COUNT=1)
    assert begin().run.path == first
    assert begin("habitat.seed=5").run.path not in (first, second)
    env(SLURM_JOB_ID=18)
    assert begin().run.path not in (first, second)


def test_what_torchrun_starts_again_goes_on_in_its_run(begin, env):
    env(TORCHELASTIC_RUN_ID="none")
    first = begin().run.path
    assert begin().run.path == first
    env(TORCHELASTIC_RUN_ID="4711")
    other = begin().run.path
    assert other != first
    config = compose_config("dark_key_to_door", TINY_DARK_KEY)
    assert find_restarted(config, begin.root, None) == other
    assert find_restarted(config, begin.root, other) == other
    assert find_restarted(config, begin.root, first) is None
    assert open_run(other).record().jobs == ["torchrun 4711"]
