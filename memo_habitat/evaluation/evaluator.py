"""The evaluator that Habitat-Baselines calls: whole trials, one record per episode."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from habitat import logger
from habitat_baselines.common.obs_transformers import apply_obs_transforms_batch
from habitat_baselines.common.tensor_dict import TensorDict
from habitat_baselines.rl.ppo.evaluator import Evaluator
from torch import Tensor

from memo_habitat.config.evaluation import (
    EvaluationPlan,
    Shard,
    evaluation_name,
    evaluation_settings,
)
from memo_habitat.config.task import action_names
from memo_habitat.errors import UserError
from memo_habitat.evaluation.agents import Agent, ForwardAgent, RandomAgent, SensorAgent
from memo_habitat.evaluation.play_trials import all_trials, evaluate, recorded_fields
from memo_habitat.evaluation.recorder import Recorder
from memo_habitat.evaluation.records import (
    AGENTS,
    LOCK_FILE,
    RECORDS_FILE,
    SENSOR_AGENTS,
    EpisodeRecord,
    EvaluationMeta,
    iterate_records,
)
from memo_habitat.evaluation.schedule import Observation, arrangements
from memo_habitat.evaluation.shards import check_mergeable, merge_if_last
from memo_habitat.evaluation.video import VideoPlan, Videos
from memo_habitat.tasks.record_fields import RecordField
from memo_habitat.trainer.progress import steps_bar
from memo_habitat.utils.files import file_digest, file_name
from memo_habitat.utils.lock import hold
from memo_habitat.utils.provenance import now

_CHECKPOINT_SUFFIXES = (".pth", ".safetensors")


class TrialEvaluator(Evaluator):
    """Plays n trials of n steps in every held-out house (`TrialEvaluatorConfig`)."""

    def __init__(
        self, agent: str = "checkpoint", output_dir: str = "", name: str = "", **plan: Any
    ) -> None:
        """Take the fields of `TrialEvaluatorConfig`; those of `EvaluationPlan` by name."""
        if agent not in AGENTS:
            raise UserError(
                f"habitat_baselines.evaluator.agent is '{agent}'; choose one of {', '.join(AGENTS)}"
            )
        self._agent, self._output_dir, self._name = agent, output_dir, name
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
        plan = self._plan
        shard, baselines = Shard.parse(plan.shard), config.habitat_baselines
        whole = self._folder(baselines, checkpoint_index)
        folder = whole / shard.folder
        meta = self._meta(config, envs, step_id, device)
        meta.check_continues(folder)
        if shard.total > 1:
            check_mergeable(whole, meta, [trial.id for trial in all_trials(envs, plan)])
        agents = self._make_agents(agent, envs, config)

        trials = len(shard.of(range(plan.trials_per_house * len(meta.houses))))
        begun = time.monotonic()
        bar = steps_bar(0, trials * plan.steps_per_trial, f"evaluating {folder.name}")
        with (
            hold(folder / LOCK_FILE),
            torch.inference_mode(),
            Recorder(folder, plan) as recorder,
            bar,
        ):
            if baselines.eval.video_option:
                filmed = self._video_plan(baselines, whole.name, meta.step or 0)
                recorder.videos = Videos(filmed, writer)
            if plan.inspect_moments:
                from memo_habitat.evaluation.inspection import Inspector

                (recording,) = agents
                actions = action_names(config)
                recorder.videos = Inspector(folder, recording, actions, plan)
            meta.write(folder)
            batch = partial(_batch_of_one, device, obs_transforms)
            fields = evaluate(envs, agents, plan, recorder, bar, batch)
        seconds = round(time.monotonic() - begun, 1)
        update = {"measures": fields, "finished": now(), "seconds": seconds}
        meta.model_copy(update=update).write(folder)
        if shard.total > 1:
            if not merge_if_last(whole):
                return  # its numbers are those of a part: who merges logs those of the whole
            folder = whole
        self._log(folder, fields, writer, step_id)

    def _log(
        self, folder: Path, fields: Mapping[str, RecordField], writer: Any, step_id: int
    ) -> None:
        records = iterate_records(folder / RECORDS_FILE)
        means = mean_measures(records, fields, self._plan.steps_per_trial)
        for name, mean in means.items():
            # Habitat's own tag for rewards.
            group = "eval_reward/average_" if name == "reward" else "eval_metrics/"
            writer.add_scalar(f"{group}{name}", mean, step_id)
        shown = ", ".join(f"{name} {mean:.3g}" for name, mean in means.items())
        logger.info(f"{folder.name}: {shown}")

    def _meta(self, config: Any, envs: Any, step_id: int, device: torch.device) -> EvaluationMeta:
        plan = self._plan
        return EvaluationMeta.of_this_process(
            agent=self._agent,
            step=int(step_id) if self._agent == "checkpoint" else None,
            split=str(config.habitat.dataset.split),
            trials_per_house=plan.trials_per_house,
            steps_per_trial=plan.steps_per_trial,
            seed=plan.seed,
            deterministic=plan.deterministic,
            forget=plan.forget,
            shard=plan.shard,
            weights=self._weights(config.habitat_baselines),
            settings=evaluation_settings(config, self._agent == "checkpoint"),
            inspect_every=plan.inspect_every if plan.inspect_memory else None,
            environments=envs.num_envs,
            houses=tuple(sorted({house for own in arrangements(envs) for house, _ in own})),
            device=str(device),
            measures=recorded_fields(envs),
        )

    def _video_plan(self, baselines: Any, name: str, step: int) -> VideoPlan:
        return VideoPlan(
            options=tuple(baselines.eval.video_option),
            folder=Path(str(baselines.video_dir)) / name,
            fps=int(baselines.video_fps),
            trials=self._plan.video_trials,
            failures=self._plan.video_failures,
            trial_steps=self._plan.steps_per_trial,
            step=step,
        )

    def _weights(self, baselines: Any) -> str | None:
        file = Path(str(baselines.eval_ckpt_path_dir))
        known = self._agent == "checkpoint" and file.is_file()
        return file_digest(file) if known else None

    def _folder(self, baselines: Any, checkpoint_index: int) -> Path:
        name = self._name
        if not name and self._agent == "checkpoint":
            chosen = Path(str(baselines.eval_ckpt_path_dir))
            is_file = chosen.suffix in _CHECKPOINT_SUFFIXES
            name = evaluation_name(
                chosen.stem if is_file else f"ckpt.{checkpoint_index}", self._plan.forget
            )
        root = self._output_dir or str(Path(str(baselines.checkpoint_folder)).parent / "eval")
        return Path(root) / file_name(name or self._agent)

    def _make_agents(self, access: Any, envs: Any, config: Any) -> list[Agent]:
        """One for each environment."""
        plan, count = self._plan, envs.num_envs
        for option in ("inspect_memory", "inspect_moments", "forget"):
            if getattr(plan, option) and self._agent != "checkpoint":
                raise UserError(
                    f"{option} needs an agent whose memory was trained: '{self._agent}' has none; "
                    "evaluate a checkpoint, or leave it out"
                )
        if self._agent == "random":
            return [RandomAgent(int(envs.action_spaces[0].n)) for _ in range(count)]
        if self._agent == "forward":
            return [ForwardAgent(action_names(config))] * count
        if self._agent in SENSOR_AGENTS:
            player = SensorAgent(self._agent)
            player.check_observed(envs.observation_spaces[0].spaces)
            return [player] * count
        from memo_habitat.policy.agent import PolicyAgent
        from memo_habitat.policy.replay import RecordingAgent

        access.eval()
        every, policy = plan.inspect_every if plan.inspect_memory else 0, access.actor_critic
        if plan.inspect_moments:
            filmed = config.habitat_baselines.eval.video_option
            if count > 1 or plan.forget or filmed:
                raise UserError(
                    "evaluator.inspect_moments looks at one environment whose agent remembers, and "
                    "which is not filmed: set habitat_baselines.num_environments=1, "
                    "evaluator.forget=false and habitat_baselines.eval.video_option=[]"
                )
            return [RecordingAgent(policy.with_own_memory(), plan.deterministic)]
        return [
            PolicyAgent(policy.with_own_memory(), plan.deterministic, every, forget=plan.forget)
            for _ in range(count)
        ]


def _batch_of_one(
    device: torch.device, transforms: list[Any], observation: Observation
) -> dict[str, Tensor]:
    # Habitat's batch_obs, made for many, takes a tenth of the time of a step for one.
    tensors = ((name, torch.as_tensor(v)[None].to(device)) for name, v in observation.items())
    transformed: dict[str, Tensor] = apply_obs_transforms_batch(TensorDict(tensors), transforms)
    return transformed


def mean_measures(
    records: Iterable[EpisodeRecord], fields: Mapping[str, RecordField], steps: int
) -> dict[str, float]:
    """Means of what was measured in whole trials of `steps` steps; the report has intervals, too.

    Episodes that the trial's end cut off count in what is found and earned in a trial, and in no
    other mean. Conditions have no mean.
    """
    values: dict[str, list[float]] = {}
    trials: set[str] = set()
    successes = earned = 0.0
    for record in records:
        trials.add(record.trial_id)
        successes += record.success
        earned += record.reward
        for name, value in () if record.truncated else record.measures.items():
            if value is not None and not (name in fields and fields[name].kind == "condition"):
                values.setdefault(name, []).append(float(value))
    count = max(1, len(trials))
    return {
        "return_per_trial": earned / count,
        "targets_per_1000_steps": 1000 * successes / (count * steps),
        **{name: float(np.mean(column)) for name, column in values.items()},
    }
