"""The process of one run: commands in turn, on its share of the cores, gone when its sweep is.

    python -m memo_habitat.sweep.worker '[0, 1]' '[["train", ...], ["eval", ...]]'

Its standard input is a pipe that its sweep holds open. When the sweep dies, by whatever signal, the
pipe ends, and the worker interrupts itself: a training saves its state and leaves.
"""

from __future__ import annotations

import json
import os
import shlex
import sys

from memo_habitat.utils.processes import INTERRUPTED, interrupt_with_parent

COMMANDS_BEGIN = "== "


def main(cores: list[int], commands: list[list[str]]) -> int:
    """Run the commands until one fails; returns its exit status."""
    interrupt_with_parent()
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    try:
        from memo_habitat.cli import main as cli

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


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1]), json.loads(sys.argv[2])))
