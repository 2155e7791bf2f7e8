"""What `bench train` says of a training adds up, whatever the clock shows."""

from __future__ import annotations

import json
import statistics

import pytest

from memo_habitat.cli.main import main
from memo_habitat.errors import UserError
from memo_habitat.trainer.bench import STATIONS, bench_train

SIZES = (
    "habitat.task.size=3",
    "habitat.task.trial_steps=12",
    "habitat.environment.max_episode_steps=5",
    "habitat_baselines.num_environments=3",
    "habitat_baselines.rl.ppo.updates_per_trial=2",
    "habitat_baselines.rl.memory.segment_length=5",
    "habitat_baselines.rl.memory.summary_length=2",
)


def test_the_stations_shares_add_up_and_every_trial_is_timed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    row = bench_train("dark_key_to_door", SIZES, trials=2)
    assert len(row["trial_seconds"]) == 2
    assert row["env_steps_per_second"] > 0
    assert set(row["shares"]) == {*STATIONS, "other"}
    assert sum(row["shares"].values()) == pytest.approx(1.0, abs=1e-3)
    assert all(row["shares"][station] > 0 for station in STATIONS)
    assert (row["environments"], row["trial_steps"], row["updates_per_trial"]) == (3, 12, 2)
    assert (row["workers"], row["environments_total"]) == (1, 3)
    assert not list(tmp_path.iterdir())


def test_the_command_prints_one_json_object(capsys):
    argv = ["bench", "train", "--config-name=dark_key_to_door", "--trials", "1", "--json"]
    assert main([*argv, "memory=fct", *SIZES]) == 0
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (row["config"], row["memory"]) == ("dark_key_to_door", "fct")
    assert row["overrides"] == ["memory=fct", *SIZES]


@pytest.mark.slow
def test_workers_are_measured_together(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    row = bench_train("dark_key_to_door", SIZES, trials=2, workers=2)
    assert (row["workers"], row["environments"], row["environments_total"]) == (2, 3, 6)
    assert (len(row["trial_seconds"]), row["threads"]) == (2, 1)
    # Both step the same number of environments, and neither passes the other by a whole trial.
    alone = 12 * 3 / statistics.median(row["trial_seconds"])
    assert row["env_steps_per_second"] > alone
    assert sum(row["shares"].values()) == pytest.approx(1.0, abs=1e-3)


def test_no_trial_is_refused():
    with pytest.raises(UserError, match="--trials 0: at least 1"):
        bench_train("dark_key_to_door", SIZES, trials=0)
