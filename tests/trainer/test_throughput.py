"""What a training takes is foretold from recorded seconds and from what there is to do."""

from __future__ import annotations

import functools
import json

import pytest
from omegaconf import OmegaConf

from memo_habitat.config.compose import compose_config
from memo_habitat.errors import UserError
from memo_habitat.trainer.run_dir import ResumeRecord, RunFolder, RunRecord
from memo_habitat.trainer.throughput import predict, scale, table, trial_work

BASELINES = "habitat_baselines"
MEMORY = f"{BASELINES}.rl.memory"
TINY = (
    "setting=quick",
    "habitat.task.trial_steps=24",
    f"{BASELINES}.num_environments=4",
    f"{BASELINES}.rl.ppo.updates_per_trial=2",
    f"{BASELINES}.rl.ppo.num_mini_batch=1",
    f"{BASELINES}.rl.ppo.ppo_epoch=3",
    f"{MEMORY}.layers=1",
    f"{MEMORY}.width=64",
    f"{MEMORY}.segment_length=6",
    f"{MEMORY}.summary_length=2",
)
SPENT = {
    "act": 2.0,
    "average gradients": 0.5,
    "refresh": 0.25,
    "environments": 3.0,
    "learn": 8.0,
    "other": 0.25,
}

TIMERS = {
    "trainer.sample_action": 0.125,
    "trainer.rollout_collect": 2.0,
    "trainer.ppo": 4.0,
    "trainer.refresh": 0.5,
}
# What a trial of 14 s with these timers takes.
TAKES = {"learn": 8.0, "act": 3.0, "environments": 1.0, "refresh": 1.0, "other": 1.0}


@functools.cache
def composed(*overrides: str):
    return compose_config("dark_key_to_door", [*TINY, *overrides])


def tiny(*overrides: str):
    return composed(*overrides).copy()


@functools.cache
def work(*overrides: str, workers: int = 2) -> dict[str, float]:
    return trial_work(tiny(*overrides), workers)


def trials_of_two(timers, seconds=(5.0, 19.0, 33.0), since=0):
    """Rows of trials of two updates each; timers: of all, or of each trial."""
    timers = timers if isinstance(timers, list) else [timers] * len(seconds)
    for trial, (means, end) in enumerate(zip(timers, seconds, strict=True)):
        middle = {"steps": since + 96 * trial + 48, "seconds": end - 1.0, "timers": means}
        yield middle
        yield {"steps": middle["steps"] + 48, "seconds": end, "trials": {}, "timers": means}


def write_run(folder, config, rows, resumed_at=None):
    run = RunFolder(folder)
    run.path.mkdir()
    OmegaConf.save(config, run.config_path)
    run.progress_file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    if resumed_at is not None:
        resume = {"command": [], "time": "", "overrides": [], "changed": {}}
        resumed = [ResumeRecord(**resume, workers=2, steps=resumed_at)]
        record = RunRecord.of_this_process(workers=1, resumed=resumed)
        run.record_path.write_text(record.model_dump_json())
    return run


def test_the_same_work_takes_what_it_took():
    assert scale(SPENT, work(), work()) == pytest.approx(SPENT)


def test_environments_epochs_and_workers_count_where_they_are_work():
    more = f"{BASELINES}.num_environments=8", f"{BASELINES}.rl.ppo.ppo_epoch=6"
    found = scale(SPENT, work(), work(*more, workers=8))
    ring = (7 / 8) / (1 / 2)
    times = {"act": 2, "environments": 2, "refresh": 2, "learn": 4, "other": 1}
    times["average gradients"] = 2 * ring  # one for each step of the optimiser
    assert found == pytest.approx({name: times[name] * SPENT[name] for name in SPENT})


def test_a_wider_memory_takes_longer_where_it_is_computed():
    found = scale(SPENT, work(), work(f"{MEMORY}.width=128"))
    assert found["environments"] == SPENT["environments"]
    for station in ("act", "refresh", "learn"):
        # Of its weights there are between two and four times as many.
        assert 2.0 < found[station] / SPENT[station] < 4.0


def test_a_run_is_read_from_its_folder(tmp_path):
    run = write_run(tmp_path / "run", tiny(), trials_of_two(TIMERS))
    found = predict(run, tiny("habitat.task.size=6"), 4)
    assert found.seconds == pytest.approx(TAKES)
    assert next(iter(found.seconds)) == found.bound == "learn"
    assert found.steps_per_second == pytest.approx(4 * 4 * 24 / 14.0)
    # What that run had none of is told, and not made up.
    assert found.missing == ("average gradients",)
    (warning,) = found.warnings
    assert "another habitat.task.size;" in warning
    text = table("runs/a", found)
    assert "what bounds it: learn" in text and "not known: that run had none" in text


def test_a_step_of_fewer_environments_takes_no_less(tmp_path):
    run = write_run(tmp_path / "run", tiny(), trials_of_two({"trainer.sample_action": 0.125}))
    found = predict(run, tiny(f"{BASELINES}.num_environments=2"), 1)
    assert found.seconds["act"] == pytest.approx(3.0)


def test_the_first_trial_counts_nowhere(tmp_path):
    # It takes ten times as long at every station; means are of all starts so far. The last row is
    # in the middle of a trial.
    timers = [{name: mean * factor for name, mean in TIMERS.items()} for factor in (10, 5.5, 4)]
    rows = [*trials_of_two(timers, (140.0, 154.0, 168.0)), {"steps": 400, "seconds": 900.0}]
    rows[-1]["timers"] = {name: 9.0 for name in TIMERS}
    found = predict(write_run(tmp_path / "run", tiny(), rows), tiny(), 1)
    assert found.seconds == pytest.approx(TAKES)


def test_only_what_came_after_a_resume_counts(tmp_path):
    slow = {name: 10 * mean for name, mean in TIMERS.items()}
    # Resumed in the middle of the third trial: of that one update, four times as slow, then four.
    timers = [{n: m * factor for n, m in TIMERS.items()} for factor in (4.0, 2.0, 1.6)]
    rows = [*trials_of_two(slow)][:5]
    rows += [*trials_of_two(timers, (90.0, 104.0, 118.0), since=192)][1:]
    found = predict(write_run(tmp_path / "run", tiny(), rows, resumed_at=240), tiny(), 2)
    assert found.seconds == pytest.approx(TAKES)
    # Two workers average gradients, but no time of that is on record.
    assert found.missing == ("average gradients",)


def test_a_station_that_is_left_no_time_is_told(tmp_path):
    run = write_run(tmp_path / "run", tiny(), trials_of_two(TIMERS, (5.0, 15.0)))
    found = predict(run, tiny(), 1)
    assert found.missing == ("other",)
    assert found.seconds == pytest.approx({k: v for k, v in TAKES.items() if k != "other"})


def test_too_few_trials_tell_no_rates(tmp_path):
    run = write_run(tmp_path / "run", tiny(), trials_of_two({}, (5.0,)))
    with pytest.raises(UserError, match="fewer than two trials are on record there; resume it"):
        predict(run, tiny(), 1)
    rows = trials_of_two(TIMERS)
    run = write_run(tmp_path / "resumed", tiny(), rows, resumed_at=192)
    with pytest.raises(UserError, match="there since it was resumed at 192 steps; resume"):
        predict(run, tiny(), 1)
