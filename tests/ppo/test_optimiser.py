"""Muon for the memory's matrices, Adam for the rest, behind the face of one optimiser."""

from __future__ import annotations

import copy

import pytest
import torch

from memo_habitat.config.trainer import MemoPPOConfig
from memo_habitat.errors import UserError
from memo_habitat.ppo.optimiser import build_optimiser, hidden_matrices
from memo_habitat.ppo.updater import MemoPPO
from tests.factories.policies import small_policy

LR, EPS = 1e-2, 1e-5


def with_gradients(kind="memo", seed=0):
    torch.manual_seed(seed)
    policy = small_policy(kind)
    give_gradients(policy)
    return policy


def give_gradients(policy):
    for parameter in policy.parameters():
        parameter.grad = torch.randn_like(parameter)


@pytest.mark.parametrize("kind", ["memo", "lstm"])
def test_muon_has_the_memorys_matrices_and_adam_every_other_parameter(kind):
    policy = with_gradients(kind)
    optimiser = build_optimiser(policy, "muon", LR, EPS)
    held = [p for group in optimiser.param_groups for p in group["params"]]
    assert {id(p) for p in held} == {id(p) for p in policy.parameters()}
    assert len(held) == len(list(policy.parameters()))
    hidden = hidden_matrices(policy)
    assert hidden
    assert all(p.ndim == 2 and min(p.shape) > 1 for p in hidden)
    others = {id(p) for p in optimiser.param_groups[0]["params"]}
    assert others.isdisjoint({id(p) for p in hidden})
    names = {id(p): name for name, p in policy.named_parameters()}
    for name in ("actor", "critic", "token_projection", "queries", "action_embedding"):
        assert all(name not in names[id(p)] for p in hidden)


def test_a_step_on_a_hidden_matrix_is_orthogonal_and_as_large_as_adams():
    policy = with_gradients()
    before = [p.detach().clone() for p in hidden_matrices(policy)]
    for p in hidden_matrices(policy):  # some directions are far stronger than others
        p.grad *= torch.logspace(-2, 0, p.shape[1])
    build_optimiser(policy, "muon", LR, EPS).step()
    for old, new in zip(before, hidden_matrices(policy), strict=True):
        step = new.detach() - old
        gradients = torch.linalg.svdvals(new.grad)
        assert gradients.median() < 0.3 * gradients.max()
        strengths = torch.linalg.svdvals(step)
        assert strengths.median() > 0.5 * strengths.max()
        # Its published scale: the root mean square of an Adam step is about 0.2 to 0.4 lr.
        assert 0.1 * LR < step.pow(2).mean().sqrt() < 0.4 * LR


def test_what_adam_has_is_stepped_as_by_adam_alone():
    policy = with_gradients()
    other = copy.deepcopy(policy)
    for mine, its in zip(policy.parameters(), other.parameters(), strict=True):
        its.grad = mine.grad.clone()
    build_optimiser(policy, "muon", LR, EPS).step()
    build_optimiser(other, "adam", LR, EPS).step()
    hidden = {id(p) for p in hidden_matrices(policy)}
    for mine, its in zip(policy.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, its) == (id(mine) not in hidden)


@pytest.mark.parametrize("name", ["adam", "muon"])
def test_steps_are_those_of_torchs_optimisers(name):
    policy = with_gradients()
    other = copy.deepcopy(policy)
    hidden = hidden_matrices(other) if name == "muon" else []
    rest = [p for p in other.parameters() if id(p) not in {id(h) for h in hidden}]
    torchs = [torch.optim.Adam(rest, lr=LR, eps=EPS)]
    if hidden:
        scale = {"momentum": 0.95, "weight_decay": 0.0, "adjust_lr_fn": "match_rms_adamw"}
        torchs.append(torch.optim.Muon(hidden, lr=LR, **scale))
    ours = build_optimiser(policy, name, LR, EPS)
    for _ in range(3):
        give_gradients(policy)
        for mine, its in zip(policy.parameters(), other.parameters(), strict=True):
            its.grad = mine.grad.clone()
        ours.step()
        for optimiser in torchs:
            optimiser.step()
    for mine, its in zip(policy.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, its)


def test_a_state_that_is_loaded_goes_on_as_if_nothing_had_happened():
    first = with_gradients()
    one = build_optimiser(first, "muon", LR, EPS)
    one.step()
    second = copy.deepcopy(first)
    two = build_optimiser(second, "muon", 1.0, EPS)
    two.load_state_dict(copy.deepcopy(one.state_dict()))
    for policy, optimiser in ((first, one), (second, two)):
        torch.manual_seed(7)
        give_gradients(policy)
        for group in optimiser.param_groups:  # as the learning rate's schedule does
            group["lr"] = LR / 2
        optimiser.step()
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_updater_sets_one_learning_rate_for_both():
    updater = MemoPPO(small_policy("memo"), MemoPPOConfig(optimizer="muon", lr=LR))
    updater.set_learning_rate(LR / 4)
    assert [group["lr"] for group in updater.optimizer.param_groups] == [LR / 4, LR / 4]


def test_zero_grad_forgets_all_gradients():
    policy = with_gradients()
    build_optimiser(policy, "muon", LR, EPS).zero_grad()
    assert all(p.grad is None for p in policy.parameters())


def test_an_unknown_optimiser_is_named_with_the_choices():
    with pytest.raises(UserError, match=r"rl\.ppo\.optimizer='sgd': choose one of adam, muon"):
        MemoPPO(small_policy("memo"), MemoPPOConfig(optimizer="sgd"))


def test_a_pytorch_without_muon_is_named_with_the_remedy(monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(UserError, match="muon needs PyTorch"):
        build_optimiser(small_policy("memo"), "muon", LR, EPS)
