"""One process at a time writes to a folder: a lock that ends with the process that holds it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from memo_habitat.errors import UserError


class HeldError(UserError):
    """Another process holds the lock."""


def lock(path: Path) -> int:
    """Lock the file `path` and return its descriptor; closing it everywhere gives it back.

    A child that inherits the descriptor holds the lock as well, also when its parent is killed.

    Raises:
        HeldError: another process has it; names the process.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise HeldError(
            f"process {holder} is at work in {path.parent}; wait for it, or end it: kill {holder}"
        ) from error
    except OSError:
        os.close(descriptor)
        raise
    sign(descriptor, os.getpid())
    return descriptor


def sign(descriptor: int, process: int) -> None:
    """Write into a lock who holds it."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{process}\n".encode(), 0)
