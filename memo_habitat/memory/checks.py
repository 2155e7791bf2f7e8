"""Checks of what users hand to the memory: its sizes, and the shapes of token tensors."""

from __future__ import annotations

from torch import Tensor

from memo_habitat.config.memory import MemoryConfig
from memo_habitat.errors import UserError
from memo_habitat.memory.variants import VARIANTS

SINK_VALUES = ("learned", "zero")


def check_config(config: MemoryConfig) -> None:
    """Raise UserError, naming the value and the remedy, for sizes that no model can have."""
    if config.kind not in VARIANTS:
        raise UserError(f"memory kind {config.kind!r} is unknown: use one of {sorted(VARIANTS)}")
    for name in ("width", "layers", "heads", "hidden", "segment_length", "summary_length"):
        if getattr(config, name) < 1:
            raise UserError(f"memory {name} is {getattr(config, name)}: it must be at least 1")
    if config.width % (2 * config.heads):
        raise UserError(
            f"memory width {config.width} does not split into {config.heads} heads of an even "
            f"size, which rotary positions need: use a multiple of {2 * config.heads}"
        )
    if config.summary_length >= config.segment_length and VARIANTS[config.kind].summarises:
        raise UserError(
            f"memory summary_length {config.summary_length} is not below segment_length "
            f"{config.segment_length}: a summary must be shorter than its segment"
        )
    for name in ("segment_jitter", "depth_dropout"):
        if not 0 <= getattr(config, name) < 1:
            raise UserError(f"memory {name} is {getattr(config, name)}: it must be in [0, 1)")
    if config.sink_value not in SINK_VALUES:
        raise UserError(f"memory sink_value {config.sink_value!r}: use one of {SINK_VALUES}")
    if config.rope_base <= 1:
        raise UserError(f"memory rope_base is {config.rope_base}: it must be above 1")


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
