"""One process at a time writes to a folder: a lock that ends with the process that holds it."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from memo_habitat.errors import UserError
from memo_habitat.utils.processes import is_first_process

# What file systems answer that have no locks.
_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


class HeldError(UserError):
    """Another process holds the lock."""


@contextlib.contextmanager
def hold(path: Path, timeout: float = 0.0, *, any_rank: bool = False) -> Iterator[None]:
    """Within: the lock `path` is ours, in a folder that is made; on file systems without: nobody's.

    Of several processes that train together the first holds it for all.

    Args:
        path: of the lock, which stays there, with number and host of the process that has it.
        timeout: seconds to wait for whoever has it.
        any_rank: take it whichever of these processes this is, for what each may do by itself.

    Raises:
        HeldError: another process has it; names the process.
        UserError: it cannot be written.
    """
    if not (any_rank or is_first_process()):
        yield
        return
    # A marker file would stay behind when its process is killed: without flock there is no lock.
    lock = FileLock(path, fallback_to_soft=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout)
        path.write_text(f"{os.getpid()} {socket.gethostname()}\n")
    except Timeout as error:
        here = socket.gethostname()
        # The holder may not have written yet.
        process, host = (*path.read_text().split(), "unknown", here)[:2]
        where, remedy = ("", "end it") if host == here else (f" on {host}", "end it there")
        raise HeldError(
            f"process {process}{where} is at work in {path.parent}; wait for it, or {remedy}: "
            f"kill {process}"
        ) from error
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise UserError(
                f"cannot write {path} ({error.strerror or error}): make its folder writable"
            ) from error
    try:
        yield
    finally:
        lock.release()
