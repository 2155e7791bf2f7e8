"""What tells one memory variant from another: what stays of a segment, and with which gradient."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from memo_habitat.config.memory import MemoryConfig


class Variant(Protocol):
    """The rules of one variant of the transformer; everything else is shared.

    summarises: segments close with a summary; otherwise the trial is one segment.
    accumulates: all summaries stay; otherwise the newest one only.
    within_episode: steps attend to steps of their own episode only.
    """

    summarises: bool
    accumulates: bool
    within_episode: bool

    def __init__(self, config: MemoryConfig) -> None: ...

    def hand_on(self, summary: Tensor) -> Tensor:
        """What of a new summary [B, M, D] enters the following segments in training."""


class Memo:
    """Every segment ends in a summary; all of them stay, with their gradients (2510.19732)."""

    summarises = True
    accumulates = True
    within_episode = False

    def __init__(self, config: MemoryConfig) -> None:
        self.config = config

    def hand_on(self, summary: Tensor) -> Tensor:
        """The summary as it is: full credit assignment."""
        return summary


class NewestSummary(Memo):
    """Recurrent Memory Transformer (2207.06881): only the newest summary stays."""

    accumulates = False


class TruncatedGradient(Memo):
    """AutoCompressor (2305.14788) with truncated back-propagation: summaries lose their history."""

    def hand_on(self, summary: Tensor) -> Tensor:
        """The summary, detached with `detach_probability`: one coin for the whole batch."""
        return summary.detach() if torch.rand(()) < self.config.detach_probability else summary


class FullContext(Memo):
    """The whole trial is one segment that never closes: every raw step stays."""

    summarises = False


class WithinEpisode(FullContext):
    """No inter-episode attention: full context that begins anew with every episode."""

    within_episode = True


VARIANTS: dict[str, type[Memo]] = {
    "memo": Memo,
    "fct": FullContext,
    "rmt": NewestSummary,
    "ac": TruncatedGradient,
    "no_iea": WithinEpisode,
}
KINDS = (*VARIANTS, "lstm")
