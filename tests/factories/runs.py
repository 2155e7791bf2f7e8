"""Writes run folders with made-up evaluations, to test and to look at reports."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from memo_habitat.config.evaluation import EvaluationPlan
from memo_habitat.evaluation.recorder import Recorder
from memo_habitat.evaluation.records import EpisodeRecord, EvaluationMeta
from memo_habitat.evaluation.schedule import TrialKey
from memo_habitat.memory.attention_probe import AttentionStats
from memo_habitat.policy.network import ContextUse
from memo_habitat.simulator.interface import TopDownMap
from memo_habitat.tasks.extobjnav.measures import (
    SPL,
    DistanceToGoal,
    NumSteps,
    SoftSPL,
    Success,
    TargetSeenEarlier,
)
from memo_habitat.tasks.record_fields import COLLISIONS, REWARD
from memo_habitat.utils.files import write_json

SEGMENT, SUMMARY, BYTES_PER_TOKEN = 256, 32, 8192
# What ExtObjNav records.
FIELDS = {
    field.name: field
    for measure in (Success, SPL, SoftSPL, DistanceToGoal, NumSteps, TargetSeenEarlier)
    for field in (REWARD, COLLISIONS, measure.record)
}
CATEGORIES = ("mug", "red_ball", "teapot", "toy_plane")


def context_tokens(step: int) -> int:
    """Tokens of a Memo agent after `step` steps of a trial."""
    return step // SEGMENT * SUMMARY + step % SEGMENT


def write_run(
    folder: Path,
    agents: dict[str, tuple[float, float]],
    steps: int = 4096,
    houses: int = 3,
    trials_per_house: int = 4,
    seed: int = 0,
    inspected: bool = False,
    seen: bool = False,
) -> Path:
    """Write a run whose agents' success goes from the first to the second rate along the trial.

    Agents called "random", "perfect_memory" and "oracle" have no memory; the others are
    checkpoints, whose memory was looked at if `inspected`. If `seen`, more than half of the
    targets count as seen earlier.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text("habitat:\n  task:\n    success_distance: 2.0\n")
    write_json(folder / "run.json", {"command": "memo-habitat train", "seed": seed})
    with (folder / "progress.jsonl").open("w") as file:
        for update in range(60):
            share = 1 - float(np.exp(-update / 20))
            metrics = {"extobjnav_success": 0.6 * share, "spl": 0.35 * share, "reward": 3 * share}
            file.write(json.dumps({"steps": 4096 * (update + 1), "metrics": metrics}) + "\n")
    keys = [
        TrialKey(f"house_{h}", f"a{t}", 0) for h in range(houses) for t in range(trials_per_house)
    ]
    for number, (name, rates) in enumerate(agents.items()):
        rng = np.random.default_rng([seed, number])
        _write_evaluation(folder / "eval" / name, name, rates, keys, steps, inspected, rng, seen)
    return folder


def _write_evaluation(
    folder: Path,
    name: str,
    rates: tuple[float, float],
    keys: list[TrialKey],
    steps: int,
    inspected: bool,
    rng: np.random.Generator,
    seen: bool,
) -> None:
    has_memory = name not in ("random", "oracle", "perfect_memory")
    houses = sorted({key.house for key in keys})
    EvaluationMeta(
        agent="checkpoint" if has_memory else name,
        step=250_000 if has_memory else None,
        split="test",
        trials_per_house=len(keys) // len(houses),
        steps_per_trial=steps,
        seed=0,
        forget=name.endswith("-forget"),
        houses=tuple(houses),
        measures=FIELDS,
        command=["memo-habitat", "eval", "RUN", "--agent", name],
        finished="2026-01-01T12:00:00+00:00",
        seconds=321.5,
    ).write(folder)
    plan = EvaluationPlan(len(keys), steps, inspect_memory=inspected and has_memory)
    with Recorder(folder, plan) as recorder:
        recorder.choose_filmed(keys)
        for key in keys:
            free = house_floor(np.random.default_rng(list(key.house.encode())))
            if recorder.needs_map(key.house):
                recorder.save_map(key.house, TopDownMap(free, (-3.0, -2.0), 0.05))
            if has_memory:
                _remember(recorder, key, plan, rng)
            for record in trial_records(key, rates, steps, has_memory, free, rng, seen):
                film(recorder, record, rng)
                recorder.reward(key.id, record.trial_step_end, record.reward)
                recorder.end_episode(0, record, record.trial_step_end == steps)


def _remember(
    recorder: Recorder, key: TrialKey, plan: EvaluationPlan, rng: np.random.Generator
) -> None:
    """A memory that attends to all of its tokens, more to newer summaries."""
    steps, every = plan.steps_per_trial, plan.inspect_every
    looked_at = {min(steps, s + int(rng.integers(every))) for s in range(1, steps + 1, every)}
    spacing = max(8, steps // 600)
    traced = range(spacing, steps + 1, spacing)
    for step in sorted(looked_at.union(traced) if plan.inspect_memory else traced):
        tokens = context_tokens(step)
        use = ContextUse(
            tokens=torch.tensor([tokens]),
            kv_bytes=torch.tensor([tokens * BYTES_PER_TOKEN]),
            full_context_kv_bytes=torch.tensor([step * BYTES_PER_TOKEN]),
        )
        is_looked_at = plan.inspect_memory and step in looked_at
        recorder.remember(key.id, step, use, _attention(step) if is_looked_at else None)


def _attention(step: int) -> AttentionStats:
    held = step // SEGMENT
    ages = SUMMARY * (0.5 + torch.linspace(1, 0, held))
    parts = torch.tensor([2.0, 1.0 + step % SEGMENT, *ages])
    parts /= parts.sum()
    return AttentionStats(
        sink=parts[:1],
        steps=parts[1:2],
        summaries=parts[None, 2:],
        held=torch.tensor([held]),
        effective_context=torch.tensor([0.7 * context_tokens(step)]),
        by_token=parts[None, None],
    )


def house_floor(rng: np.random.Generator) -> np.ndarray:
    """Bool [Z, X]: rooms of 0.05 m cells with a wall, a door and some furniture."""
    free = np.zeros((120, 160), dtype=bool)
    free[4:-4, 4:-4] = True
    free[:, 78:82] = False
    free[50:70, 78:82] = True
    for _ in range(7):
        z, x = rng.integers(8, 90), rng.integers(8, 130)
        free[z : z + rng.integers(8, 20), x : x + rng.integers(8, 22)] = False
    return free


def trial_records(
    key: TrialKey,
    rates: tuple[float, float],
    steps: int,
    has_memory: bool,
    free: np.ndarray,
    rng: np.random.Generator,
    seen: bool,
) -> Iterator[EpisodeRecord]:
    """Episodes of one trial, back to back to its end."""
    end, index = 0, 0
    own = rng.normal(0, 0.08)
    rows, columns = np.nonzero(free)
    while end < steps:
        start, rate = end, rates[0] + (rates[1] - rates[0]) * end / steps + own
        length = int(rng.integers(12, 160))
        truncated = start + length >= steps
        end = min(steps, start + length)
        success = float(rng.random() < rate and not truncated)
        here, goal = (
            (columns[i] * 0.05 - 3, rows[i] * 0.05 - 2) for i in rng.integers(len(rows), size=2)
        )
        way = np.linspace(here, goal, end - start + 1) + rng.normal(0, 0.05, (end - start + 1, 2))
        tokens = context_tokens(end)
        values: dict[str, Any] = {
            "trial_id": key.id,
            "scene_id": key.house,
            "arrangement_id": key.arrangement_id,
            "repetition": key.repetition,
            "episode_index": index,
            "target_category": CATEGORIES[int(rng.integers(len(CATEGORIES)))],
            "trial_step_start": start,
            "trial_step_end": end,
            "success": success,
            "spl": success * float(rng.uniform(0.3, 0.9)),
            "soft_spl": float(rng.uniform(0.1, 0.9)),
            "distance_to_goal": float(rng.uniform(0, 3)),
            "num_steps": end - start,
            **({"seen_earlier": bool(start and rng.random() < 0.6)} if seen else {}),
            "collisions": float(rng.integers(5)),
            "reward": 2 * success,
            "start_distance": float(rng.uniform(1, 5)),
            "path_length": float(rng.uniform(2, 9)),
            "truncated": truncated,
            "context_tokens": tokens if has_memory else None,
            "kv_bytes": tokens * BYTES_PER_TOKEN if has_memory else None,
            "full_context_kv_bytes": end * BYTES_PER_TOKEN if has_memory else None,
            "path": np.round(way, 3).tolist(),
            "start_position": [float(here[0]), 0.0, float(here[1])],
            "goal_positions": [[float(goal[0]) + 0.4, 0.5, float(goal[1]) + 0.3]],
        }
        yield EpisodeRecord.model_validate(values)
        index += 1


def film(recorder: Recorder, record: EpisodeRecord, rng: np.random.Generator) -> None:
    """Give the recorder made-up frames of an episode: a ball that comes nearer."""
    if not recorder.films(record.trial_id, record.episode_index):
        return
    color = rng.integers(60, 255, size=3)
    z, x = np.mgrid[0:64, 0:64]
    for step in range(record.num_steps):
        frame = np.zeros((64, 64, 3), np.uint8)
        frame[:32], frame[32:] = (196, 205, 214), (150, 126, 100)
        radius = 3 + 12 * step / record.num_steps
        frame[(z - 38) ** 2 + (x - 32) ** 2 < radius**2] = color
        step += record.trial_step_start
        recorder.see(0, record.trial_id, record.episode_index, step, frame)
