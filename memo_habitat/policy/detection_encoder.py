"""The encoder of detections, which take the place of an image.

One table of category embeddings says both what is sought and what is seen. With separate encodings
attention must learn for each category on its own that the two mean the same, which it did not in
millions of steps (docs/results/recall).

Legend: C categories, E width of a category's embedding, * any leading dimensions. What detections
hold: see `tasks.extobjnav.detections`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from gym import spaces
from torch import Tensor, nn

from memo_habitat.errors import UserError
from memo_habitat.tasks.extobjnav.detections import TRIAL_SCALE, WIDTH

DETECTIONS, TARGET, TARGET_DETECTION = "detections", "one_hot_target_sensor", "target_detection"
GPS, COMPASS = "gps", "compass"
_NEEDED = (DETECTIONS, TARGET, TARGET_DETECTION, GPS, COMPASS)
_FREQUENCIES = 4  # of the sines and cosines of a place: wave lengths of 4, 2, 1, 0.5 of 10 m
_TARGET_WIDTH, _HIDDEN = 32, 128
# What the target's detection and the pose are multiplied by, to be as loud as the embeddings.
_OWN_GAIN, _POSE_GAIN = 4.0, 2.0


def place_features(places: Tensor) -> Tensor:
    """Places [*, W], in 10 m, with sines and cosines: [*, W (1 + 2 K)].

    Attention compares by products: these tell neighbours from what is far away, where the places
    themselves only grow.
    """
    waves = 0.5 * math.pi * 2.0 ** torch.arange(_FREQUENCIES, device=places.device)
    angles = (places[..., None] * waves).flatten(-2)
    return torch.cat([places, angles.sin(), angles.cos()], dim=-1)


class DetectionEncoder(nn.Module):
    """What is detected, what is sought and where the agent stands, to features [*, F].

    Features are [sum over the detected categories of (E_c + place bound to E_c) | E_target | the
    target's own detection | pose]. The parts stay apart: who looks for a sighting of the target
    must not find all steps that had the same target.
    """

    def __init__(self, categories: int, width: int, vectors: Tensor | None = None) -> None:
        """An encoder of C categories, whose embeddings have width E.

        vectors [C, W] are given ones, such as a text encoder's. They stay as they are and are
        projected to E, so that categories can be added later.
        """
        # Entries of unit variance, to be heard beside the pose: with a tenth of that nothing about
        # categories was remembered at all.
        super().__init__()
        self.width = width
        #: Whether all categories are worked out, detected or not: shapes then follow from no value,
        #: which graphs of fixed shapes need.
        self.dense = False
        self.vectors: Tensor | None
        if vectors is None:
            self.embeddings = nn.Parameter(torch.randn(categories, width))
            self.register_buffer("vectors", None)
        else:
            # Of unit variance per entry, as learned embeddings begin.
            scale = 1.0 / vectors.float().std().clamp(min=1e-6)
            self.register_buffer("vectors", vectors.float() * scale, persistent=False)
            self.project = nn.Linear(vectors.shape[1], width)
        pose = 2 * (1 + 2 * _FREQUENCIES)
        self.place = nn.Linear(pose + 3, _HIDDEN)
        self.asked = nn.Linear(width, _HIDDEN)
        self.bound = nn.Sequential(
            nn.Linear(2 * _HIDDEN, _HIDDEN), nn.GELU(approximate="tanh"), nn.Linear(_HIDDEN, width)
        )
        self.target_detection = nn.Sequential(
            nn.Linear(WIDTH + 1, _TARGET_WIDTH), nn.GELU(approximate="tanh")
        )
        self.features = 2 * width + _TARGET_WIDTH + pose + 2

    def table(self) -> Tensor:
        """The embeddings of all categories, [C, E]."""
        return self.embeddings if self.vectors is None else self.project(self.vectors)

    def forward(self, observations: Mapping[str, Tensor]) -> Tensor:
        """Features [*, F] of the observations [*, ...]."""
        detections, table = observations[DETECTIONS], self.table()
        seen = self._sightings(detections.flatten(0, -3), table)
        target = observations[TARGET].to(table.dtype) @ table
        own = self.target_detection(observations[TARGET_DETECTION])
        compass = observations[COMPASS]
        place = place_features(observations[GPS] / TRIAL_SCALE)
        pose = torch.cat([place, compass.sin(), compass.cos()], dim=-1)
        seen = seen.reshape(*detections.shape[:-2], -1)
        return torch.cat([seen, target, _OWN_GAIN * own, _POSE_GAIN * pose], dim=-1)

    def _sightings(self, detections: Tensor, table: Tensor) -> Tensor:
        """[R, C, 6] to the sum [R, E] over what is detected; most rows are zeros and cost none."""
        if self.dense:
            bound = self._bound(table, detections)
            return torch.where(detections[..., :1] != 0, table + bound, 0.0).sum(1)
        row, category = detections[..., 0].nonzero(as_tuple=True)
        found = detections[row, category]
        embedding = table[category]
        total = table.new_zeros(len(detections), self.width)
        sighting = embedding + self._bound(embedding, found)
        return total.index_add(0, row, sighting.to(total.dtype))

    def _bound(self, embedding: Tensor, detection: Tensor) -> Tensor:
        """Places of detections [*, 6] bound to their categories' embeddings [*, E]: [*, E]."""
        where = torch.cat([place_features(detection[..., 3:5]), detection[..., [1, 2, 5]]], dim=-1)
        place = self.place(where)
        bound: Tensor = self.bound(torch.cat([place * self.asked(embedding), place], dim=-1))
        return bound


def build_detection_encoder(
    width: int, vectors_file: str, observation_space: spaces.Dict
) -> DetectionEncoder:
    """The encoder for these observations; UserError without the sensors, or a vector for each
    category in the file."""
    missing = [uuid for uuid in _NEEDED if uuid not in observation_space.spaces]
    if missing:
        raise UserError(
            "habitat_baselines.rl.encoder.kind=detections needs the observations "
            f"{', '.join(missing)}, which there are not: choose encoder=detections, which adds "
            "their sensors to habitat.task.lab_sensors"
        )
    categories = observation_space.spaces[DETECTIONS].shape[0]
    vectors = _read_vectors(vectors_file, categories) if vectors_file else None
    return DetectionEncoder(categories, width, vectors)


def _read_vectors(file: str, categories: int) -> Tensor:
    key = "habitat_baselines.rl.encoder.category_vectors"
    if not Path(file).is_file():
        raise UserError(f"{key}={file!r} is no file: give a .npy of shape [{categories}, width]")
    try:
        vectors = np.load(file)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{key}={file!r} cannot be read as a .npy: {error}") from error
    if not isinstance(vectors, np.ndarray) or vectors.dtype.kind not in "fiu":
        raise UserError(f"{key}={file!r}: give a .npy of numbers, shape [{categories}, width]")
    if vectors.ndim != 2 or len(vectors) != categories or not np.isfinite(vectors).all():
        raise UserError(
            f"{key}={file!r} holds {vectors.shape}: give finite numbers, one row for each of the "
            f"{categories} categories in the order of the data set's vocabulary"
        )
    return torch.from_numpy(vectors).float()
