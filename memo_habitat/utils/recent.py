"""What was used last is kept, since it takes long to make."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Recent(Generic[T]):
    """Values by key, none of them None; beyond `size` the one longest out of use is dropped."""

    def __init__(self, size: int) -> None:
        """Empty."""
        self._size = size
        self._kept: OrderedDict[Hashable, T] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value kept under `key`; `make` gives it where there is none."""
        # Environments may be threads. Each call is atomic: at worst two of them make the same.
        value = self._kept.pop(key, None)
        if value is None:
            value = make()
        self._kept[key] = value  # the last to be dropped from now on
        if len(self._kept) > self._size:
            self._kept.popitem(last=False)
        return value
