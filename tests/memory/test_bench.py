"""The benchmark measures all variants in turns and compares within one run; no clock is trusted."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from functools import partial

import pytest
import torch

from memo_habitat.errors import UserError
from memo_habitat.memory import MemoryConfig, bench, build
from memo_habitat.memory.bench import BENCHED, FIELDS, Arm, BenchOptions, bench_memory
from memo_habitat.memory.measure import bytes_of, peak_bytes, recording
from memo_habitat.memory.variants import kinds

SEGMENT = 16
TINY = BenchOptions(
    steps=(40, 64),
    batch=(2, 1),
    act_steps=(64, 128),
    act_batch=2,
    repeats=2,
    base=MemoryConfig(
        width=16, layers=2, heads=2, hidden=24, segment_length=SEGMENT, summary_length=4
    ),
)
TRAINING = ("train_seconds", "train_ratio_to_fct", "peak_train_bytes")
ACTING = ("act_ms", "act_ratio_to_fct", "refresh_seconds", "cache_bytes", "cache_ratio_to_fct")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return list(bench_memory(replace(TINY, precisions=("float32", "bfloat16"))))


def test_every_kind_of_memory_is_benchmarked() -> None:
    assert {changes["kind"] for changes in BENCHED.values()} == set(kinds())


def test_there_is_one_row_per_variant_precision_and_size(rows: list[dict]) -> None:
    found = [(r["variant"], r["precision"], r["steps"], r["batch"]) for r in rows]
    sizes = {"train_seconds": [(40, 2), (64, 1)], "act_ms": [(64, 2), (128, 2)]}
    assert sorted(found) == sorted(
        (variant, precision, *size)
        for variant in BENCHED
        for precision in ("float32", "bfloat16")
        for size in (*sizes["train_seconds"], *sizes["act_ms"])
    )


def test_a_row_is_about_training_or_about_acting_and_has_all_fields(rows: list[dict]) -> None:
    for row in rows:
        assert tuple(row) == FIELDS
        assert json.loads(json.dumps(row)) == row
        trains = row["train_seconds"] is not None
        assert all((row[name] is not None) == trains for name in TRAINING)
        assert all((row[name] is not None) != trains for name in ACTING)


def test_the_reference_compares_to_itself_as_one(rows: list[dict]) -> None:
    for row in rows:
        if row["variant"] == "fct":
            names = [name for name in FIELDS if name.endswith("_to_fct")]
            assert {row[name] for name in names} == {1.0, None}


def test_the_reference_is_measured_though_it_is_not_listed() -> None:
    tiny = replace(TINY, variants=("lstm",), steps=(8,), batch=(), act_steps=())
    assert [row["variant"] for row in bench_memory(tiny)] == ["lstm", "fct"]


def test_cache_bytes_are_those_of_a_cache_refreshed_up_to_that_step(rows: list[dict]) -> None:
    for kind in ("memo", "fct", "lstm"):
        memory = build(replace(TINY.base, kind=kind))
        cache = memory.new_cache(1, CPU)
        memory.extend(torch.randn(1, 128, 16), cache)
        (row,) = [
            row
            for row in rows
            if (row["variant"], row["precision"], row["steps"]) == (kind, "float32", 128)
        ]
        assert row["cache_bytes"] == cache.allocated_bytes()


class Recorder:
    """Stands in for the clock: costs are made up, and double whenever each arm had its turn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cost: dict[str, float]) -> None:
        self.cost = cost
        self.work: list[tuple[str, str]] = []
        monkeypatch.setattr(bench, "seconds", self)

    def __call__(self, work: partial, device: torch.device) -> float:
        arm = work.func.__self__
        self.work.append((work.func.__name__, arm.variant))
        return self.cost[arm.variant] * 2.0 ** ((len(self.work) - 1) // len(self.cost))

    def order(self, name: str) -> list[str]:
        return [variant for method, variant in self.work if method == name]


def test_variants_take_turns_within_every_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(monkeypatch, {"memo": 1.0, "rmt": 2.0, "fct": 4.0})
    tiny = replace(TINY, variants=("memo", "rmt"), steps=(8,), batch=(), repeats=3)
    list(bench_memory(tiny))
    names = ["memo", "rmt", "fct"]
    assert recorder.order("train") == 3 * names
    acted = recorder.order("act")
    assert acted == len(acted) // 3 * names
    assert len(acted) // 3 > 3 * len(tiny.act_steps)  # a segment is acted in several turns


def test_a_drift_of_the_machine_does_not_change_ratios(monkeypatch: pytest.MonkeyPatch) -> None:
    Recorder(monkeypatch, {"memo": 1.0, "fct": 4.0})
    tiny = replace(TINY, variants=("memo", "fct"), repeats=4)
    for row in bench_memory(tiny):
        expected = 0.25 if row["variant"] == "memo" else 1.0
        assert expected in (row["train_ratio_to_fct"], row["act_ratio_to_fct"])


def test_acting_is_measured_over_the_whole_segments_that_follow_the_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spans: list[tuple[int, int]] = []

    def noted(work: partial, device: torch.device) -> float:
        if work.func.__name__ == "act" and work.func.__self__.variant == "fct":
            cache, start, stop = work.args
            assert cache.steps.tolist() == [start] * TINY.act_batch
            spans.append((start, stop))
        work()
        return 1.0

    monkeypatch.setattr(bench, "seconds", noted)
    list(bench_memory(replace(TINY, variants=("memo",), steps=(), batch=())))
    steps = [step for start, stop in spans for step in range(start, stop)]
    span = TINY.repeats * SEGMENT
    assert steps == [*range(64, 64 + span), *range(128, 128 + span)]


def test_a_refresh_goes_over_all_steps_with_an_empty_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    refreshed: list[int] = []

    def noted(work: partial, device: torch.device) -> float:
        if work.func.__name__ == "extend":
            cache, steps = work.args
            refreshed.append(steps)
            assert cache.steps.tolist() == [0]
        work()
        return 1.0

    monkeypatch.setattr(bench, "seconds", noted)
    list(bench_memory(replace(TINY, variants=("memo",), steps=(), batch=())))
    assert refreshed == [64] * 2 + [128] * 2


def test_episodes_begin_every_500_steps_for_the_variant_that_needs_it() -> None:
    arm = Arm("no_iea", "float32", TINY)
    cache = arm.new_cache()
    arm.extend(cache, 505)
    cache = cache.repeated(2)
    arm.act(cache, 505, 510)
    assert cache.tokens_in_use().tolist() == [10, 10]


def test_a_training_pass_is_the_same_every_time_and_leaves_no_gradients() -> None:
    arm = Arm("memo", "float32", replace(TINY, base=replace(TINY.base, depth_dropout=0.5)))
    tokens = torch.randn(1, 40, 16, requires_grad=True)
    assert arm.memory.training
    assert torch.equal(arm.memory(tokens), arm.memory(tokens))
    arm.train(tokens)
    assert tokens.grad is None
    assert all(parameter.grad is None for parameter in arm.memory.parameters())


def test_peak_bytes_are_those_held_at_once() -> None:
    before = torch.zeros(1000)

    def work() -> None:
        first = torch.zeros(2000)
        del first
        second = torch.zeros(1500)
        third = before.exp()
        del second, third

    assert peak_bytes(work, CPU) == 4 * 2500


def test_a_recording_tells_the_peak_and_what_is_left() -> None:
    with recording() as recorded:
        kept = torch.zeros(1000)
        torch.zeros(1500)
    assert bytes_of(recorded) == (4 * 2500, 4 * 1000)
    with recording() as recorded:
        del kept
    assert bytes_of(recorded) == (0, -4 * 1000)


def test_peak_bytes_count_what_autograd_saves_and_the_gradients() -> None:
    weight = torch.zeros(1000, requires_grad=True)

    def work() -> None:
        weight.exp().exp().exp().sum().backward()  # saves three results
        weight.grad = None

    saved, gradients = 3 * 4000, 4000
    assert saved + gradients <= peak_bytes(work, CPU) < saved + 3 * gradients


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"variants": ("memo", "mem")}, r"variants mem: not known here, use memo,.*fct"),
        ({"variants": ()}, "variants '': not known here, use memo"),
        ({"precisions": ("float16",)}, "precisions float16: not known here, use float32, bfloat16"),
        ({"repeats": 0}, "repeats 0: at least 1 is needed"),
        ({"act_batch": 0}, "act_batch 0: at least 1"),
        ({"steps": (0, 8)}, "steps 0,8: at least 1 is needed"),
        ({"batch": (1, 1, 1)}, "batch 1,1,1: give one, or one for each of 40,64"),
        ({"act_steps": (0,)}, "act_steps 0: at least 1 is needed"),
        ({"device": "cuda:9999"}, "device cuda:9999: not known here, use cpu"),
        ({"device": "abacus"}, "device abacus: not known here, use cpu"),
    ],
)
def test_what_cannot_be_measured_is_named_with_the_remedy(values: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        next(iter(bench_memory(replace(TINY, **values))))


@pytest.mark.parametrize(
    ("batch", "expected"), [((), [2, 1]), ((3,), [3, 3]), ((3, 4), [3, 4])], ids=str
)
def test_batches_are_one_for_each_pass_one_for_all_or_8192_steps(
    batch: tuple[int, ...], expected: list[int]
) -> None:
    assert BenchOptions(batch=batch).batches() == expected


def test_short_passes_get_no_huge_batch() -> None:
    assert BenchOptions(steps=(24, 512, 1024, 65536)).batches() == [16, 16, 8, 1]


def test_measuring_needs_neither_habitat_nor_a_plotting_library() -> None:
    code = (
        "import sys, memo_habitat.memory.bench; "
        "print(sorted({'habitat', 'gym', 'habitat_baselines', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr
