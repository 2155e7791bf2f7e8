"""An acting policy as ONNX graphs of fixed shapes, and the numbers that their driver needs.

    step        one environment step: observations and cache in, action logits, value and cache out
    summarise   at a segment's end: the cache in, the summary's tokens out
    encode      the cache of tokens that stay: after a summary, or when old steps are dropped

The cache holds keys and values in `slots` places, of which the first `length` are in use; the sink
is part of the graphs. `encode` pushes all that stays through the stack at once, where
`memory.acting` appends: each token sees the same, at the same position. `onnx_agent.OnnxAgent`,
which needs NumPy and onnxruntime alone, calls them in turn; docs/deploy.md has the contract.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

from memo_habitat.errors import UserError, check_at_least_one
from memo_habitat.export import onnx_agent
from memo_habitat.export.agent import TrainedAgent
from memo_habitat.memory.attention import RotaryTable, Rotation, Sink
from memo_habitat.memory.memo import MemoTransformer
from memo_habitat.policy.detection_encoder import DetectionEncoder
from memo_habitat.policy.network import TRIAL_STEP, MemoNetwork
from memo_habitat.utils.files import write_json

_EXTRA = "pip install 'memo-habitat[onnx]'"


class StaticContext:
    """A `Context` of fixed shapes, of one environment: `length` of the slots of a cache are in use.

    cache: [L, 2, H, slots, dh], keys and values; length: [] long. `new` collects each layer's keys
    and values of the pass's tokens, [2, H, T, dh].
    """

    def __init__(self, cache: Tensor, length: Tensor, tokens: int) -> None:
        self._cache, self._length, self._tokens = cache, length, tokens
        self.new: list[Tensor] = []

    def rotation(self, table: RotaryTable) -> Rotation:
        """Rotation of the positions behind what is in use."""
        highest = self._cache.shape[3] + self._tokens
        return table.at(self._length + torch.arange(self._tokens), highest)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, sink: Sink) -> Tensor:
        """Attention as `Context.attend` says."""
        self.new.append(torch.cat([k, v]))
        queries, slots = q.shape[2], self._cache.shape[3]
        if queries == 0:
            return q
        held_k, held_v = self._cache[layer][:, None]
        keys = torch.cat([sink.key[None], held_k, k], dim=2)
        values = torch.cat([sink.value[None], held_v, v], dim=2)
        in_use = (torch.arange(slots) < self._length).expand(queries, -1)
        rows = torch.arange(self._tokens - queries, self._tokens)[:, None]
        own = torch.arange(self._tokens) <= rows
        mask = torch.cat([torch.ones(queries, 1, dtype=torch.bool), in_use, own], dim=1)
        return scaled_dot_product_attention(q, keys, values, attn_mask=mask)


class _Step(nn.Module):
    def __init__(self, network: MemoNetwork, names: list[str]) -> None:
        super().__init__()
        self.network, self._names = network, names

    def forward(
        self,
        cache: Tensor,
        length: Tensor,
        previous_action: Tensor,
        episode_start: Tensor,
        *observed: Tensor,
    ) -> tuple[Tensor, ...]:
        network, observations = self.network, dict(zip(self._names, observed, strict=True))
        features = network.features(observations).float()
        token = network.tokens(features, observations, previous_action, episode_start)
        context = StaticContext(cache, length, 1)
        remembered = _stack(network).forward_layers(token[:, None], context, 1)[:, 0]
        heads = network.heads(remembered, observations, previous_action, episode_start)
        here = (torch.arange(cache.shape[3]) == length)[:, None]
        cache = torch.where(here, torch.stack(context.new), cache)
        return heads.logits, heads.values, cache, token


class _Summarise(nn.Module):
    def __init__(self, network: MemoNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, cache: Tensor, length: Tensor) -> Tensor:
        memory = _stack(self.network)
        count = len(memory.queries)
        context = StaticContext(cache, length, count)
        made = memory.forward_layers(memory.queries[None], context, count)
        return memory.summary(made)[0]


class _Encode(nn.Module):
    def __init__(self, network: MemoNetwork, slots: int) -> None:
        super().__init__()
        self.network, self._slots = network, slots

    def forward(self, tokens: Tensor) -> Tensor:
        memory = _stack(self.network)
        empty = tokens.new_zeros(_cache_shape(memory, 0))
        context = StaticContext(empty, torch.zeros((), dtype=torch.long), len(tokens))
        memory.forward_layers(tokens[None], context, 0)
        return pad(torch.stack(context.new), (0, 0, 0, self._slots - len(tokens)))


def _stack(network: MemoNetwork) -> MemoTransformer:
    memory: Any = network.memory
    return memory


def _cache_shape(memory: MemoTransformer, slots: int) -> tuple[int, ...]:
    sizes = memory.config
    return sizes.layers, 2, sizes.heads, slots, sizes.width // sizes.heads


def export_onnx(agent: TrainedAgent, folder: Path, max_steps: int | None = None) -> list[Path]:
    """Write the graphs of an agent, their numbers and their driver into `folder`.

    Args:
        agent: in float32, whatever precision it was trained in.
        folder: of the exported agent.
        max_steps: most steps of a trial, which bound what an agent without a token budget keeps;
            those of a trial in training unless given.

    Raises:
        UserError: the agent has no such graphs, or a package is missing.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"--onnx needs the package {error.name}: {_EXTRA}") from error
    if max_steps is not None:
        check_at_least_one("--onnx-steps", max_steps)
    _check_exportable(agent)
    network = agent.policy.eval().network
    memory = _stack(network)
    numbers = _numbers(agent.config, memory, max_steps)
    slots, tokens = numbers["slots"], numbers["encoded_tokens"]
    memory.rotary.span(0, 2 * (slots + tokens + memory.config.summary_length), torch.device("cpu"))
    if isinstance(network.visual_encoder, DetectionEncoder):
        network.visual_encoder.dense = True
    names = _observed(agent)
    sensors = agent.spaces.observations
    observations = {
        name: torch.zeros((1, *sensors[name].shape), dtype=getattr(torch, sensors[name].dtype))
        for name in names
    }
    cache, length = torch.zeros(_cache_shape(memory, slots)), torch.zeros((), dtype=torch.long)
    acted = {
        "previous_action": torch.zeros(1, dtype=torch.long),
        "episode_start": torch.ones(1, dtype=torch.bool),
    }
    held = {"cache": cache, "length": length}
    outputs = ["logits", "value", "cache_out", "token"]
    step = _Step(network, names)
    written = [_write(step, {**held, **acted, **observations}, outputs, folder / "step.onnx")]
    if memory.variant.summarises:
        path = folder / "summarise.onnx"
        written.append(_write(_Summarise(network), held, ["summary"], path))
    if tokens:
        kept = {"tokens": torch.zeros(tokens, memory.config.width)}
        written.append(_write(_Encode(network, slots), kept, ["cache_out"], folder / "encode.onnx"))
    numbers |= {"actions": agent.spaces.actions, "cache": list(cache.shape)}
    numbers["observations"] = {n: agent.spaces.observations[n].model_dump() for n in names}
    write_json(folder / onnx_agent.NUMBERS_FILE, numbers)
    driver = folder / "onnx_agent.py"
    shutil.copyfile(onnx_agent.__file__, driver)
    return [*written, folder / onnx_agent.NUMBERS_FILE, driver]


def _check_exportable(agent: TrainedAgent) -> None:
    memory, encoder = agent.policy.network.memory, agent.config.habitat_baselines.rl.encoder
    if not isinstance(memory, MemoTransformer):
        kind = agent.config.habitat_baselines.rl.memory.kind
        raise UserError(
            f"--onnx writes the memories that are transformers, and this is {kind!r}: act with it "
            "in torch (memo_habitat.load_agent)"
        )
    if memory.config.top_k:
        raise UserError(
            f"--onnx: rl.memory.top_k={memory.config.top_k} is not among the graphs: train with 0, "
            "or act in torch"
        )
    if agent.transforms:
        names = ", ".join(type(transform).__name__ for transform in agent.transforms)
        raise UserError(
            f"--onnx: this agent ({encoder.kind}) sees through {names}, of which there is no graph;"
            " act in torch (memo_habitat.load_agent)"
        )


def _numbers(config: DictConfig, memory: MemoTransformer, steps: int | None) -> dict[str, Any]:
    """What the driver has to know; `encoded_tokens` is how many tokens `encode` takes."""
    sizes, variant = memory.config, memory.variant
    steps = int(config.habitat.task.trial_steps) if steps is None else steps
    segment, budget = sizes.segment_length, sizes.token_budget
    if variant.within_episode:
        steps = min(steps, int(config.habitat.environment.max_episode_steps))
    kept = 0
    if variant.summarises:
        most = -(-steps // segment) if variant.accumulates else 1
        kept = budget - segment if budget else most * sizes.summary_length
        kept -= kept % sizes.summary_length
        slots = kept + segment
    else:
        kept = budget - segment if budget else 0
        slots = budget or steps
    return {
        "slots": slots,
        "encoded_tokens": kept,
        "segment_length": segment,
        "summary_length": sizes.summary_length if variant.summarises else 0,
        "accumulates": variant.accumulates,
        "within_episode": variant.within_episode,
        "most_steps": None if budget or (variant.summarises and not variant.accumulates) else steps,
    }


class _Noted(dict[str, Tensor]):
    """Observations that note which of them are read."""

    def __init__(self, given: Mapping[str, Tensor]) -> None:
        super().__init__(given)
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        self.read.add(name)
        return super().__getitem__(name)


def _observed(agent: TrainedAgent) -> list[str]:
    """What the network reads, and the step of the trial, which tells the driver of a new one."""
    network = agent.policy.network
    zeros = {
        name: torch.zeros((1, *sensor.shape), dtype=getattr(torch, sensor.dtype))
        for name, sensor in agent.spaces.observations.items()
    }
    noted = _Noted(zeros)
    action, start = torch.zeros(1, dtype=torch.long), torch.ones(1, dtype=torch.bool)
    with torch.no_grad():
        token = network.tokens(network.features(noted).float(), noted, action, start)
        network.heads(token, noted, action, start)
    return sorted({*noted.read, TRIAL_STEP})


def _write(module: nn.Module, inputs: Mapping[str, Tensor], outputs: list[str], path: Path) -> Path:
    with torch.no_grad():
        torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            path,
            input_names=list(inputs),
            output_names=outputs,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    return path
