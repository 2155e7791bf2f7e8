"""Threads of a training without a GPU: as many as other programs leave cores."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from memo_habitat.trainer import threads
from memo_habitat.trainer.threads import SpareCores

CPU = torch.device("cpu")


class Machine:
    """Four cores of which others take `others`, and this process what its threads can get."""

    def __init__(self) -> None:
        self.others, self.busy, self.own, self.now = 0.0, 100.0, 5.0, 0.0

    def work(self, seconds: float = 10.0) -> None:
        own = min(torch.get_num_threads(), 4 - self.others)
        self.own += own * seconds
        self.busy += (own + self.others) * seconds
        self.now += seconds

    def spare_cores(self, device: torch.device = CPU) -> SpareCores:
        return SpareCores(device, lambda: self.busy, lambda: self.own, self._clock)

    def _clock(self) -> float:
        self.now += 1e-3  # nothing takes no time at all
        return self.now


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "available_cores", lambda: [0, 1, 2, 3])
    torch.set_num_threads(4)
    yield Machine()
    torch.set_num_threads(before)


def test_threads_follow_the_cores_that_others_leave(machine: Machine) -> None:
    spare = machine.spare_cores()
    seen = []
    # A desktop's little work; a program that gets half of a core from a thread; three; none again.
    for machine.others in (0.2, 0.5, 3.0, 4.0, 0.0):
        with spare.learning():
            machine.work()
            spare.look()
        seen.append(torch.get_num_threads())
    assert seen == [4, 3, 1, 1, 4]
    machine.others = 3.0
    with spare.learning():
        machine.work()
        spare.look()
    assert torch.get_num_threads() == 1
    spare.close()
    assert torch.get_num_threads() == 4


def test_only_learning_counts_and_a_moment_of_it_says_nothing(machine: Machine) -> None:
    spare = machine.spare_cores()
    for _ in range(2):
        machine.others = 3.0
        machine.work()  # environments of this training, while it collects
        machine.others = 0.0
        with spare.learning():
            machine.work(0.3)
            spare.look()
    assert torch.get_num_threads() == 4
    machine.others = 3.0
    with spare.learning():
        machine.work(0.3)
        spare.look()
        assert torch.get_num_threads() == 4  # 0.9 s
        machine.work(0.3)
        spare.look()
    assert torch.get_num_threads() == 2  # half of the time nobody else was there


@pytest.mark.parametrize("chosen", ["environment", "gpu", "one", "system"])
def test_a_number_that_is_chosen_or_cannot_be_told_stays(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, chosen: str
) -> None:
    if chosen == "environment":
        monkeypatch.setenv("OMP_NUM_THREADS", "4")
    if chosen == "one":
        torch.set_num_threads(1)
    if chosen == "system":
        monkeypatch.setattr(machine, "busy", None)
        spare = machine.spare_cores()
    else:
        spare = machine.spare_cores(torch.device("cuda" if chosen == "gpu" else "cpu"))
        machine.others = 2.0
    with spare.learning():
        if chosen != "system":
            machine.work()
        spare.look()
    assert torch.get_num_threads() == (1 if chosen == "one" else 4)


def test_the_time_of_the_cores_that_are_available(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(threads, "available_cores", lambda: [0, 2])
    stat = tmp_path / "stat"
    # user, nice, system, idle, waiting, two kinds of interrupts, stolen, guests (counted as users)
    one = "100 200 300 5000 6000 10 20 70 80 90"
    stat.write_text(f"cpu  {one}\ncpu0 {one}\ncpu1 9 9 9 9 9 9 9 9 9 9\ncpu2 {one}\nintr 1 2\n")
    ticks = os.sysconf("SC_CLK_TCK")
    assert threads.busy_seconds(stat) == pytest.approx(2 * 700 / ticks)
    stat.write_text(f"cpu  {one}\ncpu0 {one}\nintr 1 2\n")
    assert threads.busy_seconds(stat) is None
    assert threads.busy_seconds(tmp_path / "none") is None
