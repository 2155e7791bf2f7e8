"""Weights that only the training's loss needs are left behind by an evaluation."""

from __future__ import annotations

import pytest
import torch

from memo_habitat.errors import UserError
from memo_habitat.trainer.agent_access_mgr import MemoAgentAccessMgr
from tests.factories.policies import small_policy


def manager_of(policy):
    manager = MemoAgentAccessMgr.__new__(MemoAgentAccessMgr)
    manager._actor_critic = policy
    return manager


def test_a_checkpoint_with_an_auxiliary_head_loads_where_its_sensor_is_not_observed():
    trained, evaluated = small_policy(auxiliary_sensor="found"), small_policy()
    weights = trained.state_dict()
    assert any("auxiliary" in name for name in weights)
    manager_of(evaluated).load_ckpt_state_dict({"state_dict": weights})
    for name, value in evaluated.state_dict().items():
        assert torch.equal(value, weights[name])


def test_a_training_goes_on_with_its_auxiliary_head_alone():
    trained, other = small_policy(), small_policy(auxiliary_sensor="found")
    with pytest.raises(UserError, match="another architecture"):
        manager_of(other).load_ckpt_state_dict({"state_dict": trained.state_dict()})
