"""All that one worker of a training holds, with made-up steps: measured before it is launched."""

from __future__ import annotations

import math

import hydra
import torch
from habitat.config import read_write
from habitat.gym import make_gym_from_config
from habitat_baselines.common.env_spec import EnvironmentSpec
from omegaconf import DictConfig
from torch import Tensor, nn

from memo_habitat.config.memory import MemoryConfig
from memo_habitat.errors import UserError
from memo_habitat.policy.frozen_encoder import FrozenEncoder
from memo_habitat.policy.policy import MemoPolicy
from memo_habitat.ppo.updater import MemoPPO
from memo_habitat.rollout.storage import TrialStorage
from memo_habitat.trainer.live_bytes import faked
from memo_habitat.trainer.observations import observation_transforms
from memo_habitat.utils.data_paths import download_of, resolve

# Of twenty categories, as the published episodes have.
_SHIPPED = "data/studios/episodes/{split}.json.gz"


class Rehearsal:
    """Everything that one worker holds at the end of a trial, with steps that are made up.

    Segments have their nominal length and no layer is dropped, so that two rehearsals agree.
    """

    def __init__(
        self,
        config: DictConfig,
        spec: EnvironmentSpec,
        transforms: list[nn.Module],
        device: torch.device,
        is_fake: bool,
    ) -> None:
        """Of what `stored_spec` returns."""
        with read_write(config):
            memory = config.habitat_baselines.rl.memory
            memory.segment_jitter = memory.depth_dropout = 0.0
            memory.segment_jitter_in = MemoryConfig.segment_jitter_in  # nothing is drawn
            # What is compiled or recorded cannot be faked.
            memory.compile = memory.compile and not is_fake
            memory.cuda_graphs = memory.cuda_graphs and not is_fake
        self._config, self._ppo = config, config.habitat_baselines.rl.ppo
        self.is_low_precision = config.habitat_baselines.rl.precision == "bfloat16"
        # What is fake stands for a GPU's, where a frozen encoder has half precision.
        frozen = nn.ModuleList(t for t in transforms if isinstance(t, FrozenEncoder))
        self.frozen = faked(frozen.half) if is_fake else frozen
        observed = spec.observation_space

        def make() -> MemoPolicy:
            return MemoPolicy.from_config(config, observed, spec.action_space).to(device)

        self.policy: MemoPolicy = faked(make) if is_fake else make()
        self.updater = MemoPPO(self.policy, self._ppo)
        self.storage = TrialStorage(
            int(config.habitat_baselines.num_environments),
            int(config.habitat.task.trial_steps),
            observed,
            self.policy.network.kept_features,
        )
        self.storage.to(device, self._ppo.rollout_gpu_gb)
        longest = config.habitat.environment.max_episode_steps or self.storage.trial_steps
        self.storage.episode_starts.fill_(False)
        self.storage.episode_starts[:, ::longest] = True
        self.storage.steps = self.storage.trial_steps

    def storage_tensors(self) -> list[Tensor]:
        """All that the rollout has on the device."""
        storage = self.storage
        here = [v for k, v in storage.observations.items() if k not in storage.in_host]
        values = [*here, *vars(storage).values()]
        return [value for value in values if isinstance(value, Tensor)]

    def make_optimiser_state(self) -> None:
        """Let the optimiser allocate what it keeps; the gradients are gone again."""
        self._fill_gradients()
        self.updater.optimiser_step()

    def refresh(self) -> None:
        """Recompute the acting cache, as after an update."""
        self.policy.refresh(self.storage, self._ppo.refresh_chunk, self._ppo.refresh_values)

    def backward(self, minibatch: int) -> None:
        """Forward and backward pass of the update's largest minibatch."""
        self.policy.train()
        if self._ppo.accumulate_gradients and minibatch < len(self.storage.actions):
            self._fill_gradients()  # what earlier minibatches left
        count = math.ceil(len(self.storage.actions) / minibatch)
        self.updater.backward(next(self.storage.minibatches(count)), 1.0)

    def _fill_gradients(self) -> None:
        for parameter in self.policy.parameters():
            parameter.grad = torch.zeros_like(parameter)


def stored_spec(
    config: DictConfig, device: torch.device
) -> tuple[EnvironmentSpec, list[nn.Module]]:
    """The spaces of what the trainer stores, and what it turns observations into that by."""
    spec = environment_spec(config)
    return spec, observation_transforms(config, spec, device, load=False)


def missing_download(config: DictConfig) -> str | None:
    """What `memo-habitat data get` takes for the episodes of `config`; None where they are here."""
    dataset = config.habitat.dataset
    name = download_of(dataset.data_path)
    if name is None:
        return None
    try:
        resolve(dataset.data_path.format(split=dataset.split))
    except UserError:
        return name
    return None


def environment_spec(config: DictConfig) -> EnvironmentSpec:
    """The spaces that the trainer learns from its environments.

    A factory of environments that knows them by itself says so by a method of this name.
    """
    factory = hydra.utils.instantiate(config.habitat_baselines.vector_env_factory)
    if hasattr(factory, "environment_spec"):
        known: EnvironmentSpec = factory.environment_spec()
        return known
    # In the embedded simulator whichever the config names, and in homes that ship where its own are
    # still to be downloaded: a plan for a cluster is made where neither need be.
    config = config.copy()
    with read_write(config):
        config.habitat.simulator.type = "EmbreeSim-v0"
        if missing_download(config):
            config.habitat.dataset.data_path = _SHIPPED
    env = make_gym_from_config(config)
    spec = EnvironmentSpec(env.observation_space, env.action_space, env.original_action_space)
    env.close()
    return spec
