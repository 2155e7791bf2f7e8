"""Records are read as they were written, and bad ones are refused by file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from memo_habitat.config.compose import compose_config
from memo_habitat.config.evaluation import EvaluationPlan, evaluation_config, evaluation_settings
from memo_habitat.errors import UserError
from memo_habitat.evaluation.recorder import Recorder
from memo_habitat.evaluation.records import (
    EpisodeRecord,
    EvaluationMeta,
    complete_trials,
    iterate_records,
)
from tests.factories.episodes import EPISODE, episode


def test_records_read_back_equal(tmp_path: Path) -> None:
    written = [episode(episode_index=i, trial_step_end=20 * (i + 1)) for i in range(3)]
    with Recorder(tmp_path / "a", EvaluationPlan(1, 60)) as recorder:
        for record in written:
            recorder.end_episode(0, record, trial_over=False)
    assert list(iterate_records(tmp_path / "a" / "records.jsonl")) == written


def test_a_record_is_on_disk_before_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    with Recorder(tmp_path, EvaluationPlan(1, 60)) as recorder:
        recorder.end_episode(0, EPISODE, trial_over=False)
        assert list(iterate_records(path)) == [EPISODE]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("success", 2),
        ("spl", float("nan")),
        ("num_steps", 1.5),
        ("num_steps", -1),
        ("truncated", 1),
        ("trial_id", 3),
        ("distance_to_goal", float("inf")),
        ("path", [[0, "x"]]),
        ("kv_bytes", "many"),
    ],
)
def test_a_malformed_field_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"\n{field}\b"):
        EpisodeRecord.model_validate({**EPISODE.model_dump(), field: value})


def test_a_missing_field_is_refused_by_name() -> None:
    values = EPISODE.model_dump()
    del values["num_steps"]
    with pytest.raises(ValueError, match=r"num_steps\n.*required"):
        EpisodeRecord.model_validate(values)


def test_further_fields_are_measures() -> None:
    record = EpisodeRecord.model_validate({**EPISODE.model_dump(), "detour": 1.5, "seen": None})
    assert record.measures == {**EPISODE.measures, "detour": 1.5, "seen": None}
    assert EpisodeRecord.model_validate_json(record.model_dump_json()) == record


@pytest.mark.parametrize("line", ["{", "[1]", '{"trial_id": "a"}', "\x00"])
def test_a_malformed_line_is_refused_by_file_and_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text(EPISODE.model_dump_json() + "\n" + line + "\n")
    with pytest.raises(UserError, match=r"records\.jsonl, line 2 is malformed"):
        list(iterate_records(path))


def test_missing_records_name_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="memo-habitat eval"):
        list(iterate_records(tmp_path / "records.jsonl"))


def test_opening_again_keeps_complete_trials_and_drops_the_others(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    plan = EvaluationPlan(1, 40)
    with Recorder(tmp_path, plan) as recorder:
        for trial, index, end in (("h/a/0", 0, 20), ("h/b/0", 0, 20), ("h/a/0", 1, 40)):
            record = episode(trial_id=trial, episode_index=index, trial_step_end=end)
            recorder.end_episode(0, record, trial_over=end == 40)
    assert complete_trials(path, 40) == {"h/a/0"}
    with Recorder(tmp_path, plan) as recorder:
        assert recorder.complete == {"h/a/0"}
    assert [record.trial_id for record in iterate_records(path)] == ["h/a/0", "h/a/0"]


def test_a_torn_last_line_is_dropped_on_opening(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    whole = episode(trial_step_end=40).model_dump_json() + "\n"
    path.write_text(whole + whole[:50])
    with Recorder(tmp_path, EvaluationPlan(1, 40)):
        pass
    assert len(list(iterate_records(path))) == 1


def test_an_unwritable_place_names_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="another output folder"):
        Recorder(tmp_path / "file", EvaluationPlan(1, 1))


def settings(agent: bool, *overrides: str) -> EvaluationMeta:
    config = compose_config("extobjnav/recall", overrides)
    return EvaluationMeta(settings=evaluation_settings(evaluation_config(config, None), agent))


def test_an_evaluation_is_not_continued_with_other_settings(tmp_path: Path) -> None:
    settings(True).write(tmp_path)
    budget, distance = "habitat_baselines.rl.memory.token_budget", "habitat.task.success_distance"
    settings(True, "habitat.dataset.content_scenes=[attic]").check_continues(tmp_path)
    with pytest.raises(UserError, match=rf"{distance}=2.0, now 1.0; .*{budget}=0, now 80.*--name"):
        settings(True, f"{budget}=80", f"{distance}=1.0").check_continues(tmp_path)
    settings(False).write(tmp_path)
    settings(False, f"{budget}=80").check_continues(tmp_path)  # the agent has no memory


def test_the_house_is_the_first_part_of_the_trial_name() -> None:
    assert episode(trial_id="house/with/slash/arr/2").house == "house/with/slash"
