"""What the workers of test_parallel do; `config.folder` is where they leave marks."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from memo_habitat.errors import UserError

TOLD = ("LOCAL_RANK", "RANK", "WORLD_SIZE")


def rank():
    return int(os.environ["RANK"])


def mark(config, name):
    (Path(config.folder) / f"{name}{rank()}").touch()


def wait_for_all(config, name):
    mark(config, name)
    files = [
        Path(config.folder) / f"{name}{other}" for other in range(int(os.environ["WORLD_SIZE"]))
    ]
    while not all(file.exists() for file in files):
        time.sleep(0.02)


def answer(config, value):
    (Path(config.folder) / f"answer{rank()}.json").write_text(json.dumps(value))


def tell(config):
    sys.stdout.write("told to the log\n")
    leads = os.getpgrp() == os.getpid()
    import torch
    from habitat_baselines.rl.ppo import ppo_trainer

    from memo_habitat.trainer import rendezvous

    rendezvous.install()
    ppo_trainer.init_distrib_slurm("gloo")
    total = torch.tensor(rank() + 1)
    torch.distributed.all_reduce(total)
    own = {"config": config.value, "sum": int(total), "leads_its_group": leads}
    answer(config, {**own, **{name: os.environ[name] for name in TOLD}})


def tell_threads(config):
    answer(config, os.environ["OMP_NUM_THREADS"])


def refuse(config):
    raise UserError(f"value={config.value}: give another")


def fail(config):
    wait_for_all(config, "ready")
    if rank() == 1:
        raise ValueError("too much of it\nand a second line")
    time.sleep(1000)


def die(config):
    wait_for_all(config, "ready")
    if rank() == 1:
        os.write(1, b"the last words\n")
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(1000)


def outlive_one_that_died(config):
    """Rank 1 is killed; rank 0 notices and fails in turn before anybody looks."""
    wait_for_all(config, "ready")
    if rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    raise RuntimeError("connection closed by peer")


def count_interrupts(config):
    """Tells how often it was interrupted when all have been."""
    seen = []
    signal.signal(signal.SIGINT, lambda *_: seen.append(1))
    wait_for_all(config, "ready")
    while not seen:
        time.sleep(0.02)
    wait_for_all(config, "seen")
    answer(config, len(seen))


def ignore_the_first(config):
    def on_interrupt(*_):
        signal.signal(signal.SIGINT, signal.default_int_handler)
        mark(config, "asked")

    signal.signal(signal.SIGINT, on_interrupt)
    mark(config, "ready")
    time.sleep(1000)


def wait_forever(config):
    mark(config, "ready")
    try:
        time.sleep(1000)
    except KeyboardInterrupt:
        mark(config, "left")
        raise
