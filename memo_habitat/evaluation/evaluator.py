"""The evaluator that Habitat-Baselines calls: whole trials, one record per episode."""

from __future__ import annotations

import math
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from habitat import logger
from habitat_baselines.common.obs_transformers import apply_obs_transforms_batch
from habitat_baselines.rl.ppo.evaluator import Evaluator
from habitat_baselines.utils.common import batch_obs
from torch import Tensor
from tqdm import tqdm

from memo_habitat.errors import UserError
from memo_habitat.evaluation.agents import Agent, OracleAgent, RandomAgent
from memo_habitat.evaluation.attention import continue_inspection
from memo_habitat.evaluation.evaluate import evaluate
from memo_habitat.evaluation.recorder import Observer, file_name
from memo_habitat.evaluation.records import (
    AGENTS,
    RECORDS_FILE,
    EvaluationMeta,
    RecordWriter,
    complete_trials,
    iterate_records,
    keep_trials,
    open_folder,
)
from memo_habitat.evaluation.schedule import (
    EvaluationPlan,
    Observation,
    arrangements,
    recorded_fields,
)
from memo_habitat.report.rewards import REWARDS_FILE
from memo_habitat.report.statistics import Episodes, estimate, tabulate
from memo_habitat.report.trials import return_per_trial, targets_per_1000_steps
from memo_habitat.utils.provenance import now, package_versions, typed_command

_CHECKPOINT_SUFFIXES = (".pth", ".safetensors")


class TrialEvaluator(Evaluator):
    """Plays n trials of n steps in every held-out house (`TrialEvaluatorConfig`)."""

    def __init__(
        self,
        agent: str = "checkpoint",
        output_dir: str = "",
        name: str = "",
        **plan: Any,
    ) -> None:
        """Take the fields of `TrialEvaluatorConfig`; those of `EvaluationPlan` by name."""
        if agent not in AGENTS:
            raise UserError(
                f"habitat_baselines.evaluator.agent is '{agent}'; choose one of {', '.join(AGENTS)}"
            )
        self._agent = agent
        self._output_dir = output_dir
        self._name = name
        self._plan = EvaluationPlan(**plan)

    def evaluate_agent(
        self,
        agent: Any,
        envs: Any,
        config: Any,
        checkpoint_index: int,
        step_id: int,
        writer: Any,
        device: torch.device,
        obs_transforms: list[Any],
        *unused: Any,
    ) -> None:
        """Evaluate `agent` in `envs`; write records, and TensorBoard's `eval_*` tags.

        `unused`: Habitat also passes the environments' spec and the measures of rank 0 alone.
        """
        plan, baselines = self._plan, config.habitat_baselines
        folder = self._folder(baselines, checkpoint_index)
        meta = self._meta(config, envs, step_id, device)
        complete = complete_trials(folder / RECORDS_FILE, plan.steps_per_trial)
        if plan.inspect_memory:
            continue_inspection(folder, complete)
        actor = self._make_agent(agent, envs, device)
        open_folder(folder, meta)
        keep_trials(folder / REWARDS_FILE, complete)

        def batch(observations: Sequence[Observation]) -> dict[str, Tensor]:
            stacked = batch_obs(list(observations), device=device)
            transformed: dict[str, Tensor] = apply_obs_transforms_batch(stacked, obs_transforms)
            return transformed

        total = plan.trials_per_house * len(meta.houses) * plan.steps_per_trial
        begun = time.monotonic()
        with (
            torch.inference_mode(),
            RecordWriter(folder / RECORDS_FILE, plan.steps_per_trial) as sink,
            progress_bar(total, f"evaluating {folder.name}") as bar,
        ):
            fields = evaluate(envs, actor, plan, sink, bar, batch, Observer(folder, plan))
        seconds = round(time.monotonic() - begun, 1)
        update = {"measures": fields, "finished": now(), "seconds": seconds}
        meta.model_copy(update=update).write(folder)
        episodes = tabulate(iterate_records(folder / RECORDS_FILE), fields)
        log_scalars(episodes, plan.steps_per_trial, writer, step_id)
        logger.info(summary_line(folder.name, episodes, plan.steps_per_trial))

    def _meta(self, config: Any, envs: Any, step_id: int, device: torch.device) -> EvaluationMeta:
        plan = self._plan
        return EvaluationMeta(
            agent=self._agent,
            step=int(step_id) if self._agent == "checkpoint" else None,
            split=str(config.habitat.dataset.split),
            trials_per_house=plan.trials_per_house,
            steps_per_trial=plan.steps_per_trial,
            seed=plan.seed,
            deterministic=plan.deterministic,
            inspect_every=plan.inspect_every if plan.inspect_memory else None,
            environments=envs.num_envs,
            houses=tuple(sorted({house for own in arrangements(envs) for house, _ in own})),
            device=str(device),
            measures=recorded_fields(envs),
            versions={"python": platform.python_version(), **package_versions()},
            command=" ".join(typed_command()),
            started=now(),
        )

    def _folder(self, baselines: Any, checkpoint_index: int) -> Path:
        name = self._name
        if not name and self._agent == "checkpoint":
            chosen = Path(str(baselines.eval_ckpt_path_dir))
            is_file = chosen.suffix in _CHECKPOINT_SUFFIXES
            name = chosen.stem if is_file else f"ckpt.{checkpoint_index}"
        root = self._output_dir or str(Path(str(baselines.checkpoint_folder)).parent / "eval")
        return Path(root) / file_name(name or self._agent)

    def _make_agent(self, access: Any, envs: Any, device: torch.device) -> Agent:
        plan = self._plan
        if plan.inspect_memory and self._agent != "checkpoint":
            raise UserError(
                f"inspect_memory needs an agent with a memory: '{self._agent}' has none; evaluate "
                "a checkpoint, or leave it out"
            )
        if self._agent == "random":
            return RandomAgent(int(envs.action_spaces[0].n), plan.seed)
        if self._agent == "oracle":
            return OracleAgent()
        from memo_habitat.policy.agent import PolicyAgent

        access.eval()
        # Sampling draws from torch's own generator: the seed makes an evaluation repeatable.
        torch.manual_seed(plan.seed)
        every = plan.inspect_every if plan.inspect_memory else 0
        return PolicyAgent(access.actor_critic, plan.deterministic, every, plan.seed)


def progress_bar(total: int, description: str) -> tqdm[Any]:
    """A bar of environment steps with rate and time left; silent where stderr is no terminal."""
    return tqdm(
        total=total,
        desc=description,
        unit="step",
        unit_scale=True,
        dynamic_ncols=True,
        smoothing=0.05,
        disable=not sys.stderr.isatty(),
    )


def log_scalars(episodes: Episodes, steps: int, writer: Any, step_id: int) -> None:
    """Write Habitat's TensorBoard tags: means of what was measured, by its name in records.

    Means are over the episodes that the trial's end left whole; what is earned or found in a trial
    counts all of it.

    Args:
        episodes: of the evaluation.
        steps: length of a trial.
        writer: of TensorBoard, or Habitat's for another.
        step_id: environment steps that the agent was trained for.
    """
    finished = episodes.finished()
    if len(finished) == 0:
        return
    writer.add_scalar("eval_reward/average_reward", finished.columns["reward"].mean(), step_id)
    scalars = {
        "return_per_trial": return_per_trial(episodes).mean,
        "targets_per_1000_steps": targets_per_1000_steps(episodes, steps).mean,
    }
    for field in episodes.measures("rate", "length", "count", "quantity"):
        scalars[field.name] = estimate(finished, field.name).mean
    for name, value in scalars.items():
        if not math.isnan(value):
            writer.add_scalar(f"eval_metrics/{name}", value, step_id)


def summary_line(name: str, episodes: Episodes, steps: int) -> str:
    """One line: what trials of `steps` steps come to, and rates, with intervals over trials."""
    finished = episodes.finished()
    parts = []
    for title, found in (
        ("return per trial", return_per_trial(episodes)),
        ("targets per 1,000 steps", targets_per_1000_steps(episodes, steps)),
    ):
        parts.append(f"{title} {found.mean:.2f} [{found.low:.2f}, {found.high:.2f}]")
    for field in episodes.measures("rate"):
        found = estimate(finished, field.name)
        parts.append(f"{field.title} {found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]")
    trials = len(episodes.trial_names)
    return f"{name}: {', '.join(parts)} over {len(finished)} episodes of {trials} trials"
