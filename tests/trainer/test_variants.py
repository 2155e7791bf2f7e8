"""Every memory trains in the studios and is evaluated from its checkpoint: a few updates."""

from __future__ import annotations

import json
import math

import pytest

from memo_habitat.trainer import launch
from tests.factories.trainings import ONE_HOUSE, TINY_STUDIO

SIZES = (*TINY_STUDIO, "habitat_baselines.rl.encoder.features=16")
MEMORY = "habitat_baselines.rl.memory"
CHECKPOINTING = (f"{MEMORY}.activation_checkpointing=true", f"{MEMORY}.depth_dropout=0.1")
CASES = {
    "rmt": ("rmt", ()),
    "ac": ("ac", (f"{MEMORY}.detach_probability=0.5",)),
    "no_iea": ("no_iea", CHECKPOINTING),
    "lstm": ("lstm", ()),
    "memo in bfloat16 with a memory loss": (
        "memo",
        ("habitat_baselines.rl.precision=bfloat16", f"{MEMORY}.memory_loss=prediction"),
    ),
    "memo with retrieval": ("memo", (f"{MEMORY}.top_k=6", *CHECKPOINTING)),
}


@pytest.fixture(autouse=True)
def _in_this_process(tmp_path, monkeypatch):
    """Environments as threads: starting processes takes longer than the training."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HABITAT_ENV_DEBUG", "1")


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "options"), CASES.values(), ids=list(CASES))
def test_it_trains_and_is_evaluated(kind, options):
    training = launch.start_training("extobjnav/studio", (f"memory={kind}", *SIZES, *options))
    run = training.run
    assert launch.train(training)
    rows = [json.loads(line) for line in run.progress_file.read_text().splitlines()]
    assert [row["steps"] for row in rows] == [16, 32, 48, 64]
    learner = rows[-1]["learner"]
    assert all(math.isfinite(value) for value in learner.values())
    assert (learner["memory_loss"] > 0) == (f"{MEMORY}.memory_loss=prediction" in options)
    size = launch.EvalOptions(trials=1, steps=24, overrides=ONE_HOUSE)
    records = launch.evaluate(run, size) / "records.jsonl"
    episodes = [json.loads(line) for line in records.read_text().splitlines()]
    assert episodes[-1]["trial_step_end"] == 24
    assert all(episode["kv_bytes"] > 0 for episode in episodes)


@pytest.mark.slow
def test_a_trained_checkpoint_is_evaluated_under_a_token_budget():
    training = launch.start_training("extobjnav/studio", SIZES)
    run = training.run
    launch.train(training)
    used = {}
    for budget in (0, 12):
        options = launch.EvalOptions(
            trials=1,
            steps=40,
            name=f"budget-{budget}",
            overrides=(f"{MEMORY}.token_budget={budget}", *ONE_HOUSE),
        )
        records = launch.evaluate(run, options) / "records.jsonl"
        episodes = [json.loads(line) for line in records.read_text().splitlines()]
        used[budget] = max(episode["context_tokens"] for episode in episodes)
    assert used[12] <= 12 < used[0]


@pytest.mark.slow
def test_records_depend_neither_on_the_number_of_environments_nor_on_ranks(monkeypatch):
    training = launch.start_training("extobjnav/studio", SIZES)
    run = training.run
    launch.train(training)

    def evaluate(name, environments):
        houses = ",".join(f"studio_1_test_00{number}" for number in (1, 2, 3))
        overrides = (
            f"habitat_baselines.num_environments={environments}",
            f"habitat.dataset.content_scenes=[{houses}]",
        )
        options = launch.EvalOptions(trials=1, steps=24, name=name, overrides=overrides)
        return launch.evaluate(run, options) / "records.jsonl"

    alone = evaluate("alone", 1).read_bytes()
    assert evaluate("beside", 3).read_bytes() == alone
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("1", "0"):  # torchrun's, one after the other: they need not meet
        monkeypatch.setenv("RANK", rank)
        merged = evaluate("ranks", 2)
        assert merged.exists() == (rank == "0")
    assert merged.read_bytes() == alone
