"""What acting remembers of the trial so far: one stack of tokens per environment."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from typing import Protocol

import torch
from torch import Tensor

from memo_habitat.config.memory import MemoryConfig
from memo_habitat.memory.attention import Context
from memo_habitat.memory.cached_pass import RaggedPass, TogetherPass
from memo_habitat.memory.rotary import RotaryTable
from memo_habitat.memory.slots import CacheShape, Slots


class AttentionObserver(Protocol):
    """Looks at where the queries of acting steps attend, see `inspection`."""

    def watch(self, context: Context, cache: Cache, config: MemoryConfig) -> Context:
        """The context of a step that is about to be taken, with the same effect."""


class Cache:
    """Per environment a stack of tokens: passes append at its end, `truncate` cuts its end off.

    A segment closes by cutting off its raw steps and appending its summary, so that a row always
    holds the summaries in order and then the current segment's steps. A token's position is
    its place in the stack plus `first_position`. Rows differ in length when environments were
    reset at different steps. Bookkeeping is on the CPU; keys and values are never differentiated.
    """

    def __init__(
        self,
        shape: CacheShape,
        device: torch.device,
        dtype: torch.dtype,
        first_position: int = 0,
        top_k: int = 0,
    ) -> None:
        self.shape = shape
        self._first_position, self._top_k = first_position, top_k
        self.observer: AttentionObserver | None = None
        self._slots = Slots(shape, device, dtype)
        self._lengths = [0] * shape.batch
        self._summaries = [0] * shape.batch  # leading tokens that are summaries'
        self._steps = [0] * shape.batch

    @property
    def steps(self) -> Tensor:
        """Environment steps since each row's reset, [N] long."""
        return torch.tensor(self._steps)

    def tokens_in_use(self) -> Tensor:
        """Tokens that each row attends to, the sink not counted, [N] long."""
        return torch.tensor(self._lengths)

    def summary_tokens_in_use(self) -> Tensor:
        """How many of them, the leading ones, are summaries', [N] long."""
        return torch.tensor(self._summaries)

    def keys(self, layer: int) -> Tensor:
        """The sink's and the tokens' keys, [N, H, slots, dh]; to look at, not to keep."""
        return self._slots.keys[layer]

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
            self._slots.clear(row)

    def repeated(self, times: int) -> Cache:
        """A cache in which each row stands `times` times: trials that go on in different ways."""
        shape = replace(self.shape, batch=times * self.shape.batch)
        slots = self._slots
        other = Cache(shape, slots.device, slots.dtype, self._first_position, self._top_k)
        other._slots.repeat(slots, times)
        for own, theirs in (
            (self._lengths, other._lengths),
            (self._summaries, other._summaries),
            (self._steps, other._steps),
        ):
            theirs[:] = [value for value in own for _ in range(times)]
        return other

    def length(self, rows: slice) -> int:
        """Tokens held by each of `rows`, which agree."""
        return self._agreed(self._lengths, rows)

    def summary_tokens(self, rows: slice) -> int:
        """Summary tokens held by each of `rows`, which agree."""
        return self._agreed(self._summaries, rows)

    def mark_summaries(self, rows: slice) -> None:
        """Note that all that `rows` hold are summary tokens."""
        self._summaries[rows] = self._lengths[rows]

    def truncate(self, rows: slice, length: int) -> None:
        """Forget all but the first `length` tokens of `rows`, which hold at least as many."""
        for row in range(rows.start, rows.stop):
            self._lengths[row] = length
            self._summaries[row] = min(self._summaries[row], length)
        self._slots.bias[rows, 1 + length :] = -torch.inf

    def cut(self, rows: slice, start: int, stop: int) -> None:
        """Forget the tokens start .. stop - 1 of `rows`; those behind them close up.

        Their keys stay turned as they are: a caller for whom that matters turns them.
        """
        self._slots.move(rows, 1 + stop, 1 + self.length(rows), 1 + start)
        self.truncate(rows, self.length(rows) - (stop - start))

    def drop_oldest(self, rows: slice, count: int, table: RotaryTable) -> None:
        """Forget the first `count` tokens of `rows`, whose others move up by as many positions."""
        self.cut(rows, 0, count)
        self._slots.turn_back(rows, 1 + self.length(rows), table.span(count, 1, self._slots.device))

    def record(self, rows: slice, tokens: Tensor) -> None:
        """Keep what the last tokens appended to `rows` were at the bottom of the stack, if asked.

        tokens: [n, C, D].
        """
        if not self.shape.inputs:
            return
        for row, new in zip(range(rows.start, rows.stop), tokens, strict=True):
            end = 1 + self._lengths[row]
            self._slots.inputs[row, end - len(new) : end] = new

    def recorded(self, rows: slice, places: slice) -> Tensor:
        """What was recorded for the given places of the stacks, [n, places, D]."""
        return self._slots.inputs[rows, 1 + places.start : 1 + places.stop].clone()

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

    def append(self, rows: slice, count: int, behind_summaries: bool = False) -> Context:
        """Open a pass that appends `count` tokens to each of `rows`.

        Rows of different lengths are appended to together only in the lockstep of acting, one
        token to every row; otherwise `rows` must agree, as those of one of `runs` do.
        behind_summaries: the tokens take the positions that follow the summaries'.
        """
        lengths = self._lengths[rows]
        unlike = len(set(lengths)) > 1 or (self._top_k and len(set(self._summaries[rows])) > 1)
        if unlike:
            if count != 1 or len(lengths) != self.shape.batch:
                raise ValueError(
                    f"rows {rows} have different lengths {lengths}: append them by `runs`"
                )
            return self.append_unequal([1] * len(lengths))
        self._slots.reserve(lengths[0] + count)
        self._lengths[rows] = [length + count for length in lengths]
        position = lengths[0] + self._first_position
        if behind_summaries:
            position = self.summary_tokens(rows)
        candidates = self.summary_tokens(rows) if self._top_k else 0
        return TogetherPass(self._slots, rows, lengths[0], count, position, candidates, self._top_k)

    def append_unequal(self, counts: list[int]) -> Context:
        """Open a pass that appends to row i `counts[i]` tokens, the first ones of max(counts)."""
        lengths = list(self._lengths)
        self._slots.reserve(max(lengths) + max(counts))
        self._lengths = [length + count for length, count in zip(lengths, counts, strict=True)]
        summaries = self._summaries if self._top_k else None
        return RaggedPass(
            self._slots, lengths, counts, self._first_position, summaries, self._top_k
        )

    def _agreed(self, values: list[int], rows: slice) -> int:
        found = set(values[rows])
        if len(found) > 1:
            raise ValueError(f"rows {rows} differ: {values[rows]}")
        return found.pop()
