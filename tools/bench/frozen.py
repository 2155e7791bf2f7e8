"""A frozen encoder, acting behind it and the update, in the sizes of a config, on made-up frames.

python tools/bench/frozen.py                                      # extobjnav/hssd, for a GPU
python tools/bench/frozen.py --device cuda --json memory=fct habitat_baselines.rl.precision=bfloat16
python tools/bench/frozen.py --config-name=extobjnav/apartments_frozen

Random weights, no simulator. "encode" takes a frame of every environment; "act" a step of every
environment at the trial's end, behind the encoder; "update" one minibatch of the full update, of
which an update makes num_mini_batch * ppo_epoch. TFLOP/s count the products of matrices alone; MFU
is these over the dense peak of the device.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from common import machine, print_rows, timed
from habitat.config.default import patch_config
from memory import PEAKS
from omegaconf import DictConfig
from torch.utils.flop_counter import FlopCounterMode

from memo_habitat.config.compose import compose_config
from memo_habitat.policy.network import TRIAL_STEP
from memo_habitat.trainer.live_bytes import peak_bytes
from memo_habitat.trainer.rehearsal import Rehearsal, stored_spec

_ACTED = 16  # steps of acting in one measurement


@dataclass(frozen=True)
class Part:
    """What is measured: `count` of `each` at a time, `before` puts the trial where it begins."""

    name: str
    each: str
    environments: int
    count: int
    work: Callable[[], object]
    before: Callable[[], object] = lambda: None


def parts_of(config: DictConfig, device: torch.device) -> tuple[Rehearsal, list[Part]]:
    """All that a worker holds, and the parts of its training."""
    baselines = config.habitat_baselines
    environments, minibatches = baselines.num_environments, baselines.rl.ppo.num_mini_batch
    minibatch = math.ceil(environments / min(minibatches, environments))
    rehearsal = Rehearsal(config, *stored_spec(config, device), device, is_fake=False)
    encoder: Any
    (encoder,) = rehearsal.frozen
    storage, policy = rehearsal.storage, rehearsal.policy
    frames = {
        uuid: (torch.rand(environments, *space.shape) * float(space.high.max()))
        .to(torch.uint8 if space.dtype == "uint8" else torch.float32)
        .to(device)
        for uuid, space in encoder.cameras.items()
    }
    storage.observations[TRIAL_STEP][:] = torch.arange(storage.trial_steps + 1)[:, None].to(device)

    def act() -> None:
        for _ in range(_ACTED):
            now = storage.get_last_step()
            policy.act(now["observations"], None, now["prev_actions"], now["masks"])

    def update() -> None:
        rehearsal.backward(minibatch)
        rehearsal.updater.optimiser_step()

    def to_the_end() -> None:
        rehearsal.refresh()
        storage.steps = storage.trial_steps - _ACTED

    rehearsal.make_optimiser_state()
    frames_at_once, learned = environments * len(frames), minibatch * storage.trial_steps
    return rehearsal, [
        Part("encode", "frames", environments, frames_at_once, lambda: encoder(frames)),
        Part("act", "steps", environments, environments * _ACTED, act, to_the_end),
        Part("update", "steps", minibatch, learned, update),
    ]


def measured(part: Part, device: torch.device, repeats: int) -> tuple[float, int | None, int]:
    """Median seconds, floating-point operations if they can be counted, and peak bytes."""
    with torch.inference_mode(part.name != "update"):
        part.before()
        # PyTorch's counter fails at a parameter as a module's input in inference mode; what acting
        # computes is little in any case.
        counter = nullcontext() if part.name == "act" else FlopCounterMode(display=False)
        with counter as flops:
            part.work()
        seconds = []
        for _ in range(repeats):
            part.before()
            seconds.append(timed(part.work, device)[0])
        part.before()
        peak = peak_bytes(part.work, device)
    return median(seconds), None if flops is None else flops.get_total_flops(), peak


def rows(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row for each part."""
    device = torch.device(given.device)
    config = patch_config(compose_config(given.config_name, given.overrides))
    rl = config.habitat_baselines.rl
    rehearsal, parts = parts_of(config, device)
    for part in parts:
        seconds, flops, peak = measured(part, device, given.repeats)
        rehearsal.storage.steps = rehearsal.storage.trial_steps
        rate = None if flops is None else flops / seconds
        is_half = part.name == "encode" and device.type == "cuda"
        kind = "float16" if is_half else rl.precision
        known = [top for name, top in PEAKS.items() if name in machine(device)["device"]]
        top = known[0]["float32" if kind == "float32" else "bfloat16"] if known else None
        yield {
            "part": part.name,
            "each": part.each,
            "a_second": round(part.count / seconds, 1),
            "ms": round(1e3 * seconds, 2),
            "tflop_s": None if rate is None else round(rate / 1e12, 4),
            "mfu": None if top is None or rate is None else round(rate / top, 4),
            "peak_bytes": peak,  # beyond what is held between the parts
            "held_bytes": torch.cuda.memory_allocated() if device.type == "cuda" else None,
            "environments": part.environments,
            "memory": rl.memory.kind,
            "precision": kind,
            "backbone": rl.encoder.backbone,
            **machine(device),
        }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="A frozen encoder, acting and the update.")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="keys of the config")
    parser.add_argument("--config-name", default="extobjnav/hssd", metavar="NAME")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    given = parser.parse_args()
    print_rows(rows(given), given.json)


if __name__ == "__main__":
    main()
