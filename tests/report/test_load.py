"""Rewards along the trial: each one in its bin, once per trial, whatever was interrupted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from memo_habitat.config.evaluation import EvaluationPlan
from memo_habitat.errors import UserError
from memo_habitat.evaluation.recorder import REWARDS_FILE, Recorder, keep_trials
from memo_habitat.evaluation.records import EvaluationMeta
from memo_habitat.report.load import (
    evaluation_folders,
    load_evaluation,
    read_house_map,
    read_rewards,
)
from memo_habitat.simulator.interface import TopDownMap
from tests.factories.episodes import episode


def written(folder: Path, steps: int, rewards: dict[str, dict[int, float]]) -> Path:
    """Write trials with the rewards given by step."""
    with Recorder(folder, EvaluationPlan(1, steps)) as recorder:
        for trial, by_step in rewards.items():
            for step in range(1, steps + 1):
                recorder.reward(trial, step, by_step.get(step, 0.0))
            recorder.end_episode(0, episode(trial_id=trial, trial_step_end=steps), trial_over=True)
    return folder / REWARDS_FILE


def test_rewards_lie_where_they_were_received(tmp_path: Path) -> None:
    # 250 steps in at most 100 stretches: 84 of 3 steps, the last of a single one.
    path = written(tmp_path, 250, {"a": {1: 1.0, 3: 2.0, 4: 5.0, 250: 7.0}})
    found = read_rewards(path, {"a"}, 250)
    assert found is not None and found.sums.shape == (1, 84)
    assert found.sums[0, [0, 1, 83]].tolist() == [3.0, 5.0, 7.0]
    assert found.sums.sum() == 15.0
    assert found.ends[[0, 82, 83]].tolist() == [3.0, 249.0, 250.0]


@pytest.mark.parametrize("steps", [1, 7, 100, 101, 150, 500, 4096])
def test_no_reward_is_lost_at_any_length(tmp_path: Path, steps: int) -> None:
    rewards = {step: 1.0 for step in range(1, steps + 1)}
    found = read_rewards(written(tmp_path, steps, {"a": rewards}), {"a"}, steps)
    assert found is not None and found.sums.shape[1] <= 100
    at, earned = found.cumulative()
    assert earned.tolist() == at.tolist()  # a reward at every step: as many as steps
    assert at[-1] == steps
    assert found.rate()[1] == pytest.approx(np.ones(min(10, found.sums.shape[1])))


def test_curves_are_means_over_trials(tmp_path: Path) -> None:
    path = written(tmp_path, 10, {"a": {2: 1.0}, "b": {2: 3.0, 10: 2.0}})
    found = read_rewards(path, {"a", "b"}, 10)
    assert found is not None
    assert found.cumulative()[1].tolist() == [0, 0, 2, 2, 2, 2, 2, 2, 2, 2, 3]


def test_a_trial_played_anew_counts_once_and_others_not_at_all(tmp_path: Path) -> None:
    written(tmp_path, 4, {"a": {1: 9.0}, "b": {1: 5.0}})
    path = written(tmp_path, 4, {"a": {2: 1.0}})
    found = read_rewards(path, {"a"}, 4)
    assert found is not None and found.sums.tolist() == [[0.0, 1.0, 0.0, 0.0]]
    assert read_rewards(path, set(), 4) is None


def test_rewards_of_some_of_the_trials_alone_are_none(tmp_path: Path) -> None:
    path = written(tmp_path, 4, {"a": {1: 9.0}, "b": {1: 5.0}})
    assert read_rewards(path, {"a", "b", "c"}, 4) is None
    assert read_rewards(path, {"a", "b"}, 4) is not None


def test_an_unfinished_trial_leaves_nothing(tmp_path: Path) -> None:
    with Recorder(tmp_path, EvaluationPlan(1, 4)) as recorder:
        recorder.reward("a", 1, 1.0)
    assert not (tmp_path / REWARDS_FILE).exists()


def test_houses_of_unfinished_trials_are_not_resampled(tmp_path: Path) -> None:
    with (tmp_path / "records.jsonl").open("w") as file:
        for house in range(8):
            end = 60 if house < 7 else 20
            record = episode(trial_id=f"{house}/a/0", trial_step_end=end)
            file.write(record.model_dump_json() + "\n")
    EvaluationMeta(steps_per_trial=60).write(tmp_path)
    found = load_evaluation(tmp_path, "x")
    assert (found.unfinished, found.episodes.resampled) == (1, "trials")
    assert found.episodes.trial_names == tuple(f"{house}/a/0" for house in range(7))


def test_where_no_trial_is_complete_the_steps_count_that_most_were_played_of(
    tmp_path: Path,
) -> None:
    ends = {"a": [30, 60, 90], "b": [40, 80], "c": [10]}
    with (tmp_path / "records.jsonl").open("w") as file:
        for trial, own in ends.items():
            for number, end in enumerate(own):
                record = episode(
                    trial_id=f"{trial}/a/0", trial_step_end=end, success=1.0, episode_index=number
                )
                file.write(record.model_dump_json() + "\n")
    EvaluationMeta(steps_per_trial=2048, finished="today").write(tmp_path)
    found = load_evaluation(tmp_path, "x")
    # 80 steps of two trials, rather than 90 of one or 10 of three.
    assert found.steps == 80 and found.trials == {"a/a/0", "b/a/0"} and not found.is_finished
    assert found.headline.targets.mean == pytest.approx(1000 * 4 / (2 * 80))
    assert found.shortfall == "no trial is complete: of 2 the first 80 steps count"


def test_hidden_evaluations_are_not_reported(tmp_path: Path) -> None:
    for name in ("latest", ".watch-17"):
        (tmp_path / "eval" / name).mkdir(parents=True)
        (tmp_path / "eval" / name / "records.jsonl").touch()
    assert [folder.name for folder in evaluation_folders(tmp_path)] == ["latest"]


@pytest.mark.parametrize("kept", [0, 10, 200])
def test_a_torn_map_is_named(tmp_path: Path, kept: int) -> None:
    found = TopDownMap(np.ones((30, 40), dtype=bool), (0.0, 0.0), 0.1)
    with Recorder(tmp_path, EvaluationPlan(1, 4)) as recorder:
        recorder.save_map("home", found)
    assert read_house_map(tmp_path, "home") is not None
    (file,) = (tmp_path / "maps").iterdir()
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"cannot read the map .*; delete it"):
        read_house_map(tmp_path, "home")


def test_what_an_interruption_left_is_dropped_on_continuing(tmp_path: Path) -> None:
    path = written(tmp_path, 4, {"a": {1: 1.0}, "b": {1: 1.0}})
    with path.open("a") as file:
        file.write('{"trial_id": "c", "bin')
    assert keep_trials(path, {"a", "c"}) == {"a"}
    assert [json.loads(line)["trial_id"] for line in path.read_text().splitlines()] == ["a"]
    assert keep_trials(tmp_path / "absent.jsonl", {"a"}) == frozenset()


@pytest.mark.parametrize(
    "line",
    ['{"trial_id": "a"}', '{"trial_id": "a", "bin_steps": 1, "rewards": [0, 0, 0]}'],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / REWARDS_FILE
    path.write_text(line + "\n")
    with pytest.raises(UserError, match=REWARDS_FILE):
        read_rewards(path, {"a"}, 4)
