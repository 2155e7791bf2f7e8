"""A measure of a user's own: one class, in records, TensorBoard, statistics and report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from habitat import ThreadedVectorEnv
from habitat.config.default_structured_configs import MeasurementConfig
from habitat.core.embodied_task import Measure
from habitat.core.registry import registry
from omegaconf import OmegaConf

from memo_habitat.evaluation.evaluator import TrialEvaluator
from memo_habitat.report.episodes import estimate
from memo_habitat.report.html import write_report
from memo_habitat.report.load import load_evaluation
from memo_habitat.tasks.record_fields import RecordField
from memo_habitat.testing.tasks import episode_record, write_episodes
from memo_habitat.trainer.env_worker import make_env
from tests.factories.simulators import flat_room_config

STEPS = 120


class OfTask(Measure):
    """What both need of Habitat."""

    cls_uuid: str

    def __init__(self, *args: Any, task: Any, **kwargs: Any) -> None:
        self._task = task
        super().__init__(**kwargs)

    def _get_uuid(self, *args: Any, **kwargs: Any) -> str:
        return self.cls_uuid

    def reset_metric(self, *args: Any, **kwargs: Any) -> None:
        self.update_metric()


@registry.register_measure
class Detour(OfTask):
    """Metres travelled beyond the shortest way."""

    cls_uuid = "detour"
    record = RecordField(kind="length", unit="m", better="lower", text="Metres beyond the way.")

    def update_metric(self, *args: Any, **kwargs: Any) -> None:
        progress = self._task.progress
        self._metric = max(0.0, progress.path_length - progress.start_distance)


@registry.register_measure
class BeenNear(OfTask):
    """An undeclared one, of which nothing but its values is known."""

    cls_uuid = "been_near"

    def update_metric(self, *args: Any, **kwargs: Any) -> None:
        self._metric = bool(self._task.distance < 3)


class Writer(dict[str, float]):
    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self[tag] = float(value)


def evaluate(folder: Path) -> Writer:
    episodes = write_episodes(
        folder / "e.json.gz",
        [episode_record([("mug", (3.0, 0.2, 0.0))], episode_id=i) for i in "ab"],
    )
    config = flat_room_config(episodes, overrides={"task.trial_steps": STEPS})
    for name in ("Detour", "BeenNear"):
        node = OmegaConf.structured(MeasurementConfig(type=name))
        config.habitat.task.measurements[name] = node
    config.habitat_baselines = {
        "eval_ckpt_path_dir": "",
        "checkpoint_folder": str(folder / "run" / "checkpoints"),
        "eval": {"video_option": []},
    }
    writer = Writer()
    envs = ThreadedVectorEnv(make_env_fn=make_env, env_fn_args=((config, str(folder / "death")),))
    try:
        TrialEvaluator("random", trials_per_house=2, steps_per_trial=STEPS).evaluate_agent(
            None, envs, config, 0, 0, writer, torch.device("cpu"), []
        )
    finally:
        envs.close()
    return writer


def test_one_class_is_in_records_tensorboard_statistics_and_report(tmp_path: Path) -> None:
    writer = evaluate(tmp_path)
    folder = tmp_path / "run" / "eval" / "random"
    records = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    assert len({record["trial_id"] for record in records}) == 2
    for record in records:
        expected = max(0.0, record["path_length"] - record["start_distance"])
        assert record["detour"] == pytest.approx(expected)
        assert record["been_near"] in (0.0, 1.0)
    finished = [record for record in records if not record["truncated"]]
    mean = sum(record["detour"] for record in finished) / len(finished)

    evaluation = load_evaluation(folder, "random")
    assert evaluation.episodes.fields["detour"].unit == "m"
    assert evaluation.episodes.fields["been_near"].kind == "rate"
    assert estimate(evaluation.episodes.finished(), "detour").mean == pytest.approx(mean)
    assert writer["eval_metrics/detour"] == pytest.approx(mean)

    page = write_report([tmp_path / "run"]).read_text(encoding="utf-8")
    assert "<th>Detour, m</th>" in page and "<th>Been near, %</th>" in page
    assert "<dt>Detour</dt><dd>Metres beyond the way.</dd>" in page
