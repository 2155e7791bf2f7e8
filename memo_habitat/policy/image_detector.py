"""Detections from camera images: a small network in the place of the simulator's perfect detector.

An observation transform of Habitat-Baselines, so that whatever reads detections (encoder, memory,
losses, hindsight) is the same with and without images, and rollouts keep tables, not images.

Legend: C categories, H x W pixels, K cells of the network's last maps, * any leading dimensions.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from gym import spaces
from habitat_baselines.common.baseline_registry import baseline_registry
from habitat_baselines.common.obs_transformers import ObservationTransformer
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from memo_habitat.errors import UserError
from memo_habitat.policy.detection_encoder import (
    COMPASS,
    DETECTIONS,
    GPS,
    TARGET,
    TARGET_DETECTION,
)
from memo_habitat.tasks.extobjnav.detections import AGENT_SCALE, TRIAL_SCALE, WIDTH
from memo_habitat.utils.data_paths import resolve

TILT = "camera_tilt"
_KEY = "habitat_baselines.rl.policy.*.obs_transforms.image_detections"


class Seen(NamedTuple):
    """What an image shows of each category.

    logits: [*, C], of its being there. places: [*, C, 2] m forward and left of the agent.
    shares: [*, C], natural logarithm of the share of the image that it fills.
    """

    logits: Tensor
    places: Tensor
    shares: Tensor


class ImageDetector(nn.Module):
    """Four convolutions; each category looks for itself on their maps, then tells where it is.

    The place is worked out where the category matches best: its bearing follows from the column,
    its distance from what the maps hold there.
    """

    def __init__(self, categories: int, channels: int = 16, hfov: float = math.pi / 2) -> None:
        """A detector of C categories for a camera with a horizontal field of view in rad."""
        super().__init__()
        width = 4 * channels
        self.categories = categories
        # Half the image's width at a distance of 1: of the camera, so saved with the weights.
        self.half_width: Tensor
        self.register_buffer("half_width", torch.tensor(math.tan(hfov / 2)))
        self.maps = nn.Sequential(
            nn.Conv2d(3, channels, kernel_size=4, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, 2 * channels, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(2 * channels, width, kernel_size=3, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
        )
        self.matches = nn.Conv2d(width, categories, kernel_size=1)
        # Of twenty categories one is in view: a detector that begins by seeing nothing.
        nn.init.constant_(cast(Tensor, self.matches.bias), -3.0)
        self.place = nn.Sequential(
            nn.Linear(width + 3, width), nn.ReLU(inplace=True), nn.Linear(width, 3)
        )
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor, tilt: Tensor) -> Seen:
        """Images [B, H, W, 3] uint8 and the camera's tilt [B, 1] rad."""
        maps = self.maps(images.permute(0, 3, 1, 2).float().mul_(1 / 127.5).sub_(1.0))
        matches = self.matches(maps).flatten(2)
        # Twice as sharp as the match itself, since a place between two instances is no place.
        weights = (2.0 * matches).softmax(-1)
        held = weights @ maps.flatten(2).transpose(1, 2)
        centre = weights @ _cell_centres(maps.shape[-2], maps.shape[-1], maps.device)
        tilts = tilt.unsqueeze(1).expand(-1, matches.shape[1], -1)
        told = self.place(torch.cat([held, centre, tilts], dim=-1))
        bearing = torch.atan(self.half_width * centre[..., 0]) + 0.1 * told[..., 1]
        distance = nn.functional.softplus(told[..., 0])
        places = torch.stack([distance * bearing.cos(), -distance * bearing.sin()], dim=-1)
        return Seen(matches.amax(-1), places, told[..., 2])


def _cell_centres(height: int, width: int, device: torch.device) -> Tensor:
    """[K, 2]: column and row of each cell of a map, from -1 to 1."""
    rows = (torch.arange(height, device=device) + 0.5) * (2.0 / height) - 1.0
    columns = (torch.arange(width, device=device) + 0.5) * (2.0 / width) - 1.0
    return torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1).flatten(0, 1)


def detector_loss(seen: Seen, table: Tensor) -> Tensor:
    """What the detector is trained with, scalar; `table` [B, C, 6] is the perfect detector's."""
    there = table[..., 0]
    loss = nn.functional.binary_cross_entropy_with_logits(seen.logits, there)
    shown = there > 0.0
    places, shares = table[..., 1:3] * AGENT_SCALE, table[..., 5].clamp(min=1e-5).log()
    loss = len(table[0]) * loss
    if shown.any():
        loss = loss + nn.functional.smooth_l1_loss(seen.places[shown], places[shown], beta=0.2)
        loss = loss + 0.1 * nn.functional.smooth_l1_loss(seen.shares[shown], shares[shown])
    return loss


def table_of(seen: Seen, threshold: float, gps: Tensor, compass: Tensor) -> Tensor:
    """The detections [*, C, 6] of `tasks.extobjnav.detections`, from what images show.

    threshold: probability from which a category is reported. gps [*, 2] m, compass [*, 1] rad.
    """
    forward, left = seen.places.unbind(-1)
    sin, cos = compass.sin(), compass.cos()
    ahead = gps[..., :1] + forward * cos - left * sin
    beside = gps[..., 1:] + forward * sin + left * cos
    found = (seen.logits.sigmoid() >= threshold).to(forward.dtype)
    rows = [
        torch.ones_like(forward),
        forward / AGENT_SCALE,
        left / AGENT_SCALE,
        ahead / TRIAL_SCALE,
        beside / TRIAL_SCALE,
        seen.shares.exp(),
    ]
    return torch.stack(rows, dim=-1) * found.unsqueeze(-1)


@baseline_registry.register_obs_transformer(name="ImageDetections")
class ImageDetections(ObservationTransformer):  # type: ignore[misc]
    """Puts detections and the target's detection in the place of the camera's image."""

    def __init__(self, config: Any) -> None:
        """Read the weights, which stay as they are."""
        super().__init__()
        self.camera, self.threshold, self.reach = config.camera, config.threshold, config.reach
        self.detector = load_detector(config.weights)

    @classmethod
    def from_config(cls, config: Any) -> ImageDetections:
        """As Habitat-Baselines makes it."""
        return cls(config)

    def transform_observation_space(self, observation_space: spaces.Dict) -> spaces.Dict:
        """The same without the camera, with detections.

        Raises:
            UserError: something that detections are made from is not observed.
        """
        there = dict(observation_space.spaces)
        missing = [u for u in (self.camera, TARGET, GPS, COMPASS, TILT) if u not in there]
        if missing:
            raise UserError(f"{_KEY} needs {', '.join(missing)}, which is not observed")
        categories = there[TARGET].shape[0]
        if categories != self.detector.categories:
            raise UserError(
                f"{_KEY}.weights are of {self.detector.categories} categories and the data"
                f" set has {categories}: train a detector for it with tools/train_detector.py"
            )
        del there[self.camera]
        there[DETECTIONS] = _box(categories, WIDTH)
        there[TARGET_DETECTION] = _box(WIDTH + 1)
        return spaces.Dict(there)

    @torch.no_grad()
    def forward(self, observations: dict[str, Tensor]) -> dict[str, Tensor]:
        """Observations [N, ...] of N environments."""
        device = next(self.detector.parameters()).device
        # Environments in this process leave theirs on the CPU.
        out = {uuid: value.to(device) for uuid, value in observations.items()}
        seen = self.detector(out.pop(self.camera), out[TILT])
        table = table_of(seen, self.threshold, out[GPS], out[COMPASS])
        own = (out[TARGET].to(table.dtype).unsqueeze(-1) * table).sum(-2)
        near = AGENT_SCALE * own[..., 1:3].norm(dim=-1) <= self.reach
        near = (near & (own[..., 0] > 0.0)).to(own.dtype)
        out[DETECTIONS], out[TARGET_DETECTION] = table, torch.cat([own, near.unsqueeze(-1)], -1)
        return out


def load_detector(weights: str) -> ImageDetector:
    """The detector in a file of weights, for use alone; UserError where there is none."""
    try:
        state = load_file(resolve(weights))
        channels, categories = len(state["maps.0.bias"]), len(state["matches.bias"])
        detector = ImageDetector(categories, channels)
        detector.load_state_dict(state)
    # A folder, and weights of something else: the last two.
    except (UserError, SafetensorError, OSError, KeyError, RuntimeError) as error:
        raise UserError(
            f"{_KEY}.weights={weights} is no detector ({' '.join(str(error).split())[:200]}): make "
            "one with tools/train_detector.py"
        ) from error
    return detector.eval().requires_grad_(False)


def _box(*shape: int) -> spaces.Box:
    return spaces.Box(-np.inf, np.inf, shape, dtype=np.float32)
