"""Two machines of two processes each, joined by torchrun's c10d rendezvous: one process is killed.

The machines are network namespaces with an address each, which only root can make.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.integration.conftest import TINY_DARK_KEY, environment, stop

pytestmark = [pytest.mark.integration, pytest.mark.slow]

NETWORK, PORT = "10.213.87", 29471
TRIAL, ENVS, PROCESSES = 20, 4, 4
PER_TRIAL = TRIAL * ENVS * PROCESSES
TRIALS = 60


def ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")


@pytest.fixture
def machines():
    """Names of two network namespaces, joined by a cable: NETWORK.1 and NETWORK.2."""
    if shutil.which("ip") is None:
        pytest.skip("makes network namespaces with ip (iproute2), which is not installed")
    names = [f"memo{os.getpid()}-{index}" for index in (1, 2)]
    made: list[str] = []
    try:
        try:
            for name in names:
                ip("netns", "add", name)
                made.append(name)
            ends = [f"m{os.getpid()}{end}" for end in "ab"]
            ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
            for index, (name, end) in enumerate(zip(names, ends, strict=True), start=1):
                ip("link", "set", end, "netns", name)
                ip("-n", name, "addr", "add", f"{NETWORK}.{index}/24", "dev", end)
                for link in ("lo", end):
                    ip("-n", name, "link", "set", link, "up")
        except OSError as error:
            pytest.skip(f"network namespaces cannot be made here: {error}")
        yield names
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "del", name], check=False)


def start_agent(machine: str, number: int, folder: Path) -> subprocess.Popen[bytes]:
    """Torchrun on one machine; the first one holds the rendezvous."""
    agent = (
        *("--nnodes=2", "--nproc-per-node=2", "--max-restarts=3", "--rdzv-backend=c10d"),
        *(f"--rdzv-endpoint={NETWORK}.1:{PORT}", "--rdzv-id=two-machines"),
        *(f"--rdzv-conf=is_host={int(number == 1)}", f"--local-addr={NETWORK}.{number}"),
    )
    train = (
        *("-m", "memo_habitat.cli.main", "train", "--config-name=dark_key_to_door"),
        *(*TINY_DARK_KEY, f"habitat_baselines.total_num_steps={TRIALS * PER_TRIAL}"),
    )
    with (folder / f"machine{number}.log").open("wb") as log:
        return subprocess.Popen(
            [
                *("ip", "netns", "exec", machine, sys.executable, "-m", "torch.distributed.run"),
                *(*agent, *train),
            ],
            cwd=folder,
            env=environment(),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def children(process: int) -> list[int]:
    return [
        int(child)
        for thread in Path(f"/proc/{process}/task").iterdir()
        for child in (thread / "children").read_text().split()
    ]


def trials(folder: Path) -> list[int]:
    """Steps at the end of each trial so far, of all runs in the folder."""
    files = sorted(folder.glob("runs/*/progress.jsonl"))
    rows = [json.loads(line) for f in files for line in f.read_text().splitlines(keepends=True)]
    return [row["steps"] for row in rows]


def test_a_killed_process_costs_no_trial_and_less_than_a_minute(machines, tmp_path):
    agents = [start_agent(name, i, tmp_path) for i, name in enumerate(machines, start=1)]
    said = lambda: "\n".join(f.read_text() for f in tmp_path.glob("machine*.log"))  # noqa: E731
    try:
        until = time.monotonic() + 600
        while len(trials(tmp_path)) < 3:
            assert all(agent.poll() is None for agent in agents), said()
            assert time.monotonic() < until, said()
            time.sleep(0.1)
        processes = {child for agent in agents for child in children(agent.pid)}
        os.kill(children(agents[1].pid)[-1], signal.SIGKILL)
        killed = time.monotonic()
        while processes & {child for agent in agents for child in children(agent.pid)}:
            assert time.monotonic() < killed + 60, said()
            time.sleep(0.1)
        before = len(trials(tmp_path))
        while len(trials(tmp_path)) < before + 3:
            assert all(agent.poll() is None for agent in agents), said()
            assert time.monotonic() < killed + 600, said()
            time.sleep(0.1)
        for agent in agents:
            assert agent.wait(timeout=600) == 0, said()
    finally:
        for agent in agents:
            for process in (*children(agent.pid), agent.pid) if agent.poll() is None else ():
                os.kill(process, signal.SIGKILL)
            stop(agent)
    assert len([*(tmp_path / "runs").iterdir()]) == 1
    assert trials(tmp_path) == [PER_TRIAL * (done + 1) for done in range(TRIALS)]
    record = json.loads(next(tmp_path.glob("runs/*/run.json")).read_text())
    assert record["workers"] == PROCESSES
    assert len(record["resumed"]) == 1
