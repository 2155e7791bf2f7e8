"""The evaluator that Habitat-Baselines calls: whole trials, one record per episode."""

from __future__ import annotations

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
from memo_habitat.evaluation.meta import (
    AGENTS,
    META_FILE,
    keep_trials,
    now,
    open_folder,
    versions,
    write_json,
)
from memo_habitat.evaluation.recorder import Observer, file_name
from memo_habitat.evaluation.records import (
    RECORDS_FILE,
    RecordWriter,
    complete_trials,
    iterate_records,
)
from memo_habitat.evaluation.schedule import EvaluationPlan, Observation, arrangements
from memo_habitat.report.rewards import REWARDS_FILE
from memo_habitat.report.statistics import Episodes, estimate, tabulate
from memo_habitat.report.trials import return_per_trial

_CHECKPOINT_SUFFIXES = (".pth", ".safetensors")
# Names of the task's measures by the name of the record's field, for TensorBoard.
_TAGS = {
    "success": "extobjnav_success",
    "spl": "spl",
    "soft_spl": "soft_spl",
    "distance_to_goal": "distance_to_goal",
    "num_steps": "num_steps",
    "collisions": "collisions",
}


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

        total = plan.trials_per_house * len(meta["houses"]) * plan.steps_per_trial
        begun = time.monotonic()
        with (
            torch.inference_mode(),
            RecordWriter(folder / RECORDS_FILE, plan.steps_per_trial) as sink,
            progress_bar(total, f"evaluating {folder.name}") as bar,
        ):
            evaluate(envs, actor, plan, sink, bar, batch, Observer(folder, plan))
        write_json(
            folder / META_FILE,
            {**meta, "finished": now(), "seconds": round(time.monotonic() - begun, 1)},
        )
        episodes = tabulate(iterate_records(folder / RECORDS_FILE))
        log_scalars(episodes, writer, step_id)
        logger.info(summary_line(folder.name, episodes))

    def _meta(self, config: Any, envs: Any, step_id: int, device: torch.device) -> dict[str, Any]:
        plan = self._plan
        return {
            "agent": self._agent,
            "step": int(step_id) if self._agent == "checkpoint" else None,
            "split": str(config.habitat.dataset.split),
            "trials_per_house": plan.trials_per_house,
            "steps_per_trial": plan.steps_per_trial,
            "seed": plan.seed,
            "deterministic": plan.deterministic,
            "inspect_every": plan.inspect_every if plan.inspect_memory else None,
            "environments": envs.num_envs,
            "houses": sorted({house for own in arrangements(envs) for house, _ in own}),
            "device": str(device),
            "versions": versions(),
            "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "started": now(),
            "finished": None,
        }

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


def log_scalars(episodes: Episodes, writer: Any, step: int) -> None:
    """Write Habitat's TensorBoard tags: means over the episodes that the trial's end left whole."""
    finished = episodes.finished()
    if len(finished) == 0:
        return
    writer.add_scalar("eval_reward/average_reward", finished.columns["reward"].mean(), step)
    for column, tag in _TAGS.items():
        writer.add_scalar(f"eval_metrics/{tag}", finished.columns[column].mean(), step)


def summary_line(name: str, episodes: Episodes) -> str:
    """One line: return and rates with intervals over trials."""
    finished = episodes.finished()
    earned = return_per_trial(episodes)
    parts = [f"return per trial {earned.mean:.2f} [{earned.low:.2f}, {earned.high:.2f}]"]
    for metric, title in (("success", "success"), ("spl", "SPL"), ("soft_spl", "soft SPL")):
        found = estimate(finished, metric)
        parts.append(f"{title} {found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]")
    trials = len(episodes.trial_names)
    return f"{name}: {', '.join(parts)} over {len(finished)} episodes of {trials} trials"
