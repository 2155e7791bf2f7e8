"""What a training pass of a memory gives."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Encoded(NamedTuple):
    """outputs: [B, T, D]. memory_loss: the memory loss, unweighted [], or None without one.

    summaries: [B, M, D] of each segment that closed, for losses that need more than tokens.
    """

    outputs: Tensor
    memory_loss: Tensor | None
    summaries: tuple[Tensor, ...] = ()
