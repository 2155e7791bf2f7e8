"""How much memory an acting agent uses, beside what full context would."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class ContextUse:
    """Per environment, long [N].

    Attributes:
        tokens: tokens that the next step attends to.
        kv_bytes: bytes of their keys and values.
        full_context_kv_bytes: bytes that keeping every step of the trial so far would take.
    """

    tokens: Tensor
    kv_bytes: Tensor
    full_context_kv_bytes: Tensor
