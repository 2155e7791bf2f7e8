"""Takes the place of a process that evaluates a shard: without imports that take seconds."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from memo_habitat.utils.processes import INTERRUPTED, interrupt_with_parent, write_into

if __name__ == "__main__":
    interrupt_with_parent()
    _, _, log, evaluations, *_ = sys.argv
    write_into(Path(log))
    (options,) = json.loads(evaluations)
    if options["name"] == "refused":
        if options["shard"] == "1/2":
            os.write(1, b"seed is 3, now 4: remove it\n")
        sys.exit(2)
    if options["shard"] == "2/3":
        os.write(1, b"about to die\n")
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        if options["name"] == "waits":
            os.write(1, b"waits\n")
            time.sleep(600)
    except KeyboardInterrupt:
        os.write(1, b"interrupted\n")
        sys.exit(INTERRUPTED)
    os.write(1, b"done\n")
