"""The network: one token per step, the memory over the tokens, linear actor and critic heads."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from gym import spaces
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from memo_habitat.config.memory import MemoryConfig
from memo_habitat.config.policy import EncoderConfig
from memo_habitat.errors import UserError
from memo_habitat.memory import TrialMemory, build
from memo_habitat.policy.detection_encoder import (
    COMPASS,
    GPS,
    TARGET,
    TARGET_DETECTION,
    DetectionEncoder,
)
from memo_habitat.policy.encoders import build_encoder
from memo_habitat.policy.recall import ObservationLoss, Recalled, TargetRecall
from memo_habitat.tasks.extobjnav.detections import WIDTH


@dataclass(frozen=True)
class ContextUse:
    """Memory in use by each environment, long [N]."""

    tokens: Tensor  # that the next step attends to
    kv_bytes: Tensor  # of their keys and values
    full_context_kv_bytes: Tensor  # that keeping every step of the trial so far would take


class Heads(NamedTuple):
    """What the network says at each step.

    logits: [*, A]. values: [*]. recalled: where the target was seen, where the network is asked.
    auxiliary: logits [*, W] of the auxiliary sensor, where there is one.
    """

    logits: Tensor
    values: Tensor
    recalled: Recalled | None
    auxiliary: Tensor | None


class Shortcut(nn.Module):
    """What is seen now and what was recalled, beside the memory's output, to the heads' input.

    Without it both must pass through all of the memory before they move an action, which takes
    ten times the optimiser steps to be learned.
    """

    # How loud the memory's output is beside them at the beginning.
    _MEMORY_GAIN = 0.3

    def __init__(self, width: int, direct: int) -> None:
        """Join outputs [*, width] and direct inputs [*, direct]."""
        super().__init__()
        self.direct = nn.Sequential(nn.Linear(direct, width), nn.GELU(approximate="tanh"))
        self.join = nn.Sequential(nn.Linear(2 * width, width), nn.GELU(approximate="tanh"))

    def forward(self, projected: Tensor, direct: Tensor) -> Tensor:
        """[*, width]."""
        both = torch.cat([self._MEMORY_GAIN * projected, self.direct(direct)], dim=-1)
        joined: Tensor = self.join(both)
        return joined


# The sensor that tells where a trial begins: its value is 0 there.
TRIAL_STEP = "trial_step"
LAST_REWARD = "last_reward"
_ACTION_EMBEDDING = 32


class MemoNetwork(nn.Module):
    """Features, state, previous action and episode start -> token [*, D] -> memory -> heads."""

    def __init__(
        self,
        observation_space: spaces.Dict,
        num_actions: int,
        encoder: EncoderConfig,
        memory: MemoryConfig,
    ) -> None:
        super().__init__()
        self.auxiliary_sensor = encoder.auxiliary_sensor
        last_reward = [LAST_REWARD] if encoder.last_reward else []
        self.state_sensors = tuple(dict.fromkeys([*encoder.state_sensors, *last_reward]))
        self.visual_encoder = build_encoder(encoder, observation_space)
        self._chunk_size = encoder.chunk_size if memory.activation_checkpointing else 0
        self.feature_width = 0 if self.visual_encoder is None else self.visual_encoder.features
        state_width = sum(
            _width(observation_space, "state_sensors", uuid) for uuid in self.state_sensors
        )
        # Of these the rollout keeps copies for context steps, so that they are encoded once.
        self.kept_features = 0 if encoder.kind == "timm" else self.feature_width
        self.action_embedding = nn.Embedding(num_actions, _ACTION_EMBEDDING)
        self._frequencies = encoder.fourier_features
        self._action_across_episodes = encoder.action_across_episodes
        state_width *= 1 + 2 * self._frequencies
        token_inputs = self.feature_width + state_width + _ACTION_EMBEDDING + 1
        self.token_projection = nn.Linear(token_inputs, memory.width)
        self.memory: TrialMemory = build(memory)
        self.output_projection = nn.Sequential(
            nn.Linear(memory.width, memory.width), nn.GELU(approximate="tanh")
        )
        self.actor = nn.Linear(memory.width, num_actions)
        self.critic = nn.Linear(memory.width, 1)
        self.auxiliary = None
        if encoder.auxiliary_sensor:
            predicted = _width(observation_space, "auxiliary_sensor", encoder.auxiliary_sensor)
            self.auxiliary = nn.Linear(memory.width, predicted)
        self.recall = self.shortcut = self.observation_loss = None
        if encoder.recall != "none":
            self.recall = TargetRecall(memory.width, encoder.category_width)
            direct = TargetRecall.FEATURES + WIDTH + 1 + state_width + _ACTION_EMBEDDING
            self.shortcut = Shortcut(memory.width, direct)
        if memory.memory_loss == "observations":
            if encoder.kind != "detections":
                raise UserError(
                    "habitat_baselines.rl.memory.memory_loss=observations asks for what was "
                    f"detected, and the encoder is {encoder.kind!r}: choose encoder=detections"
                )
            self.observation_loss = ObservationLoss(
                memory.width, encoder.category_width, memory.heads
            )
        # A nearly uniform first policy and a zero first value (as PPO implementations agree on).
        nn.init.orthogonal_(self.actor.weight, gain=0.01)
        nn.init.zeros_(self.actor.bias)
        nn.init.orthogonal_(self.critic.weight, gain=0.01)
        nn.init.zeros_(self.critic.bias)

    def features(self, observations: dict[str, Tensor]) -> Tensor:
        """Visual features [*, F] of the observations [*, ...]; F = 0 for the blind network."""
        if self.visual_encoder is None:
            lead = observations[TRIAL_STEP].shape[:-1]
            return torch.zeros((*lead, 0), device=self.critic.weight.device)
        in_chunks = self._chunk_size and torch.is_grad_enabled()
        if in_chunks and not isinstance(self.visual_encoder, DetectionEncoder):
            return self._features_in_chunks(self.visual_encoder, observations)
        features: Tensor = self.visual_encoder(observations)
        return features

    def _features_in_chunks(self, encoder: Any, observations: dict[str, Tensor]) -> Tensor:
        """The same, with the activations of one piece at a time, recomputed for its gradient."""
        lead = observations[TRIAL_STEP].shape[:-1]
        flat = {u: observations[u].flatten(0, len(lead) - 1) for u in encoder.inputs}
        pieces = zip(*(x.split(self._chunk_size) for x in flat.values()), strict=True)
        # Encoders draw nothing at random: no generator has to be wound back.
        encoded = [
            checkpoint(
                encoder,
                dict(zip(flat, piece, strict=True)),
                use_reentrant=False,
                preserve_rng_state=False,
            )
            for piece in pieces
        ]
        return torch.cat(encoded).unflatten(0, lead)

    def tokens(
        self,
        features: Tensor,
        observations: dict[str, Tensor],
        prev_actions: Tensor,
        episode_starts: Tensor,
    ) -> Tensor:
        """Input tokens [*, D] of the memory; prev_actions long [*], episode_starts bool [*]."""
        previous, state = self._action_and_state(observations, prev_actions, episode_starts)
        parts = [features, state, previous, episode_starts.unsqueeze(-1).to(previous.dtype)]
        out: Tensor = self.token_projection(torch.cat(parts, dim=-1))
        return out

    def _action_and_state(
        self, observations: dict[str, Tensor], prev_actions: Tensor, episode_starts: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Embedding of the previous action, zeros where there was none, and the state sensors."""
        starts = episode_starts.unsqueeze(-1)
        hidden = observations[TRIAL_STEP] == 0 if self._action_across_episodes else starts
        previous = self.action_embedding(prev_actions).masked_fill(hidden, 0.0)
        state = torch.cat(
            [previous[..., :0], *(observations[u].to(previous.dtype) for u in self.state_sensors)],
            dim=-1,
        )
        if self._frequencies:
            state = torch.cat([state, fourier_features(state, self._frequencies)], dim=-1)
        return previous, state

    def heads(
        self,
        remembered: Tensor,
        observations: dict[str, Tensor],
        prev_actions: Tensor,
        episode_starts: Tensor,
    ) -> Heads:
        """What outputs of the memory [*, D] lead to; the rest are of the same steps."""
        projected = self.output_projection(remembered)
        recalled, hidden = None, projected
        if self.recall is not None and self.shortcut is not None:
            recalled = self.recall(projected, observations[TARGET], self.categories())
            told = self.recall.features(recalled, observations[GPS], observations[COMPASS])
            previous, state = self._action_and_state(observations, prev_actions, episode_starts)
            direct = [told, observations[TARGET_DETECTION], state, previous]
            hidden = self.shortcut(projected, torch.cat(direct, dim=-1))
        logits, values = self.actor(hidden), self.critic(hidden).squeeze(-1)
        auxiliary = None if self.auxiliary is None else self.auxiliary(projected)
        return Heads(logits, values, recalled, auxiliary)

    def categories(self) -> Tensor:
        """The embeddings of all categories, [C, E], of an encoder of detections."""
        if not isinstance(self.visual_encoder, DetectionEncoder):
            raise TypeError("only an encoder of detections has category embeddings")
        return self.visual_encoder.table()


def fourier_features(values: Tensor, count: int) -> Tensor:
    """Sine and cosine of k pi x for k = 1 .. count and each x of `values` [*, W]: [*, 2 count W].

    In these a product of two places, which is what attention computes, is largest where they are
    the same; in the values themselves it grows with both.
    """
    angles = values.unsqueeze(-1) * (
        math.pi * torch.arange(1, count + 1, device=values.device, dtype=values.dtype)
    )
    return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(-2)


def _width(observation_space: spaces.Dict, key: str, uuid: str) -> int:
    if uuid not in observation_space.spaces:
        raise UserError(
            f"habitat_baselines.rl.encoder.{key} names {uuid!r}, which is not observed: add its "
            "sensor to habitat.task.lab_sensors, or choose of "
            f"{', '.join(sorted(observation_space.spaces))}"
        )
    return math.prod(observation_space.spaces[uuid].shape)
