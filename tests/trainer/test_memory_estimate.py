"""What an estimate says is what a training of the config holds."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
import torch

from memo_habitat.config.compose import compose_config
from memo_habitat.errors import UserError
from memo_habitat.trainer.live_bytes import LiveBytes, fake_tensors
from memo_habitat.trainer.memory_estimate import (
    USABLE,
    MemoryEstimate,
    estimate_memory,
    measure_memory,
    parse_memory,
    table,
)
from memo_habitat.trainer.validation import check_training_config

CAMERA = "habitat.simulator.agents.main_agent.sim_sensors.head_rgb_sensor"
BASELINES = "habitat_baselines"
MEMORY = f"{BASELINES}.rl.memory"
SMALL = (
    f"{CAMERA}.width=16",
    f"{CAMERA}.height=16",
    f"{BASELINES}.num_environments=4",
    f"{BASELINES}.rl.ppo.num_mini_batch=2",
)
STEPS = 64
TINY = (
    f"habitat.task.trial_steps={STEPS}",
    f"{MEMORY}.layers=1",
    f"{MEMORY}.segment_length=32",
    f"{MEMORY}.summary_length=8",
)
PLENTY = 2**40


@functools.cache
def composed(kind: str, *overrides: str):
    return compose_config("extobjnav/studio", [f"memory={kind}", *SMALL, *overrides])


def small(kind: str = "memo", *overrides: str):
    return composed(kind, *overrides).copy()


def tiny(kind: str = "memo", *overrides: str):
    """Where the sizes do not matter: an estimate follows every step of the code."""
    return small(kind, *TINY, *overrides)


@pytest.fixture(scope="module")
def estimate() -> MemoryEstimate:
    return estimate_memory(tiny(), PLENTY)


def with_usable(config, usable: float) -> MemoryEstimate:
    return estimate_memory(config, int(usable / USABLE) + 1)


def assert_as_measured(config, tolerance: float) -> None:
    estimated = estimate_memory(config, PLENTY)
    measured = measure_memory(config, estimated.minibatch)
    assert estimated.update_bytes == pytest.approx(measured["update_bytes"], rel=tolerance)
    assert estimated.refresh_bytes == pytest.approx(measured["refresh_bytes"], rel=tolerance)


# Bytes ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "overrides"),
    [
        ("memo", ()),
        ("fct", (f"{BASELINES}.rl.ppo.accumulate_gradients=true",)),
        ("no_iea", ("habitat.environment.max_episode_steps=60",)),
        ("memo", (f"{MEMORY}.activation_checkpointing=true", f"{BASELINES}.rl.precision=bfloat16")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_estimated_bytes_are_the_measured_ones(kind, overrides):
    assert_as_measured(small(kind, *overrides), 0.05)


@pytest.mark.slow
# A GRU is followed step by step, which takes its time.
@pytest.mark.parametrize(("kind", "steps"), [("lstm", 256), ("gru", 64)])
def test_estimated_bytes_are_within_15_percent_for_recurrent_kinds(kind, steps):
    short = f"habitat.task.trial_steps={steps}"
    assert_as_measured(small(kind, short, "encoder=blind", f"{MEMORY}.width=128"), 0.15)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind"), [("studio", "memo"), ("studio", "fct"), ("apartments", "memo")]
)
def test_estimated_bytes_are_within_15_percent_in_full_size(name, kind):
    assert_as_measured(compose_config(f"extobjnav/{name}", [f"memory={kind}"]), 0.15)


def test_sizes_add_up(estimate):
    assert estimate.parameter_bytes == estimate.gradient_bytes == 4 * estimate.parameters
    # Adam's two moments a parameter, and a count of steps for each tensor.
    assert 0 < estimate.optimiser_bytes - 2 * estimate.parameter_bytes < 1000
    images, steps = 4 * (STEPS + 1) * 16 * 16 * 3, 4 * STEPS
    assert estimate.rollout_bytes == pytest.approx(images + steps * 4 * (128 + 30), rel=0.1)
    assert estimate.activation_bytes > 0


@pytest.mark.slow
def test_a_rollout_in_host_memory_is_in_no_sum_and_nothing_else_changes(estimate):
    placed = estimate_memory(tiny("memo", f"{BASELINES}.rl.ppo.rollout_gpu_gb=0"), PLENTY)
    assert placed.host_rollout_bytes >= 4 * (STEPS + 1) * 16 * 16 * 3
    assert placed.rollout_bytes + placed.host_rollout_bytes == estimate.rollout_bytes
    assert placed.update_bytes + placed.host_rollout_bytes == estimate.update_bytes
    assert placed.refresh_bytes < estimate.refresh_bytes
    assert "rollout in host memory" in table("tiny", placed)
    assert "rollout in host memory" not in table("tiny", estimate)


@pytest.mark.slow
def test_full_context_keeps_more():
    memo, full = (
        estimate_memory(tiny(kind, "habitat.task.trial_steps=320", "encoder=blind"), PLENTY)
        for kind in ("memo", "fct")
    )
    assert memo.cache_bytes < full.cache_bytes
    assert memo.full_context_cache_bytes == full.full_context_cache_bytes <= full.cache_bytes


def test_several_workers_hold_a_flat_copy_of_the_gradients_at_most(estimate):
    two = estimate_memory(tiny(), PLENTY, workers=2)
    assert two.rollout_bytes == estimate.rollout_bytes
    assert 0 <= two.update_bytes - estimate.update_bytes <= estimate.parameter_bytes


# What fits --------------------------------------------------------------------------------------


def test_with_plenty_everything_fits(estimate):
    assert estimate.num_mini_batch == 1
    assert estimate.warnings == ()


def test_a_minibatch_too_large_is_told_with_the_one_that_fits(estimate):
    limited = with_usable(tiny(), estimate.one_environment_bytes)
    assert limited.num_mini_batch == 4
    (warning,) = limited.warnings
    assert f"{BASELINES}.rl.ppo.num_mini_batch=2: an update needs" in warning
    assert warning.endswith(f"set {BASELINES}.rl.ppo.num_mini_batch=4")


def test_the_table_says_how_many_at_once_and_what_the_config_has(estimate):
    text = table("mine", estimate)
    assert "each with 4 environments in trials" in text and "with 2 environments at once" in text
    assert "with 1 environment at once" in text
    assert "num_mini_batch=1 or more; the config has 2" in text
    alone = table("mine", replace(estimate, environments=1, minibatch=1))
    assert "each with 1 environment in trials" in alone and "1 environments" not in alone
    peaks = [line for line in alone.splitlines() if line.endswith("with 1 environment at once")]
    assert len(peaks) == 2  # activations, and the peak of the update
    assert len(alone.splitlines()) == len(text.splitlines()) - 1


def test_what_cannot_fit_is_told_with_what_would_be_smaller():
    limited = estimate_memory(tiny(), 100_000)
    assert limited.num_mini_batch is None
    update, refresh = limited.warnings
    for named in ("num_environments=4", "smaller images", "activation_checkpointing=true"):
        assert named in update
    assert f"{BASELINES}.rl.ppo.refresh_chunk=256" in refresh


# What is estimated ------------------------------------------------------------------------------


def test_a_config_of_a_simulator_that_is_not_installed_is_planned(estimate):
    other = estimate_memory(tiny("memo", "habitat.simulator.type=Sim-v0"), PLENTY)
    assert other == estimate


def test_the_config_stays_as_it_was():
    config = tiny("fct", "encoder=blind")
    before = config.copy()
    estimate_memory(config, PLENTY)
    assert config == before


def test_only_our_trainer_is_planned():
    with pytest.raises(UserError, match="trainer_name=ppo"):
        estimate_memory(compose_config("nav/ppo_pointnav_studio"), PLENTY)


@pytest.mark.parametrize(
    "override",
    [
        f"{BASELINES}.num_environments=0",
        f"{BASELINES}.rl.ppo.updates_per_trial=7",
        f"{MEMORY}.token_budget=70",
        f"{MEMORY}.width=3",
    ],
)
def test_what_training_refuses_planning_refuses_in_the_same_words(override):
    key, _, value = override.rpartition(".")[2].partition("=")
    config = small("memo", override)
    lines = []
    for refuse in (check_training_config, lambda config: estimate_memory(config, PLENTY)):
        with pytest.raises(UserError, match=f"{key}.*{value}") as refused:
            refuse(config)
        lines.append(str(refused.value))
    assert lines[0] == lines[1]


def test_a_missing_data_set_is_one_line():
    with pytest.raises((UserError, OSError), match="nowhere"):
        estimate_memory(small("memo", "habitat.dataset.data_path=nowhere/a.json.gz"), PLENTY)


def test_memory_is_given_with_its_unit():
    assert parse_memory("80GB") == 80 * 10**9
    assert parse_memory(" 1.5 gib") == 3 * 2**29
    for wrong in ("80", "GB", "0GB", "-1GB", "80 G"):
        with pytest.raises(UserError, match="--gpu-memory"):
            parse_memory(wrong)


# How it is counted ------------------------------------------------------------------------------


def test_live_bytes_rise_and_fall_with_the_tensors():
    with LiveBytes() as count:
        first = torch.zeros(1000)
        assert count.now == 4000
        view = first.view(10, 100)
        second = view + 1.0
        assert count.now == 8000
        del first
        assert count.now == 8000  # the view still holds it
        del view
        assert count.now == 4000
        _, peak = count.peak_of(lambda: None)
        assert peak == 4000
        del second
    assert count.now == 0


def test_what_backward_needs_is_counted_until_it_has_run():
    with fake_tensors() as count:
        weight = torch.zeros(1000, requires_grad=True)
        loss = weight.exp().exp().sum()
        assert count.now == 4000 * 3 + 4
        loss.backward()
        del loss
        assert count.now == 4000 * 2  # the weight and its gradient


def test_fake_tensors_take_no_memory_and_decisions_are_real():
    with fake_tensors() as count:
        huge = torch.zeros(2**45)
        assert count.now == 2**47
        mask = torch.arange(10) % 3 == 0
        assert mask.nonzero().flatten().tolist() == [0, 3, 6, 9]
        assert torch.zeros(10, 5)[mask].shape == (4, 5)
        assert bool(mask.any())
        assert isinstance(huge.sum().item(), float)
