"""The buffers behind a cache: one slot per token, allocated ahead in blocks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from memo_habitat.memory.attention import Sink
from memo_habitat.memory.rotary import Rotation, rotate

_BLOCK = 256  # slots by which all rows grow together


@dataclass(frozen=True)
class CacheShape:
    """Sizes of a cache: L layers, N environments, H heads of dh features.

    inputs: width of what is recorded of each token besides, 0 for nothing; and its type.
    """

    layers: int
    batch: int
    heads: int
    head_dim: int
    inputs: int = 0
    inputs_dtype: torch.dtype = torch.float32


class Slots:
    """Keys and values [N, H, slots, dh] per layer, and which slots each row may see.

    Slot 0 is the attention sink's, slot 1 + p that of the token at position p.
    bias: [N, slots], 0 where a row's slot is in use and -inf where not: an attention mask for
    rows of different lengths that is kept up to date instead of being made in every step.
    inputs: [N, slots, inputs], what each token was at the bottom of the stack.
    """

    def __init__(self, shape: CacheShape, device: torch.device, dtype: torch.dtype) -> None:
        self._shape = shape
        self._count = 0
        self._empty = torch.empty(0, device=device, dtype=dtype)
        self.keys: list[Tensor] = [self._empty] * shape.layers
        self.values: list[Tensor] = [self._empty] * shape.layers
        self.bias: Tensor = self._empty
        self.inputs: Tensor = self._empty.to(shape.inputs_dtype)
        self.reserve(0)

    @property
    def dtype(self) -> torch.dtype:
        """Element type of keys and values."""
        return self._empty.dtype

    @property
    def device(self) -> torch.device:
        """Where the buffers live."""
        return self._empty.device

    def nbytes(self) -> int:
        """Bytes allocated, over all rows and layers."""
        return sum(part.nbytes for part in (*self.keys, *self.values, self.bias, self.inputs))

    @torch.inference_mode(False)  # what is allocated while acting is written to outside of it too
    def reserve(self, tokens: int) -> None:
        """Grow, layer by layer, until every row has room for the sink and `tokens` tokens."""
        if tokens < self._count:
            return
        self._count = (tokens // _BLOCK + 1) * _BLOCK
        for parts in (self.keys, self.values):
            for layer, part in enumerate(parts):
                parts[layer] = self._grown(
                    part, self._shape.heads, self._count, self._shape.head_dim
                )
        self.inputs = self._grown(self.inputs, self._count, self._shape.inputs)
        bias = self._empty.new_full((self._shape.batch, self._count), -torch.inf)
        bias[:, :1] = 0
        if self.bias.numel():
            bias[:, : self.bias.shape[1]] = self.bias
        self.bias = bias

    def _grown(self, part: Tensor, *sizes: int) -> Tensor:
        """`part` [N, ..., fewer slots, features] with room for more; zeros, because an unused slot
        is multiplied by an attention weight of 0."""
        grown = part.new_zeros(self._shape.batch, *sizes)
        if part.numel():
            grown[..., : part.shape[-2], :] = part
        return grown

    def move(self, rows: slice, start: int, stop: int, to: int) -> None:
        """Move the slots start .. stop - 1 of `rows` to the front, so that the first is `to`."""
        target = slice(to, to + stop - start)
        for part in (*self.keys, *self.values):
            part[rows, :, target] = part[rows, :, start:stop].clone()

    def turn_back(self, rows: slice, stop: int, rotation: Rotation) -> None:
        """Turn the keys of `rows` before slot `stop`, the sink's not, by `rotation` backwards."""
        cos, sin = rotation.cos[0, 0], -rotation.sin[0, 0]
        for part in self.keys:
            part[rows, :, 1:stop] = rotate(part[rows, :, 1:stop], Rotation(cos, sin))

    @torch.inference_mode(False)  # as in `reserve`
    def repeat(self, other: Slots, times: int) -> None:
        """Take over the rows of `other`, each `times` times in a row; the shape allows for it."""
        self._count = other._count
        for own, theirs in ((self.keys, other.keys), (self.values, other.values)):
            own[:] = [part.repeat_interleave(times, dim=0) for part in theirs]
        self.bias = other.bias.repeat_interleave(times, dim=0)
        self.inputs = other.inputs.repeat_interleave(times, dim=0)

    def clear(self, row: int) -> None:
        """Make a row zeros: what is not finite would stay so under an attention weight of 0."""
        for part in (*self.keys, *self.values):
            part[row] = 0

    def write_sink(self, layer: int, rows: slice, sink: Sink) -> None:
        """Fill slot 0; done whenever a row begins, because an update changes the parameters."""
        self.keys[layer][rows, :, :1] = sink.key
        self.values[layer][rows, :, :1] = sink.value
