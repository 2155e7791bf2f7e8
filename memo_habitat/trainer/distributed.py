"""Several DD-PPO workers on this machine, as torchrun starts them: watched and stopped together.

This module is also the program of each worker:

    python -m memo_habitat.trainer.distributed MODULE:FUNCTION FOLDER LOGS

FOLDER holds the config.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import TYPE_CHECKING

from memo_habitat.errors import UserError, WorkerError, check_at_least_one
from memo_habitat.trainer import scheduler
from memo_habitat.utils.processes import (
    INTERRUPTED,
    available_cores,
    describe_status,
    handling,
    interrupt_with_parent,
    is_first_process,
    last_line,
    lifeline,
    ranks,
    stop_signals,
    write_into,
)

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

CONFIG_FILE = "config.yaml"
# What the others have to end in when one is dead (s).
GRACE = 5
_LOCALHOST = "127.0.0.1"


def check_workers(workers: int) -> None:
    """UserError for a number of workers that cannot be started here."""
    check_at_least_one("--workers", workers)
    if workers == 1:
        return
    if (processes := ranks().size) > 1:
        by_torchrun = "LOCAL_RANK" in os.environ
        name, starter = (
            ("WORLD_SIZE", "torchrun") if by_torchrun else ("SLURM_STEP_NUM_TASKS", "srun")
        )
        raise UserError(
            f"--workers {workers} within {name}={processes}: leave --workers out, or start "
            f"without {starter}"
        )
    import torch
    from torch.distributed.launcher.api import LaunchConfig

    if not hasattr(LaunchConfig, "shutdown_timeout"):
        raise UserError(
            f"--workers {workers} needs torch 2.12 or newer, and this is {torch.__version__}; "
            "update it, or start the training by torchrun"
        )
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if 0 < gpus < workers:
        raise UserError(
            f"--workers {workers}: every worker takes one GPU and {gpus} can be seen; lower it, or "
            "train on the CPU with CUDA_VISIBLE_DEVICES="
        )


def run_workers(
    work: Callable[[DictConfig], None], config: DictConfig, workers: int, logs: Path
) -> None:
    """Call `work(config)`, a function of a module, in several processes that find each other.

    The first Ctrl-C or SIGTERM is passed on once to all workers, which stop together; the second
    ends them, in a KeyboardInterrupt. If one dies the others are ended: UserError if that is what
    it raised, else a WorkerError that names it. The folder `logs` gets <rank>.log, what each worker
    but the first prints, and all tracebacks.
    """
    from omegaconf import OmegaConf
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    check_at_least_one("workers", workers)
    with TemporaryDirectory(prefix="memo-habitat-") as folder, _forward_stops() as stops:
        OmegaConf.save(config, Path(folder) / CONFIG_FILE)
        logs.mkdir(parents=True, exist_ok=True)
        try:
            _launch(workers, f"{work.__module__}:{work.__qualname__}", folder, str(logs))
        except ChildFailedError as error:
            interrupted = (INTERRUPTED, -signal.SIGINT)
            if stops and any(died.exitcode in interrupted for died in error.failures.values()):
                raise KeyboardInterrupt from error
            raise _explain(error, workers, logs) from error


def _launch(workers: int, target: str, folder: str, logs: str) -> None:
    """Run the workers to their end."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # What it has to tell is in the error that it raises.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=workers,
        run_id="memo-habitat",
        rdzv_backend="c10d",
        rdzv_endpoint=f"{_LOCALHOST}:0",  # a free port
        local_addr=_LOCALHOST,
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(log_dir=folder),
        # The others are ours: torch would kill workers that take longer to save than GRACE.
        signals_to_handle="SIGQUIT",
        shutdown_timeout=GRACE,
    )
    # As programs, not as functions of this process: torch then gives them sessions of their own,
    # which keep the terminal's Ctrl-C from them, and tells of all that failed, not only of one.
    program = "memo_habitat.trainer.distributed"
    elastic_launch(config, sys.executable)("-m", program, target, folder, logs)


@contextlib.contextmanager
def _forward_stops() -> Iterator[list[int]]:
    """Within: the first request to stop interrupts the workers, the second is a KeyboardInterrupt.

    Yields the requests so far. Within a SLURM job its announcements are answered as Habitat's own
    handlers do: both stop the training, and SIGUSR1 queues the job again.
    """
    stops: list[int] = []
    requeue = False
    try:
        with lifeline() as let_go:

            def on_stop(signum: int, frame: FrameType | None) -> None:
                stops.append(signum)
                let_go()
                if len(stops) > 1:
                    raise KeyboardInterrupt

            def on_announcement(signum: int, frame: FrameType | None) -> None:
                nonlocal requeue
                requeue = requeue or signum == signal.SIGUSR1
                let_go()

            # Outside of SLURM nobody announces: SIGUSR1 stops a training as Ctrl-C does.
            in_job = "SLURM_JOB_ID" in os.environ
            announced = (signal.SIGUSR1, signal.SIGUSR2) if in_job else ()
            asked = stop_signals() if in_job else (*stop_signals(), signal.SIGUSR1)
            with (
                handling(asked, on_stop),
                handling(announced, on_announcement),
                handling([signal.SIGQUIT], signal.default_int_handler),  # torch's, restored
            ):
                yield stops
    finally:  # also where workers that were still starting ended in an error
        if requeue:
            scheduler.requeue()


def _explain(error: ChildFailedError, workers: int, logs: Path) -> Exception:
    """What went wrong first; the others fail in turn when they miss the one that did."""
    rank, failure = error.get_first_failure()
    for other, died in error.failures.items():
        # Not those that torch itself has ended: by SIGTERM, or by SIGKILL after GRACE.
        by_itself = died.exitcode != -signal.SIGTERM
        if died.exitcode < 0 and by_itself and died.timestamp < failure.timestamp + GRACE:
            rank, failure = other, died
            break
    log = logs / f"{rank}.log"
    # Exceptions are on record with torch; what a signal ended could leave its last line only.
    if failure.exitcode > 0 and isinstance(failure.message, dict):
        kind, _, text = str(failure.message["message"]).partition(": ")
        if kind == UserError.__name__:
            return UserError(" ".join(text.split()))
        how = f"failed: {kind}: {text.strip().partition(chr(10))[0]}"
    else:
        how = f"ended: {describe_status(failure.exitcode)}"
        said = last_line(log)
        how += f"; its last line is {said!r}" if said else ""
    return WorkerError(f"worker {rank} of {workers} {how}; its log is {log}")


def main(target: str, folder: Path, logs: Path) -> int:
    """Call the function with the config, as one of the workers; returns the exit status."""
    interrupt_with_parent()
    threads = max(1, len(available_cores()) // int(os.environ["LOCAL_WORLD_SIZE"]))
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # read when torch is imported
    log = logs / f"{os.environ['RANK']}.log"
    if not is_first_process():  # the first has the terminal
        write_into(log)
    try:
        from omegaconf import OmegaConf

        from memo_habitat.compat import habitat_sim_stub, startup

        habitat_sim_stub.install()
        startup.silence_gym_notice()
        module, _, function = target.partition(":")
        getattr(importlib.import_module(module), function)(OmegaConf.load(folder / CONFIG_FILE))
        # Not imported here: it takes seconds, and whoever meets the others has it.
        distributed = sys.modules.get("torch.distributed")
        if distributed is not None and distributed.is_initialized():
            distributed.destroy_process_group()
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 whatever its kind: who started us tells of it
        from torch.distributed.elastic.multiprocessing.errors import get_error_handler

        get_error_handler().record_exception(error)
        with log.open("a") as file:
            traceback.print_exc(file=file)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))
