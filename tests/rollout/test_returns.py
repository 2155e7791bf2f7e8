"""Advantages against a plain loop, and where they are cut."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memo_habitat.rollout.gae import cuts, generalised_advantages


def plain_advantage(rewards, values, last_value, cut, gamma, lam, start):
    """The defining sum of GAE from step `start` of one environment, term by term."""
    total, weight = 0.0, 1.0
    for step in range(start, len(rewards)):
        following = last_value if step + 1 == len(rewards) else values[step + 1]
        bootstrap = 0.0 if cut[step] else gamma * following
        total += weight * (rewards[step] + bootstrap - values[step])
        if cut[step]:
            break
        weight *= gamma * lam
    return total


@settings(max_examples=30)
@given(
    steps=st.integers(1, 12),
    envs=st.integers(1, 3),
    gamma=st.floats(0.5, 1.0),
    lam=st.floats(0.0, 1.0),
    seed=st.integers(0, 10_000),
)
def test_advantages_equal_the_defining_sum(steps, envs, gamma, lam, seed):
    generator = torch.Generator().manual_seed(seed)
    rewards, values = torch.randn(2, envs, steps, generator=generator, dtype=torch.float64)
    last = torch.randn(envs, generator=generator, dtype=torch.float64)
    cut = torch.rand(envs, steps, generator=generator) < 0.3
    found = generalised_advantages(rewards, values, last, cut, gamma, lam)
    for env in range(envs):
        for step in range(steps):
            expected = plain_advantage(
                rewards[env], values[env], last[env], cut[env], gamma, lam, step
            )
            torch.testing.assert_close(found[env, step], torch.as_tensor(expected))


def test_returns_stop_at_episode_ends_unless_carried_across_and_always_at_the_trial_end():
    ends = torch.tensor([[False, True, False]])
    assert cuts(ends, trial_ends=False, across_episodes=False).tolist() == [[False, True, False]]
    assert cuts(ends, trial_ends=True, across_episodes=False).tolist() == [[False, True, True]]
    assert cuts(ends, trial_ends=False, across_episodes=True).tolist() == [[False, False, False]]
    assert cuts(ends, trial_ends=True, across_episodes=True).tolist() == [[False, False, True]]
    assert ends.tolist() == [[False, True, False]]
