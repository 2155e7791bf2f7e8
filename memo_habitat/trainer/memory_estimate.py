"""Says what a training will hold in memory, before it is launched.

The trainer's own policy, storage and updater go through one refresh and one full update on fake
tensors (`live_bytes`). CPU tensors stand for a GPU's, too: without a GPU PyTorch replaces fused
attention on fake GPU tensors by one that writes every weight out.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from habitat.config.default import patch_config
from omegaconf import DictConfig
from torch.utils._pytree import tree_leaves

from memo_habitat.errors import UserError
from memo_habitat.register import import_plugins
from memo_habitat.trainer.live_bytes import fake_tensors, peak_bytes
from memo_habitat.trainer.rehearsal import Rehearsal, missing_download, stored_spec
from memo_habitat.trainer.validation import check_training_settings
from memo_habitat.utils.processes import free_memory

# Of the memory given. What lies unused between blocks, and the kernels' own, is another 17 % in
# processes on a CPU; a GPU's allocator leaves about as much.
USABLE = 0.8


@dataclass(frozen=True)
class MemoryEstimate:
    """What one worker of a training holds, in bytes."""

    workers: int
    environments: int
    trial_steps: int
    parameters: int  # how many there are
    parameter_bytes: int
    frozen_bytes: int  # of a frozen encoder, in half precision
    gradient_bytes: int
    optimiser_bytes: int
    rollout_bytes: int  # on the GPU
    host_rollout_bytes: int  # in host memory, beyond `rl.ppo.rollout_gpu_gb`; in no sum
    cache_bytes: int  # keys and values that acting has at a trial's end
    full_context_cache_bytes: int  # of a transformer as large that keeps every step
    refresh_bytes: int  # highest sum while the caches are recomputed after an update
    minibatch: int  # environments at once in an update, as configured
    update_bytes: int  # highest sum during the full update
    one_environment_bytes: int  # the same with one environment at once
    usable_bytes: int
    configured_mini_batch: int  # `num_mini_batch` of the config
    num_mini_batch: int | None = None  # the smallest that fits; None where even one is too many
    warnings: tuple[str, ...] = ()

    @property
    def held_bytes(self) -> int:
        """What stays from one update to the next."""
        weights = self.parameter_bytes + self.frozen_bytes + self.optimiser_bytes
        return weights + self.rollout_bytes + self.cache_bytes

    @property
    def activation_bytes(self) -> int:
        """What the update adds to that and to the gradients: activations and temporaries."""
        return self.update_bytes - self.held_bytes - self.gradient_bytes


def estimate_memory(config: DictConfig, memory_bytes: int, workers: int = 1) -> MemoryEstimate:
    """Estimate the training of `config` with `memory_bytes` for each of its workers.

    UserError where the trainer memo could not train it.
    """
    config = checked(config)
    environments = int(config.habitat_baselines.num_environments)
    minibatches = int(config.habitat_baselines.rl.ppo.num_mini_batch)
    minibatch = math.ceil(environments / min(minibatches, environments))
    device = torch.device("cpu")
    spec, transforms = stored_spec(config, device)
    with fake_tensors() as live:
        rehearsal = Rehearsal(config, spec, transforms, device, is_fake=True)
        parameters = list(rehearsal.policy.parameters())
        parameter_bytes = sum(p.nbytes for p in parameters)
        before = live.now
        rehearsal.make_optimiser_state()
        optimiser_bytes = live.now - before
        in_host = rehearsal.storage.host_bytes()
        _, refresh_bytes = live.peak_of(rehearsal.refresh)

        @functools.cache
        def update_bytes(size: int) -> int:
            _, backward = live.peak_of(lambda: rehearsal.backward(size))
            _, step = live.peak_of(rehearsal.updater.optimiser_step)
            # Workers average their gradients in one flat copy.
            return max(backward, step + (parameter_bytes if workers > 1 else 0)) - in_host

        memory = rehearsal.policy.network.memory.config
        width = torch.bfloat16 if rehearsal.is_low_precision else torch.float32
        estimate = MemoryEstimate(
            workers=workers,
            environments=environments,
            trial_steps=rehearsal.storage.trial_steps,
            parameters=sum(p.numel() for p in parameters),
            parameter_bytes=parameter_bytes,
            frozen_bytes=sum(tensor.nbytes for tensor in rehearsal.frozen.state_dict().values()),
            gradient_bytes=parameter_bytes,
            optimiser_bytes=optimiser_bytes,
            rollout_bytes=sum(tensor.nbytes for tensor in rehearsal.storage_tensors()),
            host_rollout_bytes=in_host,
            cache_bytes=rehearsal.policy.acting_cache(environments).allocated_bytes(),
            full_context_cache_bytes=2
            * (memory.layers * memory.width * width.itemsize)
            * (rehearsal.storage.trial_steps * environments),
            refresh_bytes=refresh_bytes - in_host,
            minibatch=minibatch,
            update_bytes=update_bytes(minibatch),
            one_environment_bytes=update_bytes(1),
            usable_bytes=int(USABLE * memory_bytes),
            configured_mini_batch=minibatches,
        )
        estimate = replace(
            estimate, num_mini_batch=_smallest_count(estimate, update_bytes(environments))
        )
    return replace(estimate, warnings=tuple(_warnings(config, estimate)))


def measure_memory(config: DictConfig, minibatch: int) -> dict[str, Any]:
    """Run refresh and update here, for real, `minibatch` environments at once: peaks in bytes."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = checked(config)
    rehearsal = Rehearsal(config, *stored_spec(config, device), device, is_fake=False)
    rehearsal.make_optimiser_state()
    tensors = [*rehearsal.storage_tensors(), *rehearsal.policy.state_dict().values()]
    tensors += rehearsal.frozen.state_dict().values()
    tensors += [t for t in tree_leaves(rehearsal.updater.get_resume_state()) if torch.is_tensor(t)]
    held = sum(tensor.nbytes for tensor in tensors)
    refresh_bytes = held + peak_bytes(rehearsal.refresh, device)
    held += rehearsal.policy.acting_cache(len(rehearsal.storage.actions)).allocated_bytes()

    def update() -> None:
        rehearsal.backward(minibatch)
        rehearsal.updater.optimiser_step()

    update_bytes = held + peak_bytes(update, device)
    return {"device": str(device), "refresh_bytes": refresh_bytes, "update_bytes": update_bytes}


def checked(config: DictConfig) -> DictConfig:
    """A copy with all defaults filled in; UserError where the trainer memo could not train it."""
    config = patch_config(config.copy())
    trainer = config.habitat_baselines.trainer_name
    if trainer != "memo":
        raise UserError(f"habitat_baselines.trainer_name={trainer}: only memo can be planned")
    import_plugins(config)
    check_training_settings(config)
    return config


def _smallest_count(estimate: MemoryEstimate, all_at_once: int) -> int | None:
    """The smallest `num_mini_batch` that fits.

    The peak is the highest of several moments, each of which grows in proportion to the minibatch:
    a straight line from one environment to all never falls short of it.
    """
    room = estimate.usable_bytes - estimate.one_environment_bytes
    if room < 0:
        return None
    others = estimate.environments - 1
    slope = max(all_at_once - estimate.one_environment_bytes, 1) / max(others, 1)
    return math.ceil(estimate.environments / (1 + min(others, int(room / slope))))


def _warnings(config: DictConfig, estimate: MemoryEstimate) -> Iterator[str]:
    """What will not fit or is not here, with the value and the remedy."""
    ppo, environments = config.habitat_baselines.rl.ppo, estimate.environments
    fewer = f"fewer environments (habitat_baselines.num_environments={environments})"
    if name := missing_download(config):
        yield (
            f"habitat.dataset.data_path={config.habitat.dataset.data_path} is not here: planned "
            f"with the twenty categories of homes that ship (`memo-habitat data get {name}`)"
        )
    of = f"of {gigabytes(estimate.usable_bytes)} usable"
    if estimate.update_bytes > estimate.usable_bytes:
        remedy = f"set habitat_baselines.rl.ppo.num_mini_batch={estimate.num_mini_batch}"
        if estimate.num_mini_batch is None:
            remedy = (
                "even one environment per minibatch needs "
                f"{gigabytes(estimate.one_environment_bytes)}: set {fewer}, smaller images, "
                "habitat_baselines.rl.memory.activation_checkpointing=true, or, for images in host "
                "memory, habitat_baselines.rl.ppo.rollout_gpu_gb=0"
            )
        yield (
            f"habitat_baselines.rl.ppo.num_mini_batch={ppo.num_mini_batch}: an update needs "
            f"{gigabytes(estimate.update_bytes)} {of}: {remedy}"
        )
    if estimate.refresh_bytes > estimate.usable_bytes:
        yield (
            f"habitat_baselines.rl.ppo.refresh_chunk={ppo.refresh_chunk}: recomputing the caches "
            f"needs {gigabytes(estimate.refresh_bytes)} {of}: set a smaller one, or {fewer}"
        )


def table(name: str, estimate: MemoryEstimate) -> str:
    """An estimate as people read it; warnings in lines of their own at the end."""
    workers = f"{estimate.workers} workers" if estimate.workers > 1 else "1 worker"
    full_context = gigabytes(estimate.full_context_cache_bytes)
    at_once = f"with {_environments(estimate.minibatch)} at once"
    one = ("", estimate.one_environment_bytes, f"with {_environments(1)} at once")
    frozen = ("frozen encoder", estimate.frozen_bytes, "in half precision; on a CPU twice that")
    in_host = ("rollout in host memory", estimate.host_rollout_bytes, "pinned; in no sum here")
    rows = (
        ("weights", estimate.parameter_bytes, f"{estimate.parameters:,} parameters"),
        *([frozen] if estimate.frozen_bytes else []),
        ("gradients", estimate.gradient_bytes, ""),
        ("optimiser", estimate.optimiser_bytes, ""),
        ("rollout", estimate.rollout_bytes, "one trial of every environment"),
        *([in_host] if estimate.host_rollout_bytes else []),
        ("caches", estimate.cache_bytes, f"at a trial's end; full context: {full_context}"),
        ("activations", estimate.activation_bytes, f"and temporaries, {at_once}"),
        ("peak of the update", estimate.update_bytes, at_once),
        *([] if estimate.minibatch == 1 else [one]),
        ("peak of the refresh", estimate.refresh_bytes, "caches recomputed, after every update"),
    )
    fits = "not even one environment per minibatch"
    if estimate.num_mini_batch is not None:
        fits = (
            f"habitat_baselines.rl.ppo.num_mini_batch={estimate.num_mini_batch} or more; the "
            f"config has {estimate.configured_mini_batch}"
        )
    usable = f"{gigabytes(estimate.usable_bytes)}, {100 * USABLE:.0f} % of what there is"
    lines = (
        f"{name}: {workers}, each with {_environments(estimate.environments)} in trials of "
        f"{estimate.trial_steps} steps",
        *(f"  {what:<23}{gigabytes(size):>10}  {note}".rstrip() for what, size, note in rows),
        f"fits in {usable}: {fits}",
        *(f"warning: {warning}" for warning in estimate.warnings),
    )
    return "\n".join(lines)


def _environments(count: int) -> str:
    return f"{count} environment{'s' if count != 1 else ''}"


def gigabytes(count: int) -> str:
    """Bytes as people write them: in GB, or in MB below one."""
    return f"{count / 1e9:.2f} GB" if count >= 10**9 else f"{count / 1e6:.1f} MB"


def parse_memory(text: str) -> int:
    """Bytes of "80GB" or "79.5 GiB"; UserError for neither."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT])(I?)B\s*", text.upper())
    if not match or float(match[1]) == 0.0:
        raise UserError(
            f"--gpu-memory {text}: give an amount above 0 with its unit, for example 80GB or 24GiB"
        )
    return int(float(match[1]) * (1024 if match[3] else 1000) ** (1 + "KMGT".index(match[2])))


def available_memory(workers: int) -> int:
    """Bytes free here for each worker: of its GPU, or its share of the RAM where there is none."""
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    return free_memory() // workers
