"""How fast the memory variants train and act here, and what they allocate, beside full context."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor

from memo_habitat.config.memory import MemoryConfig
from memo_habitat.errors import UserError
from memo_habitat.memory.measure import peak_bytes, seconds
from memo_habitat.memory.stack import build

#: What is measured, by name: what each variant changes of the base configuration.
BENCHED: dict[str, dict[str, Any]] = {
    "memo": {"kind": "memo"},
    "memo_kv": {"kind": "memo", "memory_form": "kv"},
    "fct": {"kind": "fct"},
    "rmt": {"kind": "rmt"},
    "ac": {"kind": "ac"},
    "no_iea": {"kind": "no_iea"},
    "lstm": {"kind": "lstm"},
}
REFERENCE = "fct"
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
FIELDS = (
    *("variant", "steps", "batch", "precision", "train_seconds", "train_ratio_to_fct", "act_ms"),
    *("act_ratio_to_fct", "refresh_seconds", "cache_bytes", "cache_ratio_to_fct"),
    "peak_train_bytes",
)
_STEPS, _TRIALS = 8192, 16  # of a training pass whose batch is not given: steps, and most trials
_EPISODE = 500  # steps between two episode starts, for the variant that attends within episodes
_CHUNK = 256  # steps that a refresh computes at once, as the trainer does by default
_TURNS = 8  # turns of the round in which a segment is acted, so that slow moments hit all alike
_WARM_UP = 8  # steps acted before time is taken


@dataclass(frozen=True)
class BenchOptions:
    """What is measured, and at which sizes.

    variants: names in `BENCHED`; the reference, "fct", is added where it is missing.
    steps: T of each training pass.
    batch: B of each of them, or one for all; empty: trials that make 8192 steps, 1 to 16 of them.
    act_steps: steps of the trial after which acting is measured.
    act_batch: N, environments that act in lockstep.
    precisions: of "float32" and "bfloat16" (autocast, and the cache's dtype).
    repeats: timed training passes of each variant, and segments acted after each of `act_steps`.
    device: of torch, where everything runs.
    base: sizes of the memory; its depth dropout and segment jitter are not used, they are 0.
    """

    variants: Sequence[str] = tuple(BENCHED)
    steps: Sequence[int] = (4096, 16384)
    batch: Sequence[int] = ()
    act_steps: Sequence[int] = (1024, 8192, 32768)
    act_batch: int = 16
    precisions: Sequence[str] = ("float32",)
    repeats: int = 3
    device: str = "cpu"
    base: MemoryConfig = field(default_factory=MemoryConfig)

    def batches(self) -> list[int]:
        """B of each training pass."""
        if not self.batch:
            return [min(max(1, _STEPS // steps), _TRIALS) for steps in self.steps]
        return list(self.batch) * (len(self.steps) if len(self.batch) == 1 else 1)

    def check(self) -> None:
        """Raise UserError where nothing could be measured: "<field> <value>: <the remedy>"."""
        gpus = ("cuda", *(f"cuda:{index}" for index in range(torch.cuda.device_count())))
        for name, values, known in (
            ("variants", self.variants, tuple(BENCHED)),
            ("precisions", self.precisions, tuple(PRECISIONS)),
            ("device", [self.device], ("cpu", *(gpus if torch.cuda.is_available() else ()))),
        ):
            unknown = [value for value in values if value not in known]
            if unknown or not values:
                text = _listed(unknown) or "''"
                raise UserError(f"{name} {text}: not known here, use {', '.join(known)}")
        for name in ("steps", "batch", "act_steps", "act_batch", "repeats"):
            value = getattr(self, name)
            sizes = [value] if isinstance(value, int) else value
            if min(sizes, default=1) < 1:
                raise UserError(f"{name} {_listed(sizes)}: at least 1 is needed")
        if len(self.batches()) != len(self.steps):
            raise UserError(
                f"batch {_listed(self.batch)}: give one, or one for each of {_listed(self.steps)}"
            )


def _listed(values: Sequence[Any]) -> str:
    return ",".join(map(str, values))


class Arm:
    """One variant at one precision, in training and in acting."""

    def __init__(self, variant: str, precision: str, options: BenchOptions) -> None:
        self.variant, self.precision = variant, precision
        self.device, self.dtype = torch.device(options.device), PRECISIONS[precision]
        base = replace(options.base, depth_dropout=0.0, segment_jitter=0.0)
        self.memory = build(replace(base, **BENCHED[variant])).to(self.device).train()
        self._tokens = torch.randn(options.act_batch, _CHUNK, base.width, device=self.device)

    def train(self, tokens: Tensor) -> None:
        """One training pass, forward and backward; leaves no gradients. tokens: [B, T, D]."""
        with self._autocast():
            outputs = self.memory(tokens, episode_starts=self._starts(tokens, 0))
        outputs.float().square().mean().backward()
        self.memory.zero_grad()
        tokens.grad = None

    def new_cache(self) -> Any:
        """An empty cache of this precision, for one environment."""
        return self.memory.new_cache(1, self.device, self.dtype)

    @torch.inference_mode()
    def extend(self, cache: Any, steps: int) -> None:
        """The first `steps` of one environment, in chunks as a refresh does."""
        for first in range(0, steps, _CHUNK):
            tokens = self._tokens[:1, : steps - first]
            with self._autocast():
                self.memory.extend(tokens, cache, self._starts(tokens, first))

    @torch.inference_mode()
    def act(self, cache: Any, start: int, stop: int) -> None:
        """Steps of all environments; as an agent does, each enters autocast by itself."""
        tokens = self._tokens[:, :1]
        for step in range(start, stop):
            with self._autocast():
                self.memory.step(tokens[:, 0], cache, self._starts(tokens, step)[:, 0])

    def _starts(self, tokens: Tensor, first: int) -> Tensor:
        """Where episodes begin, [B, T], for tokens [B, T, D] whose first step is `first`."""
        places = torch.arange(first, first + tokens.shape[1], device=tokens.device)
        return (places % _EPISODE == 0).expand(len(tokens), -1)

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, self.dtype, self.dtype != torch.float32)


def bench_memory(options: BenchOptions) -> Iterator[dict[str, Any]]:
    """Rows with `FIELDS`: one per variant, precision and training or acting size.

    A row is about training or about acting; the fields of the other are None in it. Variants and
    precisions take turns within every repeat, so that a change of the machine hits all alike, and
    ratios are to "fct" at the same precision in the same run.

    train_seconds: forward and backward pass over random tokens [B, T, D] that need a gradient, the
        median of the repeats; its ratio is the median of each repeat's own ratio.
    peak_train_bytes: most bytes that a pass of its own held at once (`peak_bytes`).
    act_ms: time per step of N environments, the mean over a whole segment, so that its closing and
        the growth of the cache have their due share. There are as many segments as repeats, the
        ones that follow `steps`, acted in turns; median and ratio as in training.
    refresh_seconds: all `steps` of one environment anew in chunks, measured once.
    cache_bytes: allocated after that, for one environment.

    Raises:
        UserError: names, sizes or a device that cannot be measured.
    """
    options.check()
    arms = [
        Arm(variant, precision, options)
        for precision in dict.fromkeys(options.precisions)
        for variant in dict.fromkeys([*options.variants, REFERENCE])
    ]
    for steps, batch in zip(options.steps, options.batches(), strict=True):
        yield from _training(arms, steps, batch, options.repeats)
    for steps in sorted(options.act_steps):
        yield from _acting(arms, steps, options)


def _training(arms: list[Arm], steps: int, batch: int, repeats: int) -> Iterator[dict[str, Any]]:
    """Rows of one training size; the pass that counts bytes warms up too."""
    shape = (batch, steps, arms[0].memory.config.width)
    tokens = torch.randn(shape, device=arms[0].device, requires_grad=True)
    works = [partial(arm.train, tokens) for arm in arms]
    peaks = [peak_bytes(work, tokens.device) for work in works]
    rounds = [[seconds(work, tokens.device) for work in works] for _ in range(repeats)]
    for arm, peak, (taken, ratio) in zip(arms, peaks, _medians(arms, rounds), strict=True):
        found = {"train_seconds": taken, "train_ratio_to_fct": ratio, "peak_train_bytes": peak}
        yield _row(arm, steps, batch, found)


def _acting(arms: list[Arm], steps: int, options: BenchOptions) -> Iterator[dict[str, Any]]:
    """Rows of acting from `steps` on, by environments that all have the same past."""
    refreshed, sizes, caches = [], [], []
    for arm in arms:
        cache = arm.new_cache()
        refreshed.append(seconds(partial(arm.extend, cache, steps), arm.device))
        sizes.append(cache.allocated_bytes())
        caches.append(cache.repeated(options.act_batch))
        arm.act(arm.new_cache().repeated(options.act_batch), 0, _WARM_UP)
    segment = options.base.segment_length
    begins = range(steps, steps + options.repeats * segment, segment)
    rounds = [_acted_segment(arms, caches, begin, segment) for begin in begins]
    for index, (taken, ratio) in enumerate(_medians(arms, rounds)):
        found = {"act_ms": 1000 * taken, "act_ratio_to_fct": ratio}
        found |= {"refresh_seconds": refreshed[index], "cache_bytes": sizes[index]}
        found["cache_ratio_to_fct"] = sizes[index] / sizes[_references(arms)[index]]
        yield _row(arms[index], steps, options.act_batch, found)


def _acted_segment(arms: list[Arm], caches: list[Any], begin: int, length: int) -> list[float]:
    """Seconds per step of each arm over the steps begin .. begin + length - 1, acted in turns."""
    total = [0.0] * len(arms)
    turn = -(-length // _TURNS)
    for start in range(begin, begin + length, turn):
        stop = min(start + turn, begin + length)
        for index, (arm, cache) in enumerate(zip(arms, caches, strict=True)):
            total[index] += seconds(partial(arm.act, cache, start, stop), arm.device)
    return [spent / length for spent in total]


def _medians(arms: list[Arm], rounds: list[list[float]]) -> list[tuple[float, float]]:
    """Of each arm the median over the rounds of its seconds, and of their ratio to fct's."""
    return [
        (
            median(times[own] for times in rounds),
            median(times[own] / times[fct] for times in rounds),
        )
        for own, fct in enumerate(_references(arms))
    ]


def _references(arms: list[Arm]) -> list[int]:
    """Of each arm the place of the reference at its precision."""
    places = {arm.precision: i for i, arm in enumerate(arms) if arm.variant == REFERENCE}
    return [places[arm.precision] for arm in arms]


def _row(arm: Arm, steps: int, batch: int, found: dict[str, float]) -> dict[str, Any]:
    """A row with what was found, times and ratios to four digits."""
    named = {"variant": arm.variant, "steps": steps, "batch": batch, "precision": arm.precision}
    short = {k: v if isinstance(v, int) else float(f"{v:.4g}") for k, v in found.items()}
    return dict.fromkeys(FIELDS) | named | short
