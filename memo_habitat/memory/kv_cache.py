"""Keys and values of the tokens that later tokens attend to in acting, without gradients.

As `DifferentiableKV` in training it is a `Context`: the caller opens a pass with `begin`, and every
layer then hands in the keys and values of the new tokens and gets their attention back. What is
held and where is nobody else's concern.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from memo_habitat.config.memory import MemoryConfig
from memo_habitat.memory.attention import (
    RotaryTable,
    Rotation,
    Sink,
    causal_attention,
    top_k_mask,
)
from memo_habitat.memory.interface import check_environments, check_reset
from memo_habitat.memory.static_step import StepContext, keep_in_place

_BLOCK = 256  # slots by which the cache grows, in all rows together


@dataclass(frozen=True)
class _Pass:
    """Where the tokens of a pass through the cache go, and what they see."""

    rows: slice  # that are appended to
    slots: slice | Tensor  # of the new tokens, a slice where the rows have one length, else [N, C]
    end: int  # slots that are looked at
    begins: bool  # whether a row had no token before


class KVCache:
    """Of N environments in acting: a stack of tokens each, without gradients.

    A row holds the summaries in order and then the current segment's steps; `begin` appends at its
    end, `truncate` cuts its end off. Slot 0 of the buffers is the sink's, slot 1 + p that of the
    token at position p. Rows differ in length where environments were reset at different steps.
    Lengths are bookkept on the CPU, so that no step waits for a GPU.

    token_dtype: type of the tokens as they come in, which are kept where a budget may drop some, or
        with `record`.
    """

    def __init__(
        self,
        config: MemoryConfig,
        batch: int,
        device: torch.device | str,
        dtype: torch.dtype,
        token_dtype: torch.dtype,
        record: bool = False,
    ) -> None:
        check_environments(batch)
        self.batch, self.dtype, self.device = batch, dtype, torch.device(device)
        #: Looks at the attention of environment steps, see `attention_probe`.
        self.probe: Any = None
        self._config, self._segment_length = config, config.segment_length
        #: Whether steps are compiled; it then grows by halves, for few shapes.
        self.is_compiled = config.compile_acting
        self._lengths, self._summaries, self._steps = ([0] * batch for _ in range(3))
        # Of each layer keys and values, [2, N, H, slots, dh].
        shape = 2, batch, config.heads, 0, config.width // config.heads
        self._layers = [torch.empty(shape, device=device, dtype=dtype)] * config.layers
        # 0 where a row's slot is in use and -inf where not: the attention mask of rows of different
        # lengths, kept up to date instead of being made in every step.
        self._bias = torch.empty(batch, 0, device=device, dtype=dtype)
        self._records = record or bool(config.token_budget)
        recorded = config.width if self._records else 0
        self._tokens = torch.empty(batch, 0, recorded, device=device, dtype=token_dtype)
        self._every_row = torch.arange(batch, device=device)[:, None]
        self._reserve(0)
        self._pass = _Pass(slice(0, batch), slice(0, 0), end=0, begins=True)

    # What it holds ------------------------------------------------------------------------------

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

    def bytes_in_use(self) -> Tensor:
        """Bytes of their keys and values: 2 * L * D * tokens * bytes per element, [N] long."""
        per_token = 2 * self._config.layers * self._config.width * self.dtype.itemsize
        return per_token * self.tokens_in_use()

    def allocated_bytes(self) -> int:
        """Bytes of everything allocated, over all rows."""
        return sum(buffer.nbytes for buffer in (*self._layers, self._bias, self._tokens))

    def keys(self, layer: int) -> Tensor:
        """The sink's and the tokens' keys, [N, H, slots, dh]; to look at, not to keep."""
        return self._layers[layer][0]

    @property
    def segment_length(self) -> int:
        """Steps after which segments close: S, unless another length is set before the first."""
        return self._segment_length

    @segment_length.setter
    def segment_length(self, steps: int) -> None:
        if steps < 1 or (any(self._steps) and steps != self._segment_length):
            raise ValueError(
                f"segments of {steps} steps, for {self._segment_length}: the length is at least 1 "
                "and changes between trials only, reset all rows first"
            )
        self._segment_length = steps

    def length(self, rows: slice) -> int:
        """Tokens held by each of `rows`, which agree, as those of one of `runs` do."""
        return int(self._lengths[rows.start])

    def summary_tokens(self, rows: slice) -> int:
        """Summary tokens held by each of them."""
        return int(self._summaries[rows.start])

    def recorded(self, rows: slice, places: slice) -> Tensor:
        """The tokens at the given places of the stacks as they came in, [n, places, D]."""
        return self._tokens[rows, 1 + places.start : 1 + places.stop].clone()

    def runs(self) -> list[tuple[slice, int]]:
        """Neighbouring rows in the same place of their trials: (rows, steps since their reset)."""
        found, start = [], 0
        for steps, group in groupby(self._steps):
            stop = start + len(list(group))
            found.append((slice(start, stop), steps))
            start = stop
        return found

    # A pass -------------------------------------------------------------------------------------

    def begin(self, rows: slice, tokens: Tensor) -> KVCache:
        """Open a pass that appends tokens [n, C, D] to `rows`.

        Rows of different lengths are appended to in the lockstep of acting, one token to every
        row; otherwise `rows` must agree, as those of one of `runs` do.
        """
        count, lengths = tokens.shape[1], self._lengths[rows]
        if len(set(zip(lengths, self._summaries[rows], strict=True))) > 1:
            if count != 1 or len(lengths) != self.batch:
                raise ValueError(
                    f"rows {rows} have different lengths {lengths}: append to them by `runs`"
                )
            return self.begin_ragged(tokens, [1] * self.batch)
        # The common case, also in lockstep: slots are a slice, and no mask is needed.
        start, stop = lengths[0], lengths[0] + count
        self._reserve(stop)
        self._lengths[rows] = [stop] * len(lengths)
        slots = slice(1 + start, 1 + stop)
        self._bias[rows, slots] = 0
        if self._records:
            self._tokens[rows, slots] = tokens
        self._pass = _Pass(rows, slots, end=1 + stop, begins=start == 0)
        return self

    def begin_ragged(self, tokens: Tensor, counts: Sequence[int]) -> KVCache:
        """Open a pass that appends to row i the first `counts[i]` of its tokens [N, C, D].

        The others are written and forgotten. All rows look at as many slots as the longest, on a
        GPU at all that are allocated: for each shape a kernel may have to be made there.
        """
        before, count = self._lengths, tokens.shape[1]
        self._reserve(max(before) + count)
        self._lengths = [length + new for length, new in zip(before, counts, strict=True)]
        # Not blocking: otherwise the step would wait for all that the GPU has still to do.
        held, new = torch.tensor([before, list(counts)]).to(self.device, non_blocking=True)
        offsets = torch.arange(count, device=self.device)
        slots = 1 + held[:, None] + offsets
        kept = (offsets < new[:, None]).to(self.dtype)
        # 0 or -inf; autocast computes logarithms in single precision.
        self._bias[self._every_row, slots] = kept.log().to(self.dtype)
        if self._records:
            self._tokens[self._every_row, slots] = tokens
        end = 1 + max(before) + count
        if self.device.type == "cuda":
            end = self._bias.shape[1]
        self._pass = _Pass(slice(0, self.batch), slots, end, begins=min(before) == 0)
        return self

    def begin_step(self, tokens: Tensor, table: RotaryTable, sinks: Iterable[Sink]) -> StepContext:
        """The context of a pass that appends one token to every row, [N, 1, D]."""
        lengths = self._lengths
        self._reserve(max(lengths) + 1)
        if min(lengths) == 0:  # with every trial: an update changes the parameters
            for layer, (key, value) in zip(self._layers, sinks, strict=True):
                layer[0, :, :, :1], layer[1, :, :, :1] = key, value
        self._lengths = [length + 1 for length in lengths]
        # Not blocking: otherwise the step would wait for all that the GPU has still to do.
        now = torch.tensor([lengths, self._summaries]).to(self.device, non_blocking=True)
        positions, summaries = now[:, :, None].unbind()
        places = self._every_row, 1 + positions
        if self._records:
            self._tokens[places] = tokens
        turned, top_k = table.at(positions, highest=self._bias.shape[1]), self._config.top_k
        held = summaries if top_k else None
        return StepContext(self._layers, self._bias, places, turned, held, top_k)

    def rotation(self, table: RotaryTable) -> Rotation:
        """A token's position is its place behind the sink, in each row."""
        slots = self._pass.slots
        if isinstance(slots, slice):
            return table.span(slots.start - 1, slots.stop - slots.start, self.device)
        return table.at(slots - 1, highest=self._bias.shape[1])

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, sink: Sink) -> Tensor:
        """Attention as `Context.attend` says, computed in the cache's dtype."""
        now = self._pass
        keys, values = self._layers[layer][:, now.rows].unbind()
        for held, new, first in ((keys, k, sink.key), (values, v, sink.value)):
            if now.begins:  # with every trial: an update changes the parameters
                held[:, :, :1] = first
            if isinstance(now.slots, slice):
                held[:, :, now.slots] = new
            else:
                held[self._every_row, :, now.slots] = new.transpose(1, 2).to(self.dtype)
        if q.shape[2] == 0:
            return q
        keys, values = keys[:, :, : now.end], values[:, :, : now.end]
        # Autocast would copy the whole history to its own dtype in every step.
        with torch.autocast(q.device.type, enabled=False):
            low = q.to(self.dtype)
            return causal_attention(low, keys, values, self._mask(low, keys)).to(q.dtype)

    def _mask(self, q: Tensor, k: Tensor) -> Tensor | None:
        """What the new tokens see; None where `causal_attention` knows from the shapes."""
        now, held = self._pass, self._summaries[self._pass.rows]
        is_aligned, retrieves = isinstance(now.slots, slice), self._config.top_k and any(held)
        if is_aligned and not retrieves:
            return None
        if q.shape[2] == 1 and not retrieves:
            return self._bias[:, None, None, : now.end]
        every = torch.arange(now.end, device=self.device)
        own = every[now.slots][None] if isinstance(now.slots, slice) else now.slots
        visible = every <= own[:, None, :, None]  # [N or 1, 1, C, slots]
        if not retrieves:
            return visible
        summaries = torch.tensor(held).to(self.device, non_blocking=True)[:, None, None, None]
        candidates = (every >= 1) & (every <= summaries)
        return top_k_mask(q, k, candidates, self._config.top_k, visible)

    # Between passes -----------------------------------------------------------------------------

    def truncate(self, rows: slice, length: int) -> None:
        """Forget all but the first `length` tokens of `rows`, which hold at least as many."""
        for row in range(rows.start, rows.stop):
            self._lengths[row] = length
            self._summaries[row] = min(self._summaries[row], length)
        # Keys and values stay where they are: they are masked, and written over in time.
        self._bias[rows, 1 + length :] = -torch.inf

    def mark_summaries(self, rows: slice) -> None:
        """Note that all that `rows` hold are summary tokens."""
        self._summaries[rows] = self._lengths[rows]

    def count_steps(self, rows: slice, count: int) -> None:
        """Note that the last `count` tokens appended to `rows` were environment steps."""
        for row in range(rows.start, rows.stop):
            self._steps[row] += count

    def forget(self, rows: list[int]) -> None:
        """Let go of what these rows hold, while their trials go on."""
        for row in rows:
            self.truncate(slice(row, row + 1), 0)

    def reset(self, which: Tensor) -> None:
        """Empty the rows where `which` ([N] bool) holds; what is allocated stays for reuse."""
        check_reset(which, self.batch)
        rows: list[int] = which.nonzero().flatten().tolist()
        self.forget(rows)
        for row in rows:
            self._steps[row] = 0
            for layer in self._layers:
                layer[:, row] = 0  # what is not finite would stay so under a weight of 0

    @torch.inference_mode(False)  # what is allocated while acting is written to outside of it too
    def repeated(self, times: int) -> KVCache:
        """A cache in which each row stands `times` times: trials that go on in different ways."""
        other = copy(self)
        other.batch = times * self.batch
        for name in ("_lengths", "_summaries", "_steps"):
            setattr(other, name, [value for value in getattr(self, name) for _ in range(times)])
        other._layers = [layer.repeat_interleave(times, dim=1) for layer in self._layers]
        other._every_row = torch.arange(other.batch, device=self.device)[:, None]
        other._bias = self._bias.repeat_interleave(times, dim=0)
        other._tokens = self._tokens.repeat_interleave(times, dim=0)
        other._mark()
        return other

    @torch.inference_mode(False)
    def _reserve(self, tokens: int) -> None:
        """Grow, layer by layer, until every row has room for the sink and `tokens` tokens."""
        if tokens < self._bias.shape[1]:
            return
        if self.is_compiled:
            tokens = max(tokens, self._bias.shape[1] * 3 // 2)
        more = (tokens // _BLOCK + 1) * _BLOCK - self._bias.shape[1]
        # An unused slot is multiplied by an attention weight of 0: it must be finite.
        for layer, buffer in enumerate(self._layers):
            self._layers[layer] = pad(buffer, (0, 0, 0, more))
        self._tokens = pad(self._tokens, (0, 0, 0, more))
        self._bias = pad(self._bias, (0, more), value=-torch.inf)
        self._bias[:, 0] = 0  # the sink's
        self._mark()

    def _mark(self) -> None:
        """Tell a compiler of the buffers that steps write to."""
        if self.is_compiled:
            for layer in self._layers:
                keep_in_place(layer, slots=3)
            keep_in_place(self._bias, slots=1)
