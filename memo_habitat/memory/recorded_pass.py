"""Training passes that a GPU runs as two CUDA graphs: one forward, one backward.

A pass over a trial is thousands of small kernels, one segment after the other, and launching them
takes longer than running them. What was recorded once is launched at once, for all passes of the
same shape: batch, steps, segment length.
"""

from __future__ import annotations

import gc
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

#: A pass: tokens [B, T, D] and which layers take part, [L], to the tensors that it gives.
Pass = Callable[[Tensor, Tensor], tuple[Tensor, ...]]

_MOST = 64  # recordings that are kept, the latest used ones


class RecordedPasses:
    """The recordings of one memory. They share their memory, so that one pass is under way."""

    def __init__(self) -> None:
        self._seen: OrderedDict[Any, _Recording | None] = OrderedDict()
        self._pool: Any = None
        self._under_way: Callable[[], object | None] = lambda: None

    def run(
        self, work: Pass, tokens: Tensor, live: Tensor, weights: Sequence[Tensor], key: object
    ) -> tuple[Tensor, ...]:
        """What `work` gives: computed at the first sight of a shape, recorded at the second one.

        key: all that the pass depends on beside the tensors' shapes and places. While another
        pass waits for its gradients, it is computed too: to replay one would write over it.
        """
        places = tuple(weight.data_ptr() for weight in weights)
        shape = tokens.shape, tokens.dtype, tokens.requires_grad, _autocast_dtype(tokens)
        key = key, shape, places
        known = key in self._seen
        recording = self._seen.setdefault(key, None)
        self._seen.move_to_end(key)
        if len(self._seen) > _MOST:
            self._seen.popitem(last=False)
        if not known or self._under_way() is not None:
            return work(tokens, live)
        if recording is None:
            recording = self._seen[key] = _Recording(work, tokens, live, weights, self._new_pool())
        results: tuple[Tensor, ...]
        mark = _Mark()
        self._under_way = weakref.ref(mark)
        results = _Replay.apply(recording, mark, tokens, live, *weights)
        return results

    def _new_pool(self) -> Any:
        if self._pool is None and torch.cuda.is_available():
            self._pool = torch.cuda.graph_pool_handle()
        return self._pool

    def __reduce__(self) -> Any:
        """Copies record for themselves: a recording is of the weights of the original."""
        return RecordedPasses, ()


class _Mark:
    """Lives as long as a replayed pass waits for its gradients."""


class _Recording:
    """A pass of one shape: tensors that it reads and writes, and what launches its kernels."""

    def __init__(
        self, work: Pass, tokens: Tensor, live: Tensor, weights: Sequence[Tensor], pool: Any
    ) -> None:
        self.tokens = tokens.detach().clone().requires_grad_(tokens.requires_grad)
        self.live = live.clone()
        inputs = [x for x in (self.tokens, *weights) if x.requires_grad]
        computed: list[Tensor] = []  # by the latest `forward`, with what its gradients need

        def forward() -> tuple[Tensor, ...]:
            with torch.enable_grad():
                computed[:] = work(self.tokens, self.live)
            return tuple(result.detach() for result in computed)

        def backward() -> tuple[Tensor | None, ...]:
            pairs = zip(computed, self.given, strict=True)
            wanted = [(made, given) for made, given in pairs if made.requires_grad]
            made, given = zip(*wanted, strict=True)
            with torch.autocast(self.tokens.device.type, enabled=False):  # as it is always run
                return torch.autograd.grad(made, inputs, given, allow_unused=True)

        # Casts of weights that autocast made before would be no part of the recording.
        torch.clear_autocast_cache()
        if self.tokens.is_cuda:
            self._warm_up(forward, backward)
            computed.clear()
            # Recordings have memory of their own, for which what stays cached here is lost.
            torch.cuda.empty_cache()
        self.forward = record(forward, pool)
        self.given = [torch.zeros_like(result) for result in self.forward.results]
        self.backward = record(backward, pool)
        computed.clear()  # what was kept between both belongs to the next recording, too
        torch.clear_autocast_cache()

    def gradients(self, inputs: tuple[bool, ...]) -> list[Tensor | None]:
        """Of those inputs of the pass that need them."""
        found = iter(self.backward.results)
        return [_copy(next(found)) if is_needed else None for is_needed in inputs]

    def _warm_up(self, forward: Callable[[], Any], backward: Callable[[], Any]) -> None:
        """Once beside the recording's stream: libraries set themselves up at their first call."""
        stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self.given = [torch.zeros_like(result) for result in forward()]
            backward()
        torch.cuda.current_stream().wait_stream(stream)
        torch.clear_autocast_cache()


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
        tokens: Tensor,
        live: Tensor,
        *weights: Tensor,
    ) -> tuple[Tensor, ...]:
        """tokens: [B, T, D]; live: [L]."""
        ctx.recording, ctx.mark = recording, mark
        recording.tokens.data.copy_(tokens)
        recording.live.copy_(live)
        recording.forward.replay()
        return tuple(result.clone() for result in recording.forward.results)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Gradients of the tokens and the weights."""
        recording = ctx.recording
        if ctx.mark is None:
            raise RuntimeError(
                "gradients of a recorded pass can be asked for once, as what it computed is "
                "written over by the next one: switch habitat_baselines.rl.memory.cuda_graphs off"
            )
        for place, gradient in zip(recording.given, gradients, strict=True):
            place.copy_(gradient)
        recording.backward.replay()
        ctx.mark = None
        tokens, _, *weights = ctx.needs_input_grad[2:]
        found = recording.gradients((tokens, *weights))
        return None, None, found[0], None, *found[1:]


def _copy(x: Tensor | None) -> Tensor | None:
    # Autograd would take it for the parameter's gradient itself, and the next replay write to it.
    return None if x is None else x.clone()


def _autocast_dtype(x: Tensor) -> torch.dtype | None:
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
