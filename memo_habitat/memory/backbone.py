"""The layers and what they do to one pass of tokens; training and acting cut trials into passes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from memo_habitat.config.memory import MemoryConfig
from memo_habitat.memory.attention import Context, last
from memo_habitat.memory.block import Block
from memo_habitat.memory.initialise import SMALL, initialise
from memo_habitat.memory.norm import RMSNorm
from memo_habitat.memory.prefix import Prefix
from memo_habitat.memory.rotary import RotaryTable
from memo_habitat.memory.summary_loss import OF_TOKENS, SummaryLoss
from memo_habitat.memory.variants import VARIANTS


class Backbone(nn.Module):
    """Parameters of the memory transformer, whatever its variant and form."""

    def __init__(self, config: MemoryConfig) -> None:
        super().__init__()
        self.config = config
        self.variant = VARIANTS[config.kind](config)
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.layers)])
        self.norm = RMSNorm(config.width)
        self.summary_block = Block(config) if config.summary_layer else None
        self.summary_norm = RMSNorm(config.width) if config.summary_layer else None
        self.memory_loss = SummaryLoss(config) if config.memory_loss in OF_TOKENS else None
        if self.variant.summarises:
            embeddings = SMALL * torch.randn(config.summary_length, config.width)
            self.queries = nn.Parameter(embeddings)
        self.rotary = RotaryTable(config.width // config.heads, config.rope_base)
        initialise(self, config.layers)

    def push(
        self, new: Tensor, context: Context, wanted: int, live: list[int] | None = None
    ) -> Tensor:
        """Push new tokens [B, T, D] through the (live) blocks: the last `wanted` outputs, normed.

        The last block computes wanted tokens only: the others are there for their keys and values.
        """
        rotation = context.rotation(self.rotary)
        live = list(range(len(self.blocks))) if live is None else live
        for layer in live:
            outputs = wanted if layer == live[-1] else new.shape[1]
            new = self.blocks[layer](new, rotation, context, layer, outputs)
        normed: Tensor = self.norm(last(new, wanted, dim=1))
        return normed

    def summary(self, made: Tensor) -> Tensor:
        """The summary [B, M, D] of the outputs at the queries, by the summary layer if any."""
        if self.summary_block is None or self.summary_norm is None:
            return made
        alone = Prefix(made.device, capacity=0, top_k=0).open(made.shape[1])
        made = self.summary_block(
            made, alone.rotation(self.rotary), alone, layer=0, outputs=made.shape[1]
        )
        normed: Tensor = self.summary_norm(made)
        return normed

    def query_tokens(self, batch: int) -> Tensor:
        """The learned queries behind a segment, [B, M, D]."""
        return self.queries.expand(batch, -1, -1)

    def draw_layers(self) -> list[int]:
        """The layers of one training pass: depth dropout tosses one coin each for the batch."""
        layers = range(len(self.blocks))
        if not self.training or not self.config.depth_dropout:
            return list(layers)
        coins = torch.rand(len(layers)).tolist()
        return [layer for layer in layers if coins[layer] >= self.config.depth_dropout]
