"""Checks of what users hand to the memory: its sizes, and the shapes of token tensors."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from memo_habitat.config.memory import MemoryConfig
from memo_habitat.errors import UserError
from memo_habitat.memory.auxiliary_loss import OF_TOKENS
from memo_habitat.memory.variants import PARTICULAR, Memo, kinds, memory_class, takes

# What the values of these settings have to be, and how that is said.
_VALID: tuple[tuple[str, Callable[[float], bool], str], ...] = (
    ("width layers heads hidden segment_length summary_length", lambda x: x >= 1, "at least 1"),
    ("segment_jitter depth_dropout", lambda x: 0 <= x < 1, "in [0, 1)"),
    ("detach_probability", lambda x: 0 <= x <= 1, "in [0, 1]"),
    ("token_budget top_k memory_loss_coef", lambda x: 0 <= x < math.inf, "at least 0, and finite"),
    ("rope_base", lambda x: 1 < x < math.inf, "above 1, and finite"),
)
_CHOICES = {
    "sink_value": ("learned", "zero"),
    "memory_loss": ("none", *OF_TOKENS, "observations"),
}


def check_config(config: MemoryConfig) -> None:
    """Raise UserError, naming the value and the remedy, where no such memory can be."""
    chosen = memory_class(config.kind)
    for names, is_valid, wanted in _VALID:
        for name in names.split():
            if not is_valid(getattr(config, name)):
                raise UserError(f"memory {name} is {getattr(config, name)}: it must be {wanted}")
    for name, allowed in _CHOICES.items():
        if getattr(config, name) not in allowed:
            found = getattr(config, name)
            raise UserError(f"memory {name} {found!r}: use one of {', '.join(allowed)}")
    if issubclass(chosen, Memo) and config.width % (2 * config.heads):
        raise UserError(
            f"memory width {config.width} does not split into {config.heads} heads of an even "
            f"size, which rotary positions need: use a multiple of {2 * config.heads}"
        )
    for name in PARTICULAR:
        value, off = getattr(config, name), getattr(MemoryConfig, name)
        if value != off and not takes(config.kind, name):
            others = ", ".join(kind for kind in kinds() if takes(kind, name))
            raise UserError(
                f"memory {name}={value} means nothing to kind {config.kind!r}: leave it at {off}, "
                f"or use one of {others}"
            )
    summarises = issubclass(chosen, Memo) and chosen.summarises
    if summarises and config.summary_length >= config.segment_length:
        raise UserError(
            f"memory summary_length {config.summary_length} is not below segment_length "
            f"{config.segment_length}: a summary must be shorter than its segment"
        )
    least = config.segment_length + (config.summary_length if summarises else 1)
    if 0 < config.token_budget < least:
        raise UserError(
            f"memory token_budget {config.token_budget} does not hold a segment of "
            f"{config.segment_length} steps and what stays of older ones: use at least {least}"
        )


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
