"""A trained agent to act with: by itself, of an exported folder or a run.

What it observes and does is written down (`Spaces`): without that a policy cannot be built where no
environment is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gym.spaces import Box, Dict, Discrete
from habitat.core.agent import Agent
from habitat_baselines.common.baseline_registry import baseline_registry
from habitat_baselines.common.env_spec import EnvironmentSpec
from habitat_baselines.common.obs_transformers import apply_obs_transforms_batch
from habitat_baselines.utils.common import batch_obs
from omegaconf import DictConfig
from pydantic import BaseModel
from torch import nn

from memo_habitat.config.evaluation import evaluation_config
from memo_habitat.config.task import action_names
from memo_habitat.errors import UserError
from memo_habitat.policy.agent import PolicyAgent
from memo_habitat.policy.network import TRIAL_STEP
from memo_habitat.policy.policy import MemoPolicy
from memo_habitat.register import import_plugins
from memo_habitat.trainer.checkpoint import acting_weights, load_weights, read_checkpoint
from memo_habitat.trainer.observations import observation_transforms
from memo_habitat.trainer.run_dir import open_run
from memo_habitat.utils.files import read_json, write_json

SPACES_FILE = "spaces.json"


class Sensor(BaseModel):
    """One observation: shape, NumPy's name of the type, and range (None: unbounded)."""

    shape: tuple[int, ...]
    dtype: str
    low: float | None
    high: float | None


class Spaces(BaseModel):
    """What is observed, by name, before any transform; the actions, by index."""

    observations: dict[str, Sensor]
    actions: list[str]

    @classmethod
    def of_envs(cls, config: DictConfig) -> Spaces:
        """Those of one environment of `config`, which is made for it and closed."""
        from habitat.config import read_write
        from habitat.config.default import patch_config
        from hydra.utils import instantiate

        config = patch_config(config.copy())
        with read_write(config):
            config.habitat_baselines.num_environments = 1
        factory = instantiate(config.habitat_baselines.vector_env_factory)
        envs = factory.construct_envs(config)
        try:
            observed, count = envs.observation_spaces[0].spaces, int(envs.action_spaces[0].n)
        finally:
            envs.close()
        sensors = {name: _sensor(space) for name, space in sorted(observed.items())}
        actions = action_names(config) or [str(action) for action in range(count)]
        return cls(observations=sensors, actions=actions)

    @classmethod
    def read(cls, folder: Path) -> Spaces | None:
        """Those in an exported folder; None where there are none, UserError if malformed."""
        path = folder / SPACES_FILE
        return read_json(path, cls.model_validate) if path.is_file() else None

    def write(self, folder: Path) -> None:
        """Write them into the folder."""
        write_json(folder / SPACES_FILE, self.model_dump())

    def spec(self) -> EnvironmentSpec:
        """As Habitat-Baselines hands them to policies."""
        boxes = {name: _box(sensor) for name, sensor in self.observations.items()}
        actions = Discrete(len(self.actions))
        return EnvironmentSpec(Dict(boxes), actions, actions)

    def missing(self, observations: Mapping[str, Any]) -> list[str]:
        """What is not among the given observations."""
        return sorted(set(self.observations) - set(observations))


def _sensor(space: Box) -> Sensor:
    least, most = _limits(space.dtype)
    low, high = float(np.min(space.low)), float(np.max(space.high))
    return Sensor(
        shape=space.shape,
        dtype=space.dtype.name,
        low=low if low > float(least) else None,
        high=high if high < float(most) else None,
    )


def _box(sensor: Sensor) -> Box:
    dtype = np.dtype(sensor.dtype)
    least, most = _limits(dtype)
    low = least if sensor.low is None else dtype.type(sensor.low)
    high = most if sensor.high is None else dtype.type(sensor.high)
    return Box(low, high, sensor.shape, dtype.type)


def _limits(dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """The least and the greatest number of a type."""
    limits: Any = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
    return limits.min, limits.max


class TrainedAgent(Agent):
    """Acts in one environment, as Habitat asks an agent to; its memory lasts a trial.

    Attributes:
        config: the experiment that it was trained with.
        policy: the weights.
        spaces: what it observes and does.
        transforms: what becomes of observations before the policy.
    """

    def __init__(
        self,
        config: DictConfig,
        policy: MemoPolicy,
        spaces: Spaces,
        transforms: list[nn.Module],
        deterministic: bool = False,
    ) -> None:
        self.config, self.policy, self.spaces = config, policy, spaces
        self.transforms = transforms
        self._device = policy.network.critic.weight.device
        self._actor = PolicyAgent(policy, deterministic)
        self._begins = True

    def reset(self) -> None:
        """Say that the next observation is an episode's first.

        Where a trial begins the observation itself says: its `trial_step` is 0 there.
        """
        self._begins = True

    def act(self, observations: Mapping[str, Any]) -> int:
        """Index of the action to take, of `spaces.actions`.

        Args:
            observations: of this step, by name, as the environment gives them; what the agent was
                not trained on is ignored.

        Raises:
            UserError: something is missing that it was trained on.
        """
        if missing := self.spaces.missing(observations):
            raise UserError(
                f"the agent observes {', '.join(missing)}, which is not among "
                f"{', '.join(sorted(observations))}: add the sensors to the task"
            )
        known = {name: np.asarray(observations[name]) for name in self.spaces.observations}
        starts = torch.tensor([int(known[TRIAL_STEP].item()) == 0], device=self._device)
        begins = torch.tensor([self._begins], device=self._device)
        batch = apply_obs_transforms_batch(batch_obs([known], device=self._device), self.transforms)
        self._begins = False
        return int(self._actor.act(batch, starts, begins).item())


def load_agent(
    folder: str | Path,
    checkpoint: str | None = None,
    deterministic: bool = False,
    device: str | torch.device = "cpu",
) -> TrainedAgent:
    """The trained agent in an exported folder, or in a run folder.

    Args:
        folder: what `memo-habitat export` wrote, or a run folder, one of whose environments is
            made to know what is observed.
        checkpoint: file, or name in the run's checkpoints; the latest unless given.
        deterministic: the likeliest action instead of a sampled one (torch's global generator).
        device: of the weights.

    Raises:
        UserError: there is no agent, or it was trained by one of Habitat's own trainers.
    """
    run = open_run(folder)
    found = read_checkpoint(run.find_checkpoint(checkpoint))
    config = evaluation_config(run.config(), found["config"])
    import_plugins(config)
    spaces = Spaces.read(run.path) or Spaces.of_envs(config)
    device = torch.device(device)
    spec = spaces.spec()
    transforms = observation_transforms(config, spec, device)
    name = config.habitat_baselines.rl.policy.main_agent.name
    policy: MemoPolicy = baseline_registry.get_policy(name).from_config(
        config, spec.observation_space, spec.action_space
    )
    load_weights(policy, acting_weights(found["state_dict"]))
    return TrainedAgent(config, policy.to(device).eval(), spaces, transforms, deterministic)
