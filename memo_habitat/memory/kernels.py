"""Attention in parts: over several sets of keys one after the other, exact in the end.

Each part gives its output and the logarithm of its softmax's denominator; two parts merge into the
attention over both sets. In the backward pass every part takes the merged values and gives its own
share of the gradients (as in ring attention, arXiv 2310.01889). A part is one call of PyTorch's
flash attention, so that no mask and no matrix of scores is ever made.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

_ATEN = torch.ops.aten
_FORWARD: Any = getattr(_ATEN, "_scaled_dot_product_flash_attention_for_cpu", None)
_BACKWARD: Any = getattr(_ATEN, "_scaled_dot_product_flash_attention_for_cpu_backward", None)
_hidden = False


class Part(NamedTuple):
    """output: [B, H, Tq, dh]; log_sum: [B, H, Tq], log of the sum of exp(scores)."""

    output: Tensor
    log_sum: Tensor


class Gradients(NamedTuple):
    """Of a part's queries [B, H, Tq, dh], keys and values [B, H, Tk, dh]."""

    q: Tensor
    k: Tensor
    v: Tensor


def available(q: Tensor) -> bool:
    """Whether this PyTorch has the kernel for such queries."""
    missing = _FORWARD is None or _BACKWARD is None or _hidden
    return q.device.type == "cpu" and not missing


@contextmanager
def hidden() -> Iterator[None]:
    """Compute in here as devices do that lack the kernel."""
    global _hidden  # noqa: PLW0603
    before, _hidden = _hidden, True
    try:
        yield
    finally:
        _hidden = before


def attend(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Part:
    """One part: all queries to all keys, or, of as many keys, each to those up to its own place."""
    return Part(*_FORWARD(q, k, v, 0.0, causal))


def merge(first: Part, second: Part) -> Part:
    """The attention over the keys of both; reuses the memory of the first."""
    share = torch.sigmoid(second.log_sum - first.log_sum).unsqueeze(-1).to(second.output.dtype)
    output = first.output.lerp_(second.output, share)
    return Part(output, torch.logaddexp(first.log_sum, second.log_sum))


def gradients(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, whole: Part, causal: bool
) -> Gradients:
    """A part's share of the gradients, given those of the merged output [B, H, Tq, dh]."""
    return Gradients(*_BACKWARD(grad, q, k, v, whole.output, whole.log_sum, 0.0, causal))
