"""Image encoders: uint8 images [*, H, W, C] to features [*, F]."""

from __future__ import annotations

import math

import torch
from gym import spaces
from torch import Tensor, nn

from memo_habitat.config.policy import ENCODERS, RECALLS, EncoderConfig
from memo_habitat.errors import UserError, check_at_least_one, check_choice
from memo_habitat.policy.detection_encoder import build_detection_encoder


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
        image_shape: tuple[int, int, int],
        base_channels: int,
        features: int,
        goal_width: int = 0,
        goal_queries: int = 0,
    ) -> None:
        super().__init__()
        c = base_channels
        self.convolutions = nn.Sequential(
            nn.Conv2d(image_shape[2], c, kernel_size=4, stride=4),
            nn.ReLU(inplace=True),
            nn.Conv2d(c, 2 * c, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(2 * c, 4 * c, kernel_size=3, stride=2, padding=1),
            nn.ReLU(inplace=True),
        )
        self.goal_queries = nn.Linear(goal_width, goal_queries * 4 * c) if goal_queries else None
        self.head = nn.Sequential(
            nn.Linear((1 + 2 + 4) * 4 * c + (1 + 2) * goal_queries, features),
            nn.LayerNorm(features),
            nn.GELU(approximate="tanh"),
        )
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor, goal: Tensor | None = None) -> Tensor:
        """Encode images [*, H, W, C] uint8, seen with the goal [*, goal_width], to [*, F]."""
        lead = images.shape[:-3]
        # Images come with their channels last; the convolutions are laid out so, too: no copy.
        x = images.reshape(-1, *images.shape[-3:]).permute(0, 3, 1, 2)
        seen = self.convolutions(x.float().mul_(1 / 127.5).sub_(1.0))
        parts = [_presence(seen), _place(seen), _layout(seen)]
        if self.goal_queries is not None and goal is not None:
            queries = self.goal_queries(goal.reshape(len(seen), -1))
            queries = queries.unflatten(1, (-1, seen.shape[1]))
            matches = (queries @ seen.flatten(2)).unflatten(2, seen.shape[-2:])
            parts += [_presence(matches), _place(matches)]
        out: Tensor = self.head(torch.cat(parts, dim=1))
        return out.reshape(*lead, -1)


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


class ResNet18(nn.Module):
    """Habitat-Baselines' ResNet-18 encoder (group norm), followed by a linear layer."""

    def __init__(
        self, image_shape: tuple[int, int, int], base_channels: int, features: int
    ) -> None:
        super().__init__()
        from habitat_baselines.rl.ddppo.policy import resnet
        from habitat_baselines.rl.ddppo.policy.resnet_policy import ResNetEncoder

        space = spaces.Dict({"rgb": spaces.Box(0, 255, image_shape, dtype="uint8")})
        self.backbone = ResNetEncoder(
            space,
            baseplanes=base_channels,
            ngroups=base_channels // 2,
            make_backbone=resnet.resnet18,
            normalize_visual_inputs=False,
        )
        flat = int(torch.tensor(self.backbone.output_shape).prod())
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(flat, features), nn.LayerNorm(features), nn.GELU()
        )

    def forward(self, images: Tensor, goal: Tensor | None = None) -> Tensor:
        """Encode images [*, H, W, C] uint8 to [*, F], whatever the goal."""
        lead = images.shape[:-3]
        x = {"rgb": images.reshape(-1, *images.shape[-3:])}
        out: Tensor = self.head(self.backbone(x))
        return out.reshape(*lead, -1)


def check_encoder(config: EncoderConfig) -> None:
    """Raise UserError where there can be no such encoder."""
    key = "habitat_baselines.rl.encoder"
    check_choice(f"{key}.kind", config.kind, ENCODERS)
    check_choice(f"{key}.recall", config.recall, RECALLS)
    if config.kind != "detections" and (config.recall != "none" or config.category_vectors):
        raise UserError(
            f"{key}.kind={config.kind!r} has no categories to ask for: "
            "leave recall and category_vectors at their defaults, or choose encoder=detections"
        )
    check_at_least_one(f"{key}.category_width", config.category_width)
    check_at_least_one(f"{key}.chunk_size", config.chunk_size)
    if config.fourier_features < 0:
        raise UserError(
            f"{key}.fourier_features={config.fourier_features}: give 0 for none, or how many"
        )


def build_encoder(config: EncoderConfig, observation_space: spaces.Dict) -> nn.Module | None:
    """The encoder that `EncoderConfig` names, None for "blind"; UserError if it lacks an input."""
    check_encoder(config)
    if config.kind == "blind":
        return None
    if config.kind == "detections":
        return build_detection_encoder(
            config.category_width, config.category_vectors, observation_space
        )
    for uuid in (config.camera, config.goal_sensor):
        if uuid not in observation_space.spaces:
            raise UserError(
                f"habitat_baselines.rl.encoder names {uuid!r}, which is not observed; "
                f"there are: {', '.join(sorted(observation_space.spaces))}"
            )
    shape = observation_space.spaces[config.camera].shape
    if config.kind == "resnet18":
        return ResNet18(shape, config.base_channels, config.features)
    goal_width = math.prod(observation_space.spaces[config.goal_sensor].shape)
    return SmallCNN(shape, config.base_channels, config.features, goal_width, config.goal_queries)
