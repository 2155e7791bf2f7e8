"""The bytes that code holds at a time: counted without computing, with its operations, or measured.

Under `fake_tensors()` tensors have a shape and a type and no elements, and operators only work out
the shapes of their results. Code runs as it is, backward passes included, so that the count follows
the code. What a kernel allocates and frees within itself is not seen.

PyTorch's own `MemTracker` cannot follow a training of ours: docs/dependencies.md says why.
"""

from __future__ import annotations

import functools
import math
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.autograd.profiler import profile
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

# Small tensors of these types stay real: they decide what code does, such as where episodes begin.
_DECIDING, _SMALL = (torch.bool, torch.long), 2**22  # elements
# Of elements that are not there, so many are taken to be true: of the categories, those in view.
_TRUE_ONE_IN = 10
# oneDNN's LSTM keeps gates, states and room for their gradients, of which the fake kernel tells
# nothing: numbers per step and unit, measured; and what it needs meanwhile.
_LSTM = torch.ops.aten.mkldnn_rnn_layer.default
_LSTM_BACKWARD = torch.ops.aten.mkldnn_rnn_layer_backward.default
_LSTM_KEEPS, _LSTM_NEEDS = 15.5, 4


_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
_ATTENTION_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default


class LiveBytes(TorchDispatchMode):
    """Bytes of all storages made under it that are still referred to: `now`, and at most.

    `flops` counts multiplications and additions of matrix products, convolutions and attention.
    PyTorch's own FlopCounterMode refuses inference mode.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self._peak = self.flops = 0
        self._storages: dict[int, weakref.ref[Any]] = {}

    def peak_of(self, work: Callable[[], Any]) -> tuple[Any, int]:
        """The result of `work`, and the most bytes alive while it ran."""
        self._peak = self.now
        return work(), self._peak

    def flops_of(self, work: Callable[[], Any]) -> int:
        """How many operations `work` runs."""
        before = self.flops
        work()
        return self.flops - before

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if _is_composite(func):
            # In inference mode composite operators arrive whole: what they are made of counts, too.
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = _carry_out(func, args, kwargs)
        self.flops += _flops(func, args, kwargs, result)
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._see(leaf.untyped_storage())
        within = _LSTM_NEEDS * int(args[0].nbytes) if func in (_LSTM, _LSTM_BACKWARD) else 0
        self._peak = max(self._peak, self.now + within)
        return result

    def _see(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._storages:
            return

        def gone(_: Any) -> None:
            self.now -= size
            del self._storages[key]

        self._storages[key] = weakref.ref(storage, gone)
        self.now += size


@functools.cache
def _is_composite(func: Any) -> bool:
    return func.namespace != "prim" and bool(
        torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")
    )


def _flops(func: Any, args: Any, kwargs: dict[str, Any], result: Any) -> int:
    # Of the kernels that a CPU has alone PyTorch knows no count.
    if func is _ATTENTION:
        whole = sdpa_flop_count(*(x.shape for x in args[:3]))
        is_causal = args[4] if len(args) > 4 else kwargs.get("is_causal", False)
        return whole // 2 if is_causal else whole
    if func is _ATTENTION_BACKWARD:
        whole = sdpa_backward_flop_count(*(x.shape for x in args[:4]))
        return whole // 2 if args[7] else whole
    if func in (_LSTM, _LSTM_BACKWARD):
        steps, rows, _ = args[0].shape
        weights = args[1].numel() + args[2].numel()
        return int(2 * steps * rows * weights * (1 if func is _LSTM else 2))
    count = flop_registry.get(func.overloadpacket) if func.namespace == "aten" else None
    return int(count(*args, **kwargs, out_val=result)) if count else 0


def _carry_out(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operator on fake tensors, and for real where its result decides something."""
    inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    if any(isinstance(leaf, FakeTensor) for leaf in inputs):
        if func is torch.ops.aten._local_scalar_dense.default:
            if inputs[0].dtype == torch.bool:
                return False  # what is asked is whether something is wrong: gradients not finite
            return 1.0 if inputs[0].dtype.is_floating_point else 1  # any number does
        if func is torch.ops.aten.nonzero.default:
            places = inputs[0].numel() // _TRUE_ONE_IN
            return inputs[0].new_empty((places, inputs[0].ndim), dtype=torch.long)
        if func is torch.ops.aten.index.Tensor:
            args = (args[0], _places(args[1]))
        result = func(*args, **kwargs)
        if func is _LSTM and torch.is_grad_enabled():
            *outputs, empty = result
            result = *outputs, empty.new_empty(math.ceil(_LSTM_KEEPS * outputs[0].nbytes))
        return result
    if not _decides(func, args, kwargs):
        return func(*args, **kwargs)
    with unset_fake_temporarily():
        return func(*args, **kwargs)


def _decides(func: Any, args: Any, kwargs: dict[str, Any]) -> bool:
    """Whether an operator without fake inputs gives what code may depend on."""
    if torch.Tag.inplace_view in func.tags:
        return True
    try:
        result = func(*args, **kwargs)
    except (DataDependentOutputException, DynamicOutputShapeException):
        return True
    leaves = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
    return all(leaf.dtype in _DECIDING and leaf.numel() <= _SMALL for leaf in leaves)


def _places(indices: list[Tensor | None]) -> list[Tensor | None]:
    """Real masks among indices as the places where they are true, whose number is known."""
    places: list[Tensor | None] = []
    for index in indices:
        if index is None or index.dtype != torch.bool or isinstance(index, FakeTensor):
            places.append(index)
        else:
            with unset_fake_temporarily():
                places += index.nonzero().unbind(1)
    return places


@contextmanager
def fake_tensors() -> Iterator[LiveBytes]:
    """Make all tensors fake in here, and count their bytes."""
    with FakeTensorMode(allow_non_fake_inputs=True), LiveBytes() as live:
        yield live


def faked(make: Callable[[], nn.Module]) -> Any:
    """Build a module for real, then replace its tensors by fakes.

    A fake module cannot be moved or given another layout, which some do as they are built.
    """
    with _disable_current_modes():
        module = make()
    for part in module.modules():
        both: tuple[dict[str, Any], ...] = (part._parameters, part._buffers)
        for held in both:
            for name, tensor in held.items():
                if isinstance(tensor, nn.Parameter):
                    held[name] = nn.Parameter(torch.empty_like(tensor), tensor.requires_grad)
                elif tensor is not None:
                    held[name] = torch.empty_like(tensor)
    return module


def peak_bytes(work: Callable[[], object], device: torch.device) -> int:
    """Most bytes that `work` holds at once beyond what was allocated before it.

    Counted from what PyTorch's allocator reports, so that saved activations, gradients and the
    temporaries inside kernels are all in it: on a CPU through the profiler's memory events, on a
    GPU as the allocator's own peak. `work` should free what it allocates.
    """
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return int(torch.cuda.max_memory_allocated(device)) - before
    with profile(profile_memory=True, use_kineto=True) as recorded:
        work()
    results: Any = recorded.kineto_results
    events = [] if results is None else [e for e in results.events() if e.name() == "[memory]"]
    held = peak = 0
    # Threads allocate at the same time, and no order of the record is promised.
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak
