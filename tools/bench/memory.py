"""Training passes, acting steps and refreshes of the memories, beside full context.

python tools/bench/memory.py                                    # the published sizes, minutes
python tools/bench/memory.py --kinds memo --train 4096x2 --act none --repeats 5 --json
python tools/bench/memory.py --device cuda --dtype bfloat16 --width 768 --layers 8 --heads 12 \\
    --hidden 3072 --train 4096x16 16384x4 --act 1024 8192 32768 --environments 32

On random tokens; depth dropout and segment jitter are 0. Kinds take turns within every repeat, so
that a change of the machine hits all alike; "to_fct" is the median of each repeat's own ratio.

Model FLOPs of a training pass, three times its forward pass: 6 * weights in matrices * tokens
through the stack, and 12 * L * D * pairs of a query and a key that it sees. MFU is these per
second, over the dense peak of the device.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from itertools import chain
from statistics import median
from typing import Any

import torch
from common import machine, print_rows, timed
from torch import Tensor

from memo_habitat.memory import MemoryConfig, build
from memo_habitat.memory.variants import is_transformer, kinds, takes
from memo_habitat.trainer.live_bytes import peak_bytes

SIZES = ("width", "layers", "heads", "hidden")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# FLOP/s of bfloat16, and of float32 without TF32, by a part of the device's name.
PEAKS = {name: {"bfloat16": 989e12, "float32": 67e12} for name in ("H100", "H200")}
PEAKS["A100"] = {"bfloat16": 312e12, "float32": 19.5e12}
EPISODE = 500  # steps between two episode starts, for the kind that attends within episodes
CHUNK = 256  # steps that a refresh computes at once, as the trainer does by default


class Arm:
    """One kind of memory, in training and in acting."""

    def __init__(self, kind: str, given: argparse.Namespace) -> None:
        self.kind, self.device = kind, torch.device(given.device)
        self.dtype = DTYPES[given.dtype]
        self.config = MemoryConfig(
            kind=kind,
            **{name: getattr(given, name) for name in SIZES},
            segment_length=given.segment,
            summary_length=given.summary,
            depth_dropout=0.0,
            segment_jitter=0.0,
            compile=given.compile and is_transformer(kind),
            cuda_graphs=given.cuda_graphs and takes(kind, "cuda_graphs"),
            compile_acting=given.compile_acting and is_transformer(kind),
        )
        memory: Any = build(self.config)
        self.memory = memory.to(self.device).train()
        self._autocast = partial(
            torch.autocast, self.device.type, self.dtype, enabled=self.dtype != torch.float32
        )

    def train(self, tokens: Tensor) -> None:
        """One training pass, forward and backward; leaves no gradients. tokens: [B, T, D]."""
        with self._autocast():
            outputs = self.memory.encode(tokens, None, self._starts(tokens, 0)).outputs
        outputs.float().square().mean().backward()
        self.memory.zero_grad()
        tokens.grad = None

    @torch.inference_mode()
    def refresh(self, steps: int) -> Any:
        """The first `steps` of one environment, in chunks; its cache."""
        cache = self.memory.new_cache(1, self.device, self.dtype)
        tokens = torch.randn(1, CHUNK, self.config.width, device=self.device)
        for first in range(0, steps, CHUNK):
            new = tokens[:, : steps - first]
            with self._autocast():
                self.memory.extend(new, cache, self._starts(new, first))
        return cache

    @torch.inference_mode()
    def act(self, cache: Any, start: int, count: int) -> None:
        """Steps of all environments of the cache."""
        tokens = torch.randn(len(cache.steps), 1, self.config.width, device=self.device)
        for step in range(start, start + count):
            with self._autocast():
                self.memory.step(tokens[:, 0], cache, self._starts(tokens, step)[:, 0])

    def _starts(self, tokens: Tensor, first: int) -> Tensor:
        places = torch.arange(first, first + tokens.shape[1], device=tokens.device)
        return (places % EPISODE == 0).expand(len(tokens), -1)

    def flops(self, steps: int, batch: int) -> float | None:
        """Model FLOPs of a training pass; None for a memory that is no transformer."""
        if not is_transformer(self.kind):
            return None
        variant, size, summary = self.memory.variant, steps, 0
        if variant.summarises:
            size, summary = self.config.segment_length, self.config.summary_length
        elif variant.within_episode:
            size = EPISODE
        pushed = pairs = 0
        for index, start in enumerate(range(0, steps, size)):
            carried = summary * (index > 0)
            older = summary * max(0, index - 1) if variant.accumulates else 0
            queries = summary * (start + size < steps)
            own = carried + min(size, steps - start) + queries
            pushed += own
            pairs += own * (1 + older) + own * (own + 1) // 2  # the sink, summaries, own tokens
        weights = sum(p.numel() for p in self.memory.blocks.parameters() if p.dim() == 2)
        attention = 12 * self.config.layers * self.config.width * pairs
        return batch * (6 * weights * pushed + attention)


def training(arms: list[Arm], size: str, given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row for each arm; the pass that counts bytes warms up too."""
    steps, batch = map(int, size.split("x"))
    device = arms[0].device
    tokens = torch.randn(batch, steps, given.width, device=device, requires_grad=True)
    works = [partial(arm.train, tokens) for arm in arms]
    for work in works:
        work()
        work()  # passes are recorded at the second sight
    peaks = [peak_bytes(work, device) for work in works]
    rounds = [[timed(work, device)[0] for work in works] for _ in range(given.repeats)]
    name = machine(device)["device"]
    peak_rate = next((rate[given.dtype] for part, rate in PEAKS.items() if part in name), None)
    for arm, peak, taken, ratio in zip(arms, peaks, *_medians(arms, rounds), strict=True):
        flops = arm.flops(steps, batch)
        yield {
            **{"kind": arm.kind, "train_steps": steps, "batch": batch, "dtype": given.dtype},
            **{"ms": _short(1000 * taken), "to_fct": _short(ratio), "peak_bytes": peak},
            "flops": flops,
            "mfu": _short(flops / taken / peak_rate) if flops and peak_rate else None,
        }


def acting(arms: list[Arm], steps: int, given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row for each arm, of environments that all have the same past of `steps`."""
    device, count = arms[0].device, given.segment  # a whole segment, with its summary
    refreshed, sizes, caches = [], [], []
    for arm in arms:
        arm.act(arm.refresh(CHUNK), CHUNK, 2)  # warms up
        taken, cache = timed(partial(arm.refresh, steps), device)
        refreshed.append(taken)
        sizes.append(cache.allocated_bytes())
        caches.append(cache.repeated(given.environments))
    rounds = []
    for turn in range(given.repeats):
        works = (
            partial(arm.act, cache, steps + turn * count, count)
            for arm, cache in zip(arms, caches, strict=True)
        )
        rounds.append([timed(work, device)[0] / count for work in works])
    columns = zip(arms, refreshed, sizes, *_medians(arms, rounds), strict=True)
    for arm, refresh, size, taken, ratio in columns:
        yield {
            **{"kind": arm.kind, "acted_steps": steps, "environments": given.environments},
            **{"dtype": given.dtype, "ms_a_step": _short(1000 * taken), "to_fct": _short(ratio)},
            **{"refresh_s": _short(refresh), "cache_bytes": size},
        }


def _medians(arms: list[Arm], rounds: list[list[float]]) -> tuple[list[float], list[float]]:
    """Of each arm the median over the rounds of its seconds, and of their ratio to fct's."""
    fct = next(index for index, arm in enumerate(arms) if arm.kind == "fct")
    taken = [list(times) for times in zip(*rounds, strict=True)]
    ratios = [[a / b for a, b in zip(own, taken[fct], strict=True)] for own in taken]
    return [median(own) for own in taken], [median(own) for own in ratios]


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--kinds", nargs="+", choices=kinds(), default=["memo"], help="fct is measured always")
    add("--train", nargs="+", default=["4096x2", "16384x1"], metavar="TxB", help="or none")
    add("--act", nargs="+", default=["1024", "8192", "32768"], metavar="STEPS", help="or none")
    add("--environments", type=int, default=16, help="that act in lockstep (16)")
    for name in SIZES:
        add(f"--{name}", type=int, default=getattr(MemoryConfig, name))
    add("--segment", type=int, default=MemoryConfig.segment_length)
    add("--summary", type=int, default=MemoryConfig.summary_length)
    add("--dtype", choices=DTYPES, default="float32", help="bfloat16: under autocast")
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--compile", action="store_true", help="rl.memory.compile")
    add("--cuda-graphs", action="store_true", help="rl.memory.cuda_graphs")
    add("--compile-acting", action="store_true", help="rl.memory.compile_acting")
    add("--repeats", type=int, default=3)
    add("--json", action="store_true", help="one JSON object per line")
    given = parser.parse_args()
    arms = [Arm(kind, given) for kind in dict.fromkeys([*given.kinds, "fct"])]
    trained = (training(arms, size, given) for size in given.train if size != "none")
    acted = (acting(arms, int(steps), given) for steps in given.act if steps != "none")
    wanted = chain.from_iterable(chain(trained, acted))
    about = {
        **machine(arms[0].device),
        "width": given.width,
        "layers": given.layers,
        "heads": given.heads,
    }
    print_rows(({**row, **(about if given.json else {})} for row in wanted), given.json)


if __name__ == "__main__":
    main()
