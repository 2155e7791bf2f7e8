"""The process of one DD-PPO worker that `parallel` started: works, and notes why it failed.

    python -m memo_habitat.trainer.distributed_worker MODULE:FUNCTION FOLDER LOG

FOLDER holds the config, and gets what the function returns or the note on its failure.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from memo_habitat.compat import habitat_sim_stub, log_filters
from memo_habitat.errors import UserError
from memo_habitat.utils.processes import INTERRUPTED, interrupt_with_parent

CONFIG = "config.yaml"


def result_file(folder: Path, rank: int) -> Path:
    """What the worker's function returned, as JSON."""
    return folder / f"{rank}.result.json"


def failure_note(folder: Path, rank: int) -> Path:
    """When (at, s), by whom (by_user) and of what (line) the worker failed, as JSON."""
    return folder / f"{rank}.failed.json"


def main(target: str, folder: Path, log: Path) -> int:
    """Call the function with the config; returns the exit status."""
    interrupt_with_parent()
    rank = int(os.environ["RANK"])
    try:
        result_file(folder, rank).write_text(json.dumps(_work(target, folder)))
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        _note(failure_note(folder, rank), error)
        with log.open("a") as file:
            traceback.print_exc(file=file)
        raise SystemExit(1) from error  # whatever its kind: the one who started us tells of it
    return 0


def _work(target: str, folder: Path) -> Any:
    from omegaconf import OmegaConf

    habitat_sim_stub.install()
    log_filters.silence_gym_notice()
    module, _, function = target.partition(":")
    found = getattr(importlib.import_module(module), function)
    result = found(OmegaConf.load(folder / CONFIG))
    # Not imported here: it takes seconds, and whoever meets the others has it.
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_initialized():
        distributed.destroy_process_group()
    return result


def _note(path: Path, error: Exception) -> None:
    by_user = isinstance(error, UserError)
    lines = str(error).strip().splitlines() or [""]
    text = " ".join(str(error).split()) if by_user else f"{type(error).__name__}: {lines[0]}"
    # The clock is the machine's: it tells which of several workers failed first.
    note = {"at": time.monotonic(), "by_user": by_user, "line": text}
    path.write_text(json.dumps(note))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))
