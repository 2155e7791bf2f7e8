"""The contexts of training passes that take a whole trial at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from memo_habitat.memory.attention import Sink
from memo_habitat.memory.ledger import Pass, new_ledger
from memo_habitat.memory.rotary import RotaryTable, Rotation


class SegmentsAtOnce:
    """All segments with the queries behind each of them, where keys and values are the memory.

    A segment sees the places of the queries of all segments before it, and itself causally. The
    queries of segment k have the positions k M .., its steps those from (k + 1) M: a place is
    seen at the position at which it was made.

    lengths: steps of each segment; the last one has no queries. summary: M.
    """

    def __init__(
        self, lengths: Sequence[int], summary: int, device: torch.device, top_k: int
    ) -> None:
        self._summary, self._top_k = summary, top_k
        self._sizes = [*(steps + summary for steps in lengths[:-1]), lengths[-1]]
        positions: list[int] = []
        for index, steps in enumerate(lengths):
            base = index * summary
            positions += range(base + summary, base + summary + steps)
            if index + 1 < len(lengths):
                positions += range(base, base + summary)
        self._highest = max(positions)
        self._positions = torch.tensor(positions, device=device)

    def rotation(self, table: RotaryTable) -> Rotation:
        """Rotation of every token's position."""
        return table.at(self._positions, self._highest)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, sink: Sink) -> Tensor:
        """Attention as `Context.attend` says."""
        ledger = new_ledger(q, 1 + (len(self._sizes) - 1) * self._summary, self._top_k)
        outputs = []
        segments = zip(*(torch.split(x, self._sizes, dim=2) for x in (q, k, v)), strict=True)
        for index, (own_q, own_k, own_v) in enumerate(segments):
            size = self._sizes[index]
            held = 1 + index * self._summary
            final = index + 1 == len(self._sizes)
            kept = slice(size if final else size - self._summary, size)
            outputs.append(ledger.attend(own_q, own_k, own_v, sink, Pass(held, kept)))
        return torch.cat(outputs, dim=2)


class Episodes:
    """Attention inside each episode only, episodes of like lengths packed into one batch.

    starts: bool [B, T], True at the first step of an episode. Positions begin anew there.
    """

    def __init__(self, starts: Tensor) -> None:
        self._steps = starts.shape[1]
        steps = torch.arange(self._steps, device=starts.device)
        first = torch.where(starts, steps, 0).cummax(dim=1).values
        self._positions = steps - first
        self._batches = [_Packed(group, starts.device) for group in _by_length(starts)]
        order = torch.cat([batch.places for batch in self._batches])
        self._back = torch.argsort(order)

    def rotation(self, table: RotaryTable) -> Rotation:
        """Rotation of every step's position."""
        return table.at(self._positions, self._steps)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, sink: Sink) -> Tensor:
        """Attention as `Context.attend` says."""
        flat = [x.transpose(1, 2).flatten(0, 1) for x in (q, k, v)]
        packed = torch.cat([batch.attend(flat, sink) for batch in self._batches])
        trials = packed[self._back].view(len(q), self._steps, *packed.shape[1:])
        return trials.transpose(1, 2)


class _Packed:
    """Episodes [E] as rows of one batch, padded to the longest; (first, last + 1) flat steps.

    Padding needs no mask: it stands behind the episode's steps, where nothing causal looks.
    """

    def __init__(self, episodes: list[tuple[int, int]], device: torch.device) -> None:
        longest = max(stop - start for start, stop in episodes)
        first, end = torch.tensor(episodes, device=device).unbind(1)
        index = first[:, None] + torch.arange(longest, device=device)
        self._index = index.minimum(end[:, None] - 1)
        self._real = index < end[:, None]
        self.places = index[self._real]

    def attend(self, flat: list[Tensor], sink: Sink) -> Tensor:
        """flat: queries, keys and values [B * T, H, dh]. Returns those of `places`."""
        q, k, v = (x[self._index].transpose(1, 2) for x in flat)
        what = Pass(1, slice(0, 0))
        attended = new_ledger(q, 1, top_k=0).attend(q, k, v, sink, what)
        return attended.transpose(1, 2)[self._real]


def _by_length(starts: Tensor) -> list[list[tuple[int, int]]]:
    """Episodes as (first, last + 1) flat steps, those within a factor of two together."""
    groups: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    for row, begins in enumerate(starts.tolist()):
        first = row * len(begins)
        inner = [step for step, begin in enumerate(begins) if begin and step > 0]
        for start, stop in pairwise([0, *inner, len(begins)]):
            groups[(stop - start).bit_length()].append((first + start, first + stop))
    return list(groups.values())
