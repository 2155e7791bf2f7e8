"""Train the detector of `encoder=image_detections` on what the simulator knows, then test it.

    python tools/train_detector.py --out data/agents/detector/lofts.safetensors
    python tools/train_detector.py extobjnav/recall home=apartments --out apartments.safetensors
    python tools/train_detector.py extobjnav/recall simulator=habitat_sim --out sim.safetensors \
        --environments 8

Frames come from the training homes of a config, along walks that the player with perfect memory and
chance take in turns; the table printed is of held-out homes.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from habitat.config.default import patch_config
from omegaconf import DictConfig
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from memo_habitat.config.compose import compose_config
from memo_habitat.register import register_all
from memo_habitat.tasks.extobjnav.detections import AGENT_SCALE

if TYPE_CHECKING:
    from memo_habitat.policy.image_detector import ImageDetector

# What loads Habitat-Baselines is imported where it is used: workers import this file, Triton comes
# with it, and no process that has loaded that can draw with Mesa.

# Short episodes and trials, so that frames come from many places and arrangements.
WALK = [
    "habitat.simulator.render_images=true",
    "habitat.environment.max_episode_steps=16",
    "habitat.task.trial_steps=64",
]
# stop, move_forward, turn_left, turn_right, look_up, look_down
BY_CHANCE = [0.0, 0.3, 0.25, 0.25, 0.1, 0.1]


class Frames(NamedTuple):
    """F frames: images [F, H, W, 3] uint8, tilts [F, 1] rad, perfect detections [F, C, 6]."""

    images: Tensor
    tilts: Tensor
    tables: Tensor


def walk(config: DictConfig) -> Generator[Frames, None, None]:
    """What the environments of a config observe, step by step, without an end."""
    from memo_habitat.trainer.env_factory import BatchedVectorEnvFactory

    rng = np.random.default_rng(config.habitat.seed)
    with closing(BatchedVectorEnvFactory().construct_envs(patch_config(config))) as envs:
        seen = envs.reset()
        while True:
            wanted = ("head_rgb", "camera_tilt", "detections")
            yield Frames(*(torch.from_numpy(np.stack([o[uuid] for o in seen])) for uuid in wanted))
            for index, observed in enumerate(seen):
                action = int(observed["perfect_memory_action"].item())
                if rng.random() < 0.5:
                    action = int(rng.choice(len(BY_CHANCE), p=BY_CHANCE))
                envs.async_step_at(index, action)
            seen = [envs.wait_step_at(index)[0] for index in range(len(seen))]


def collect(
    name: str, overrides: list[str], split: str, count: int, environments: int, seed: int
) -> Frames:
    """About `count` frames."""
    keys = [
        f"habitat.dataset.split={split}",
        f"habitat.seed={seed}",
        f"habitat_baselines.num_environments={environments}",
    ]
    steps = -(-count // environments)
    with closing(walk(compose_config(name, [*overrides, *WALK, *keys]))) as frames:
        taken = [next(frames) for _ in tqdm(range(steps), f"frames of {split}")]
    return Frames(*(torch.cat(part) for part in zip(*taken, strict=True)))


def train(frames: Frames, hfov: float, steps: int, batch: int, seed: int) -> ImageDetector:
    """A detector for a camera of `hfov` rad after `steps` steps of AdamW on drawn batches."""
    from memo_habitat.policy.image_detector import ImageDetector, detector_loss

    torch.manual_seed(seed)
    detector = ImageDetector(frames.tables.shape[1], hfov=hfov)
    optimiser = torch.optim.AdamW(detector.parameters(), 2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    bar = tqdm(range(steps), "training")
    for _ in bar:
        drawn = torch.randint(len(frames.images), (batch,))
        loss = detector_loss(
            detector(frames.images[drawn], frames.tilts[drawn]), frames.tables[drawn]
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    return detector.eval()


@torch.no_grad()
def report(detector: ImageDetector, frames: Frames) -> str:
    """Precision, recall, and how far from the truth what it sees is placed."""
    parts = zip(frames.images.split(512), frames.tilts.split(512), strict=True)
    logits, places, _ = (torch.cat(p) for p in zip(*(detector(*p) for p in parts), strict=True))
    there, said = frames.tables[..., 0] > 0.0, logits > 0.0
    right = int((there & said).sum())
    error = (places - AGENT_SCALE * frames.tables[..., 1:3])[there].norm(dim=-1)
    return (
        f"{len(frames.images)} held-out frames: precision {right / max(1, int(said.sum())):.3f}, "
        f"recall {right / max(1, int(there.sum())):.3f}, place error {error.median():.2f} m "
        f"(median), {error.quantile(0.9):.2f} m (90th percentile)"
    )


def main() -> None:
    """Train as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", nargs="?", default="extobjnav/recall")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=50_000)
    parser.add_argument("--steps", type=int, default=3_000)
    parser.add_argument("--environments", type=int, default=32)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    register_all()
    what = asked.config, asked.overrides
    cameras = compose_config(*what).habitat.simulator.agents.main_agent.sim_sensors
    hfov = math.radians(cameras.head_rgb_sensor.hfov)
    drawn = asked.environments, asked.seed
    frames = collect(*what, "train", asked.frames, *drawn)
    detector = train(frames, hfov, asked.steps, asked.batch, asked.seed)
    print(report(detector, collect(*what, "test", max(512, asked.frames // 10), *drawn)))
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    weights = {name: value.contiguous() for name, value in detector.state_dict().items()}
    save_file(weights, asked.out)
    print(asked.out)


if __name__ == "__main__":
    main()
