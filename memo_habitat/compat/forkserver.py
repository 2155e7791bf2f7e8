"""What makes the stubs and our registrations known in Habitat's forkserver workers."""

from __future__ import annotations

import multiprocessing
from multiprocessing import forkserver

PRELOAD = "memo_habitat.register"


def prepare() -> None:
    """Let the forkserver import our environments once, before the first worker is forked.

    A worker unpickles Habitat's own target first and must have the stubs by then. Modules that the
    application wants preloaded are kept. No effect once the forkserver runs.
    """
    server = getattr(forkserver, "_forkserver", None)
    wanted = list(getattr(server, "_preload_modules", ["__main__"]))
    if PRELOAD not in wanted:
        multiprocessing.set_forkserver_preload([*wanted, PRELOAD])
