"""What a training pass of a memory gives."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Encoded(NamedTuple):
    """outputs: [B, T, D]. memory_loss: the memory loss, unweighted [], or None without one."""

    outputs: Tensor
    memory_loss: Tensor | None
