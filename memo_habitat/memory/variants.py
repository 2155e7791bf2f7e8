"""What tells one memory variant from another: what stays of a segment, and with which gradient."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

import torch
from torch import Tensor

from memo_habitat.config.memory import MemoryConfig


class Variant(Protocol):
    """The rules of one variant of the transformer; everything else is shared.

    summarises: segments close with a summary; otherwise the trial is one segment.
    accumulates: all summaries stay; otherwise the newest one only.
    within_episode: steps attend to steps of their own episode only; there are no summaries then.
    """

    summarises: bool
    accumulates: bool
    within_episode: bool

    def __init__(self, config: MemoryConfig) -> None: ...

    def hand_on(self, summary: Tensor) -> Tensor:
        """What of a new summary [B, M, D] enters the following segments in training.

        Its gradient is the variant's to choose, its values are not: acting, which does not ask,
        feeds the summary in as it is, and a policy is to be trained with the memory it acted with.
        """


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


#: The variants of the transformer, by kind; filled by `register`.
VARIANTS: dict[str, type[Memo]] = {}
_RECURRENT = "lstm"
#: Options that mean something to some variants only, which say so in `register`.
_CLAIMED = ("detach_probability", "token_budget", "memory_form")
_SUMMARIES = ("summary_layer", "top_k", "memory_loss")
_ATTENTION = ("compile",)
#: Options of `MemoryConfig` that not every kind takes.
PARTICULAR = (*_CLAIMED, *_SUMMARIES, *_ATTENTION)
_taken: dict[str, frozenset[str]] = {}


def register(kind: str, variant: type[Memo], options: Collection[str] = ()) -> None:
    """Offer `variant` as `MemoryConfig.kind`, in this process, beside those that are there.

    options: which of "detach_probability", "token_budget" (the memory may lose its oldest tokens)
        and "memory_form" (the parallel form, which does not ask `hand_on`) it takes. The other
        options of `MemoryConfig` follow from what the variant is.

    Raises:
        ValueError: the kind is another class's, or the class or an option is none.
    """
    if not (isinstance(variant, type) and issubclass(variant, Memo)):
        raise ValueError(f"variant {variant!r}: give a class derived from variants.Memo")
    if variant.within_episode and variant.summarises:
        raise ValueError(f"variant {variant.__name__}: within_episode needs summarises = False")
    # The cell of a notebook may run twice, a module be loaded again.
    held = VARIANTS.get(kind, variant)
    again = (held.__module__, held.__qualname__) == (variant.__module__, variant.__qualname__)
    if not kind or kind == _RECURRENT or not again:
        raise ValueError(f"memory kind {kind!r} is taken or empty: choose a name of its own")
    unknown = sorted(set(options) - set(_CLAIMED))
    if unknown:
        raise ValueError(f"options {', '.join(unknown)}: choose of {', '.join(_CLAIMED)}")
    shared = (*_SUMMARIES, *_ATTENTION) if variant.summarises else _ATTENTION
    VARIANTS[kind], _taken[kind] = variant, frozenset((*options, *shared))


def kinds() -> tuple[str, ...]:
    """Every kind of memory that there is now."""
    return (*VARIANTS, _RECURRENT)


def takes(kind: str, option: str) -> bool:
    """Whether the option, one of `PARTICULAR`, means anything to this kind."""
    return option in _taken.get(kind, ())


register("memo", Memo, options=("token_budget", "memory_form"))
register("fct", FullContext, options=("token_budget",))
register("rmt", NewestSummary)
register("ac", TruncatedGradient, options=("token_budget", "detach_probability"))
register("no_iea", WithinEpisode)
