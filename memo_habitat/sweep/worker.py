"""The process of one run: commands in turn, on its share of the cores, gone when its sweep is.

    python -m memo_habitat.sweep.worker '[0, 1]' '[["train", ...], ["eval", ...]]'

Its standard input is a pipe that its sweep holds open. When the sweep dies, by whatever signal, the
pipe ends, and the worker interrupts itself: a training saves its state and leaves.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import threading

COMMANDS_BEGIN = "== "
INTERRUPTED = 130


def main(cores: list[int], commands: list[list[str]]) -> int:
    """Run the commands until one fails; returns its exit status."""
    # Whoever starts a sweep in the background may have Ctrl-C ignored, which would be inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    threading.Thread(target=_interrupt_with_parent, daemon=True).start()
    try:
        from memo_habitat import cli

        for command in commands:
            sys.stdout.write(f"{COMMANDS_BEGIN}memo-habitat {shlex.join(command)}\n")
            sys.stdout.flush()
            sys.argv = ["memo-habitat", *command]  # what run.json says that the run came from
            status = cli.main(command)
            if status != 0:
                return status
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def _interrupt_with_parent() -> None:
    while os.read(0, 1):
        pass
    own = threading.main_thread().ident
    if own is not None:
        signal.pthread_kill(own, signal.SIGINT)


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1]), json.loads(sys.argv[2])))
