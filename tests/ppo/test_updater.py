"""One update: what it does not depend on, and that it raises the probability of what paid."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from memo_habitat.config.trainer import MemoPPOConfig
from memo_habitat.errors import NonFiniteError, UserError
from memo_habitat.ppo.updater import MemoPPO
from tests.factories.policies import act_trial, new_storage, small_policy


def collected(kind="memo", **options):
    torch.manual_seed(0)
    policy = small_policy(kind, segment_jitter=0.0, depth_dropout=0.0, **options)
    storage = new_storage(policy.eval(), num_envs=4, trial_steps=8)
    act_trial(policy, storage, 8)
    storage.compute_returns(torch.zeros(4), use_gae=True, gamma=0.9, tau=0.9)
    return policy, storage


def updated(policy, storage, **config):
    policy = copy.deepcopy(policy)
    updater = MemoPPO(policy, MemoPPOConfig(ppo_epoch=1, lr=1e-3, **config))
    policy.train()
    means = updater.update(storage)
    return policy, means


@pytest.mark.parametrize("kind", ["memo", "fct"])
def test_accumulated_gradients_do_not_depend_on_the_number_of_minibatches(kind):
    policy, storage = collected(kind)
    whole, _ = updated(policy, storage, num_mini_batch=1)
    parts, _ = updated(policy, storage, num_mini_batch=4)
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def only(storage, rows):
    """The rollout of these environments alone."""
    kept = copy.copy(storage)
    for name, value in vars(storage).items():
        if isinstance(value, torch.Tensor):
            setattr(kept, name, value[rows])
    kept.observations = {uuid: value[rows] for uuid, value in storage.observations.items()}
    return kept


@pytest.mark.parametrize("accumulate", [True, False])
def test_a_trial_that_broke_off_is_as_if_its_environment_were_not_there(accumulate):
    policy, storage = collected()
    others = only(storage, [0, 2, 3])
    storage.live[1] = False
    storage.rewards[1], storage.values[1] = float("nan"), float("nan")
    storage.compute_returns(torch.zeros(4), use_gae=True, gamma=0.9, tau=0.9)
    config = {"num_mini_batch": 1, "accumulate_gradients": accumulate}
    with_it, means = updated(policy, storage, **config)
    without, expected = updated(policy, others, **config)
    for a, b in zip(with_it.parameters(), without.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
    assert means == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert storage.mean_return() == pytest.approx(others.mean_return())


def test_too_few_live_trials_for_the_minibatches_are_repeated_and_weigh_the_same():
    policy, storage = collected()
    others = only(storage, [0, 1, 2])
    storage.live[3] = False
    assert len(list(storage.minibatches(4))) == 4  # as many as every other worker makes
    repeated, _ = updated(policy, storage, num_mini_batch=4)
    whole, _ = updated(policy, others, num_mini_batch=1)
    for a, b in zip(repeated.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_what_is_not_finite_ends_an_update_before_it_changes_a_weight():
    policy, storage = collected()
    updater = MemoPPO(policy, MemoPPOConfig(ppo_epoch=1))
    before = copy.deepcopy(policy.state_dict())

    storage.rewards[2, 3] = float("inf")
    with pytest.raises(NonFiniteError, match=r"reward \(environment 2 at step 3\)"):
        storage.compute_returns(torch.zeros(4), use_gae=True, gamma=0.9, tau=0.9)

    values = storage.values.clone()
    storage.returns[1, 0] = float("nan")
    with pytest.raises(NonFiniteError, match=r"loss \(value_loss"):
        updater.update(storage)

    storage.returns[1, 0], storage.values = 0.0, values
    updater.optimizer.zero_grad()
    policy.network.critic.weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(NonFiniteError, match=r"gradient \(network.critic.weight\)"):
        updater.update(storage)
    for name, weights in policy.state_dict().items():
        assert torch.equal(weights, before[name]), name


def test_normalised_advantages_are_those_of_the_minibatch_scaled_by_hand():
    policy, storage = collected()
    scaled = copy.deepcopy(storage)
    scaled.advantages = (storage.advantages - storage.advantages.mean()) / storage.advantages.std()
    by_flag, _ = updated(policy, storage, num_mini_batch=1, use_normalized_advantage=True)
    by_hand, _ = updated(policy, scaled, num_mini_batch=1)
    for a, b in zip(by_flag.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("final", "share", "expected"),
    [(None, 0.7, 0.03), (0.01, 0.0, 0.03), (0.01, 0.5, 0.02), (0.01, 1.3, 0.01)],
)
def test_the_entropy_coefficient_goes_linearly_to_its_final_value(final, share, expected):
    policy, _ = collected()
    updater = MemoPPO(policy, MemoPPOConfig(entropy_coef=0.03, entropy_coef_final=final))
    updater.anneal(share)
    assert updater.entropy_coef == pytest.approx(expected)


def test_the_first_pass_has_ratio_one():
    policy, storage = collected()
    _, means = updated(policy, storage, num_mini_batch=1)
    assert means["clip_fraction"] == 0.0
    assert abs(means["approx_kl"]) < 1e-6


def decided(seed=0, **memory):
    """A policy that has made up its mind by what it remembers, and what it did."""
    torch.manual_seed(seed)
    policy = small_policy(segment_jitter=0.4, segment_length=5, depth_dropout=0.0, **memory)
    with torch.no_grad():
        policy.network.actor.weight.mul_(200)
        policy.network.memory.queries.normal_()
    policy.begin_trials(seed, 0)
    storage = new_storage(policy.eval(), num_envs=6, trial_steps=24)
    act_trial(policy, storage, 24)
    storage.compute_returns(torch.zeros(6), use_gae=True, gamma=0.9, tau=0.9)
    return policy, storage


@pytest.mark.parametrize("accumulate", [True, False])
@pytest.mark.parametrize(
    ("drawn_in", "is_same"),
    [("update", False), ("update_with_recomputed_ratios", True), ("trial", True)],
)
def test_how_far_the_policy_that_acted_is_from_the_one_that_learns(drawn_in, is_same, accumulate):
    drawn, apart = set(), []
    for seed in range(5):
        policy, storage = decided(seed, segment_jitter_in=drawn_in)
        config = {"num_mini_batch": 2, "accumulate_gradients": accumulate, "clip_param": 0.1}
        before = storage.log_probs.clone(), storage.values.clone()
        _, means = updated(policy, storage, **config)
        drawn.add(means["segment_length"])
        apart.append(means["initial_approx_kl"])
        if is_same:
            assert abs(means["initial_approx_kl"]) < 1e-8  # of ratios within 1e-5 of 1
            assert means["initial_clip_fraction"] == 0.0
        assert torch.equal(storage.log_probs, before[0])
        assert torch.equal(storage.values, before[1])
    assert drawn != {5.0}
    assert is_same or max(apart) > 0.01


def test_the_first_passes_alone_tell_how_far_the_policy_was_that_acted():
    policy, storage = decided(segment_jitter_in="trial")
    updater = MemoPPO(policy, MemoPPOConfig(ppo_epoch=3, num_mini_batch=2, lr=1e-2))
    means = updater.update(storage)
    assert abs(means["initial_approx_kl"]) < 1e-8 < means["approx_kl"]


@pytest.mark.parametrize("steps", [24, 16])
def test_recomputed_ratios_are_those_of_the_drawn_length_and_of_no_dropped_layer(steps):
    policy, storage = decided(segment_jitter_in="update_with_recomputed_ratios")
    storage.steps = steps  # 16: a partial update, from step 9 on
    storage.loss_start = 9
    lengths = []

    def watched(batch, length, gradients, evaluate=policy.evaluate_trials):
        lengths.append(length)
        return evaluate(batch, length, gradients)

    policy.evaluate_trials = watched
    updater = MemoPPO(policy, MemoPPOConfig(ppo_epoch=2, num_mini_batch=3, lr=0.0))
    means = updater.update(storage)
    assert len(set(lengths)) == 1
    assert len(lengths) == 3 + 6
    assert abs(means["approx_kl"]) < 1e-8


def test_actions_with_positive_advantage_become_more_probable():
    policy, storage = collected()
    storage.advantages.fill_(1.0)
    after, _ = updated(policy, storage, num_mini_batch=1, entropy_coef=0.0, value_loss_coef=0.0)
    batch = next(storage.minibatches(1))
    new = after.eval().evaluate_trials(batch, None, True).log_probs
    assert new.mean() > batch.log_probs.mean()


def test_the_auxiliary_sensor_is_learned_from_the_loss_alone():
    # The goal, as a sensor of several binary values that the policy does not get.
    policy, storage = collected(auxiliary_sensor="found")
    storage.observations["found"] = storage.observations["one_hot_target_sensor"].clone()
    updater = MemoPPO(policy, MemoPPOConfig(ppo_epoch=1, num_mini_batch=1, lr=1e-2))
    losses = [updater.update(storage)["auxiliary_loss"] for _ in range(30)]
    assert losses[-1] < 0.5 * losses[0]
    assert policy.network.auxiliary.out_features == storage.observations["found"].shape[-1] > 1
    assert "found" not in policy.network.state_sensors


def test_the_memory_loss_is_learned_with_its_weight_and_is_zero_where_there_is_none():
    falls = {}
    for coef in (0.0, 1.0):
        policy, storage = collected(memory_loss="reconstruction", memory_loss_coef=coef)
        config = MemoPPOConfig(
            ppo_epoch=1, num_mini_batch=1, lr=1e-2, value_loss_coef=0.0, entropy_coef=0.0
        )
        storage.advantages.fill_(0.0)  # nothing else to learn
        updater = MemoPPO(policy, config)
        losses = [updater.update(storage)["memory_loss"] for _ in range(20)]
        falls[coef] = losses[-1] / losses[0]
    assert falls[1.0] < 0.7
    assert falls[0.0] == pytest.approx(1.0)
    _, means = updated(*collected("fct"))
    assert means["memory_loss"] == 0.0


def test_the_optimiser_resumes_exactly():
    policy, storage = collected()
    updater = MemoPPO(policy, MemoPPOConfig(ppo_epoch=1, num_mini_batch=1))
    updater.update(storage)
    twin = copy.deepcopy(policy)
    other = MemoPPO(twin, MemoPPOConfig(ppo_epoch=1, num_mini_batch=1))
    other.load_state_dict(copy.deepcopy(updater.get_resume_state()))
    for u in (updater, other):
        torch.manual_seed(5)
        u.update(storage)
    for a, b in zip(policy.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=0, rtol=0)


@pytest.mark.slow
def test_the_teacher_acts_and_is_imitated_until_it_has_gone():
    policy, _ = collected()
    updater = MemoPPO(
        policy.train(), MemoPPOConfig(lr=3e-3, teacher_share=1.0, imitation_coef=1.0, gamma=0.9)
    )
    storage = new_storage(policy, num_envs=4, trial_steps=8)
    updater.anneal(0.0)
    policy.forget()
    act_trial(policy, storage, 8)
    assert (storage.actions == storage.observations["perfect_memory_action"][:, :8, 0]).all()
    storage.compute_returns(torch.zeros(4), use_gae=True, gamma=0.9, tau=0.9)
    losses = [updater.update(storage)["imitation_loss"] for _ in range(20)]
    assert losses[-1] < 0.8 * losses[0]
    updater.anneal(0.25)
    assert (policy.teacher_share, updater.imitation_coef, updater.surrogate_coef) == (0.5, 1, 0)
    updater.anneal(0.6)
    assert (policy.teacher_share, updater.imitation_coef, updater.surrogate_coef) == (0, 0, 1)
    assert updater.update(storage)["imitation_loss"] == 0.0


def test_nobody_teaches_before_a_training_says_so():
    # An evaluation makes an updater, too, in environments that do not observe the teacher.
    policy, _ = collected()
    MemoPPO(policy, MemoPPOConfig(teacher="nobody", teacher_share=1.0, imitation_coef=1.0))
    storage = new_storage(policy, num_envs=2, trial_steps=4)
    policy.forget()
    act_trial(policy, storage, 4)
    assert policy.teacher is None


def test_a_teacher_that_is_not_observed_is_refused_with_the_remedy():
    policy, _ = collected()
    updater = MemoPPO(policy, MemoPPOConfig(teacher="nobody", imitation_coef=1.0))
    with pytest.raises(UserError, match=r"'nobody' is not observed: add .*imitation_coef=0"):
        updater.anneal(0.0)
    updater.anneal(0.9)  # it has gone by then


def test_a_teacher_acts_for_stretches_of_its_share_of_the_steps():
    torch.manual_seed(0)
    policy = small_policy("fct")
    policy.learn_from("perfect_memory_action", 0.5)
    storage = new_storage(policy, num_envs=64, trial_steps=60)
    act_trial(policy, storage, 60)
    followed = storage.actions == storage.observations["perfect_memory_action"][:, :60, 0]
    # By chance the policy, which has four actions, agrees in a quarter of its own steps.
    assert 0.5 < followed.float().mean() < 0.75
    runs = (followed[:, 1:] & followed[:, :-1]).float().mean()
    assert runs > 0.8 * followed.float().mean()


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(
                    not torch.cuda.is_available(), reason="needs a GPU that PyTorch can use"
                ),
            ],
        ),
    ],
)
def test_a_teacher_recall_and_hindsight_are_learned_from_in_bfloat16(device):
    torch.manual_seed(0)
    policy = small_policy(
        "memo",
        "detections",
        precision="bfloat16",
        recall="target",
        memory_loss="observations",
    ).to(device)
    config = MemoPPOConfig(accumulate_gradients=False, hindsight_passes=2, imitation_coef=1.0)
    updater = MemoPPO(policy.eval(), config)
    updater.anneal(0.0)
    storage = new_storage(policy, num_envs=4, trial_steps=12)
    storage.to(torch.device(device))
    act_trial(policy, storage, 12)
    storage.compute_returns(torch.zeros(4, device=device), use_gae=True, gamma=0.9, tau=0.9)
    policy.train()
    before = {name: weight.detach().clone() for name, weight in policy.named_parameters()}
    means = updater.update(storage)
    assert all(math.isfinite(value) for value in means.values())
    assert min(means[name] for name in ("recall_seen", "memory_loss", "imitation_loss")) > 0.0
    for name in ("recall", "observation_loss", "actor", "shortcut", "visual_encoder"):
        weights = {k: v for k, v in policy.named_parameters() if k.startswith(f"network.{name}.")}
        assert weights and any(not torch.equal(v, before[k]) for k, v in weights.items()), name
