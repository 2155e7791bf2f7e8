"""What becomes of observations between the environments and the rollout."""

from __future__ import annotations

import torch
from gym import spaces
from habitat_baselines.common.env_spec import EnvironmentSpec
from habitat_baselines.common.obs_transformers import (
    apply_obs_transforms_obs_space,
    get_active_obs_transforms,
)
from omegaconf import DictConfig
from torch import nn

from memo_habitat.config.policy import EncoderConfig
from memo_habitat.errors import UserError
from memo_habitat.policy.frozen_encoder import FrozenEncoder


def observation_transforms(
    config: DictConfig, spec: EnvironmentSpec, device: torch.device, load: bool = True
) -> list[nn.Module]:
    """Habitat's transforms and the frozen encoder; in `spec` stands what is stored behind them.

    Images that no encoder looks at are not stored. A camera for neither an encoder, nor the task,
    nor the evaluation's films is an error. Without `load`, a frozen encoder has weights of no
    meaning.
    """
    transforms = [transform.to(device) for transform in get_active_obs_transforms(config)]
    observed = apply_obs_transforms_obs_space(spec.observation_space, transforms)
    encoder = EncoderConfig(**config.habitat_baselines.rl.encoder)
    seen = set(encoder.cameras) if encoder.sees else set()
    images = {uuid for uuid, space in observed.spaces.items() if _is_image(uuid, space, encoder)}
    used = {config.habitat.task.get("camera"), config.habitat_baselines.evaluator.get("camera")}
    if encoder.sees and (unused := images - seen - used):
        raise UserError(
            f"the camera {min(unused)} is configured and used by nothing: add it to "
            f"habitat_baselines.rl.encoder.cameras={list(encoder.cameras)}, or leave it out of "
            "habitat.simulator.agents.main_agent.sim_sensors"
        )
    stored = {k: v for k, v in observed.spaces.items() if k in seen or k not in images}
    spec.observation_space = spaces.Dict(stored)
    if encoder.kind == "timm":
        frozen = FrozenEncoder(encoder, spec.observation_space, device, load)
        transforms.append(frozen)
        spec.observation_space = frozen.transform_observation_space(spec.observation_space)
    return transforms


def _is_image(uuid: str, space: spaces.Space, encoder: EncoderConfig) -> bool:
    others = (*encoder.state_sensors, encoder.auxiliary_sensor, encoder.goal_sensor)
    return len(space.shape) == 3 and uuid not in others
