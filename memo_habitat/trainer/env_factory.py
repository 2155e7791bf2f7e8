"""Makes the vector of environments: houses dealt out, a worker process or a thread for each."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from habitat import ThreadedVectorEnv, VectorEnv, make_dataset
from habitat.config import read_write
from habitat_baselines.common.env_factory import VectorEnvFactory
from omegaconf import DictConfig, OmegaConf

from memo_habitat.compat import startup
from memo_habitat.config.evaluation import Shard
from memo_habitat.config.trainer import MemoBaselinesConfig
from memo_habitat.errors import UserError, check_at_least_one
from memo_habitat.register import import_plugins
from memo_habitat.tasks.extobjnav.vector_env import SIMULATOR, ExtObjNavVectorEnvFactory
from memo_habitat.tasks.vector_env import deal_houses
from memo_habitat.trainer.env_worker import make_env
from memo_habitat.trainer.worker_envs import WorkerVectorEnv, worker_death


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
        # Then all have one seed.
        is_eval = enforce_scenes_greater_eq_environments
        import_plugins(config)
        houses = _houses(config)
        count = config.habitat_baselines.num_environments
        check_at_least_one("habitat_baselines.num_environments", count)
        # A trial of ours is the same wherever it is played. Habitat's own evaluators take all that
        # an environment holds, once.
        shared = is_eval and "trials_per_house" in config.habitat_baselines.evaluator
        if shared:
            count = min(count, _trials(config.habitat_baselines.evaluator, len(houses)))
        elif is_eval:
            count = min(count, len(houses))
        startup.prepare_forkserver()
        deaths = Path(tempfile.mkdtemp(prefix="memo-habitat-workers-"))
        arguments = []
        dealt = [houses] * count if shared else deal_houses(houses, count, is_eval)
        for index, own in enumerate(dealt):
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
            if threads:
                envs = ThreadedVectorEnv(make_env, arguments)
                envs.deaths = deaths  # whoever meets a closed pipe later finds the cause there
                return envs
            default = MemoBaselinesConfig.worker_timeout  # Habitat's own configs have no such key
            return WorkerVectorEnv(
                arguments, config.habitat_baselines.get("worker_timeout", default)
            )
        except (EOFError, ConnectionError, SystemExit) as error:
            cause = worker_death(deaths)
            shutil.rmtree(deaths, ignore_errors=True)
            raise cause from error
        except BaseException:
            shutil.rmtree(deaths, ignore_errors=True)
            raise


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


def _trials(evaluator: DictConfig, houses: int) -> int:
    """How many trials an evaluation plays in so many houses: all, or those of its shard."""
    return max(1, len(Shard.parse(evaluator.shard).of(range(evaluator.trials_per_house * houses))))


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
