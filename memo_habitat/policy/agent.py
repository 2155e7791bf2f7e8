"""The policy as an evaluation sees it: observations in, actions out, memory kept in between."""

from __future__ import annotations

import random
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from memo_habitat.memory.attention_probe import (
    AttentionProbe,
    AttentionStats,
    check_attends,
    observe,
)
from memo_habitat.policy.network import LAST_REWARD, ContextUse
from memo_habitat.policy.policy import MemoPolicy

# Observations of the step before, 0 at a trial's first step. At an episode's first step they tell
# how the episode before it ended.
_OF_LAST_STEP = (LAST_REWARD, "grid_before")


class PolicyAgent:
    """Acts with a trained policy; remembers the previous action of every environment."""

    name = "checkpoint"

    def __init__(
        self,
        policy: MemoPolicy,
        deterministic: bool = False,
        inspect_every: int = 0,
        forget: bool = False,
    ) -> None:
        """Act with `policy`, by its likeliest action where `deterministic`.

        The attention of one step in `inspect_every` is looked at, none for 0: which, each trial
        draws by its seed.
        UserError where the policy's memory has no attention to look at.

        With `forget` its memory is emptied at the start of every episode: what it does there
        depends on nothing before it, but for the step of the trial where that is observed.
        """
        if inspect_every:
            check_attends(policy.network.memory.config)
        self._policy = policy.eval()
        policy.learn_from(None, 0.0)  # whoever taught it has no say here
        self._generator: torch.Generator | None = None  # torch's own
        self._deterministic, self._forget = deterministic, forget
        self._previous: Tensor | None = None
        self._inspect_every, self._random = inspect_every, random.Random(0)
        self._phase = self._looked_at = 0
        self._stats: AttentionStats | None = None

    def begin_trial(self, seed: int) -> None:
        """Forget everything; sampled actions, and which steps are looked at, follow from `seed`."""
        self._previous = None
        self._generator = torch.Generator().manual_seed(seed)
        self._random, self._phase = random.Random(seed), 0

    @torch.inference_mode()
    def act(
        self, observations: dict[str, Tensor], trial_start: Tensor, episode_start: Tensor
    ) -> Tensor:
        """Actions, long [N]; the policy empties its memory where the observed trial step is 0."""
        # The trial step stays as it is where an episode is to be forgotten: it is an input of some
        # policies, which have learned what to do at the beginning of a trial and not at its end.
        if self._previous is None:
            self._policy.forget()
            self._previous = torch.zeros_like(episode_start, dtype=torch.long)
        previous = self._previous.masked_fill(trial_start, 0)
        if self._forget:
            previous = previous.masked_fill(episode_start, 0)
            self._policy.acting_cache(len(previous)).reset(episode_start.cpu())
            observations = _without_last_step(observations, episode_start)
        with self._looking(len(episode_start)) as probe:
            data = self._policy.act(
                observations,
                None,
                previous[:, None],
                ~episode_start[:, None],
                deterministic=self._deterministic,
                generator=self._generator,
            )
        self._stats = None if probe is None else probe.stats[-1]
        if data.actions is None:
            raise TypeError("the policy returned no actions")
        self._previous = data.actions.squeeze(-1)
        return self._previous

    def context(self) -> ContextUse | None:
        """Memory in use after the latest step."""
        return self._policy.context_use()

    def attention(self) -> AttentionStats | None:
        """Where the latest step attended, if it was looked at."""
        return self._stats

    def _looking(self, num_envs: int) -> AbstractContextManager[AttentionProbe | None]:
        looks = self._is_looked_at()
        return observe(self._policy.acting_cache(num_envs)) if looks else nullcontext()

    def _is_looked_at(self) -> bool:
        """Of every `inspect_every` steps one, drawn so that no place in a segment is favoured."""
        if not self._inspect_every:
            return False
        if self._phase == 0:
            self._looked_at = self._random.randrange(self._inspect_every)
        found = self._phase == self._looked_at
        self._phase = (self._phase + 1) % self._inspect_every
        return found


def _without_last_step(observations: dict[str, Tensor], where: Tensor) -> dict[str, Tensor]:
    """The same, with what tells of the step before set to 0 where `where` [N] holds."""
    known = {name: observations[name] for name in _OF_LAST_STEP if name in observations}
    return {
        **observations,
        **{n: v.masked_fill(where.view(-1, *[1] * (v.dim() - 1)), 0) for n, v in known.items()},
    }
