"""Losses by hand, and the learning rate at its corners."""

from __future__ import annotations

import math

import pytest
import torch

from memo_habitat.ppo.losses import policy_loss, value_loss
from memo_habitat.ppo.optimiser import LearningRate


def test_the_surrogate_is_clipped_on_the_side_that_would_profit():
    ratio = torch.tensor([1.5, 1.5, 0.5, 0.5])
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0])
    out = policy_loss(ratio.log(), torch.zeros(4), advantages, clip=0.2)
    # min(r A, clip(r) A): 1.2, -1.5, 0.5, -0.8
    assert out.loss.item() == pytest.approx(-(1.2 - 1.5 + 0.5 - 0.8) / 4)
    assert out.clip_fraction.item() == 1.0


def test_an_unchanged_policy_has_no_divergence_and_the_plain_gradient():
    log_probs = torch.tensor([-1.0, -2.0], requires_grad=True)
    out = policy_loss(log_probs, log_probs.detach(), torch.tensor([3.0, -1.0]), clip=0.2)
    out.loss.backward()
    assert out.approx_kl.item() == 0.0
    assert log_probs.grad.tolist() == [-1.5, 0.5]


def test_value_loss_is_half_the_squared_error_and_clipping_holds_large_moves():
    values, old, returns = torch.tensor([2.0]), torch.tensor([0.0]), torch.tensor([3.0])
    assert value_loss(values, old, returns, clip=None).item() == 0.5
    assert value_loss(values, old, returns, clip=0.2).item() == pytest.approx(0.5 * 2.8**2)


def test_the_learning_rate_warms_up_then_decays_to_its_floor():
    rate = LearningRate(peak=1.0, warmup_steps=100, warmup_start=0.1, final=0.01, total_steps=1100)
    assert rate.at(0) == pytest.approx(0.1)
    assert rate.at(50) == pytest.approx(0.55)
    assert rate.at(100) == pytest.approx(1.0)
    assert rate.at(600) == pytest.approx(0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi / 2)))
    assert rate.at(1100) == rate.at(5000) == pytest.approx(0.01)
