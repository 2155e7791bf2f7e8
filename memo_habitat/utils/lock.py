"""One process at a time writes to a folder: a lock that ends with the process that holds it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from memo_habitat.errors import UserError
from memo_habitat.utils.processes import is_first_process

# What file systems answer that have no locks.
_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


class HeldError(UserError):
    """Another process holds the lock."""


def lock(path: Path) -> int:
    """Lock the file `path` and return its descriptor; closing it everywhere gives it back.

    A child that inherits the descriptor holds the lock as well, also when its parent is killed.

    Raises:
        HeldError: another process has it; names the process.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
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


@contextlib.contextmanager
def hold(path: Path) -> Iterator[None]:
    """Within: the lock `path` is ours, in a folder that is made; on file systems without: nobody's.

    Of several processes that train together the first holds it for all.

    Raises:
        HeldError: another process has it; names the process.
        UserError: it cannot be written.
    """
    if not is_first_process():
        yield
        return
    descriptor = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = lock(path)
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise UserError(
                f"cannot write {path} ({error.strerror or error}): make its folder writable"
            ) from error
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def sign(descriptor: int, process: int) -> None:
    """Write into a lock who holds it."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{process}\n".encode(), 0)
