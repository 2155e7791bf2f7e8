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
from torch import Tensor

from memo_habitat.config.memory import MemoryConfig
from memo_habitat.memory import acting, training
from memo_habitat.memory.backbone import Backbone
from memo_habitat.memory.cache import Cache
from memo_habitat.memory.checks import check_config, check_environments, check_starts, check_tokens
from memo_habitat.memory.encoded import Encoded
from memo_habitat.memory.recurrent import RecurrentMemory
from memo_habitat.memory.slots import CacheShape


class Memory(Backbone):
    """Tokens of environment steps in, what the agent knows at each step out.

    Legend: B trials or N environments, T or C steps, D width, S segment and M summary length.
    episode_starts, True at the first step of an episode, is for variants that attend within
    episodes (`no_iea`) alone, which need it.
    """

    def forward(
        self,
        tokens: Tensor,
        segment_length: int | None = None,
        episode_starts: Tensor | None = None,
    ) -> Tensor:
        """Outputs for a whole trial, or a prefix of it that begins at its first step.

        tokens: [B, T, D]. segment_length: steps per segment in this pass, S unless given;
        without meaning for variants that do not summarise. episode_starts: bool [B, T].
        Returns [B, T, D], differentiable through all summaries.
        """
        return self._read(tokens, segment_length, episode_starts)[0]

    def encode(
        self,
        tokens: Tensor,
        segment_length: int | None = None,
        episode_starts: Tensor | None = None,
    ) -> Encoded:
        """The same with the memory loss, where the config has one."""
        outputs, summaries = self._read(tokens, segment_length, episode_starts)
        if self.memory_loss is None:
            return Encoded(outputs, None, tuple(summaries))
        loss = self.memory_loss(self._segments(tokens, segment_length), summaries)
        return Encoded(outputs, loss, tuple(summaries))

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
        check_environments(batch)
        config = self.config
        shape = CacheShape(
            layers=config.layers,
            batch=batch,
            heads=config.heads,
            head_dim=config.width // config.heads,
            inputs=config.width if config.token_budget and config.memory_form == "tokens" else 0,
            inputs_dtype=self.norm.weight.dtype,
        )
        # Steps leave room for the positions of their own segment's queries, see SegmentsAtOnce.
        first = config.summary_length if config.memory_form == "kv" else 0
        return Cache(shape, torch.device(device), dtype, first_position=first, top_k=config.top_k)

    @torch.no_grad()
    def step(self, tokens: Tensor, cache: Cache, episode_starts: Tensor | None = None) -> Tensor:
        """One step of every environment. tokens: [N, D], episode_starts: bool [N]. Returns [N, D].

        The environments may be at different places of their trials; those whose segment ends
        here have it replaced by its summary before this returns.
        """
        check_tokens(tokens, self.config.width, "[N, D]", cache.shape.batch)
        if self.variant.within_episode:
            check_starts(episode_starts, tokens, "[N]")
        return acting.step(self, tokens, cache, episode_starts)

    @torch.no_grad()
    def extend(self, tokens: Tensor, cache: Cache, episode_starts: Tensor | None = None) -> Tensor:
        """C steps of every environment, to the same effect as C calls of `step`.

        tokens: [N, C, D], episode_starts: bool [N, C]. Returns [N, C, D].
        """
        check_tokens(tokens, self.config.width, "[N, C, D]", cache.shape.batch)
        if self.variant.within_episode:
            check_starts(episode_starts, tokens, "[N, C]")
        return acting.extend(self, tokens, cache, episode_starts)

    def _read(
        self, tokens: Tensor, segment_length: int | None, episode_starts: Tensor | None
    ) -> training.Read:
        check_tokens(tokens, self.config.width, "[B, T, D]")
        if self.variant.within_episode:
            check_starts(episode_starts, tokens, "[B, T]")
        if not self.variant.summarises:
            return training.whole(self, tokens, episode_starts)
        segments = self._segments(tokens, segment_length)
        if self.config.memory_form == "kv":
            return training.segments_at_once(self, segments)
        return training.segment_after_segment(self, segments)

    def _segments(self, tokens: Tensor, length: int | None) -> tuple[Tensor, ...]:
        """The trial's segments, the last one possibly unfinished."""
        length = self.config.segment_length if length is None else length
        if length < 1:
            raise ValueError(f"segment_length is {length}: it must be at least 1")
        return torch.split(tokens, length, dim=1)


def build(config: MemoryConfig) -> Memory | RecurrentMemory:
    """The memory that `config` describes; UserError where its values do not fit together."""
    check_config(config)
    return RecurrentMemory(config) if config.kind == "lstm" else Memory(config)
