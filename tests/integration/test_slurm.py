"""A real SLURM, with two nodes on this machine: a training is submitted, told that its time is up,
preempted, and queued again each time until it is finished.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import TINY_DARK_KEY, command, environment

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.slurm]

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol")
TRIAL, ENVS, PROCESSES, TRIALS = 20, 4, 2, 200
PER_TRIAL = TRIAL * ENVS * PROCESSES
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A job that is queued again waits until its old credential has expired: two minutes by default.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmctldPort={port}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdSpoolDir={folder}/spool-%n
StateSaveLocation={folder}/state
# More cores than there are.
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
# Looks for jobs that may start every second, not every half minute or minute.
SchedulerParameters=sched_interval=1,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=30
MailProg=/bin/true
NodeName=n[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{first}-{last}] CPUs=2
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 GraceTime=30
PartitionName=high Nodes=ALL PriorityTier=2
"""


def missing() -> str | None:
    absent = [
        p for p in PROGRAMS if shutil.which(p, path=f"{os.environ['PATH']}:/usr/sbin") is None
    ]
    if absent:
        return f"{', '.join(absent)} not installed (Debian: slurm-wlm, munge)"
    return None if os.geteuid() == 0 else "SLURM's daemons are started as root here"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Callable[..., str]]:
    """Runs a command of SLURM's and returns its output; `cluster.env` is the environment."""
    if reason := missing():
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="slurm"))  # a short path: sockets are in it
    (folder / "state").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    numbers = {"port": port, "first": port + 1, "last": port + 2}
    host = socket.gethostname().partition(".")[0]
    (folder / "slurm.conf").write_text(CONF.format(folder=folder, host=host, **numbers))
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    env = {
        **environment(),
        "PATH": f"{os.environ['PATH']}:/usr/sbin",
        "SLURM_CONF": str(folder / "slurm.conf"),
        "MAIN_ADDR": "127.0.0.1",  # nodes of this cluster have no names
    }

    def run(*words: str) -> str:
        done = subprocess.run(
            words, env=env, cwd=folder, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, f"{words}: {done.stdout} {done.stderr}"
        return done.stdout

    places = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munge.pid"}
    places |= {"log-file": "munge.log", "seed-file": "munge.seed"}
    try:
        run("munged", "--force", *(f"--{name}={folder / file}" for name, file in places.items()))
        run("slurmctld")
        for node in ("n1", "n2"):
            run("slurmd", "-N", node)
        until = time.monotonic() + 60
        while "idle" not in run("sinfo", "--noheader", "--partition=low", "--format=%T"):
            assert time.monotonic() < until, run("sinfo", "-R")
            time.sleep(0.5)
        run.env = env
        yield run
    finally:
        subprocess.run(["scancel", "--user=root"], env=env, check=False)
        time.sleep(2)
        for file in (*folder.glob("slurmd-*.pid"), folder / "slurmctld.pid", folder / "munge.pid"):
            until = time.monotonic() + 15  # each removes its file as it leaves
            while file.is_file() and time.monotonic() < until:
                os.kill(int(file.read_text()), signal.SIGTERM)
                time.sleep(0.5)
        shutil.rmtree(folder, ignore_errors=True)


def test_a_training_outlives_time_limit_and_preemption(cluster, tmp_path):
    progress = tmp_path / "run/progress.jsonl"
    total = f"habitat_baselines.total_num_steps={TRIALS * PER_TRIAL}"

    def trials() -> list[int]:
        lines = progress.read_text().splitlines(keepends=True) if progress.is_file() else []
        return [json.loads(line)["steps"] for line in lines if line.endswith("\n")]

    def job(field: str, of: str | None = None) -> str:
        told = cluster("scontrol", "show", "job", of or number)
        return re.search(rf"\b{field}=(\S+)", told)[1]

    def wait(condition: Callable[[], bool], seconds: float = 200.0) -> None:
        until = time.monotonic() + seconds
        while not condition():
            log = tmp_path / f"run/slurm-{number}.log"
            said = log.read_text() if log.is_file() else ""
            assert time.monotonic() < until, said + cluster("scontrol", "show", "job", number)
            assert job("JobState") not in ("FAILED", "CANCELLED", "TIMEOUT"), said
            time.sleep(0.5)

    submitted = subprocess.run(
        [
            *(command("memo-habitat"), "launch", "--slurm", "gpus_per_node=0", "--nodes=2"),
            *("--config-name=dark_key_to_door", *TINY_DARK_KEY, total, "--out=run"),
        ],
        env=cluster.env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    number = re.search(r"submitted as job (\d+)", submitted.stdout)[1]

    wait(lambda: len(trials()) > 3)
    # What SLURM sends before the time limit (--signal=USR1@...), to the tasks alone.
    cluster("scancel", "--signal=USR1", number)
    wait(lambda: job("Restarts") == "1")
    stopped = len(trials())
    wait(lambda: len(trials()) > stopped + 3)

    # A job that goes before ours is given its nodes.
    urgent = ("--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null")
    other = cluster("sbatch", "--parsable", *urgent, "--wrap=sleep 1").strip()
    wait(lambda: job("Restarts") == "2")
    wait(lambda: job("JobState", other) == "COMPLETED")
    wait(lambda: job("JobState") == "COMPLETED", 400.0)

    assert trials() == [PER_TRIAL * (done + 1) for done in range(TRIALS)]
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert [resume["workers"] for resume in record["resumed"]] == [PROCESSES] * 3
