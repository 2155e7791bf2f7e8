"""Shards make the evaluation that one process would have made, or say what is wrong."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from memo_habitat.errors import UserError
from memo_habitat.evaluation.evaluator import TrialEvaluator
from memo_habitat.evaluation.records import EvaluationMeta
from memo_habitat.evaluation.shards import (
    merge_if_last,
    merge_run,
    merge_shards,
    missing_shards,
)
from memo_habitat.trainer.run_dir import RunFolder
from memo_habitat.utils.lock import HeldError, hold
from tests.evaluation.test_trial_evaluator import Writer, evaluate_fakes

FILES = ("records.jsonl", "returns.jsonl", "frames/index.jsonl")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation in one piece."""
    return play(tmp_path_factory.mktemp("whole"))


def play(folder: Path, **options: Any) -> Path:
    evaluate_fakes(folder, agent="random", seed=3, **options)
    return folder / "eval" / "random"


def in_shards(folder: Path, order: str = "123") -> Path:
    for number in order:
        play(folder, shard=f"{number}/3")
    return folder / "eval" / "random"


def contents(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in FILES]


def test_the_last_shard_to_end_makes_what_one_evaluation_writes(
    tmp_path: Path, whole: Path
) -> None:
    play(tmp_path, shard="3/3")
    play(tmp_path, shard="1/3")
    merged = tmp_path / "eval" / "random"
    assert [str(shard) for shard in missing_shards(merged)] == ["2/3"]
    assert not (merged / "records.jsonl").exists()
    play(tmp_path, shard="2/3")
    assert contents(merged) == contents(whole)
    for part in ("frames", "maps"):
        assert {p.name for p in (merged / part).iterdir()} == {
            p.name for p in (whole / part).iterdir()
        }
    meta, of_one = EvaluationMeta.read(merged), EvaluationMeta.read(whole)
    assert meta.differences(of_one, "houses", "measures", "trials_per_house", "shard") == {}
    assert meta.finished is not None


def test_only_the_whole_is_logged(tmp_path: Path) -> None:
    written: list[Writer] = [
        evaluate_fakes(tmp_path, agent="random", seed=3, shard=f"{k}/3") for k in (1, 2, 3)
    ]
    assert [bool(writer.scalars) for writer in written] == [False, False, True]
    one = evaluate_fakes(tmp_path / "whole", agent="random", seed=3)
    assert written[2].scalars == one.scalars


def test_interrupted_twice_it_is_the_same(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.factories import vector_envs

    step = vector_envs.FakeEnv.step
    left = 50

    def tired(self: vector_envs.FakeEnv, action: int) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return step(self, action)

    monkeypatch.setattr(vector_envs.FakeEnv, "step", tired)
    interruptions = 0
    for shard in ("1/2", "2/2"):
        while True:
            try:
                play(tmp_path, shard=shard)
                break
            except KeyboardInterrupt:
                interruptions, left = interruptions + 1, 95  # steps: a trial and a half of two
    assert interruptions >= 2
    assert contents(tmp_path / "eval" / "random") == contents(whole)


def test_merging_again_changes_nothing(tmp_path: Path) -> None:
    merged = in_shards(tmp_path)
    before = contents(merged)
    assert merge_run(RunFolder(tmp_path)) == [merged]
    assert contents(merged) == before


def test_merging_drops_no_trial_that_is_in_no_shard(tmp_path: Path) -> None:
    merged = in_shards(tmp_path)
    with (merged / "records.jsonl").open("r+") as file:
        last = json.loads(file.read().splitlines()[-1])
        house, arrangement, repetition = last["trial_id"].rsplit("/", 2)
        more = {**last, "trial_id": f"{house}/{arrangement}/{int(repetition) + 9}"}
        file.write(json.dumps(more) + "\n")
    before = contents(merged)
    with pytest.raises(UserError, match="1 trials that are in no shard"):
        merge_shards(merged)
    assert contents(merged) == before


def test_one_process_at_a_time_evaluates_into_a_folder(tmp_path: Path) -> None:
    with hold(tmp_path / "eval/random/.lock"), pytest.raises(HeldError, match="is at work in"):
        play(tmp_path)


def test_more_shards_than_trials_leave_some_without_any(tmp_path: Path, whole: Path) -> None:
    for number in range(1, 7):
        play(tmp_path, shard=f"{number}/6")
    assert contents(tmp_path / "eval" / "random") == contents(whole)


def edit_meta(folder: Path, fields: dict[str, Any]) -> None:
    path = folder / "shards" / "2-of-3" / "meta.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"finished": None}, "2/3 not there or not finished"),
        ({"seed": 4}, "1/3 and 2/3 .* seed is 3 and 4"),
        ({"trials_per_house": 3}, "trials_per_house is 2 and 3"),
        ({"shard": "2/2"}, "shards of 2 and of 3"),
    ],
)
def test_shards_that_do_not_go_together_are_named(
    tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    merged = in_shards(tmp_path)
    edit_meta(merged, fields)
    with pytest.raises(UserError, match=message):
        merge_shards(merged)


def test_a_trial_in_two_shards_and_a_missing_one_are_named(tmp_path: Path) -> None:
    merged = in_shards(tmp_path)
    first, second = (merged / f"shards/{k}-of-3/records.jsonl" for k in (2, 3))
    shutil.copy(first, second)
    with pytest.raises(UserError, match=r"loft/a/1 is in the shards 2/3 and 3/3"):
        merge_shards(merged)
    second.write_text("")
    with pytest.raises(UserError, match=r"3-of-3.* holds 0 trials, and 1 were planned"):
        merge_shards(merged)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shard": "1/2"}, "shards of 2 and of 3"),
        ({"shard": "2/3", "trials_per_house": 3}, r"trials_per_house=2, now 3.*remove .*--name"),
        ({"shard": "1/3", "trials_per_house": 3}, r"trials_per_house=2, now 3.*remove .*--name"),
    ],
)
def test_what_could_not_be_merged_is_not_begun(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    play(tmp_path, shard="1/3")
    with pytest.raises(UserError, match=message):
        play(tmp_path, **options)
    assert [path.name for path in (tmp_path / "eval/random/shards").iterdir()] == ["1-of-3"]


def test_a_shard_that_holds_trials_of_another_one_is_not_begun(tmp_path: Path) -> None:
    play(tmp_path, shard="1/3")
    records = tmp_path / "eval/random/shards/1-of-3/records.jsonl"
    lines = records.read_text()
    records.write_text(lines.replace("loft/a/0", "loft/a/1"))
    with pytest.raises(UserError, match=r"not in shard 1/3 now, such as loft/a/1.*--name"):
        play(tmp_path, shard="1/3")
    records.write_text(lines)
    play(tmp_path, shard="1/3")


def test_of_shards_that_end_together_the_second_leaves_the_merged_alone(tmp_path: Path) -> None:
    merged = in_shards(tmp_path)
    (merged / "maps").rename(merged / "moved")
    assert not merge_if_last(merged)
    assert not (merged / "maps").exists()
    (merged / "records.jsonl").unlink()
    assert merge_if_last(merged)
    assert (merged / "records.jsonl").exists() and (merged / "maps").exists()


def test_who_ends_while_another_one_merges_waits_for_it(tmp_path: Path) -> None:
    merged = in_shards(tmp_path)
    with hold(merged / ".lock"):
        second = threading.Thread(target=merge_if_last, args=(merged,))
        second.start()
        second.join(0.2)
        assert second.is_alive()
    second.join(10)
    assert not second.is_alive()


def test_a_shard_of_fewer_trials_than_there_are_is_not_begun(tmp_path: Path) -> None:
    play(tmp_path)
    with pytest.raises(UserError, match="2 trials that are in no shard"):
        play(tmp_path, shard="1/2", trials_per_house=1)


def test_what_is_no_shard_or_has_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no evaluation of .* has shards"):
        merge_run(RunFolder(tmp_path))
    with pytest.raises(UserError, match="shard '5/3'"):
        TrialEvaluator(agent="random", trials_per_house=1, steps_per_trial=1, shard="5/3")
