"""What every memory offers to the policy: the protocol that a module of your own implements.

Legend, throughout this package:
    B  trials in a training pass          N  environments that act in lockstep
    T  steps of a trial                   C  steps of a chunk
    D  width of a token                   L  layers
    H  attention heads                    dh features of a head, D / H
    S  steps of a segment                 M  tokens of a summary
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from memo_habitat.config.memory import MemoryConfig


class MemoryOutput(NamedTuple):
    """What a training pass gives."""

    outputs: Tensor  # [B, T, D]
    auxiliary_loss: Tensor | None = None  # [] unweighted; None where the memory has none
    # [B, M, D] of each segment that closed, for losses that need more than tokens.
    summaries: Sequence[Tensor] = ()


class ActingCache(Protocol):
    """What acting remembers of the trial so far, N rows of it."""

    @property
    def steps(self) -> Tensor:
        """Environment steps since each row's reset, [N] long, on the CPU."""

    def tokens_in_use(self) -> Tensor:
        """Tokens that each row attends to, [N] long, on the CPU; 0 for a fixed state."""

    def bytes_in_use(self) -> Tensor:
        """Bytes of what each row remembers, [N] long, on the CPU."""

    def allocated_bytes(self) -> int:
        """Bytes of everything allocated, over all rows."""

    def reset(self, which: Tensor) -> None:
        """Empty the rows where `which` ([N] bool, on the CPU) holds."""


class TrialMemory(Protocol):
    """A memory over trials; constructed with a `MemoryConfig` alone.

    Acting step by step must give what `encode` gives for the whole trial. A class that derives from
    this one, `class Mine(nn.Module, TrialMemory)`, has `extend` and `draw_segment_length` for free.

    A memory with segments may name "segment_jitter_in" among its `options`. Its caches then have an
    attribute `segment_length`, S at first, which is set while they are empty: acting is to give
    what `encode` gives for that length.
    """

    config: MemoryConfig

    def encode(
        self,
        tokens: Tensor,
        segment_length: int | None = None,
        episode_starts: Tensor | None = None,
    ) -> MemoryOutput:
        """Outputs for whole trials, or prefixes of them, with gradients.

        tokens: [B, T, D]. segment_length: steps per segment in this pass, S unless given; without
        meaning for a memory without segments. episode_starts: bool [B, T], True at the first step
        of an episode. A memory lives across episodes; what it makes of their borders is its own.
        """

    def new_cache(
        self, batch: int, device: torch.device | str, dtype: torch.dtype = torch.float32
    ) -> Any:
        """An empty `ActingCache` for `batch` environments; under autocast with autocast's dtype."""

    def step(self, tokens: Tensor, cache: Any, episode_starts: Tensor | None = None) -> Tensor:
        """One step of every environment, without gradients: [N, D] to [N, D]."""

    def extend(self, tokens: Tensor, cache: Any, episode_starts: Tensor | None = None) -> Tensor:
        """C steps of every environment, to the same effect as C calls of `step`.

        tokens: [N, C, D], episode_starts: bool [N, C]. Returns [N, C, D].
        """
        starts = [None] * tokens.shape[1] if episode_starts is None else episode_starts.unbind(1)
        steps = zip(tokens.unbind(1), starts, strict=True)
        return torch.stack([self.step(now, cache, begins) for now, begins in steps], dim=1)

    def draw_segment_length(self, generator: torch.Generator | None = None) -> int:
        """A segment length to train with; of the global generator unless one is given."""
        return self.config.segment_length


def check_starts(starts: Tensor | None, tokens: Tensor, legend: str) -> Tensor:
    """`starts`, or ValueError unless it is bool with the axes of `legend`, those of `tokens`."""
    wanted = tokens.shape[:-1]
    if starts is None or starts.dtype != torch.bool or starts.shape != wanted:
        got = "none" if starts is None else f"{starts.dtype} of shape {list(starts.shape)}"
        raise ValueError(
            f"a memory that attends within episodes, as memory kind 'no_iea' does, needs "
            f"episode_starts, bool {legend} = {list(wanted)}; got {got}"
        )
    return starts


def check_tokens(tokens: Tensor, width: int, legend: str, batch: int | None = None) -> None:
    """Raise ValueError unless `tokens` has the axes of `legend`, such as "[B, T, D]".

    batch: environments of the cache that the tokens go to, if they go to one.
    """
    if tokens.dim() != legend.count(",") + 1 or tokens.shape[-1] != width or 0 in tokens.shape:
        raise ValueError(
            f"tokens must be {legend}, none of them 0, with D = {width}; got {list(tokens.shape)}"
        )
    if batch is not None and len(tokens) != batch:
        raise ValueError(f"tokens are for {len(tokens)} environments, the cache has {batch}")


def check_environments(batch: int) -> None:
    """Raise ValueError unless a cache can be made for so many environments."""
    if batch < 1:
        raise ValueError(f"a cache is for at least 1 environment, got {batch}")


def check_reset(which: Tensor, batch: int) -> None:
    """Raise ValueError unless `which` has one bool for each row of a cache."""
    if which.shape != (batch,) or which.dtype != torch.bool:
        raise ValueError(
            f"reset takes a bool tensor of shape [{batch}], "
            f"got {which.dtype} of shape {list(which.shape)}"
        )
