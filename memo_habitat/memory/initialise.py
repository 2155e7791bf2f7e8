"""Starting values: every projection keeps the variance, every residual branch starts small."""

from __future__ import annotations

import math

from torch import nn

from memo_habitat.memory.attention import Attention
from memo_habitat.memory.block import GatedMLP

SMALL = 0.02


def initialise(model: nn.Module, layers: int) -> None:
    """Draw the projections and sinks of `model`; its 2 * layers branches sum to order 1."""
    branch_scale = 1 / math.sqrt(2 * layers)
    for module in model.modules():
        if isinstance(module, Attention):
            _draw(module.qkv)
            _draw(module.out, branch_scale)
            nn.init.normal_(module.sink_key, std=SMALL)
        elif isinstance(module, GatedMLP):
            _draw(module.gate_up)
            _draw(module.down, branch_scale)


def _draw(linear: nn.Linear, scale: float = 1.0) -> None:
    nn.init.normal_(linear.weight, std=scale / math.sqrt(linear.in_features))
