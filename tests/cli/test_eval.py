"""`memo-habitat eval`: what may be changed of a run, and what is refused."""

from __future__ import annotations

import pytest

from memo_habitat.errors import UserError
from memo_habitat.trainer import launch

MEMORY, ENCODER = "habitat_baselines.rl.memory", "habitat_baselines.rl.encoder"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    return launch.start_training("dark_key_to_door", out=folder).run


@pytest.mark.parametrize(
    ("override", "named"),
    [
        (f"{MEMORY}.top_k=2", "top_k=2.*trained with 0"),
        (f"{MEMORY}.kind=fct", "kind=fct.*trained with memo"),
        (f"{ENCODER}.fourier_features=3", "fourier_features=3.*trained with 8"),
    ],
)
def test_another_model_than_the_trained_one_is_refused(run, override, named):
    with pytest.raises(UserError, match=named):
        launch.evaluate(run, launch.EvalOptions(overrides=[override]))


@pytest.mark.parametrize("override", [f"{MEMORY}.token_budget=80", "habitat.task.size=5"])
def test_how_it_is_run_and_on_what_may_be_changed(run, override):
    with pytest.raises(UserError, match="no checkpoint"):  # as far as it gets without one
        launch.evaluate(run, launch.EvalOptions(overrides=[override]))


def test_inspecting_the_memory_reaches_the_evaluator(run, monkeypatch):
    seen = []
    monkeypatch.setattr("habitat_baselines.run.execute_exp", lambda config, _: seen.append(config))
    run.latest_checkpoint.touch()
    launch.evaluate(run, launch.EvalOptions(inspect_memory=True))
    launch.evaluate(run, launch.EvalOptions())
    assert [config.habitat_baselines.evaluator.inspect_memory for config in seen] == [True, False]


def test_forgetting_reaches_the_evaluator_and_has_a_folder_of_its_own(run, monkeypatch):
    seen = []
    monkeypatch.setattr("habitat_baselines.run.execute_exp", lambda config, _: seen.append(config))
    run.latest_checkpoint.touch()
    folders = [
        launch.evaluate(run, launch.EvalOptions(forget=True)),
        launch.evaluate(run, launch.EvalOptions(forget=True, name="own")),
        launch.evaluate(
            run, launch.EvalOptions(overrides=["habitat_baselines.evaluator.forget=True"])
        ),
        launch.evaluate(run, launch.EvalOptions()),
    ]
    assert [folder.name for folder in folders] == [
        "latest-forget",
        "own",
        "latest-forget",
        "latest",
    ]
    evaluators = [config.habitat_baselines.evaluator for config in seen]
    assert [evaluator.forget for evaluator in evaluators] == [True, True, True, False]
    assert [evaluator.name for evaluator in evaluators] == [folder.name for folder in folders]
