"""Makes the vector of environments: houses dealt out, deaths of workers explained."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from habitat import ThreadedVectorEnv, VectorEnv, make_dataset
from habitat.config import read_write
from habitat_baselines.common.env_factory import VectorEnvFactory
from omegaconf import DictConfig

from memo_habitat.compat import startup
from memo_habitat.errors import UserError, check_at_least_one
from memo_habitat.register import import_plugins
from memo_habitat.tasks.vector_env import deal_houses
from memo_habitat.trainer.env_worker import make_env


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
            arguments.append((worker_config, str(deaths / f"{index}.txt")))
        threads = os.environ.get("HABITAT_ENV_DEBUG", "0") not in ("", "0")
        try:
            _compile_kernels(*arguments[0])
            # Signals are the trainer's business alone: Ctrl-C must not kill a worker in mid-step.
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


class WorkerVectorEnv(VectorEnv):
    """Habitat's, which can also be closed when some of its workers are dead.

    Attributes:
        deaths: folder of the notes that dying workers leave; None before it is known.
    """

    deaths: Path | None = None

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


def worker_death(deaths: Path) -> UserError:
    """What the first worker that died left behind, as one line."""
    for note in sorted(deaths.glob("*.txt")):
        return UserError(f"environment {note.stem}: {note.read_text().strip()}")
    return UserError(
        "an environment worker died without a word, most often for lack of memory: lower "
        "habitat_baselines.num_environments, or set HABITAT_ENV_DEBUG=1 to run them as threads"
    )


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
