"""A recorded trial can be looked at again, and what is said then is what was said."""

from __future__ import annotations

import pytest
import torch

from memo_habitat.errors import UserError
from memo_habitat.policy.agent import PolicyAgent
from memo_habitat.policy.replay import RecordingAgent
from tests.factories.policies import random_observation, small_policy

STEPS, S = 14, 4  # segments of `small_policy`


def play(agent: PolicyAgent) -> list[int]:
    """Actions of a trial with an episode every five steps."""
    generator, actions = torch.Generator().manual_seed(0), []
    agent.begin_trial(3)
    for step in range(STEPS):
        seen = random_observation(1, step, generator)
        starts = torch.tensor([step == 0]), torch.tensor([step % 5 == 0])
        actions.append(int(agent.act(seen, *starts)))
        seen["gps"].zero_()  # as environments do that write the next step to the same place
    return actions


@pytest.mark.parametrize("kind", ["memo", "rmt", "ac", "fct", "no_iea"])
@pytest.mark.parametrize("deterministic", [True, False])
def test_it_acts_the_same_and_says_the_same_again(kind: str, deterministic: bool) -> None:
    torch.manual_seed(0)
    policy = small_policy(kind, encoder="detections", recall="target")
    with torch.no_grad():
        policy.network.actor.weight.mul_(300)  # far from uniform
    recording = RecordingAgent(policy.with_own_memory(), deterministic)
    taken = play(recording)
    assert taken == play(PolicyAgent(policy.with_own_memory(), deterministic))
    looks = list(recording.looks(range(STEPS)))
    assert [look.step for look in looks] == list(range(STEPS))
    if deterministic:
        assert [int(look.answer.log_probs.argmax()) for look in looks] == taken
    for look in looks:
        torch.testing.assert_close(look.sink + look.own + look.shares.sum(1), torch.ones(2))
        assert look.answer.place is not None
    held = {"memo": STEPS // S, "ac": STEPS // S, "fct": STEPS // S, "rmt": 1, "no_iea": 1}[kind]
    assert len(looks[-1].parts) == held
    same, emptied = looks[-1].without([]), looks[-1].without(range(held))
    torch.testing.assert_close(same.log_probs, looks[-1].answer.log_probs, atol=1e-4, rtol=0)
    assert emptied.value != pytest.approx(same.value, abs=1e-6)


def test_a_state_that_attends_to_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="'lstm' attends to nothing that could be inspected"):
        RecordingAgent(small_policy("lstm"))
