"""What was used last is kept, since it takes long to make."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Recent(Generic[T]):
    """Values by key; beyond `size` of them, the one whose last use is longest ago is dropped."""

    def __init__(self, size: int) -> None:
        """Empty."""
        self._size = size
        self._kept: dict[Hashable, T] = {}

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value kept under `key`; `make` gives it where there is none."""
        # Put in anew at every use, so that the first of the dict is the one to drop.
        value = self._kept[key] = self._kept.pop(key) if key in self._kept else make()
        if len(self._kept) > self._size:
            del self._kept[next(iter(self._kept))]
        return value
