"""The memory transformer: one stack of blocks that trains over trials and acts step by step.

Training and acting push the same passes through the stack. A pass of segment k takes the tokens

    [summary k-1 (M, as input embeddings) | steps of the segment (S) | summary queries (M)]

at positions (k-1) M, (k-1) M + 1, ... It attends causally to itself and to everything in the
context in front of it: the sink and the keys and values of the summaries 0 .. k-2. The outputs at
the queries are summary k. After the pass the context keeps the first M tokens and forgets the
rest, so each summary's keys and values are computed once. In acting (`acting`) the pass is cut
into pieces, and its end comes where the next segment's beginning would be.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from memo_habitat.config.memory import MemoryConfig
from memo_habitat.memory import acting
from memo_habitat.memory.attention import Context, RotaryTable, Rotation, Sink
from memo_habitat.memory.auxiliary_loss import OF_TOKENS, MemoryLoss
from memo_habitat.memory.block import NORM_EPS, SMALL, Block, BlockRunner, initialise
from memo_habitat.memory.differentiable_kv import DifferentiableKV
from memo_habitat.memory.interface import MemoryOutput, TrialMemory, check_starts, check_tokens
from memo_habitat.memory.kv_cache import KVCache
from memo_habitat.memory.recorded_pass import RecordedPasses
from memo_habitat.memory.variants import Memo, check_config, memory_class, segment_lengths


class MemoTransformer(nn.Module):
    """Tokens of environment steps in, what the agent knows at each step out.

    `config.kind` names the variant. episode_starts, True at the first step of an episode, is for
    variants that attend within episodes (`no_iea`) alone, which need it.
    """

    def __init__(self, config: MemoryConfig) -> None:
        super().__init__()
        self.config = config
        self.variant: Memo = memory_class(config.kind)(config)
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.layers)])
        self.norm = nn.RMSNorm(config.width, eps=NORM_EPS)
        self.summary_block = Block(config) if config.summary_layer else None
        self.summary_norm = nn.RMSNorm(config.width, eps=NORM_EPS) if config.summary_layer else None
        self.memory_loss = MemoryLoss(config) if config.memory_loss in OF_TOKENS else None
        if self.variant.summarises:
            self.queries = nn.Parameter(SMALL * torch.randn(config.summary_length, config.width))
        self._runner, self._recorded = BlockRunner(config), RecordedPasses()
        self.rotary = RotaryTable(config.width // config.heads, config.rope_base)
        initialise(self, config.layers)

    # Training -----------------------------------------------------------------------------------

    def forward(self, tokens: Tensor, *given: Any, **named: Any) -> Tensor:
        """The outputs of `encode` alone, [B, T, D]."""
        return self.encode(tokens, *given, **named).outputs

    def encode(
        self,
        tokens: Tensor,
        segment_length: int | None = None,
        episode_starts: Tensor | None = None,
    ) -> MemoryOutput:
        """As `TrialMemory.encode`; outputs are differentiable through all summaries."""
        check_tokens(tokens, self.config.width, "[B, T, D]")
        length = self.config.segment_length if segment_length is None else segment_length
        if length < 1:
            raise ValueError(f"segment_length is {length}: it must be at least 1")
        if self.config.cuda_graphs and tokens.is_cuda and torch.is_grad_enabled():
            return self._encode_recorded(tokens, length)
        if self.variant.within_episode:
            starts = check_starts(episode_starts, tokens, "[B, T]")
            context, steps = WithinEpisodes(starts), tokens.shape[1]
            return MemoryOutput(self.forward_layers(tokens, context, steps, self._draw_layers()))
        return self._encode(tokens, length, self._draw_layers())

    def draw_segment_length(self, generator: torch.Generator | None = None) -> int:
        """A segment length to train with: uniform over the integers within the jitter."""
        lengths = segment_lengths(self.config)
        if not self.variant.summarises or len(lengths) == 1:
            return self.config.segment_length
        return int(torch.randint(lengths.start, lengths.stop, (), generator=generator))

    def _encode_recorded(self, tokens: Tensor, length: int) -> MemoryOutput:
        """As `_encode`, by CUDA graphs where such a pass has been before."""
        layers = self._draw_layers()
        # Which layers take part is a tensor there: recordings would be as many as choices.
        layer_mask = torch.zeros(len(self.blocks))
        layer_mask[layers] = 1
        left = [block for layer, block in enumerate(self.blocks) if layer not in layers]
        dropped = [weight for block in left for weight in block.parameters()]

        def compute(tokens: Tensor, layer_mask: Tensor | None) -> tuple[Tensor, ...]:
            taken = layers if layer_mask is None else None
            found = self._encode(tokens, length, taken, layer_mask)
            loss = () if found.auxiliary_loss is None else (found.auxiliary_loss,)
            return found.outputs, *found.summaries, *loss

        given = compute, tokens, layer_mask, dropped, (length, self.training)
        outputs, *others = self._recorded.run(self, *given)
        loss = others.pop() if self.memory_loss is not None else None
        return MemoryOutput(outputs, loss, others)

    def _encode(
        self,
        tokens: Tensor,
        length: int,
        layers: list[int] | None = None,
        layer_mask: Tensor | None = None,
    ) -> MemoryOutput:
        """In segments of this length, by these layers; or by those with 1 in layer_mask, [L]."""
        if not self.variant.summarises:
            context, steps = DifferentiableKV(tokens.device), tokens.shape[1]
            new = tokens, context.begin(steps), steps
            return MemoryOutput(self.forward_layers(*new, layers, layer_mask))
        return self._encode_segments(torch.split(tokens, length, dim=1), layers, layer_mask)

    def _encode_segments(
        self, segments: tuple[Tensor, ...], layers: list[int] | None, layer_mask: Tensor | None
    ) -> MemoryOutput:
        """Segment after segment, each seeing the summaries before it."""
        # One context for all passes: a summary's keys and values are computed in the pass that it
        # is fed into, and every later segment's gradient reaches it through them.
        places = 1 + segments[0].shape[1] + self.config.summary_length * len(segments)
        if not self.variant.accumulates:
            places = 0  # each pass has a buffer of its own
        context = DifferentiableKV(segments[0].device, self.config.top_k, places)
        outputs: list[Tensor] = []
        summaries: list[Tensor] = []
        carried = segments[0][:, :0]
        for index, steps in enumerate(segments):
            final = index + 1 == len(segments)  # nothing would read its summary
            queries = self.queries.to(steps.dtype).expand(len(steps), -1, -1)
            parts = [carried, steps] if final else [carried, steps, queries]
            new = torch.cat(parts, dim=1)
            if not self.variant.accumulates:  # the newest summary is fed in, the older ones go
                context.forget()
            context.begin(new.shape[1], keep=carried.shape[1])
            # Nothing is asked at the carried summary's own places.
            count = new.shape[1] - carried.shape[1]
            encoded = self.forward_layers(new, context, count, layers, layer_mask)
            outputs.append(encoded[:, : steps.shape[1]])
            if not final:
                summaries.append(self.summary(encoded[:, steps.shape[1] :]))
                carried = self.variant.carry(summaries[-1])
        loss = None if self.memory_loss is None else self.memory_loss(segments, summaries)
        return MemoryOutput(torch.cat(outputs, dim=1), loss, summaries)

    def _draw_layers(self) -> list[int]:
        """The layers of one training pass: depth dropout tosses one coin each for the batch."""
        # Once a pass, not once a segment: a summary made without a layer has no keys there for the
        # segments that would come with it.
        layers = range(len(self.blocks))
        if not self.training or not self.config.depth_dropout:
            return list(layers)
        coins = torch.rand(len(layers)).tolist()
        return [layer for layer in layers if coins[layer] >= self.config.depth_dropout]

    # The stack ----------------------------------------------------------------------------------

    def forward_layers(
        self,
        new: Tensor,
        context: Context,
        outputs: int,
        layers: list[int] | None = None,
        layer_mask: Tensor | None = None,
    ) -> Tensor:
        """Push new tokens [B, T, D] through the (given) blocks: the last `outputs` of them, normed.

        The last block computes these only: the others are there for their keys and values.
        layer_mask: [L], by which what each block adds is multiplied.
        """
        layers = list(range(len(self.blocks))) if layers is None else layers
        blocks: Any = {layer: self.blocks[layer] for layer in layers}
        rotation = context.rotation(self.rotary)
        return self._runner.run(blocks, self.norm, new, context, rotation, outputs, layer_mask)

    def sinks(self) -> Iterator[Sink]:
        """Of each layer."""
        for block in self.blocks:
            attention: Any = block.attention
            yield attention.sink()

    def summary(self, made: Tensor) -> Tensor:
        """The summary [B, M, D] of the outputs at the queries, by the summary layer if any."""
        if self.summary_block is None or self.summary_norm is None:
            return made
        count = made.shape[1]
        alone = DifferentiableKV(made.device).begin(count)
        # By itself: the tokens of a summary see each other here and nothing of the trial, so that
        # acting needs no keys and values of this layer.
        rotation = alone.rotation(self.rotary)
        return self._runner.run(
            {0: self.summary_block}, self.summary_norm, made, alone, rotation, count
        )

    # Acting -------------------------------------------------------------------------------------

    def new_cache(
        self,
        batch: int,
        device: torch.device | str,
        dtype: torch.dtype = torch.float32,
        record: bool = False,
    ) -> KVCache:
        """An empty cache for `batch` environments; under autocast give it autocast's dtype.

        With `record` it keeps the tokens themselves too, for `ablation`.
        """
        return KVCache(self.config, batch, device, dtype, self.norm.weight.dtype, record)

    @torch.no_grad()
    def step(self, tokens: Tensor, cache: KVCache, episode_starts: Tensor | None = None) -> Tensor:
        """As `TrialMemory.step`; the environments may be at different places of their trials."""
        check_tokens(tokens, self.config.width, "[N, D]", cache.batch)
        if self.variant.within_episode:
            check_starts(episode_starts, tokens, "[N]")
        return acting.step(self, tokens, cache, episode_starts)

    @torch.no_grad()
    def extend(
        self, tokens: Tensor, cache: KVCache, episode_starts: Tensor | None = None
    ) -> Tensor:
        """As `TrialMemory.extend`."""
        check_tokens(tokens, self.config.width, "[N, C, D]", cache.batch)
        if self.variant.within_episode:
            check_starts(episode_starts, tokens, "[N, C]")
        return acting.extend(self, tokens, cache, episode_starts)


class WithinEpisodes:
    """The context of training inside each episode: episodes of like lengths make one batch.

    starts: bool [B, T], True at the first step of an episode. Positions begin at 0 there.
    """

    def __init__(self, starts: Tensor) -> None:
        self._shape = starts.shape
        steps = torch.arange(starts.shape[1], device=starts.device)
        self._positions = steps - torch.where(starts, steps, 0).cummax(dim=1).values
        # Episodes as (first, last + 1) among all B * T steps; those within a factor of two of each
        # other's length together, so that at most half of a batch is padding.
        groups: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        for row, begins in enumerate(starts.tolist()):
            before = row * len(begins)
            inner = [step for step in range(1, len(begins)) if begins[step]]
            for start, stop in pairwise([0, *inner, len(begins)]):
                groups[(stop - start).bit_length()].append((before + start, before + stop))
        self._batches = []
        for episodes in groups.values():
            first, end = torch.tensor(episodes, device=starts.device)[:, :, None].unbind(1)
            index = first + torch.arange(int((end - first).max()), device=starts.device)
            # Padding stands behind an episode's steps, where nothing causal looks.
            self._batches.append((index.minimum(end - 1), index < end))
        order = torch.cat([index[real] for index, real in self._batches])
        self._back = torch.argsort(order)

    def rotation(self, table: RotaryTable) -> Rotation:
        """Rotation of every step's position in its episode."""
        return table.at(self._positions, self._shape[1])

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, sink: Sink) -> Tensor:
        """Attention as `Context.attend` says."""
        flat = [x.transpose(1, 2).flatten(0, 1) for x in (q, k, v)]  # [B * T, H, dh]
        found = []
        for index, real in self._batches:
            own_q, own_k, own_v = (x[index].transpose(1, 2) for x in flat)
            alone = DifferentiableKV(q.device).begin(index.shape[1])
            attended = alone.attend(layer, own_q, own_k, own_v, sink)
            found.append(attended.transpose(1, 2)[real])
        steps = torch.cat(found)[self._back]
        return steps.view(*self._shape, *steps.shape[1:]).transpose(1, 2)


def build(config: MemoryConfig) -> TrialMemory:
    """The memory that `config` describes; UserError where its values do not fit together."""
    check_config(config)
    chosen: Any = memory_class(config.kind)
    memory: TrialMemory = MemoTransformer(config) if issubclass(chosen, Memo) else chosen(config)
    return memory
