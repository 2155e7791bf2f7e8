"""What a training takes is foretold from recorded seconds and from what there is to do."""

from __future__ import annotations

import functools
import json

import pytest
from omegaconf import OmegaConf

from memo_habitat.config.compose import compose_config
from memo_habitat.errors import UserError
from memo_habitat.trainer.run_dir import RunFolder
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


def tiny(*overrides: str):
    return compose_config("dark_key_to_door", [*TINY, *overrides])


@functools.cache
def work(*overrides: str, workers: int = 2) -> dict[str, float]:
    return trial_work(tiny(*overrides), workers)


def write_run(folder, config, timers, seconds=(5.0, 19.0, 33.0)):
    run = RunFolder(folder)
    run.path.mkdir()
    OmegaConf.save(config, run.config_path)
    rows = [
        {"steps": 96 * i, "seconds": s, "trials": {}, "timers": timers}
        for i, s in enumerate(seconds, 1)
    ]
    run.progress_file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
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
    timers = {
        "trainer.sample_action": 0.125,
        "trainer.rollout_collect": 2.0,
        "trainer.ppo": 4.0,
        "trainer.refresh": 0.5,
    }
    run = write_run(tmp_path / "run", tiny(), timers)
    found = predict(run, tiny("habitat.task.size=6"), 4)
    want = {"learn": 8.0, "act": 3.0, "environments": 1.0, "refresh": 1.0, "other": 1.0}
    assert found.seconds == pytest.approx(want)
    assert next(iter(found.seconds)) == found.bound == "learn"
    assert found.steps_per_second == pytest.approx(4 * 4 * 24 / 14.0)
    # What that run had none of is told, and not made up.
    assert found.missing == ("average gradients",)
    (warning,) = found.warnings
    assert "another habitat.task.size;" in warning
    text = table("runs/a", found)
    assert "what bounds it: learn" in text and "not known: that run had none" in text


def test_a_step_of_fewer_environments_takes_no_less(tmp_path):
    run = write_run(tmp_path / "run", tiny(), {"trainer.sample_action": 0.125})
    found = predict(run, tiny(f"{BASELINES}.num_environments=2"), 1)
    assert found.seconds["act"] == pytest.approx(3.0)


def test_a_run_of_one_trial_tells_no_rates(tmp_path):
    run = write_run(tmp_path / "run", tiny(), {}, seconds=(5.0,))
    with pytest.raises(UserError, match="fewer than two trials"):
        predict(run, tiny(), 1)
