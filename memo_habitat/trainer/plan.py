"""Plans a training before it is launched: what it holds in memory, and whether that fits.

Sizes come from a rehearsal of the real code with fake tensors (`plan_rehearsal`, `plan_trace`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from habitat.config import read_write
from habitat.config.default import patch_config
from habitat_baselines.common.env_spec import EnvironmentSpec
from omegaconf import DictConfig

from memo_habitat.config.memory import MemoryConfig
from memo_habitat.errors import UserError
from memo_habitat.memory import build
from memo_habitat.policy.policy import precision_of
from memo_habitat.trainer.plan_limits import available_memory
from memo_habitat.trainer.plan_measure import measure
from memo_habitat.trainer.plan_rehearsal import Rehearsal, minibatch_of, minibatches_for
from memo_habitat.trainer.plan_spaces import environment_spec
from memo_habitat.trainer.plan_trace import LiveBytes, TokenCount, traced, untraced
from memo_habitat.trainer.validation import check_training_settings

# Of the memory given. What lies unused between blocks, and the kernels' own, is another 17 % in
# processes on a CPU; a GPU's allocator leaves about as much.
USABLE = 0.8
_CHECKPOINTING = "habitat_baselines.rl.memory.activation_checkpointing"


@dataclass(frozen=True)
class Minibatch:
    """An update with so many environments at once: `peak_bytes` is all that a worker holds."""

    environments: int
    num_mini_batch: int
    peak_bytes: int


@dataclass(frozen=True)
class Update:
    """One of a trial's updates, over all workers, in each of its epochs.

    steps_in_losses: environment steps that enter the losses.
    tokens: pushed through the memory's first layer, context and summaries included.
    """

    name: str
    steps_in_losses: int
    tokens: int


@dataclass(frozen=True)
class Plan:
    """What one worker of a training holds, in bytes, and what it learns from.

    minibatches: the update's peak by minibatch: 1, 2, 4, ... up to all environments.
    configured: the minibatch of the config as it is.
    refresh_bytes: the peak of making caches anew after an update.
    largest_minibatch: in environments, that fits; None where not even one does.
    """

    workers: int
    environments: int
    trial_steps: int
    epochs: int
    parameters: int
    parameter_bytes: int
    gradient_bytes: int
    optimiser_bytes: int
    rollout_bytes: int
    cache_bytes: int
    full_context_cache_bytes: int
    refresh_bytes: int
    minibatches: tuple[Minibatch, ...]
    configured: Minibatch
    updates: tuple[Update, ...]
    memory_bytes: int
    usable_bytes: int
    largest_minibatch: int | None = None
    smallest_num_mini_batch: int | None = None
    warnings: tuple[str, ...] = field(default_factory=tuple)

    def as_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self)


def make_plan(config: DictConfig, memory_bytes: int, workers: int = 1) -> Plan:
    """Plan the training of `config` with `memory_bytes` for each of its workers.

    Raises:
        UserError: a config that no trainer of ours could train.
    """
    config = patch_config(config.copy())
    check(config)
    spec = environment_spec(config)
    return with_limits(config, spec, trace(config, spec, memory_bytes, workers))


def measure_plan(config: DictConfig, plan: Plan) -> dict[str, Any]:
    """Run the update of `config` with its own minibatch here; see `measure` for what it returns.

    Raises:
        UserError: it would need more memory than there is.
    """
    need = max(plan.configured.peak_bytes, plan.refresh_bytes)
    room = int(USABLE * available_memory(1))
    if need > room:
        raise UserError(
            f"--measure needs {gigabytes(need)}, and {gigabytes(room)} are usable here: set a "
            "larger habitat_baselines.rl.ppo.num_mini_batch or fewer environments"
        )
    config = patch_config(config.copy())
    spec = environment_spec(config)
    return measure(config, spec, plan.configured.environments, plan.workers)


def check(config: DictConfig) -> None:
    """Refuse what cannot be planned."""
    trainer = config.habitat_baselines.trainer_name
    if trainer != "memo":
        raise UserError(
            f"habitat_baselines.trainer_name={trainer}: only trainings by the trainer memo are "
            "planned"
        )
    check_training_settings(config)


def trace(config: DictConfig, spec: EnvironmentSpec, memory_bytes: int, workers: int) -> Plan:
    """All sizes; what fits is not yet said."""
    with traced() as bytes_:
        rehearsal = Rehearsal(config, spec, torch.device("cpu"), is_fake=True)
        rehearsal.updater.act_as_one_of(workers)
        parameter_bytes = sum(p.nbytes for p in rehearsal.policy.parameters())
        rollout_bytes = _added(bytes_, rehearsal.make_rollout)
        optimiser_bytes = _added(bytes_, rehearsal.make_optimiser_state)
        bytes_.begin()
        cache_bytes = rehearsal.refresh()
        refresh_bytes = bytes_.peak
        environments = rehearsal.environments
        own = minibatch_of(environments, config.habitat_baselines.rl.ppo.num_mini_batch)
        peaks = _Peaks(bytes_, rehearsal)
        configured = peaks.minibatch(own)
        minibatches = tuple(peaks.minibatch(size) for size in _sizes(environments))
        full_context = _full_context_bytes(rehearsal)
        updates = _updates(rehearsal, workers)
    return Plan(
        workers=workers,
        environments=environments,
        trial_steps=int(config.habitat.task.trial_steps),
        epochs=int(config.habitat_baselines.rl.ppo.ppo_epoch),
        parameters=sum(p.numel() for p in rehearsal.policy.parameters()),
        parameter_bytes=parameter_bytes,
        gradient_bytes=parameter_bytes,
        optimiser_bytes=optimiser_bytes,
        rollout_bytes=rollout_bytes,
        cache_bytes=cache_bytes,
        full_context_cache_bytes=full_context,
        refresh_bytes=refresh_bytes,
        minibatches=minibatches,
        configured=configured,
        updates=updates,
        memory_bytes=memory_bytes,
        usable_bytes=int(USABLE * memory_bytes),
    )


def with_limits(config: DictConfig, spec: EnvironmentSpec, plan: Plan) -> Plan:
    """The plan with what fits, and with its warnings."""
    fits = [m for m in plan.minibatches if m.peak_bytes <= plan.usable_bytes]
    largest = _between(plan, fits[-1]) if fits else None
    limited = replace(
        plan,
        largest_minibatch=largest,
        smallest_num_mini_batch=largest and minibatches_for(plan.environments, largest),
    )
    return replace(limited, warnings=tuple(_warnings(config, spec, limited)))


def _between(plan: Plan, fitting: Minibatch) -> int:
    """The largest minibatch that fits, from `fitting` to the next size that was traced.

    The peak is the highest of several moments, each growing in proportion to the minibatch:
    a straight line between two sizes never falls short of it.
    """
    larger = [m for m in plan.minibatches if m.environments > fitting.environments]
    if not larger:
        return fitting.environments
    step = (larger[0].peak_bytes - fitting.peak_bytes) / (
        larger[0].environments - fitting.environments
    )
    room = plan.usable_bytes - fitting.peak_bytes
    return min(larger[0].environments - 1, fitting.environments + int(room / max(step, 1.0)))


class _Peaks:
    """Peaks of updates by minibatch; each is traced once."""

    def __init__(self, bytes_: LiveBytes, rehearsal: Rehearsal) -> None:
        self._bytes, self._rehearsal = bytes_, rehearsal
        self._known: dict[int, int] = {}

    def minibatch(self, environments: int) -> Minibatch:
        """The update with so many environments at once."""
        if environments not in self._known:
            self._bytes.begin()
            self._rehearsal.update(environments)
            self._known[environments] = self._bytes.peak
        count = minibatches_for(self._rehearsal.environments, environments)
        return Minibatch(environments, count, self._known[environments])


def _sizes(environments: int) -> list[int]:
    """1, 2, 4, ... and all."""
    sizes = [2**i for i in range(environments.bit_length()) if 2**i < environments]
    return [*sizes, environments]


def _added(bytes_: LiveBytes, make: Any) -> int:
    before = bytes_.live
    make()
    return bytes_.live - before


def _full_context_bytes(rehearsal: Rehearsal) -> int:
    """Cache at the end of a trial of a transformer of the same size that keeps every step."""
    own = rehearsal.policy.network.memory.config
    heads = own.heads if own.width % (2 * own.heads) == 0 else 1  # an LSTM's need not fit
    config = MemoryConfig(
        kind="fct", width=own.width, layers=own.layers, heads=heads, hidden=own.hidden
    )
    memory = untraced(lambda: build(config))
    precision = precision_of(rehearsal.config.habitat_baselines.rl)
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    environments, steps = rehearsal.environments, rehearsal.rollout.trial_steps
    cache = memory.new_cache(environments, "cpu", dtype)
    memory.extend(torch.zeros(environments, steps, own.width), cache)
    return int(cache.allocated_bytes())


def _updates(rehearsal: Rehearsal, workers: int) -> tuple[Update, ...]:
    """The first and the last partial update, as far as there are any, and the full one."""
    ppo, storage = rehearsal.config.habitat_baselines.rl.ppo, rehearsal.rollout
    total = storage.trial_steps
    part = total // ppo.updates_per_trial
    ends = {"first partial": part, "last partial": total - part, "full": total}
    if ppo.updates_per_trial < 3:
        ends.pop("last partial")
    if ppo.updates_per_trial < 2:
        ends.pop("first partial")
    everyone = rehearsal.environments * workers
    return tuple(
        Update(
            name,
            everyone * (total if name == "full" else part),
            everyone * _tokens(rehearsal, end),
        )
        for name, end in ends.items()
    )


def _tokens(rehearsal: Rehearsal, steps: int) -> int:
    """Tokens of one environment's pass over its first `steps` steps."""
    policy, storage = rehearsal.policy, rehearsal.rollout
    storage.steps, before = steps, storage.steps
    batch = next(iter(storage.minibatches(rehearsal.environments)))
    storage.steps = before
    with torch.no_grad(), TokenCount(policy.network.memory) as count:
        policy.evaluate_trials(batch, policy.draw_segment_length(), True)
    # A recurrent memory multiplies in kernels of its own, one token a step.
    return max(count.tokens, steps)


def _warnings(config: DictConfig, spec: EnvironmentSpec, plan: Plan) -> list[str]:
    """What will not fit, with the value and the remedy."""
    usable, found = plan.usable_bytes, []
    of = f"of {gigabytes(usable)} usable"
    if plan.configured.peak_bytes > usable:
        own = config.habitat_baselines.rl.ppo.num_mini_batch
        need = gigabytes(plan.configured.peak_bytes)
        found.append(
            f"habitat_baselines.rl.ppo.num_mini_batch={own}: an update needs {need} {of}: "
            f"{_remedy(config, spec, plan)}"
        )
    if plan.refresh_bytes > usable:
        chunk = config.habitat_baselines.rl.ppo.refresh_chunk
        found.append(
            f"habitat_baselines.rl.ppo.refresh_chunk={chunk}: making the caches anew needs "
            f"{gigabytes(plan.refresh_bytes)} {of}: set a smaller one, or fewer environments "
            f"(habitat_baselines.num_environments={plan.environments})"
        )
    return found


def _remedy(config: DictConfig, spec: EnvironmentSpec, plan: Plan) -> str:
    if plan.smallest_num_mini_batch is not None:
        return f"set habitat_baselines.rl.ppo.num_mini_batch={plan.smallest_num_mini_batch}"
    one = plan.minibatches[0]
    if not config.habitat_baselines.rl.memory.activation_checkpointing:
        config = config.copy()
        with read_write(config):
            config.habitat_baselines.rl.memory.activation_checkpointing = True
        lower = one_environment_bytes(config, spec, plan.workers)
        if lower <= plan.usable_bytes:
            return (
                f"set {_CHECKPOINTING}=true and habitat_baselines.rl.ppo.num_mini_batch="
                f"{plan.environments}, which needs {gigabytes(lower)}"
            )
    return (
        f"even one environment per minibatch needs {gigabytes(one.peak_bytes)}: set fewer "
        f"environments (habitat_baselines.num_environments={plan.environments}), smaller images, "
        f"or {_CHECKPOINTING}=true"
    )


def one_environment_bytes(config: DictConfig, spec: EnvironmentSpec, workers: int) -> int:
    """Peak of an update with one environment per minibatch."""
    with traced() as bytes_:
        rehearsal = Rehearsal(config, spec, torch.device("cpu"), is_fake=True)
        rehearsal.updater.act_as_one_of(workers)
        rehearsal.make_rollout()
        rehearsal.make_optimiser_state()
        rehearsal.refresh()
        return _Peaks(bytes_, rehearsal).minibatch(1).peak_bytes


def gigabytes(count: int) -> str:
    """Bytes as people write them: in GB, or in MB below one."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
