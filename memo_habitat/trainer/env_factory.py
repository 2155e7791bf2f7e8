"""Makes the vector of environments: houses dealt out, deaths of workers explained."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from habitat import ThreadedVectorEnv, VectorEnv, make_dataset
from habitat.config import read_write
from habitat_baselines.common.env_factory import VectorEnvFactory
from omegaconf import DictConfig, OmegaConf

from memo_habitat.compat import startup
from memo_habitat.errors import UserError, check_at_least_one
from memo_habitat.register import import_plugins
from memo_habitat.tasks.extobjnav.vector_env import SIMULATOR, ExtObjNavVectorEnvFactory
from memo_habitat.tasks.vector_env import deal_houses
from memo_habitat.trainer.env_worker import exit_note, make_env, terminal_note
from memo_habitat.utils.processes import describe_status, explain_exit, tail

#: How long after a closed pipe its worker may take to end, s.
_PATIENCE = 10.0


class MemoVectorEnvFactory(VectorEnvFactory):
    """One worker process an environment; `HABITAT_ENV_DEBUG=1` runs them as threads instead."""

    def construct_envs(
        self,
        config: DictConfig,
        workers_ignore_signals: bool = False,
        enforce_scenes_greater_eq_environments: bool = False,
        is_first_rank: bool = True,
    ) -> VectorEnv:
        """Environments with their houses; more environments than houses share them in training.

        `enforce_scenes_greater_eq_environments` is how Habitat says that it evaluates.
        """
        # Then every house is in exactly one environment and all have one seed, so that a trial
        # does not depend on where it runs.
        is_eval = enforce_scenes_greater_eq_environments
        import_plugins(config)
        houses = _houses(config)
        count = config.habitat_baselines.num_environments
        check_at_least_one("habitat_baselines.num_environments", count)
        if is_eval:
            count = min(count, len(houses))
        startup.prepare_forkserver()
        deaths = Path(tempfile.mkdtemp(prefix="memo-habitat-workers-"))
        arguments = []
        for index, own in enumerate(deal_houses(houses, count)):
            worker_config = config.copy()
            with read_write(worker_config):
                worker_config.habitat.dataset.content_scenes = own
                if not is_eval:
                    worker_config.habitat.seed += index
                if not (is_first_rank and index == 0):  # as Habitat does
                    task = worker_config.habitat.task
                    dropped = {*task.rank0_env0_measure_names, *task.rank0_measure_names}
                    task.measurements = {
                        k: v for k, v in task.measurements.items() if k not in dropped
                    }
            arguments.append((_plain(worker_config), str(deaths / f"{index}.txt")))
        threads = os.environ.get("HABITAT_ENV_DEBUG", "0") not in ("", "0")
        try:
            _compile_kernels(*arguments[0])
            # Signals are the trainer's business alone: Ctrl-C must not kill a worker in mid-step.
            with startup.command_left_out():
                envs = (ThreadedVectorEnv if threads else WorkerVectorEnv)(
                    make_env_fn=make_env,
                    env_fn_args=tuple(arguments),
                    workers_ignore_signals=not threads,
                )
        except (EOFError, ConnectionError, SystemExit) as error:
            cause = worker_death(deaths)
            shutil.rmtree(deaths, ignore_errors=True)
            raise cause from error
        envs.deaths = deaths  # whoever meets a closed pipe later finds the cause there
        return envs


class BatchedVectorEnvFactory(VectorEnvFactory):
    """ExtObjNav stepped all together in the trainer's process; in a simulator that cannot be, every
    environment has its worker."""

    def construct_envs(self, config: DictConfig, *args: Any, **kwargs: Any) -> Any:
        """The environments of a training or an evaluation, as Habitat asks for them."""
        can_be_batched = config.habitat.simulator.type == SIMULATOR
        factory = ExtObjNavVectorEnvFactory() if can_be_batched else MemoVectorEnvFactory()
        return factory.construct_envs(config, *args, **kwargs)


def _plain(config: DictConfig) -> DictConfig:
    """The same keys and values without the classes of structured configs.

    A worker that unpickled those would import the trainer's, and with them Habitat-Baselines and
    Triton: 200 MB of its own, and an LLVM beside which Mesa cannot draw.
    """
    return DictConfig(OmegaConf.to_container(config, resolve=True))


class WorkerVectorEnv(VectorEnv):
    """Habitat's, which can also be closed when some of its workers are dead.

    Attributes:
        deaths: folder of the notes that dying workers leave; None before it is known.
    """

    deaths: Path | None = None

    def _spawn_workers(self, env_fn_args: Any, *args: Any, **kwargs: Any) -> Any:
        made = super()._spawn_workers(env_fn_args, *args, **kwargs)
        # Each watches its worker: how one ended is in nobody's hands once the pipe is closed.
        for worker, (_, death_note) in zip(self._workers, env_fn_args, strict=True):
            threading.Thread(target=_note_exit, args=(worker, death_note), daemon=True).start()
        return made

    def close(self) -> None:
        """End all workers; those that do not answer any more are killed.

        They ignore the signals that would ask them to, and the interpreter waits for them at exit.
        """
        with contextlib.suppress(EOFError, ConnectionError):
            super().close()
        for worker in self._workers:  # those that had already ended do not mind
            worker.kill()
        if self.deaths is not None:
            shutil.rmtree(self.deaths, ignore_errors=True)
        self._is_closed = True


def _compile_kernels(config: DictConfig, death_note: str) -> None:
    """Take a few steps here first, where the simulator compiles on its first use.

    What is compiled is kept on disk; otherwise every worker would compile it, all at the same time.
    What is wrong with the first house is also found before any worker is started.
    """
    if config.habitat.simulator.type != "EmbreeSim-v0":
        return
    env = make_env(config, death_note)
    env.reset()
    for action in reversed(range(env.action_space.n)):
        env.step(action)
    env.close()


def _note_exit(worker: Any, death_note: str) -> None:
    worker.join()
    with contextlib.suppress(OSError):  # the folder goes when all are closed on purpose
        exit_note(death_note).write_text(str(worker.exitcode))


def worker_death(deaths: Path) -> UserError:
    """What the first worker that died left behind, as one line."""
    for note in sorted(deaths.glob("*.txt")):
        return UserError(f"environment {note.stem}: {note.read_text().strip()}")
    until = time.monotonic() + _PATIENCE
    while not (exits := sorted(deaths.glob("*.exit"))) and time.monotonic() < until:
        time.sleep(0.05)
    for file in exits:
        return UserError(f"environment {file.stem} {_of_exit(int(file.read_text() or 0), file)}")
    return UserError(
        "an environment worker died without a word, most often for lack of memory: lower "
        "habitat_baselines.num_environments, or set HABITAT_ENV_DEBUG=1 to run them as threads"
    )


def _of_exit(status: int, file: Path) -> str:
    """How a worker ended without an exception, and what to do about it."""
    if status == -signal.SIGKILL:
        return (
            f"was {describe_status(status)}, most often for lack of memory: lower"
            " habitat_baselines.num_environments"
        )
    said = terminal_note(file)
    return f"ended: {explain_exit(status, tail(said) if said.is_file() else '')}"


def _houses(config: DictConfig) -> list[str]:
    houses = list(config.habitat.dataset.content_scenes)
    if "*" in houses:
        houses = make_dataset(config.habitat.dataset.type).get_scenes_to_load(
            config.habitat.dataset
        )
    if not houses:
        raise UserError(
            f"no houses in split {config.habitat.dataset.split!r} of "
            f"habitat.dataset.data_path={config.habitat.dataset.data_path}"
        )
    return sorted(houses)
