"""Training passes that a GPU runs as two CUDA graphs: one forward, one backward.

A pass over a trial is thousands of small kernels, one segment after the other, and launching them
takes longer than running them. What was recorded once is launched at once, for all passes of the
same shape: batch, steps, segment length.
"""

from __future__ import annotations

import gc
import weakref
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

#: A pass: tokens [B, T, D] to the tensors that it gives. With a mask, [L], all layers compute and
#: those with 0 add nothing; without one, those that were dropped are left out.
Pass = Callable[[Tensor, Tensor | None], tuple[Tensor, ...]]

_MOST_RECORDINGS = 256  # the latest used ones
_MOST_SEEN = 4096  # shapes that came once


class RecordedPasses:
    """The recordings of one memory.

    They share what they compute in, so that of replayed passes one at a time is under way.
    """

    def __init__(self) -> None:
        self._seen: OrderedDict[Any, None] = OrderedDict()
        self._recordings: OrderedDict[Any, _Recording] = OrderedDict()
        self._room = _Room()
        self._pool: Any = None
        self._under_way: Callable[[], object | None] = lambda: None

    def run(
        self,
        memory: nn.Module,
        compute: Pass,
        tokens: Tensor,
        layer_mask: Tensor,
        dropped: Collection[nn.Parameter],
        key: object,
    ) -> tuple[Tensor, ...]:
        """What `compute` gives: computed when a shape is new, recorded when it comes again.

        layer_mask: [L], on the CPU. dropped: weights of the layers with 0, which get no gradient.
        key: what the pass depends on beside its tensors and the memory's. While another pass
        waits for its gradients, it is computed too: to replay one would write over it.
        """
        weights = [p for p in memory.parameters() if p.requires_grad]
        tensors = (*memory.parameters(), *memory.buffers())  # read where they are
        addresses = tuple(tensor.data_ptr() for tensor in tensors)
        shape = tokens.shape, tokens.dtype, tokens.requires_grad, _autocast_dtype(tokens)
        key = key, shape, len(weights), addresses
        is_new = key not in self._seen
        self._seen[key] = None
        if is_new or self._under_way() is not None or not (weights or tokens.requires_grad):
            if len(self._seen) > _MOST_SEEN:
                self._seen.popitem(last=False)
            return compute(tokens, None)
        mask = layer_mask.to(tokens.device, tokens.dtype, non_blocking=True)
        if key not in self._recordings:
            if self._pool is None and tokens.is_cuda:
                self._pool = torch.cuda.graph_pool_handle()
            given = compute, tokens, mask, weights
            self._recordings[key] = _Recording(*given, self._room, self._pool)
            if len(self._recordings) > _MOST_RECORDINGS:
                self._recordings.popitem(last=False)
        self._recordings.move_to_end(key)
        mark = _Mark()
        self._under_way = weakref.ref(mark)
        without = {id(weight) for weight in dropped}
        absent = {i for i, weight in enumerate(weights) if id(weight) in without}
        replayed = self._recordings[key], mark, absent
        results: tuple[Tensor, ...] = _Replay.apply(*replayed, tokens, mask, *weights)
        return results

    def __reduce__(self) -> Any:
        """Copies record for themselves: a recording is of the weights of the original."""
        return RecordedPasses, ()


class _Mark:
    """Lives as long as a replayed pass waits for its gradients."""


class _Room:
    """Memory for what goes into recordings and comes out, by role: the same for all of them."""

    def __init__(self) -> None:
        self._flat: dict[Any, Tensor] = {}

    def take(self, role: object, like: Tensor) -> Tensor:
        """A tensor such as this one; recordings go on with theirs where another needs more."""
        key = role, like.dtype
        if key not in self._flat or self._flat[key].numel() < like.numel():
            spare = 2 * self._flat[key].numel() if key in self._flat else 0
            self._flat[key] = like.new_empty(max(spare, like.numel()))
        return self._flat[key][: like.numel()].view(like.shape)


class _Recording:
    """A pass of one shape: tensors that it reads and writes, and what launches its kernels."""

    def __init__(
        self,
        compute: Pass,
        tokens: Tensor,
        layer_mask: Tensor,
        weights: Sequence[Tensor],
        room: _Room,
        pool: Any,
    ) -> None:
        self.tokens = room.take("tokens", tokens).copy_(tokens.detach())
        self.tokens = self.tokens.detach().requires_grad_(tokens.requires_grad)
        self.layer_mask = room.take("layer_mask", layer_mask).copy_(layer_mask)
        inputs = [x for x in (self.tokens, *weights) if x.requires_grad]
        computed: list[Tensor] = []  # by the latest `forward`, with what its gradients need

        def keep(role: str, results: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
            return tuple(
                None if x is None else room.take((role, i), x).copy_(x.detach())
                for i, x in enumerate(results)
            )

        def forward() -> tuple[Tensor | None, ...]:
            with torch.enable_grad():
                computed[:] = compute(self.tokens, self.layer_mask)
            return keep("result", computed)

        def backward() -> tuple[Tensor | None, ...]:
            pairs = zip(computed, self.output_gradients, strict=True)
            wanted = [(made, gradient) for made, gradient in pairs if made.requires_grad]
            made, gradients = zip(*wanted, strict=True)
            with torch.autocast(self.tokens.device.type, enabled=False):  # as it is always run
                found = torch.autograd.grad(made, inputs, gradients, allow_unused=True)
            return keep("gradient", found)

        # Casts of weights that autocast made before would be no part of the recording.
        torch.clear_autocast_cache()
        if self.tokens.is_cuda:
            # Libraries set themselves up at their first call, beside the recording's stream.
            stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                forward()
                self.output_gradients = [torch.zeros_like(x) for x in computed]
                backward()
            torch.cuda.current_stream().wait_stream(stream)
            computed.clear()
            torch.clear_autocast_cache()
            # Recordings have memory of their own, for which what stays cached here is lost.
            torch.cuda.empty_cache()
        self.forward = record(forward, pool)
        self.output_gradients = [
            room.take(("output gradient", i), x) for i, x in enumerate(self.forward.results)
        ]
        self.backward = record(backward, pool)
        computed.clear()  # what was kept between both belongs to the next recording, too
        torch.clear_autocast_cache()

    def gradients(self, is_needed: Sequence[bool]) -> list[Tensor | None]:
        """Of those inputs of the pass that need them, as copies.

        Autograd would take the tensors themselves for gradients, and the next replay write there.
        """
        found = iter(self.backward.results)
        made = [next(found) if needed else None for needed in is_needed]
        return [None if x is None else x.clone() for x in made]


class _Graph:
    """Kernels of a function without arguments, and the tensors that they write."""

    def __init__(self, function: Callable[[], Any], pool: Any) -> None:
        self._graph = torch.cuda.CUDAGraph()
        # The collector may find tensors and graphs, and to free them breaks a recording.
        collects = gc.isenabled()
        gc.disable()
        try:
            with torch.cuda.graph(self._graph, pool=pool):
                self.results = function()
        finally:
            if collects:
                gc.enable()

    def replay(self) -> None:
        """Run them again."""
        self._graph.replay()


def record(function: Callable[[], Any], pool: Any) -> _Graph:
    """Record what a function launches on the GPU."""
    return _Graph(function, pool)


class _Replay(torch.autograd.Function):
    """A recorded pass among those that autograd knows."""

    @staticmethod
    def forward(
        ctx: Any,
        recording: _Recording,
        mark: _Mark,
        absent: Collection[int],
        tokens: Tensor,
        layer_mask: Tensor,
        *weights: Tensor,
    ) -> tuple[Tensor, ...]:
        """tokens: [B, T, D]; layer_mask: [L]; absent: places of weights without gradients."""
        ctx.recording, ctx.mark, ctx.absent = recording, mark, absent
        recording.tokens.data.copy_(tokens)
        recording.layer_mask.copy_(layer_mask)
        recording.forward.replay()
        return tuple(result.clone() for result in recording.forward.results)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Gradients of the tokens and the weights."""
        recording = ctx.recording
        if ctx.mark is None:
            raise RuntimeError(
                "gradients of a recorded pass can be asked for once, as what it computed is "
                "written over by the next one: switch habitat_baselines.rl.memory.cuda_graphs off"
            )
        for place, gradient in zip(recording.output_gradients, gradients, strict=True):
            place.copy_(gradient)
        recording.backward.replay()
        ctx.mark = None
        tokens, _, *weights = ctx.needs_input_grad[3:]
        found, *of_weights = recording.gradients((tokens, *weights))
        # None where the layer was dropped, as a computed pass has it: an optimiser moves by zeros.
        kept = (None if i in ctx.absent else x for i, x in enumerate(of_weights))
        return None, None, None, found, None, *kept


def _autocast_dtype(x: Tensor) -> torch.dtype | None:
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
