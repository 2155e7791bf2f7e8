"""The memory transformer: one stack of blocks that trains over trials and acts step by step.

Both ways push the same passes through the stack. A pass of segment k takes the tokens

    [summary k-1 (M, as input embeddings) | steps of the segment | summary queries (M)]

at positions (k-1) M, (k-1) M + 1, ... It attends causally to itself and to everything in the
context in front of it: the sink and the keys and values of the summaries 0 .. k-2. The outputs at
the queries are summary k. After the pass the context keeps the first M tokens and forgets the
rest, so each summary's keys and values are computed once. In acting the pass is cut into pieces.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from memo_habitat.config.memory import MemoryConfig
from memo_habitat.memory.attention import Context, last
from memo_habitat.memory.block import NORM_EPS, Block
from memo_habitat.memory.cache import Cache
from memo_habitat.memory.checks import check_config, check_tokens
from memo_habitat.memory.initialise import SMALL, initialise
from memo_habitat.memory.prefix import Prefix
from memo_habitat.memory.rotary import RotaryTable
from memo_habitat.memory.slots import CacheShape
from memo_habitat.memory.variants import VARIANTS

_PIECE = 1024  # most steps in one pass of `extend`, which bounds the size of its mask


class Memory(nn.Module):
    """Tokens of environment steps in, what the agent knows at each step out.

    Legend: B trials or N environments, T or C steps, D width, S segment and M summary length.
    """

    def __init__(self, config: MemoryConfig) -> None:
        super().__init__()
        check_config(config)
        self.config = config
        self.variant = VARIANTS[config.kind]
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.layers)])
        self.norm = nn.RMSNorm(config.width, eps=NORM_EPS)
        if self.variant.summarises:
            embeddings = SMALL * torch.randn(config.summary_length, config.width)
            self.queries = nn.Parameter(embeddings)
        self._rotary = RotaryTable(config.width // config.heads, config.rope_base)
        initialise(self, config.layers)

    def forward(self, tokens: Tensor, segment_length: int | None = None) -> Tensor:
        """Outputs for a whole trial, or a prefix of it that begins at its first step.

        tokens: [B, T, D]. segment_length: steps per segment in this pass, S unless given;
        without meaning for variants that do not summarise. Returns [B, T, D], differentiable
        through all summaries.
        """
        check_tokens(tokens, self.config.width, "[B, T, D]")
        segments = self._segments(tokens, segment_length)
        live = self._draw_layers()
        prefix = Prefix(tokens.device)
        outputs, summary = [], tokens[:, :0]
        for index, steps in enumerate(segments):
            final = index + 1 == len(segments)
            parts = [summary, steps] if final else [summary, steps, self._queries(len(tokens))]
            new = torch.cat(parts, dim=1)
            wanted = new.shape[1] - summary.shape[1]
            encoded = self._encode(new, prefix.open(new.shape[1]), wanted, live)
            output, made = torch.split(encoded, [steps.shape[1], wanted - steps.shape[1]], dim=1)
            outputs.append(output)
            if not final:
                prefix.truncate(self._kept_tokens(index + 1))
                summary = self.variant.hand_on(made)
        return torch.cat(outputs, dim=1)

    def draw_segment_length(self, generator: torch.Generator | None = None) -> int:
        """A segment length for one training pass: uniform over the integers within the jitter."""
        length = self.config.segment_length
        spread = math.floor(self.config.segment_jitter * length + 1e-9)
        if not self.variant.summarises or spread == 0:
            return length
        low, high = length - spread, length + spread
        return int(torch.randint(low, high + 1, (), generator=generator))

    def new_cache(
        self, batch: int, device: torch.device | str, dtype: torch.dtype = torch.float32
    ) -> Cache:
        """An empty cache for `batch` environments; under autocast give it autocast's dtype."""
        config = self.config
        shape = CacheShape(config.layers, batch, config.heads, config.width // config.heads)
        return Cache(shape, torch.device(device), dtype)

    @torch.no_grad()
    def step(self, tokens: Tensor, cache: Cache) -> Tensor:
        """One step of every environment. tokens: [N, D]. Returns [N, D].

        The environments may be at different places of their trials; those whose segment ends
        here have it replaced by its summary before this returns.
        """
        check_tokens(tokens, self.config.width, "[N, D]", cache.shape.batch)
        everyone = slice(0, len(tokens))
        encoded = self._encode(tokens[:, None], cache.append(everyone, 1), 1)
        cache.count_steps(everyone, 1)
        for rows, steps in cache.runs():
            self._close_if_full(rows, steps, cache)
        return encoded[:, 0]

    @torch.no_grad()
    def extend(self, tokens: Tensor, cache: Cache) -> Tensor:
        """C steps of every environment, to the same effect as C calls of `step`.

        tokens: [N, C, D]. Returns [N, C, D].
        """
        check_tokens(tokens, self.config.width, "[N, C, D]", cache.shape.batch)
        runs = [self._extend(tokens[rows], rows, steps, cache) for rows, steps in cache.runs()]
        return torch.cat(runs)

    def _extend(self, tokens: Tensor, rows: slice, steps: int, cache: Cache) -> Tensor:
        """`extend` for rows in the same place of their trials."""
        outputs, done = [], 0
        while done < tokens.shape[1]:
            room = _PIECE
            if self.variant.summarises:
                room = min(room, self.config.segment_length - steps % self.config.segment_length)
            piece = tokens[:, done : done + room]
            count = piece.shape[1]
            outputs.append(self._encode(piece, cache.append(rows, count), count))
            cache.count_steps(rows, count)
            done, steps = done + count, steps + count
            self._close_if_full(rows, steps, cache)
        return torch.cat(outputs, dim=1)

    def _close_if_full(self, rows: slice, steps: int, cache: Cache) -> None:
        """Put the summary in the place of the segment's steps when the last one was appended."""
        if not self.variant.summarises or steps % self.config.segment_length:
            return
        length = self.config.summary_length
        queries = self._queries(rows.stop - rows.start)
        summary = self._encode(queries, cache.append(rows, length), length)
        cache.truncate(rows, self._kept_tokens(steps // self.config.segment_length))
        self._encode(summary, cache.append(rows, length), 0)

    def _encode(
        self, new: Tensor, context: Context, wanted: int, live: list[int] | None = None
    ) -> Tensor:
        """Push new tokens [B, T, D] through the (live) blocks: the last `wanted` outputs, normed.

        The last block computes wanted tokens only: the others are there for their keys and values.
        """
        rotation = context.rotation(self._rotary)
        live = list(range(len(self.blocks))) if live is None else live
        for layer in live:
            outputs = wanted if layer == live[-1] else new.shape[1]
            new = self.blocks[layer](new, rotation, context, layer, outputs)
        normed: Tensor = self.norm(last(new, wanted, dim=1))
        return normed

    def _segments(self, tokens: Tensor, length: int | None) -> tuple[Tensor, ...]:
        """The trial's segments, the last one possibly unfinished."""
        if not self.variant.summarises:
            return (tokens,)
        length = self.config.segment_length if length is None else length
        if length < 1:
            raise ValueError(f"segment_length is {length}: it must be at least 1")
        return torch.split(tokens, length, dim=1)

    def _kept_tokens(self, closed: int) -> int:
        """Tokens that stay of a context when `closed` segments are over, before the new summary."""
        return (self.variant.summaries_seen(closed) - 1) * self.config.summary_length

    def _queries(self, batch: int) -> Tensor:
        return self.queries.expand(batch, -1, -1)

    def _draw_layers(self) -> list[int]:
        """The layers of one training pass: depth dropout tosses one coin each for the batch."""
        layers = range(len(self.blocks))
        if not self.training or not self.config.depth_dropout:
            return list(layers)
        coins = torch.rand(len(layers)).tolist()
        return [layer for layer in layers if coins[layer] >= self.config.depth_dropout]


def build(config: MemoryConfig) -> Memory:
    """The memory that `config` describes; UserError where its values do not fit together."""
    return Memory(config)
