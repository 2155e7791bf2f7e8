"""What the kernel of an LSTM's layer keeps and needs meanwhile, of which fake tensors tell nothing.

Measured of oneDNN, which computes LSTMs on a CPU; a plan for a GPU counts the same.
"""

from __future__ import annotations

import math
from typing import Any

import torch

LAYER = torch.ops.aten.mkldnn_rnn_layer.default
LAYER_BACKWARD = torch.ops.aten.mkldnn_rnn_layer_backward.default
# Per step and unit. Kept for the backward pass: gates, states and room for the gradients of states,
# 15.3 to 15.9 numbers with the padding of rows. Meanwhile: the gates.
_KEPT, _MEANWHILE = 15.5, 4


def with_workspace(func: Any, result: Any) -> Any:
    """The fake result of `func`; of `LAYER` with what it keeps for backward as the last tensor."""
    if func is not LAYER or not torch.is_grad_enabled():
        return result
    *outputs, empty = result
    return *outputs, empty.new_empty(math.ceil(_KEPT * outputs[0].nbytes))


def meanwhile_bytes(func: Any, args: Any) -> int:
    """Bytes that `func` allocates and frees within itself; 0 where it is no layer of an LSTM.

    args: of `func`; the first is the input [T, B, D].
    """
    return _MEANWHILE * int(args[0].nbytes) if func in (LAYER, LAYER_BACKWARD) else 0
