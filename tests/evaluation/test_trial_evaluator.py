"""Habitat-Baselines' evaluator: where records go, what TensorBoard gets, which agent acts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from gym import spaces
from hydra.utils import instantiate
from omegaconf import OmegaConf

from memo_habitat.config.evaluation import TrialEvaluatorConfig
from memo_habitat.errors import UserError
from memo_habitat.evaluation.evaluator import TrialEvaluator
from memo_habitat.evaluation.records import iterate_records
from memo_habitat.report.load import load_evaluation
from tests.factories.vector_envs import NUM_ACTIONS, FakeEnv, FakeVectorEnv

STEPS = 40


class Writer:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.scalars: dict[str, tuple[float, int]] = {}

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.scalars[tag] = (float(value), step)


def evaluate_fakes(folder: Path, **options: Any) -> Writer:
    envs = FakeVectorEnv([FakeEnv([("loft", "a"), ("studio", "a")], STEPS) for _ in range(2)])
    envs.action_spaces = [spaces.Discrete(NUM_ACTIONS)] * 2  # type: ignore[attr-defined]
    observed = spaces.Dict({uuid: spaces.Discrete(1) for uuid in envs.envs[0].reset()})
    envs.observation_spaces = [observed] * 2  # type: ignore[attr-defined]
    config = OmegaConf.create(
        {
            "habitat": {"dataset": {"split": "test"}},
            "habitat_baselines": {
                "eval_ckpt_path_dir": str(folder / "checkpoints" / "ckpt.7.safetensors"),
                "checkpoint_folder": str(folder / "checkpoints"),
                "eval": {"video_option": []},
            },
        }
    )
    chosen = OmegaConf.structured(
        TrialEvaluatorConfig(**{"trials_per_house": 2, "steps_per_trial": STEPS, **options})
    )
    evaluator = instantiate(chosen)
    assert isinstance(evaluator, TrialEvaluator)
    writer = Writer()
    evaluator.evaluate_agent(
        None, envs, config, 0, 1234, writer, torch.device("cpu"), [], None, set()
    )
    return writer


def test_records_meta_and_tags_of_the_oracle(tmp_path: Path) -> None:
    writer = evaluate_fakes(tmp_path, agent="oracle")
    records = list(iterate_records(tmp_path / "eval" / "oracle" / "records.jsonl"))
    assert len({record.trial_id for record in records}) == 4
    meta = json.loads((tmp_path / "eval" / "oracle" / "meta.json").read_text())
    assert meta["houses"] == ["loft", "studio"]
    assert meta["finished"] is not None
    assert meta["split"] == "test"
    assert list(meta["measures"]) == [
        "reward",
        *("success", "spl", "soft_spl", "distance_to_goal", "num_steps", "collisions"),
    ]
    assert writer.scalars["eval_metrics/success"] == (1.0, 1234)
    assert set(writer.scalars) == {
        "eval_reward/average_reward",
        *(
            f"eval_metrics/{name}"
            for name in (
                "return_per_trial",
                "targets_per_1000_steps",
                "success",
                "spl",
                "soft_spl",
                "distance_to_goal",
                "num_steps",
                "collisions",
            )
        ),
    }


def test_the_random_agent_is_repeatable(tmp_path: Path) -> None:
    first = evaluate_fakes(tmp_path / "1", agent="random", seed=3)
    assert evaluate_fakes(tmp_path / "2", agent="random", seed=3).scalars == first.scalars
    assert evaluate_fakes(tmp_path / "3", agent="random", seed=4).scalars != first.scalars


def test_the_folder_of_another_evaluation_is_left_alone(tmp_path: Path) -> None:
    evaluate_fakes(tmp_path, agent="random", seed=3)
    before = (tmp_path / "eval" / "random" / "records.jsonl").read_bytes()
    with pytest.raises(UserError, match="seed=3"):
        evaluate_fakes(tmp_path, agent="random", seed=4)
    assert (tmp_path / "eval" / "random" / "records.jsonl").read_bytes() == before


def test_what_an_interruption_left_of_rewards_is_played_anew(tmp_path: Path) -> None:
    evaluate_fakes(tmp_path, agent="oracle")
    folder = tmp_path / "eval" / "oracle"
    rewards, records = folder / "returns.jsonl", folder / "records.jsonl"
    before = rewards.read_text().splitlines()
    # Killed after the last trial's rewards were written and before its last record was; the torn
    # line would be glued to the next one.
    lines = records.read_text().splitlines(keepends=True)
    last = json.loads(lines[-1])["trial_id"]
    records.write_text("".join(lines[:-1]))
    with rewards.open("a") as file:
        file.write('{"trial_id": "loft/a/')
    evaluate_fakes(tmp_path, agent="oracle")
    after = rewards.read_text().splitlines()
    assert sorted(after) == sorted(before)
    assert json.loads(after[-1])["trial_id"] == last
    found = load_evaluation(folder, "oracle").rewards()
    assert found is not None and len(found.sums) == 4


def test_output_folder_and_name_can_be_chosen(tmp_path: Path) -> None:
    evaluate_fakes(tmp_path, agent="random", output_dir=str(tmp_path / "out"), name="base line")
    assert (tmp_path / "out" / "base-line" / "records.jsonl").exists()


def test_an_unknown_agent_names_the_known_ones() -> None:
    with pytest.raises(UserError, match="checkpoint, random, forward, oracle"):
        TrialEvaluator(agent="perfect", trials_per_house=1, steps_per_trial=1)


@pytest.mark.parametrize("option", ["inspect_memory", "inspect_moments", "forget"])
@pytest.mark.parametrize("agent", ["random", "oracle", "perfect_memory"])
def test_what_needs_a_trained_memory_is_refused_for_others_and_leaves_no_folder(
    tmp_path: Path, agent: str, option: str
) -> None:
    with pytest.raises(UserError, match=f"{option} .* '{agent}' has none; evaluate a checkpoint"):
        evaluate_fakes(tmp_path, agent=agent, **{option: True})
    assert not any(tmp_path.iterdir())


def test_a_player_whose_sensor_is_not_observed_is_refused_and_leaves_no_folder(
    tmp_path: Path,
) -> None:
    with pytest.raises(UserError, match="perfect_memory needs the sensor 'perfect_memory_action'"):
        evaluate_fakes(tmp_path, agent="perfect_memory")
    assert not any(tmp_path.iterdir())
