"""Rotary positions (RoPE, arXiv 2104.09864): tables of angles, and turning by them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_BLOCK = 1024  # positions by which a table grows


class Rotation(NamedTuple):
    """Cosines and signed sines, broadcast against projections [B, T, 2, H, dh].

    cos, sin: [T, 1, 1, dh] where all rows share their positions, else [B, T, 1, 1, dh].
    """

    cos: Tensor
    sin: Tensor


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn each pair (x[i], x[i + dh/2]) by its position's angle; shape and dtype stay."""
    half = x.shape[-1] // 2
    turned = torch.addcmul(x * rotation.cos, x.roll(half, dims=-1), rotation.sin)
    return turned.to(x.dtype)


class RotaryTable:
    """Angles of all positions met so far, computed in double precision, kept in single.

    It is no module on purpose: converting the model to bfloat16 must not round them.
    """

    def __init__(self, head_dim: int, base: float) -> None:
        self._head_dim, self._base = head_dim, base
        self._tables: dict[torch.device, Rotation] = {}

    def span(self, start: int, count: int, device: torch.device) -> Rotation:
        """Rotation of the positions start .. start + count - 1, the same in all rows."""
        cos, sin = self._table(start + count, device)
        return Rotation(cos[start : start + count], sin[start : start + count])

    def at(self, positions: Tensor, highest: int) -> Rotation:
        """Rotation of the given positions, long [T] or [B, T], none above `highest`."""
        cos, sin = self._table(highest + 1, positions.device)
        return Rotation(cos[positions], sin[positions])

    def _table(self, count: int, device: torch.device) -> Rotation:
        table = self._tables.get(device)
        if table is None or len(table.cos) < count:
            # Twice as many each time: computing them stays a constant share of a step.
            known = 0 if table is None else len(table.cos)
            table = self._compute(max(2 * known, -(-count // _BLOCK) * _BLOCK), device)
            self._tables[device] = table
        return table

    @torch.inference_mode(False)  # a table made while acting serves training passes too
    def _compute(self, count: int, device: torch.device) -> Rotation:
        # On the device itself: a copy to it would make an acting step wait for the GPU.
        exponents = torch.arange(0, self._head_dim, 2, dtype=torch.float64, device=device)
        positions = torch.arange(count, dtype=torch.float64, device=device)
        angles = torch.outer(positions, self._base ** (-exponents / self._head_dim))[:, None, None]
        cos, sin = angles.cos(), angles.sin()
        return Rotation(
            torch.cat([cos, cos], dim=-1).float(),
            torch.cat([-sin, sin], dim=-1).float(),
        )
