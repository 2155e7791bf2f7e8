"""What acting remembers of the trial so far: one stack of tokens per environment."""

from __future__ import annotations

from itertools import groupby

import torch
from torch import Tensor

from memo_habitat.memory.attention import Context
from memo_habitat.memory.cached_pass import RaggedPass, TogetherPass
from memo_habitat.memory.slots import CacheShape, Slots


class Cache:
    """Per environment a stack of tokens: passes append at its end, `truncate` cuts its end off.

    A token's position is its place in the stack. A segment closes by cutting off its raw steps
    and appending its summary, so that a row always holds the summaries in order and then the
    current segment's steps. Rows differ in length when environments were reset at different
    steps. Bookkeeping is on the CPU; keys and values are never differentiated.
    """

    def __init__(self, shape: CacheShape, device: torch.device, dtype: torch.dtype) -> None:
        self.shape = shape
        self._slots = Slots(shape, device, dtype)
        self._lengths = [0] * shape.batch
        self._steps = [0] * shape.batch

    @property
    def steps(self) -> Tensor:
        """Environment steps since each row's reset, [N] long."""
        return torch.tensor(self._steps)

    def tokens_in_use(self) -> Tensor:
        """Tokens that each row attends to, the sink not counted, [N] long."""
        return torch.tensor(self._lengths)

    def bytes_in_use(self) -> Tensor:
        """Bytes of their keys and values: 2 * L * D * tokens * bytes per element, [N] long."""
        shape = self.shape
        elements = 2 * shape.layers * shape.heads * shape.head_dim
        return elements * self._slots.dtype.itemsize * self.tokens_in_use()

    def allocated_bytes(self) -> int:
        """Bytes of everything allocated, over all rows."""
        return self._slots.nbytes()

    def reset(self, which: Tensor) -> None:
        """Empty the rows where `which` ([N] bool) holds; what is allocated stays for reuse."""
        if which.shape != (self.shape.batch,) or which.dtype != torch.bool:
            raise ValueError(
                f"reset takes a bool tensor of shape [{self.shape.batch}], "
                f"got {which.dtype} of shape {list(which.shape)}"
            )
        for row in which.nonzero().flatten().tolist():
            self._steps[row] = 0
            self.truncate(slice(row, row + 1), 0)

    def truncate(self, rows: slice, length: int) -> None:
        """Forget all but the first `length` tokens of `rows`, which hold at least as many."""
        for row in range(rows.start, rows.stop):
            self._lengths[row] = length
        self._slots.bias[rows, 1 + length :] = -torch.inf

    def count_steps(self, rows: slice, count: int) -> None:
        """Note that the last `count` tokens appended to `rows` were environment steps."""
        for row in range(rows.start, rows.stop):
            self._steps[row] += count

    def runs(self) -> list[tuple[slice, int]]:
        """Neighbouring rows in the same place of their trials: (rows, steps since their reset)."""
        found, start = [], 0
        for steps, group in groupby(self._steps):
            stop = start + len(list(group))
            found.append((slice(start, stop), steps))
            start = stop
        return found

    def append(self, rows: slice, count: int) -> Context:
        """Open a pass that appends `count` tokens to each of `rows`.

        Rows of different lengths are appended to together only in the lockstep of acting, one
        token to every row; otherwise `rows` must agree, as those of one of `runs` do.
        """
        lengths = self._lengths[rows]
        self._slots.reserve(max(lengths) + count)
        self._lengths[rows] = [length + count for length in lengths]
        if len(set(lengths)) == 1:
            return TogetherPass(self._slots, rows, lengths[0], count)
        if count != 1 or len(lengths) != self.shape.batch:
            raise ValueError(f"rows {rows} have different lengths {lengths}: append them by `runs`")
        return RaggedPass(self._slots, lengths)
