"""A trained agent that samples its actions: the same bytes from any environments and processes."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from memo_habitat.cli.main import main
from memo_habitat.evaluation.records import EvaluationMeta

pytestmark = [pytest.mark.slow, pytest.mark.integration]

OPTIONS = (
    *("--trials", "3", "--steps", "128", "--name", "NAME"),
    "habitat.environment.max_episode_steps=25",  # so that trials have several episodes
    "habitat.dataset.content_scenes=[loft_0_test_000,loft_0_test_003]",
)
FILES = ("records.jsonl", "returns.jsonl")


@pytest.fixture(scope="module")
def run(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(
        checkout / "data/agents/recall", tmp_path_factory.mktemp("runs") / "recall"
    )


def arguments(run: Path, name: str, environments: int) -> list[str]:
    options = [name if word == "NAME" else word for word in OPTIONS]
    return ["eval", str(run), *options, f"habitat_baselines.num_environments={environments}"]


def contents(run: Path, name: str) -> list[bytes]:
    return [(run / "eval" / name / file).read_bytes() for file in FILES]


def kill_in_the_middle(run: Path, name: str, environments: int, lines: int) -> None:
    """Play shard 2/3 in a process of its own until it has written so many more records."""
    shard = run / "eval" / name / "shards/2-of-3"
    words = [*arguments(run, name, environments), "--shard", "2/3"]
    process = subprocess.Popen(
        [sys.executable, "-m", "memo_habitat.cli.main", *words], stderr=subprocess.DEVNULL
    )
    records = shard / "records.jsonl"
    while process.poll() is None:
        if records.is_file() and records.read_bytes().count(b"\n") >= lines:
            process.send_signal(signal.SIGKILL)
        time.sleep(0.01)
    assert process.returncode == -signal.SIGKILL
    assert EvaluationMeta.read(shard).finished is None


def test_shards_that_were_killed_and_environments_in_any_number_give_the_same_bytes(
    run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for environments in (1, 2, 4):
        assert main(arguments(run, f"of_{environments}", environments)) == 0
    whole = contents(run, "of_1")
    assert len(whole[0].splitlines()) > 20
    assert contents(run, "of_2") == whole
    assert contents(run, "of_4") == whole
    for lines in (2, 7):  # in its first trial, in its second
        kill_in_the_middle(run, "in_3", 2, lines)
    capfd.readouterr()
    assert main([*arguments(run, "in_3", 2), "--shards", "3"]) == 0
    assert capfd.readouterr().out.endswith(f"{run / 'eval' / 'in_3'}\n")
    assert contents(run, "in_3") == whole
