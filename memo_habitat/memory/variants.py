"""The kinds of memory: what tells one variant of the transformer from another, and the registry."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import import_module

import torch
from torch import Tensor, nn

from memo_habitat.config.memory import MemoryConfig
from memo_habitat.errors import UserError
from memo_habitat.memory.auxiliary_loss import OF_TOKENS

#: Options of `MemoryConfig` that not every kind takes; set for one that does not, they are refused.
PARTICULAR = (
    *("detach_probability", "token_budget", "summary_layer", "top_k", "memory_loss"),
    *("segment_jitter_in", "activation_checkpointing", "compile", "compile_acting"),
    "cuda_graphs",
)
_METHODS = ("encode", "new_cache", "step", "extend", "draw_segment_length")  # of `TrialMemory`


class Memo:
    """Every segment ends in a summary; all of them stay, with their gradients (2510.19732).

    What differs between variants of the transformer is stated here; everything else is shared.
    """

    summarises = True  # segments close with a summary; otherwise the trial is one segment
    accumulates = True  # all summaries stay; otherwise the newest one only
    within_episode = False  # steps attend to their own episode only; no summaries then
    # "detach_probability" and "token_budget" (the oldest tokens may be dropped), where they mean
    # something to the variant, and "cuda_graphs" beside a `carry` of its own. The others follow
    # from what it is (`takes`).
    options: tuple[str, ...] = ("token_budget",)

    def __init__(self, config: MemoryConfig) -> None:
        self.config = config

    def carry(self, summary: Tensor) -> Tensor:
        """What of a new summary [B, M, D] enters the following segments in training.

        What it draws a variant with `cuda_graphs` among its `options` draws once for all passes.
        Its gradient is the variant's to choose, its values are not: acting, which does not ask,
        feeds the summary in as it is, and a policy is to be trained with the memory it acted with.
        """
        return summary


class NewestSummary(Memo):
    """Recurrent Memory Transformer (2207.06881): only the newest summary stays."""

    accumulates = False
    options = ()


class TruncatedGradient(Memo):
    """AutoCompressor (2305.14788) with truncated back-propagation: summaries lose their history."""

    options = ("token_budget", "detach_probability")

    def carry(self, summary: Tensor) -> Tensor:
        """The summary, detached with `detach_probability`: one coin for the whole batch."""
        chance = self.config.detach_probability
        is_cut = torch.rand(()) < chance if 0 < chance < 1 else chance == 1
        return summary.detach() if is_cut else summary


class FullContext(Memo):
    """The whole trial is one segment that never closes: every raw step stays."""

    summarises = False


class WithinEpisode(FullContext):
    """No inter-episode attention: full context that begins again with every episode."""

    within_episode = True
    options = ()


_kinds: dict[str, type] = {}


def register(kind: str, memory: type) -> None:
    """Offer a class as `MemoryConfig.kind`, in this process, beside those that are there.

    memory: a variant of the transformer, derived from `Memo`, or a `torch.nn.Module` with the
        methods of `interface.TrialMemory`, constructed with the config. Its class attribute
        `options` names those of `PARTICULAR` that it takes; none unless given.

    A class need not be registered to be used as "package.module:Class".

    Raises:
        ValueError: the kind is another class's, or the class or an option is none.
    """
    if isinstance(memory, type) and issubclass(memory, Memo):
        if memory.within_episode and memory.summarises:
            raise ValueError(f"variant {memory.__name__}: within_episode needs summarises = False")
        allowed: tuple[str, ...] = ("detach_probability", "token_budget", "cuda_graphs")
    else:
        missing = [name for name in _METHODS if not callable(getattr(memory, name, None))]
        if missing or not (isinstance(memory, type) and issubclass(memory, nn.Module)):
            raise ValueError(
                f"memory {memory!r}: give a class derived from variants.Memo, or a torch module "
                f"with the methods of interface.TrialMemory"
                + ("; it lacks " + ", ".join(missing) if missing else "")
            )
        allowed = PARTICULAR
    # The cell of a notebook may run twice, a module be loaded again.
    held = _kinds.get(kind, memory)
    again = (held.__module__, held.__qualname__) == (memory.__module__, memory.__qualname__)
    if not kind or not again:
        raise ValueError(f"memory kind {kind!r} is taken or empty: choose a name of its own")
    unknown = sorted(set(getattr(memory, "options", ())) - set(allowed))
    if unknown:
        raise ValueError(f"options {', '.join(unknown)}: choose of {', '.join(allowed)}")
    _kinds[kind] = memory


def unregister(kind: str) -> None:
    """Withdraw what was registered as `kind`, if anything was."""
    _kinds.pop(kind, None)


def kinds() -> tuple[str, ...]:
    """Every kind of memory that is registered now."""
    return tuple(_kinds)


def memory_class(kind: str) -> type:
    """The class of a registered kind, or "package.module:Class"; UserError where there is none."""
    if kind not in _kinds and ":" in kind:
        module, _, name = kind.partition(":")
        try:
            register(kind, getattr(import_module(module), name))
        except (ImportError, AttributeError, ValueError) as error:
            raise UserError(
                f"memory kind {kind!r}: {error}; write package.module:Class, and put the folder of "
                "a module of your own on PYTHONPATH"
            ) from error
    if kind not in _kinds:
        raise UserError(
            f"memory kind {kind!r} is unknown: use one of {', '.join(kinds())}; one of your own is "
            "named as package.module:Class, or first by memo_habitat.memory.register(name, class)"
        )
    return _kinds[kind]


def is_transformer(kind: str) -> bool:
    """Whether the kind is a variant of the memory transformer."""
    return issubclass(memory_class(kind), Memo)


def takes(kind: str, option: str) -> bool:
    """Whether the option, one of `PARTICULAR`, means anything to this kind."""
    memory = memory_class(kind)
    options = set(getattr(memory, "options", ()))
    if issubclass(memory, Memo):
        options |= {"activation_checkpointing", "compile", "compile_acting"}
        # Passes within episodes depend on where these begin; what an own `carry` does is unknown.
        if not memory.within_episode and memory.carry in (Memo.carry, TruncatedGradient.carry):
            options.add("cuda_graphs")
        if memory.summarises:
            options |= {"summary_layer", "top_k", "memory_loss", "segment_jitter_in"}
    return option in options


def segment_lengths(config: MemoryConfig) -> range:
    """The lengths, in steps, that segments may have in training."""
    # 0.29 * 100 is a little below 29 in floating point.
    spread = math.floor(config.segment_jitter * config.segment_length + 1e-9)
    return range(config.segment_length - spread, config.segment_length + spread + 1)


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
    "segment_jitter_in": ("update", "update_with_recomputed_ratios", "trial"),
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
    drawn_in = config.segment_jitter_in
    if drawn_in != MemoryConfig.segment_jitter_in and len(segment_lengths(config)) == 1:
        raise UserError(
            f"memory segment_jitter_in={drawn_in} draws nothing, as with segment_jitter "
            f"{config.segment_jitter} every segment has {config.segment_length} steps: give more "
            f"jitter, or leave it at {MemoryConfig.segment_jitter_in}"
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


def check_variant(config: MemoryConfig) -> None:
    """Raise UserError where a variant cannot be made, or trains another memory than it acts with.

    That is told by one summary: it costs a training that begins nothing, and no random draw.
    """
    chosen = memory_class(config.kind)
    if not (issubclass(chosen, Memo) and chosen.summarises):
        return
    given = torch.linspace(-2, 2, config.summary_length * config.width)
    given = given.view(1, config.summary_length, config.width).requires_grad_()
    try:
        with torch.random.fork_rng(devices=()):
            carried = chosen(config).carry(given)
    except Exception as error:
        raise UserError(
            f"memory kind {config.kind!r} fails ({type(error).__name__}: {error}); note that a "
            "variant of Memo is no torch module and has no weights or buffers of its own"
        ) from error
    if not isinstance(carried, Tensor):
        wrong = repr(carried)
    elif carried.shape != given.shape:
        wrong = f"shape {tuple(carried.shape)}"
    elif carried.dtype != given.dtype or not torch.allclose(carried, given):
        wrong = "other values"
    else:
        return
    raise UserError(
        f"memory kind {config.kind!r}: carry() makes {wrong} of a summary {tuple(given.shape)}; "
        "acting feeds summaries in as they are, so that it may change their gradient alone"
    )


def check_recorded_training(config: MemoryConfig, device: torch.device) -> None:
    """Raise UserError where passes of a training that are recorded would not come again."""
    if not config.cuda_graphs:
        return
    if device.type != "cuda":
        raise UserError(
            f"memory cuda_graphs needs a GPU, and this training is on {device}: leave it off here"
        )
    lengths = len(segment_lengths(config)) if takes(config.kind, "segment_jitter_in") else 1
    if lengths > 1 and config.segment_jitter_in == MemoryConfig.segment_jitter_in:
        raise UserError(
            f"memory cuda_graphs records passes, of which hardly one comes again where each draws "
            f"one of {lengths} segment lengths: train with segment_jitter_in=trial or "
            "update_with_recomputed_ratios, or segment_jitter=0"
        )
    if takes(config.kind, "detach_probability") and 0 < config.detach_probability < 1:
        raise UserError(
            f"memory cuda_graphs records a pass with what it drew, and detach_probability "
            f"{config.detach_probability} draws in each: use 0 or 1, or leave cuda_graphs off"
        )


register("memo", Memo)
register("fct", FullContext)
register("rmt", NewestSummary)
register("ac", TruncatedGradient)
register("no_iea", WithinEpisode)
