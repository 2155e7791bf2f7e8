"""Writes sweep folders without training: made-up progress, and agents of known skill evaluated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from habitat_baselines.utils.common import batch_obs
from torch import Tensor
from tqdm import tqdm

from memo_habitat.config.evaluation import EvaluationPlan
from memo_habitat.evaluation.agents import Agent, RandomAgent, SensorAgent
from memo_habitat.evaluation.play_trials import evaluate
from memo_habitat.evaluation.recorder import Recorder
from memo_habitat.evaluation.records import EvaluationMeta
from memo_habitat.policy.network import ContextUse
from memo_habitat.report import FINAL, REFERENCE, SWEEP_FILE, member_folder
from memo_habitat.report.load import EVAL_FOLDER
from memo_habitat.tasks.dark_key.layouts import SETTINGS, Setting
from memo_habitat.tasks.dark_key.vector_env import DarkKeyVectorEnv, house_name
from memo_habitat.trainer.progress import ProgressFile
from memo_habitat.utils.files import write_json

UPDATES, STEPS_PER_UPDATE = 60, 9600
BYTES_PER_TOKEN = 2048


class Learner(SensorAgent):
    """Acts as the oracle more and more often in the course of a trial, else at random."""

    def __init__(self, skill: float, seed: int, half_time: float = 40.0) -> None:
        """Reach the share `skill` of the oracle's actions, half of it after `half_time` steps."""
        super().__init__()
        self._skill, self._half_time = skill, half_time
        self._seed, self._steps = seed, torch.zeros(0, dtype=torch.long)

    def begin_trial(self, seed: int) -> None:
        """Draw from `seed`, that of the trial, and its own."""
        self._rng = np.random.default_rng([self._seed, seed])

    def act(
        self, observations: dict[str, Tensor], trial_start: Tensor, episode_start: Tensor
    ) -> Tensor:
        """Actions, long [N]."""
        steps = self._steps = observations["trial_step"].reshape(-1)
        share = self._skill * (1 - 0.5 ** (steps.numpy() / self._half_time))
        knows = torch.from_numpy(self._rng.random(len(steps)) < share)
        others = torch.from_numpy(self._rng.integers(5, size=len(steps)))
        return torch.where(knows, super().act(observations, trial_start, episode_start), others)

    def context(self) -> ContextUse:  # type: ignore[override]
        """Every tenth step is kept."""
        tokens = self._steps // 10 + 1
        full = (self._steps + 1) * BYTES_PER_TOKEN
        return ContextUse(tokens, tokens * BYTES_PER_TOKEN, full)


def write_sweep(
    folder: Path,
    skills: Mapping[str, float],
    seeds: Sequence[int] = (0, 1),
    setting: Setting = SETTINGS["quick"],
    trials: int = 8,
    references: bool = True,
) -> Path:
    """Write a sweep whose variants have these `skills` (see `Learner`), a little more each seed."""
    info = {
        "config": "dark_key_to_door",
        "variants": list(skills),
        "seeds": list(seeds),
        "overrides": [f"habitat.task.size={setting.size}"],
        "command": "memo-habitat sweep",
        "versions": {"memo-habitat": "0"},
        "started": "2026-01-01T12:00:00+00:00",
    }
    write_json(folder / SWEEP_FILE, info)
    if references:
        for make in (SensorAgent, lambda: RandomAgent(5)):
            _evaluate(folder / REFERENCE / EVAL_FOLDER / make().name, make, setting, trials)
    for name, skill in skills.items():
        for seed in seeds:
            own = skill + 0.02 * seed
            run = member_folder(folder, name, seed)
            write_progress(run, own, seed)
            _evaluate(run / EVAL_FOLDER / FINAL, partial(Learner, own, seed), setting, trials)
    return folder


def write_progress(run: Path, skill: float, seed: int, updates: int = UPDATES) -> None:
    """Write `updates` of 60 updates in which the return rises towards 50 times `skill`."""
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.yaml").write_text(
        f"habitat_baselines:\n  total_num_steps: {UPDATES * STEPS_PER_UPDATE}\n  num_updates: -1\n"
    )
    file = ProgressFile(str(run / "progress.jsonl"), 0)
    rng = np.random.default_rng(seed)
    for update in range(1, updates + 1):
        mean = 50 * skill * (1 - np.exp(-update / 15)) + rng.normal(0, 1)
        file.append(
            {
                "steps": update * STEPS_PER_UPDATE,
                "updates": update,
                "seconds": 2.0 * update,
                "episodes": 400.0,
                "metrics": {},
                "learner": {
                    "memory_tokens": 18.0,
                    "memory_kv_bytes": 18.0 * BYTES_PER_TOKEN,
                    "memory_kv_bytes_full_context": 150.0 * BYTES_PER_TOKEN,
                },
                "timers": {},
                "trials": {"count": 64, "return": float(mean)},
            }
        )


def _evaluate(folder: Path, make: Callable[[], Agent], setting: Setting, trials: int) -> None:
    agents = [make() for _ in range(min(trials, 64))]
    agent = agents[0]
    envs = DarkKeyVectorEnv(setting, len(agents), 0, oracle=True, records=True)
    plan = EvaluationPlan(trials, setting.trial_steps, map_resolution=0)
    is_reference = agent.name == "random" or type(agent) is SensorAgent
    meta = EvaluationMeta(
        agent=agent.name if is_reference else "checkpoint",
        step=UPDATES * STEPS_PER_UPDATE,
        split="test",
        seed=plan.seed,
        steps_per_trial=setting.trial_steps,
        houses=(house_name(setting.size),),
    )
    with torch.inference_mode(), Recorder(folder, plan) as recorder:
        bar = tqdm(disable=True)
        fields = evaluate(envs, agents, plan, recorder, bar, lambda s: batch_obs([s]))
    meta.model_copy(update={"measures": fields, "finished": "now"}).write(folder)
