"""What every memory offers to the policy, whichever kind it is."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from memo_habitat.config.memory import MemoryConfig
from memo_habitat.memory.encoded import Encoded


class ActingCache(Protocol):
    """What acting remembers of the trial so far, N rows of it."""

    @property
    def steps(self) -> Tensor:
        """Environment steps since each row's reset, [N] long."""

    def tokens_in_use(self) -> Tensor:
        """Tokens that each row attends to, [N] long."""

    def bytes_in_use(self) -> Tensor:
        """Bytes of what each row remembers, [N] long."""

    def allocated_bytes(self) -> int:
        """Bytes of everything allocated, over all rows."""

    def reset(self, which: Tensor) -> None:
        """Empty the rows where `which` ([N] bool) holds."""


class TrialMemory(Protocol):
    """`Memory` or `RecurrentMemory`; a cache goes with the memory that made it."""

    config: MemoryConfig

    def encode(
        self,
        tokens: Tensor,
        segment_length: int | None = None,
        episode_starts: Tensor | None = None,
    ) -> Encoded:
        """Outputs for whole trials [B, T, D], with gradients, and the memory loss."""

    def draw_segment_length(self, generator: torch.Generator | None = None) -> int:
        """A segment length for one training pass."""

    def new_cache(
        self, batch: int, device: torch.device | str, dtype: torch.dtype = torch.float32
    ) -> Any:
        """An empty `ActingCache` for `batch` environments."""

    def step(self, tokens: Tensor, cache: Any, episode_starts: Tensor | None = None) -> Tensor:
        """One step of every environment: [N, D] to [N, D]."""

    def extend(self, tokens: Tensor, cache: Any, episode_starts: Tensor | None = None) -> Tensor:
        """C steps of every environment: [N, C, D] to [N, C, D]."""
