"""What a plan says is what a training of the config holds."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from habitat.config.default import patch_config

from memo_habitat.config.compose import compose_config
from memo_habitat.errors import UserError
from memo_habitat.trainer.env_worker import make_env
from memo_habitat.trainer.plan import USABLE, Plan, make_plan, measure_plan
from memo_habitat.trainer.plan_limits import parse_memory
from memo_habitat.trainer.plan_rehearsal import Rehearsal
from memo_habitat.trainer.plan_spaces import environment_spec
from memo_habitat.trainer.plan_trace import LiveBytes, traced
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
PLENTY = 2**40


def small(kind: str = "memo", *overrides: str):
    return compose_config(f"extobjnav/{kind}_studio", [*SMALL, *overrides])


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(small(), PLENTY)


def with_usable(config, usable: float) -> Plan:
    return make_plan(config, int(usable / USABLE) + 1)


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
def test_planned_bytes_are_the_measured_ones(kind, overrides):
    config = small(kind, *overrides)
    planned = make_plan(config, PLENTY)
    measured = measure_plan(config, planned)
    assert planned.configured.peak_bytes == pytest.approx(measured["update_bytes"], rel=0.05)
    assert planned.refresh_bytes == pytest.approx(measured["refresh_bytes"], rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("recomputed", [False, True])
def test_planned_bytes_are_within_15_percent_of_the_measured_ones_for_an_lstm(recomputed):
    wide = (f"{MEMORY}.width=128", f"{MEMORY}.activation_checkpointing={recomputed}")
    config = small("lstm", f"{BASELINES}.rl.encoder.kind=blind", *wide)
    planned = make_plan(config, PLENTY)
    measured = measure_plan(config, planned)
    assert planned.configured.peak_bytes == pytest.approx(measured["update_bytes"], rel=0.15)
    assert planned.refresh_bytes == pytest.approx(measured["refresh_bytes"], rel=0.15)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind"), [("studio", "memo"), ("studio", "fct"), ("apartments", "memo")]
)
def test_planned_bytes_are_within_15_percent_of_the_measured_ones_in_full_size(name, kind):
    config = compose_config(f"extobjnav/{name}", [f"memory={kind}"])
    planned = make_plan(config, PLENTY)
    measured = measure_plan(config, planned)
    assert planned.configured.peak_bytes == pytest.approx(measured["update_bytes"], rel=0.15)
    assert planned.refresh_bytes == pytest.approx(measured["refresh_bytes"], rel=0.15)


def test_sizes_are_those_of_the_real_objects(plan):
    config = patch_config(small())
    real = Rehearsal(config, environment_spec(config), torch.device("cpu"), is_fake=False)
    real.make_rollout()
    parameters = list(real.policy.parameters())
    storage = [*real.rollout.observations.values(), *vars(real.rollout).values()]
    assert plan.parameters == sum(p.numel() for p in parameters)
    assert plan.parameter_bytes == plan.gradient_bytes == sum(p.nbytes for p in parameters)
    # Two moments a parameter, and a count of steps.
    assert plan.optimiser_bytes == 2 * plan.parameter_bytes + 4 * len(parameters)
    assert plan.rollout_bytes == sum(t.nbytes for t in storage if isinstance(t, torch.Tensor))
    assert plan.cache_bytes == real.refresh()


def test_full_context_keeps_more(plan):
    assert plan.full_context_cache_bytes > plan.cache_bytes
    full = make_plan(small("fct"), PLENTY)
    assert full.cache_bytes == full.full_context_cache_bytes == plan.full_context_cache_bytes


def test_more_environments_at_once_hold_more(plan):
    assert [m.environments for m in plan.minibatches] == [1, 2, 4]
    assert [m.num_mini_batch for m in plan.minibatches] == [4, 2, 1]
    peaks = [m.peak_bytes for m in plan.minibatches]
    assert peaks == sorted(set(peaks))
    assert plan.configured == plan.minibatches[1]


def test_tokens_are_steps_and_each_summary_twice(plan):
    steps, segment, summary = 256, 64, 8
    assert [update.name for update in plan.updates] == ["first partial", "full"]
    partial, full = plan.updates
    assert (partial.steps_in_losses, full.steps_in_losses) == (4 * steps // 2, 4 * steps)
    # The last segment needs no summary.
    assert full.tokens == 4 * (steps + (steps // segment - 1) * 2 * summary)
    assert partial.tokens == 4 * (steps // 2 + (steps // 2 // segment - 1) * 2 * summary)


def test_workers_add_up_in_steps_and_not_in_bytes(plan):
    two = make_plan(small(), PLENTY, workers=2)
    assert [u.tokens for u in two.updates] == [2 * u.tokens for u in plan.updates]
    assert two.minibatches == plan.minibatches
    assert two.rollout_bytes == plan.rollout_bytes


# What fits --------------------------------------------------------------------------------------


def test_with_plenty_everything_fits(plan):
    assert (plan.largest_minibatch, plan.smallest_num_mini_batch) == (4, 1)
    assert plan.warnings == ()


def test_the_largest_minibatch_fits_and_one_more_does_not(plan):
    _, two, four = (m.peak_bytes for m in plan.minibatches)
    for usable, largest, count in ((four - 1, 3, 2), (two - 1, 1, 4)):
        limited = with_usable(small(), max(usable, plan.refresh_bytes))
        assert (limited.largest_minibatch, limited.smallest_num_mini_batch) == (largest, count)


def test_a_minibatch_too_large_is_told_with_the_one_that_fits(plan):
    limited = with_usable(small(), plan.minibatches[0].peak_bytes)
    assert len(limited.warnings) == 1
    assert f"{BASELINES}.rl.ppo.num_mini_batch=2: an update needs" in limited.warnings[0]
    assert limited.warnings[0].endswith(f"set {BASELINES}.rl.ppo.num_mini_batch=4")


def test_checkpointing_is_named_where_it_is_enough(plan):
    limited = with_usable(small(), 0.95 * plan.minibatches[0].peak_bytes)
    assert limited.largest_minibatch is None
    assert f"set {MEMORY}.activation_checkpointing=true" in limited.warnings[0]


def test_what_cannot_fit_is_told_with_what_would_be_smaller():
    limited = make_plan(small(), 1_000_000)
    assert limited.largest_minibatch is limited.smallest_num_mini_batch is None
    update, refresh = limited.warnings
    for named in ("num_environments=4", "smaller images", "activation_checkpointing=true"):
        assert named in update
    assert f"{BASELINES}.rl.ppo.refresh_chunk=256" in refresh


# What is planned --------------------------------------------------------------------------------


def test_the_spaces_are_those_of_the_real_environment(tmp_path):
    config = patch_config(small())
    spec = environment_spec(config)
    env = make_env(config, str(tmp_path / "death"))
    assert spec.observation_space == env.observation_space
    assert spec.action_space == env.action_space
    env.close()


def test_a_config_of_a_simulator_that_is_not_installed_is_planned(plan):
    other = make_plan(small("memo", "habitat.simulator.type=Sim-v0"), PLENTY)
    assert other == plan


def test_the_config_stays_as_it_was(plan):
    config = small()
    before = config.copy()
    make_plan(config, PLENTY)
    assert config == before


def test_only_our_trainer_is_planned():
    with pytest.raises(UserError, match="trainer_name=ppo"):
        make_plan(compose_config("nav/ppo_pointnav_studio"), PLENTY)


@pytest.mark.parametrize(
    "override",
    [
        f"{BASELINES}.num_environments=0",
        f"{BASELINES}.checkpoint_interval=3",
        f"{BASELINES}.rl.ppo.num_mini_batch=0",
        f"{BASELINES}.rl.ppo.updates_per_trial=7",
        f"{BASELINES}.rl.ppo.use_double_buffered_sampler=True",
        f"{BASELINES}.rl.encoder.images_per_piece=0",
        f"{MEMORY}.token_budget=70",
        f"{MEMORY}.width=3",
    ],
)
def test_what_training_refuses_planning_refuses_in_the_same_words(override):
    key, _, value = override.rpartition(".")[2].partition("=")
    config = small("memo", override)
    lines = []
    for refuse in (check_training_config, lambda config: make_plan(config, PLENTY)):
        with pytest.raises(UserError, match=f"{key}.*{value}") as refused:
            refuse(config)
        lines.append(str(refused.value))
    assert lines[0] == lines[1]


def test_a_missing_data_set_is_one_line():
    with pytest.raises((UserError, OSError), match="nowhere"):
        make_plan(small("memo", "habitat.dataset.data_path=nowhere/a.json.gz"), PLENTY)


def test_memory_is_given_with_its_unit():
    assert parse_memory("80GB") == 80 * 10**9
    assert parse_memory(" 1.5 gib") == 3 * 2**29
    for wrong in ("80", "GB", "0GB", "-1GB", "80 G"):
        with pytest.raises(UserError, match="--gpu-memory"):
            parse_memory(wrong)


def test_a_plan_is_plain_values(plan):
    values = plan.as_json()
    assert values["configured"] == dataclasses.asdict(plan.configured)


# How it is counted ------------------------------------------------------------------------------


def test_live_bytes_rise_and_fall_with_the_tensors():
    with LiveBytes() as count:
        first = torch.zeros(1000)
        assert count.live == 4000
        view = first.view(10, 100)
        second = view + 1.0
        assert count.live == 8000
        del first
        assert count.live == 8000  # the view still holds it
        del view
        assert (count.live, count.peak) == (4000, 8000)
        count.begin()
        assert count.peak == 4000
        del second
    assert count.live == 0


def test_what_backward_needs_is_counted_until_it_has_run():
    with traced() as count:
        weight = torch.zeros(1000, requires_grad=True)
        loss = weight.exp().exp().sum()
        assert count.live == 4000 * 3 + 4
        loss.backward()
        del loss
        assert count.live == 4000 * 2  # the weight and its gradient


def test_fake_tensors_take_no_memory_and_decisions_are_real():
    with traced() as count:
        huge = torch.zeros(2**45)
        assert count.live == 2**47
        mask = torch.arange(10) % 3 == 0
        assert mask.nonzero().flatten().tolist() == [0, 3, 6, 9]
        assert torch.zeros(10, 5)[mask].shape == (4, 5)
        assert bool(mask.any())
        assert isinstance(huge.sum().item(), float)
