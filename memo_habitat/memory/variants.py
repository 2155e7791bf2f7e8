"""What tells one memory variant from another: whether it summarises and which summaries stay."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Variant(Protocol):
    """The rules of one variant; everything else is shared."""

    summarises: bool

    def summaries_seen(self, closed: int) -> int:
        """Summaries that a segment attends to when `closed` segments came before it."""

    def hand_on(self, summary: Tensor) -> Tensor:
        """What of a new summary [B, M, D] enters the following segments in training."""


class Memo:
    """Every segment ends in a summary; all summaries stay, with their gradients (2510.19732)."""

    summarises = True

    def summaries_seen(self, closed: int) -> int:
        """All of them."""
        return closed

    def hand_on(self, summary: Tensor) -> Tensor:
        """The summary as it is: full credit assignment."""
        return summary


class FullContext:
    """The whole trial is one segment that never closes: every raw step stays."""

    summarises = False

    def summaries_seen(self, closed: int) -> int:
        """None is ever made."""
        return 0

    def hand_on(self, summary: Tensor) -> Tensor:
        """Never called on, since no segment closes."""
        return summary


# A further variant is one class here: `rmt` sees min(closed, 1) summaries, `ac` hands on
# summary.detach(), `no_iea` is FullContext under a context that stops at the episode's start.
VARIANTS: dict[str, Variant] = {"memo": Memo(), "fct": FullContext()}
