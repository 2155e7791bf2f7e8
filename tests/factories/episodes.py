"""Synthetic episodes for the tests of the report."""

from __future__ import annotations

from typing import Any

import numpy as np

from memo_habitat.evaluation.records import EpisodeRecord

_VALUES: dict[str, Any] = dict(
    trial_id="house_0/arr_0/0",
    scene_id="scenes/house_0.scene_instance.json",
    arrangement_id="arr_0",
    repetition=0,
    episode_index=0,
    target_category="mug",
    trial_step_start=0,
    trial_step_end=20,
    success=1.0,
    spl=0.5,
    soft_spl=0.6,
    distance_to_goal=0.1,
    num_steps=20,
    collisions=2.0,
    reward=1.5,
    start_distance=3.0,
    path_length=6.0,
    truncated=False,
    context_tokens=20,
    kv_bytes=160,
    full_context_kv_bytes=160,
    path=((0.0, 0.0), (0.25, 0.0)),
    start_position=(0.0, 0.0, 0.0),
    goal_positions=((1.0, 0.3, 1.0),),
)
EPISODE = EpisodeRecord.model_validate(_VALUES)


def episode(**changes: Any) -> EpisodeRecord:
    """An episode that differs from `EPISODE` in `changes`."""
    return EpisodeRecord.model_validate({**_VALUES, **changes})


def clustered(
    rng: np.random.Generator, trials: int, episodes: int, spread: float
) -> tuple[np.ndarray, np.ndarray]:
    """Successes [E] and trial numbers [E] whose rate differs from trial to trial; mean rate 0.5."""
    rates = np.clip(0.5 + spread * rng.uniform(-1, 1, size=trials), 0, 1)
    labels = np.repeat(np.arange(trials), episodes)
    return (rng.random(trials * episodes) < rates[labels]).astype(float), labels
