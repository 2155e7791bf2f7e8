"""Several DD-PPO workers on this machine: started, watched, stopped together.

Each is a process of `parallel_worker` and finds the others as Habitat's DD-PPO does, by LOCAL_RANK,
RANK, WORLD_SIZE, MAIN_ADDR and MAIN_PORT.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from memo_habitat.errors import UserError, WorkerError, check_at_least_one
from memo_habitat.trainer.distributed_worker import CONFIG, failure_note, result_file
from memo_habitat.utils.processes import (
    INTERRUPTED,
    Child,
    StopCount,
    available_cores,
    count_stops,
    describe_status,
    handling,
)

if TYPE_CHECKING:
    from omegaconf import DictConfig

PROGRAM = "memo_habitat.trainer.distributed_worker"
# What the others have to end in when one is dead (s).
GRACE = 5.0
_POLL = 0.1
# Names of the loopback interface on Linux and macOS.
_LOOPBACKS = ("lo", "lo0")
# SLURM's announcements, which Habitat's own handlers in the workers answer.
_ANNOUNCEMENTS = (signal.SIGUSR1, signal.SIGUSR2)


def check_workers(workers: int) -> None:
    """Refuse a number of workers that cannot be started here.

    Raises:
        UserError: fewer than one, more than visible GPUs, or already one of several processes.
    """
    check_at_least_one("--workers", workers)
    if workers == 1:
        return
    for variable, starter in (("WORLD_SIZE", "torchrun"), ("SLURM_STEP_NUM_TASKS", "srun")):
        processes = os.environ.get(variable, "1")
        if int(processes) > 1:
            raise UserError(
                f"--workers {workers} within {variable}={processes}: leave --workers out, or start "
                f"without {starter}"
            )
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if 0 < gpus < workers:
        raise UserError(
            f"--workers {workers}: every worker takes one GPU and {gpus} can be seen; lower it, or "
            "train on the CPU with CUDA_VISIBLE_DEVICES="
        )


def waits_for_others() -> str | None:
    """One line on the processes that a training in this one meets first; None: it is alone.

    Variables that an earlier torchrun or a batch job of SLURM left behind are enough for Habitat to
    wait for ever.
    """
    from habitat_baselines.rl.ddppo import ddp_utils

    _, rank, processes = ddp_utils.get_distrib_size()
    if processes == 1:
        return None
    by_torchrun = "LOCAL_RANK" in os.environ
    names = "RANK, WORLD_SIZE" if by_torchrun else "SLURM_PROCID, SLURM_NTASKS"
    unset = "LOCAL_RANK, RANK and WORLD_SIZE" if by_torchrun else "SLURM_JOBID"
    port = int(os.environ.get("MAIN_PORT", ddp_utils.DEFAULT_PORT))
    if ddp_utils.SLURM_JOBID is not None:  # as `ddp_utils.init_distrib_slurm`
        ports = int(os.environ.get("MAIN_PORT_RANGE", ddp_utils.DEFAULT_PORT_RANGE))
        port += int(ddp_utils.SLURM_JOBID) % ports
    return (
        f"rank {rank} of {processes} ({names}): waits for the others at "
        f"{ddp_utils.get_main_addr()}:{port}; to train alone unset {unset}"
    )


def run_workers(
    work: Callable[[DictConfig], Any], config: DictConfig, workers: int, logs: Path | None = None
) -> list[Any]:
    """Call `work(config)` in several processes that find each other; what each returned.

    The first Ctrl-C or SIGTERM is passed on once to all workers, which stop together; the second
    ends them. If one dies the others are ended.

    Args:
        work: function of a module; returns what JSON can hold.
        config: given to every worker.
        workers: number of them.
        logs: folder for <rank>.log, what each worker but the first prints, and all tracebacks;
            None keeps none.

    Raises:
        UserError: the first that a worker raised.
        WorkerError: a worker died in another way; names it.
        KeyboardInterrupt: stopped at once.
    """
    from omegaconf import OmegaConf

    check_at_least_one("workers", workers)
    with TemporaryDirectory(prefix="memo-habitat-") as folder, _reserved_port() as port:
        shared = Path(folder)
        OmegaConf.save(config, shared / CONFIG)
        printed = shared if logs is None else logs
        printed.mkdir(parents=True, exist_ok=True)
        target = f"{work.__module__}:{work.__qualname__}"
        crew: list[_Worker] = []
        with count_stops() as stops, _announcements_to(crew):
            try:
                for rank in range(workers):
                    environment = worker_environment(rank, workers, port, os.environ)
                    crew.append(_Worker(rank, target, shared, printed, environment))
                statuses = _watch(crew, stops)
            finally:
                _end(crew)
        if any(statuses):
            interrupted = {INTERRUPTED, -signal.SIGINT} & set(statuses)
            if stops.count and interrupted:
                raise KeyboardInterrupt
            raise _explain(crew, statuses, shared, kept=logs is not None)
        return [json.loads(result_file(shared, worker.rank).read_text()) for worker in crew]


def worker_environment(
    rank: int, workers: int, port: int, base: Mapping[str, str]
) -> dict[str, str]:
    """The environment variables of worker `rank`; what the user has set for threads stays.

    Args:
        rank: from 0 on.
        workers: how many there are.
        port: on which they find each other.
        base: the variables of this process.
    """
    environment = {
        **base,
        "LOCAL_RANK": str(rank),
        "RANK": str(rank),
        "WORLD_SIZE": str(workers),
        "MAIN_ADDR": "127.0.0.1",
        "MAIN_PORT": str(port),
        "MAIN_PORT_RANGE": "1",  # in a SLURM job Habitat adds the job's number modulo this
    }
    environment.setdefault("OMP_NUM_THREADS", str(max(1, len(available_cores()) // workers)))
    loopback = next((name for _, name in socket.if_nameindex() if name in _LOOPBACKS), None)
    if loopback is not None:
        # Habitat looks for the default route, which a machine without network has not.
        environment.setdefault("GLOO_SOCKET_IFNAME", loopback)
        environment.setdefault("NCCL_SOCKET_IFNAME", loopback)
    return environment


class _Worker(Child):
    """The process of one rank; the first prints where we do."""

    def __init__(
        self, rank: int, target: str, shared: Path, logs: Path, environment: dict[str, str]
    ) -> None:
        self.rank = rank
        self.log = logs / f"{rank}.log"
        command = [PROGRAM, target, str(shared), str(self.log)]
        super().__init__(command, self.log, environment, logs_output=rank > 0)


def _watch(crew: Sequence[_Worker], stops: StopCount) -> list[int]:
    """Wait for the end of all, or of the first that fails; the statuses, 0 of those at work.

    Raises:
        KeyboardInterrupt: asked a second time to stop.
    """
    sent = 0
    while True:
        statuses = [worker.status for worker in crew]
        if any(statuses) or None not in statuses:
            return [status or 0 for status in statuses]
        while sent < stops.count:
            sent += 1
            for worker in crew:
                worker.send(signal.SIGINT)
        if sent > 1:
            raise KeyboardInterrupt
        time.sleep(_POLL)


def _end(crew: Sequence[_Worker]) -> None:
    """End those that still run: asked first, then killed."""
    for worker in crew:
        worker.send(signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    for worker in crew:
        worker.end(deadline)


def _explain(crew: Sequence[_Worker], statuses: list[int], shared: Path, kept: bool) -> Exception:
    """What went wrong first; the others fail in turn when they miss the one that did."""
    killed = [worker for worker in crew if statuses[worker.rank] < 0]
    notes = [
        (note["at"], worker, note)
        for worker in crew
        if (note := _read_note(shared, worker.rank)) is not None
    ]
    if not killed and notes:
        _, worker, note = min(notes, key=lambda found: found[0])
        if note["by_user"]:
            return UserError(note["line"])
        how = f"failed: {note['line']}"
    else:
        worker = killed[0] if killed else next(w for w in crew if statuses[w.rank])
        how = f"ended: {describe_status(statuses[worker.rank])}"
        said = worker.last_lines()
        how += f"; its last line is {said[-1]!r}" if said else ""
    where = f"; its log is {worker.log}" if kept else ""
    return WorkerError(f"worker {worker.rank} of {len(crew)} {how}{where}")


def _read_note(shared: Path, rank: int) -> dict[str, Any] | None:
    try:
        note: dict[str, Any] = json.loads(failure_note(shared, rank).read_text())
    except (FileNotFoundError, json.JSONDecodeError):  # none, or it was killed while it wrote
        return None
    return note


@contextlib.contextmanager
def _reserved_port() -> Iterator[int]:
    """A free port that nobody else is given within.

    The socket is bound and never listens, so that the workers' store, which reuses addresses, may
    listen there while the system gives the port to no one else.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield int(holder.getsockname()[1])


@contextlib.contextmanager
def _announcements_to(crew: Sequence[_Worker]) -> Iterator[None]:
    """Within a SLURM job: pass its announcements on, which would end this process."""
    if "SLURM_JOB_ID" not in os.environ:
        yield
        return

    def pass_on(signum: int, frame: Any) -> None:
        for worker in crew:
            worker.send(signum)

    with handling(_ANNOUNCEMENTS, pass_on):
        yield
