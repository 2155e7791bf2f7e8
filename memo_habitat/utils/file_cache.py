"""Values made of files, kept in memory while the files stay as they are."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")


class FileCache(Generic[T]):
    """Values by key, with the files and folders that each was made of.

    A process may live for days, as notebooks do: a value is made again once any of its files was
    written, or an entry of its folders came or went.
    """

    def __init__(self) -> None:
        """Empty."""
        self._kept: OrderedDict[Hashable, tuple[T, dict[Path, tuple[int, ...]]]] = OrderedDict()
        self._lock = threading.RLock()

    def get(self, key: Hashable, make: Callable[[], tuple[T, Iterable[Path]]], size: int) -> T:
        """The value of `key`; `make` gives it and its files. The `size` last used ones stay."""
        with self._lock:  # environments may be threads
            kept = self._kept.get(key)
            if kept is None or any(_stamp(path) != stamp for path, stamp in kept[1].items()):
                value, files = make()
                kept = self._kept[key] = value, {path: _stamp(path) for path in files}
            self._kept.move_to_end(key)
            while len(self._kept) > size:
                self._kept.popitem(last=False)
            return kept[0]

    def clear(self) -> None:
        """Drops everything."""
        self._kept.clear()


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return ()
    return status.st_mtime_ns, status.st_size, status.st_ino


def is_file(path: Path) -> bool:
    """Whether a file is there; False, too, for names that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
