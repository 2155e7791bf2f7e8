"""How the processes of one training meet: torchrun's, srun's, those of `--workers`, or any that
are told their ranks and a place.

Habitat's own way (`init_distrib_slurm`) knows MAIN_ADDR alone, takes the local rank for a GPU's
index, and waits through every signal; `install` puts this one in its place.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memo_habitat.errors import UserError
from memo_habitat.trainer import scheduler
from memo_habitat.utils.processes import handling, ranks

if TYPE_CHECKING:
    from omegaconf import DictConfig

# Nodes of a cluster may be an installation of packages or a cold file system apart.
PATIENCE = timedelta(minutes=30)
_LOCALHOST, _PORT = "127.0.0.1", 8738  # as Habitat
# Keys of the store, and what the first says where there will be no training.
_FOLDER, _HEARD, _NO_FOLDER = "run folder", "heard", "none"
# How long the first waits for the others to be told so (s).
_FAREWELL = 10.0


class NotMetError(UserError):
    """The others, or the first, did not come in time."""


def install() -> None:
    """Let Habitat's trainers in this process ask us who they are and where they meet."""
    from habitat_baselines.rl.ppo import ppo_trainer

    ppo_trainer.get_distrib_size = ranks
    ppo_trainer.init_distrib_slurm = join


def meeting_point() -> tuple[str, int]:
    """Address and port of the first process: those of MASTER_* or MAIN_*, or a guess by SLURM."""

    def given(name: str) -> str | None:
        return os.environ.get(f"MASTER_{name}") or os.environ.get(f"MAIN_{name}")

    port = given("PORT") or str(scheduler.meeting_port() or _PORT)
    if not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UserError(f"MASTER_PORT or MAIN_PORT is {port!r}: give a number below 65536")
    return given("ADDR") or scheduler.first_node() or _LOCALHOST, int(port)


def waits_for_others() -> str | None:
    """One line on the processes that a training in this one meets first; None: it is alone.

    Variables that an earlier torchrun left behind are enough to wait for a long time.
    """
    _, rank, processes = ranks()
    if processes == 1:
        return None
    by_torchrun = "LOCAL_RANK" in os.environ
    names = "RANK, WORLD_SIZE" if by_torchrun else "SLURM_PROCID, SLURM_STEP_NUM_TASKS"
    unset = "LOCAL_RANK, RANK and WORLD_SIZE" if by_torchrun else "SLURM_STEP_NUM_TASKS"
    return (
        f"rank {rank} of {processes} ({names}): waits for the others at {meeting_point()[0]}; "
        f"to train alone unset {unset}"
    )


@functools.cache
def meet() -> Any:
    """The store of all processes, a `torch.distributed.Store`, as soon as all are there.

    Raises:
        NotMetError: the others, or the first, did not come in time.
    """
    from torch import distributed

    address, port = meeting_point()
    _, rank, size = ranks()
    try:
        with ends_on_signals():
            url = f"tcp://[{address}]:{port}" if ":" in address else f"tcp://{address}:{port}"
            store = next(distributed.rendezvous(url, rank, size, timeout=PATIENCE))[0]
            return distributed.PrefixStore(agree_on_start(store, rank, size), store)
    except (distributed.DistError, TimeoutError, ValueError) as error:
        first = str(error).partition("\n")[0]
        raise NotMetError(
            f"rank {rank} of {size} cannot meet the others at {address}:{port} ({first}): set "
            "MAIN_ADDR and MAIN_PORT alike for all of them, to the first one's machine"
        ) from error


def agree_on_start(store: Any, rank: int, size: int) -> str:
    """A name for this start of all processes, given by the first.

    Torchrun keeps the store while it starts them again, with all that those before have written:
    where they met, for one, which nobody answers at any more.
    """
    own = uuid.uuid4().hex
    if rank > 0:
        store.set(f"hello/{rank}", own)
        start = str(store.get(f"start/{own}").decode())
        store.set(f"there/{start}/{rank}", own)
        return start
    until = time.monotonic() + PATIENCE.total_seconds()
    missing = set(range(1, size))
    while missing:
        for other in sorted(missing):
            if not store.check([f"hello/{other}"]):
                continue
            # Of a process before, perhaps: the one of now replaces it, and is answered then.
            token, there = store.get(f"hello/{other}"), f"there/{own}/{other}"
            store.set(f"start/{token.decode()}", own)
            if store.check([there]) and store.get(there) == token:
                missing.remove(other)
        if time.monotonic() > until:
            raise TimeoutError(f"ranks {', '.join(map(str, sorted(missing)))} did not come")
        time.sleep(0.02)
    return own


def join(backend: str = "nccl") -> tuple[int, Any]:
    """Form the group of processes in which gradients are averaged.

    Returns:
        The index of this process's GPU, and a store that all share.
    """
    import torch
    from torch import distributed

    local, rank, size = ranks()
    if "nccl" in backend.lower() and not torch.cuda.is_available():
        raise UserError(
            f"habitat_baselines.rl.ddppo.distrib_backend={backend} needs a GPU, and PyTorch sees "
            "none here: set it to GLOO"
        )
    store, (address, _) = meet(), meeting_point()
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        if name not in os.environ and (interface := interface_towards(address)):
            os.environ[name] = interface
    with ends_on_signals():
        distributed.init_process_group(
            backend.lower(),
            store=distributed.PrefixStore("group", store),
            rank=rank,
            world_size=size,
        )
    return device_index(local), distributed.PrefixStore("trainer", store)


def device_index(local_rank: int) -> int:
    """The GPU of this process, counted among those that it sees: launchers may show it one or all.

    Habitat takes it for the index of the GPU that learns and of the one that draws.
    """
    import torch

    from memo_habitat.simulator.habitat_sim.device import gpu_index

    visible = torch.cuda.device_count()
    return local_rank % visible if visible else max(gpu_index(local_rank), 0)


def own_shard() -> str:
    """Which part of an evaluation is that of this process among torchrun's or srun's; "" if alone.

    Such as "3/16" for the third of sixteen. They do not meet: each plays its part and ends.
    """
    _, rank, processes = ranks()
    return "" if processes == 1 else f"{rank + 1}/{processes}"


def take_own_part(config: DictConfig) -> None:
    """Let an evaluation by `config` play the part of this process, and on a GPU of its own."""
    from habitat.config import read_write

    evaluator, simulator = config.habitat_baselines.evaluator, config.habitat.simulator
    with read_write(config):
        evaluator.shard = evaluator.get("shard") or own_shard()
        gpu = device_index(ranks().local)
        config.habitat_baselines.torch_gpu_id = gpu
        if "habitat_sim_v0" in simulator:
            simulator.habitat_sim_v0.gpu_device_id = gpu


def interface_towards(address: str) -> str | None:
    """The network interface by which this machine reaches `address`; None where it cannot be told.

    Gloo would take the one that the machine's own name resolves to, which need not lead anywhere,
    and Habitat the one of the default route, which need not exist.
    """
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))  # sends nothing
        own = probe.getsockname()[0]
        for _, name in socket.if_nameindex():
            if own == _address_of(name, probe):
                return name
    return None


def _address_of(interface: str, probe: socket.socket) -> str | None:
    if not sys.platform.startswith("linux"):
        return _LOCALHOST if interface == "lo0" else None
    import fcntl

    get_address = 0x8915  # SIOCGIFADDR
    with contextlib.suppress(OSError):  # it has none
        request = interface.encode()[:15].ljust(256, b"\0")
        return socket.inet_ntoa(fcntl.ioctl(probe.fileno(), get_address, request)[20:24])
    return None


@contextlib.contextmanager
def ends_on_signals() -> Iterator[None]:
    """Within: a request to stop ends this process, and SLURM's announcement queues the job again.

    Torch waits for others in code to whose end Python's own handlers wait, for minutes; what is
    waited for has not begun, so that nothing is lost.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours, interpreters = os.pipe()
    os.set_blocking(interpreters, False)

    def end() -> None:
        # The interpreter writes the number here at once, whatever the main thread is at.
        if number := os.read(ours, 1)[0]:
            try:
                if number == signal.SIGUSR1:
                    scheduler.requeue()
                os.write(2, b"stopped while it waited for the other processes\n")
            finally:
                os._exit(128 + number)

    watcher = threading.Thread(target=end, daemon=True)
    watcher.start()
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
    before = signal.set_wakeup_fd(interpreters, warn_on_full_buffer=False)
    try:
        with handling(signals, lambda number, frame: None):
            yield
    finally:
        signal.set_wakeup_fd(before)
        os.write(interpreters, b"\0")
        watcher.join()
        os.close(ours)
        os.close(interpreters)


def announce(folder: Path) -> None:
    """As the first of several: tell the others the run folder in which all train now."""
    if ranks().size > 1:
        meet().set(_FOLDER, f"{folder}\n{folder.absolute()}")


@contextlib.contextmanager
def leading() -> Iterator[None]:
    """As the first of several: at the end let those go who still wait for `announce`.

    Something was wrong then, or there is nothing to train; the first one says what.
    """
    others = ranks().size - 1
    try:
        yield
    except NotMetError:
        others = 0  # nobody is there to be told, and who waited for them does not wait again
        raise
    except UserError as error:
        # Those that are not there yet may take minutes to come, or never do.
        if others > 0 and not meet.cache_info().currsize:
            sys.stderr.write(f"no training: {error}\n{waits_for_others()}\n")
        raise
    finally:
        if others > 0:
            store = meet()
            store.compare_set(_FOLDER, "", _NO_FOLDER)
            # It may be us who hold what they read.
            until = time.monotonic() + _FAREWELL
            while store.add(_HEARD, 0) < others and time.monotonic() < until:
                time.sleep(0.05)


def follow() -> Path | None:
    """As any other than the first: wait for the run folder; None: there is no training."""
    from torch import distributed

    store = meet()
    try:
        with ends_on_signals():
            told = store.get(_FOLDER).decode()
            store.add(_HEARD, 1)
    except distributed.DistError:  # the first one has gone
        return None
    if told == _NO_FOLDER:
        return None
    # As the first one calls it, where that leads there: so the config of a resume has it, too.
    near, far = map(Path, told.splitlines())
    return near if near.absolute() == far else far
