"""Image encoders that are trained along, and the head behind a frozen one: to features [*, F].

Each is a module of the observations [*, ...] with the attributes `inputs`, the observations (uuids)
that it reads, and `features`, the width F of what it makes of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from gym import spaces
from torch import Tensor, nn

Cameras = Mapping[str, spaces.Box]  # by uuid, images [H, W, C]


class SmallCNN(nn.Module):
    """Three convolutions, then what is seen and where: small objects survive the pooling.

    Per channel: its maximum over the image (is it there?), its expected place under a spatial
    softmax (where? Levine et al., arXiv 1504.00702), averages over the image's quarters (layout).
    A network that flattens the last map instead must learn an object separately in every place.

    With `goal_queries`, the goal also looks for itself: each query is a direction among the
    channels, linear in the goal, and the map of matches is pooled in the same way.
    """

    def __init__(
        self,
        cameras: Cameras,
        base_channels: int,
        features: int,
        goal: tuple[str, int],
        goal_queries: int = 0,
    ) -> None:
        """Encode images of one size, their channels stacked; `goal`: its sensor and width."""
        super().__init__()
        c = base_channels
        self.features, self.inputs = features, (*cameras, goal[0])
        self._goal = goal[0]
        self._bounds = {u: (float(s.low.min()), float(s.high.max())) for u, s in cameras.items()}
        channels = sum(space.shape[2] for space in cameras.values())
        self.convolutions = nn.Sequential(
            nn.Conv2d(channels, c, kernel_size=4, stride=4),
            nn.ReLU(inplace=True),
            nn.Conv2d(c, 2 * c, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(2 * c, 4 * c, kernel_size=3, stride=2, padding=1),
            nn.ReLU(inplace=True),
        )
        self.goal_queries = nn.Linear(goal[1], goal_queries * 4 * c) if goal_queries else None
        self.head = nn.Sequential(
            nn.Linear((1 + 2 + 4) * 4 * c + (1 + 2) * goal_queries, features),
            nn.LayerNorm(features),
            nn.GELU(approximate="tanh"),
        )
        self.to(memory_format=torch.channels_last)

    def forward(self, observations: Mapping[str, Tensor]) -> Tensor:
        """Features [*, F] of the images, seen with the goal."""
        images = [_from_minus_one_to_one(observations[u], *b) for u, b in self._bounds.items()]
        x = images[0] if len(images) == 1 else torch.cat(images, dim=-1)
        lead = x.shape[:-3]
        # Images come with their channels last; the convolutions are laid out so, too: no copy.
        seen = self.convolutions(x.reshape(-1, *x.shape[-3:]).permute(0, 3, 1, 2))
        parts = [_presence(seen), _place(seen), _layout(seen)]
        if self.goal_queries is not None:
            queries = self.goal_queries(observations[self._goal].float().reshape(len(seen), -1))
            queries = queries.unflatten(1, (-1, seen.shape[1]))
            matches = (queries @ seen.flatten(2)).unflatten(2, seen.shape[-2:])
            parts += [_presence(matches), _place(matches)]
        out: Tensor = self.head(torch.cat(parts, dim=1))
        return out.reshape(*lead, -1)


def _from_minus_one_to_one(images: Tensor, low: float, high: float) -> Tensor:
    """Images, or depth in whatever unit, as float32 in [-1, 1] by the bounds of their space."""
    scaled = images.to(torch.float32, copy=True)  # a copy, since it is scaled in place
    return scaled.mul_(2 / (high - low)).sub_(1.0 + 2 * low / (high - low))


def _presence(maps: Tensor) -> Tensor:
    """Maximum of each map: [B, C, H, W] to [B, C]."""
    return maps.flatten(2).amax(-1)


def _place(maps: Tensor) -> Tensor:
    """Expected coordinates in [-1, 1] under the softmax of each map: [B, C, H, W] to [B, 2C]."""
    height, width = maps.shape[-2:]
    weights = maps.flatten(2).softmax(-1).unflatten(2, (height, width))
    rows = torch.linspace(-1.0, 1.0, height, device=maps.device)
    columns = torch.linspace(-1.0, 1.0, width, device=maps.device)
    return torch.cat([weights.sum(2) @ columns, weights.sum(3) @ rows], dim=1)


def _layout(maps: Tensor) -> Tensor:
    """Averages over the quarters of each map: [B, C, H, W] to [B, 4C]."""
    return nn.functional.adaptive_avg_pool2d(maps, 2).flatten(1)


class ResNet(nn.Module):
    """A ResNet of Habitat-Baselines (group norm) as DD-PPO has it, followed by a linear layer."""

    def __init__(self, kind: str, cameras: Cameras, base_channels: int, features: int) -> None:
        """Encode images of one size, their channels stacked; `kind`: "resnet18" or "resnet50"."""
        super().__init__()
        from habitat_baselines.rl.ddppo.policy import resnet
        from habitat_baselines.rl.ddppo.policy.resnet_policy import ResNetEncoder

        self.features, self.inputs = features, tuple(cameras)
        self.backbone = ResNetEncoder(
            spaces.Dict(dict(cameras)),
            baseplanes=base_channels,
            ngroups=base_channels // 2,
            make_backbone=getattr(resnet, kind),
            normalize_visual_inputs=False,
        )
        # Numbers of NumPy's cannot be compiled.
        self.backbone.key_needs_rescaling = {
            uuid: None if factor is None else float(factor)
            for uuid, factor in self.backbone.key_needs_rescaling.items()
        }
        flat = math.prod(self.backbone.output_shape)
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(flat, features), nn.LayerNorm(features), nn.GELU()
        )

    def forward(self, observations: Mapping[str, Tensor]) -> Tensor:
        """Features [*, F] of the images."""
        lead = observations[self.inputs[0]].shape[:-3]
        out: Tensor = self.head(
            self.backbone({u: observations[u].flatten(0, -4) for u in self.inputs})
        )
        return out.reshape(*lead, -1)


class EncoderPerCamera(nn.Module):
    """An encoder of its own for each camera; their features stand side by side."""

    def __init__(self, encoders: list[SmallCNN | ResNet]) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)
        self.features = sum(encoder.features for encoder in encoders)
        self.inputs = tuple(dict.fromkeys(uuid for e in encoders for uuid in e.inputs))

    def forward(self, observations: Mapping[str, Tensor]) -> Tensor:
        """Features [*, F] of the images."""
        return torch.cat([encoder(observations) for encoder in self.encoders], dim=-1)


class FrozenFeatures(nn.Module):
    """What is learned behind a frozen encoder: its features [*, W], normalised and projected.

    They are in the rollout and cost next to nothing to project: nothing of this is stored again.
    """

    def __init__(self, inputs: Mapping[str, spaces.Box], features: int) -> None:
        """Read the features of every camera, side by side."""
        super().__init__()
        self.features, self.inputs = features, tuple(inputs)
        width = sum(space.shape[0] for space in inputs.values())
        self.head = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, features), nn.GELU(approximate="tanh")
        )

    def forward(self, observations: Mapping[str, Tensor]) -> Tensor:
        """Features [*, F]."""
        out: Tensor = self.head(torch.cat([observations[u].float() for u in self.inputs], dim=-1))
        return out
