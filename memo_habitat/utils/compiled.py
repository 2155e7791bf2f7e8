"""Compiled loops, kept on disk wherever there is room for them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Any:
    """The function as numba compiles it, without the interpreter's lock, and kept for later."""
    decorate = numba.njit(cache=True, nogil=True)
    try:
        return decorate(function)
    except RuntimeError as error:
        if "cannot cache" not in str(error):
            raise
    # Neither the package nor HOME can be written, as in a container: numba gives up. In the
    # environment, too, so that workers find what their trainer has compiled.
    folder = _own_temporary_folder()
    if folder is None:
        return numba.njit(nogil=True)(function)
    numba.config.CACHE_DIR = os.environ["NUMBA_CACHE_DIR"] = str(folder)
    return decorate(function)


def _own_temporary_folder() -> Path | None:
    """One that lasts and that nobody else can write to: what lies there is run."""
    folder = Path(tempfile.gettempdir()) / f"memo-habitat-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        with tempfile.TemporaryFile(dir=folder):
            is_own = status.st_uid == os.getuid() and not status.st_mode & 0o022
            return folder if is_own and not folder.is_symlink() else None
    except OSError:
        return None
