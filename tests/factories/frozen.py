"""A frozen encoder of 0.3 M weights, and a file of weights as VC-1's is laid out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from memo_habitat.config.policy import EncoderConfig

BACKBONE, SIDE, WIDTH = "test_vit", 32, 64


def vc1_shaped(path: Path, seed: int = 0) -> dict[str, torch.Tensor]:
    """Write random weights: a masked autoencoder's, below "model", with its decoder. The encoder's.

    Positions are those of images twice as large.
    """
    import timm

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = timm.create_model(BACKBONE, num_classes=0, img_size=2 * SIDE)
        weights = {name: 0.1 * torch.randn_like(x) for name, x in model.state_dict().items()}
    decoder = {
        "mask_token": torch.zeros(1, 1, WIDTH),
        "decoder_pos_embed": torch.zeros(1, 17, 8),
        "decoder_blocks.0.norm1.weight": torch.ones(8),
    }
    torch.save({"model": {**weights, **decoder}, "epoch": 182}, path)
    return weights


def frozen_config(weights: str | Path = "random", **options: Any) -> EncoderConfig:
    given = {"backbone": BACKBONE, "image_size": SIDE, "features": 8, **options}
    return EncoderConfig(kind="timm", weights=str(weights), **given)
