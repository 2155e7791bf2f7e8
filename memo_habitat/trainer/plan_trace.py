"""Counts the bytes that real code would hold at a time, without allocating or computing them.

Under `traced()` tensors are fake: they have a shape and a dtype and no elements, and the operators
only work out the shapes of their results. Code runs as it is, backward passes included, so that the
count follows the code. What a kernel allocates and frees within itself is not seen, except an
LSTM's (`plan_lstm`).

Small tensors of whole numbers and truth values stay real, for they decide what code does: which
steps are an episode's first, which rows make a minibatch.
"""

from __future__ import annotations

import functools
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
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from memo_habitat.trainer.plan_lstm import meanwhile_bytes, with_workspace

_DECIDING = (torch.bool, torch.long)
_SMALL = 2**22  # elements
# A number read from a tensor without elements: also true, and no index out of range.
_ANSWER = 1


class LiveBytes(TorchDispatchMode):
    """Bytes of all storages made under it that are still referred to, and their highest sum.

    Attributes:
        live: bytes now.
        peak: highest value of `live` since the last `begin`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._storages: dict[int, weakref.ref[Any]] = {}

    def begin(self) -> None:
        """Forget the peak so far."""
        self.peak = self.live

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if _is_composite(func):
            # In inference mode composite operators arrive here whole: what is in them counts, too.
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = _carry_out(func, args, kwargs)
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._see(leaf.untyped_storage())
        self.peak = max(self.peak, self.live + meanwhile_bytes(func, args))
        return result

    def _see(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._storages:
            return

        def gone(_: Any) -> None:
            self.live -= size
            del self._storages[key]

        self._storages[key] = weakref.ref(storage, gone)
        self.live += size
        self.peak = max(self.peak, self.live)


@functools.cache
def _is_composite(func: Any) -> bool:
    return func.namespace != "prim" and bool(
        torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")
    )


def _carry_out(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operator on fake tensors, and for real where it decides something."""
    inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    if any(isinstance(leaf, FakeTensor) for leaf in inputs):
        if func is torch.ops.aten._local_scalar_dense.default:
            return float(_ANSWER) if inputs[0].dtype.is_floating_point else _ANSWER
        if func is torch.ops.aten.index.Tensor:
            args = (args[0], _places(args[1]))
        return with_workspace(func, func(*args, **kwargs))
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


class TokenCount(TorchDispatchMode):
    """Rows multiplied with each matrix of a module: the most of them are the tokens it took in."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        matrices = [p for p in module.parameters() if p.dim() == 2]
        self._rows = [0] * len(matrices)
        self._matrix = {p.untyped_storage()._cdata: i for i, p in enumerate(matrices)}
        self._converted: list[Tensor] = []  # kept, so that no other takes their address

    @property
    def tokens(self) -> int:
        """Tokens that entered the module; 0 where it multiplies in kernels of its own."""
        return max(self._rows, default=0)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default):
            # x W' or, where that is faster, W x'.
            for weight, rows in ((args[-1], args[-2].shape[0]), (args[-2], args[-1].shape[1])):
                matrix = self._matrix.get(weight.untyped_storage()._cdata)
                if matrix is not None:
                    self._rows[matrix] += rows
        elif func is torch.ops.aten._to_copy.default:  # autocast's
            matrix = self._matrix.get(args[0].untyped_storage()._cdata)
            if matrix is not None:
                self._matrix[result.untyped_storage()._cdata] = matrix
                self._converted.append(result)
        return result


@contextmanager
def traced() -> Iterator[LiveBytes]:
    """Make all tensors fake in here, and count their bytes."""
    with FakeTensorMode(allow_non_fake_inputs=True), LiveBytes() as bytes_:
        yield bytes_


def untraced(make: Callable[[], Any]) -> Any:
    """Build a module outside of `traced()`, then replace its tensors by fakes.

    Modules cannot be moved or laid out anew while they are fake, which some do as they are built.
    """
    with _disable_current_modes():
        module = make()
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = nn.Parameter(
                    torch.empty_like(parameter), parameter.requires_grad
                )
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = torch.empty_like(buffer)
    return module
