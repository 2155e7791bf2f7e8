"""Steps of a trial taken again: where they attended, and what they need of the memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from memo_habitat.config.memory import MemoryConfig
from memo_habitat.memory import acting
from memo_habitat.memory.ablation import Part, remembered, without
from memo_habitat.memory.attention_probe import check_attends, observe
from memo_habitat.memory.kv_cache import KVCache
from memo_habitat.memory.memo import MemoTransformer
from memo_habitat.policy.agent import PolicyAgent
from memo_habitat.policy.policy import MemoPolicy
from memo_habitat.tasks.extobjnav.detections import TRIAL_SCALE


class Answer(NamedTuple):
    """What the policy says at a step."""

    log_probs: Tensor  # [A] of the actions
    value: float
    # Where it recalls the target, m forward and left in the trial's frame; None where not asked.
    place: tuple[float, float] | None


@dataclass(frozen=True)
class Look:
    """One step of a trial, taken again.

    Attributes:
        step: steps of the trial taken before it.
        answer: what the policy says, as it did in the trial.
        sink, own: [L] share of the attention on the sink and on the current segment's steps.
        parts: what was held of earlier segments, oldest first.
        shares: [L, P] share of the attention on each of them; with `sink` and `own` they add to 1.
        without: what it says without some of the parts, given by their numbers.
    """

    step: int
    answer: Answer
    sink: Tensor
    own: Tensor
    parts: list[Part]
    shares: Tensor
    without: Callable[[Iterable[int]], Answer]


class _Input(NamedTuple):
    """What a step was taken from, N = 1."""

    token: Tensor  # [1, D] as it entered the memory
    observations: dict[str, Tensor]  # without images, which only the token knows
    previous: Tensor  # [1] long, the action before
    episode_start: Tensor  # [1] bool


class RecordingAgent(PolicyAgent):
    """Keeps what its running trial was made from; acts as `PolicyAgent` in one environment."""

    def __init__(self, policy: MemoPolicy, deterministic: bool = False) -> None:
        """Act with `policy`; UserError where its memory attends to nothing."""
        check_attends(policy.network.memory.config)
        super().__init__(policy, deterministic)
        self._memory = cast(MemoTransformer, policy.network.memory)  # nothing else attends
        self._inputs: list[_Input] = []

    def begin_trial(self, seed: int) -> None:
        """As `PolicyAgent` does; what was kept is dropped."""
        super().begin_trial(seed)
        self._inputs = []

    def act(
        self, observations: dict[str, Tensor], trial_start: Tensor, episode_start: Tensor
    ) -> Tensor:
        """The same actions as without keeping anything."""
        before = torch.zeros_like(trial_start, dtype=torch.long)
        if self._previous is not None:
            before = self._previous.masked_fill(trial_start, 0)
        # Copies: environments may write the next step's observations to the same place.
        kept = {name: value.clone() for name, value in observations.items() if value.dim() <= 3}
        began = episode_start.clone()

        def keep(module: Any, given: Any, token: Tensor) -> None:
            self._inputs.append(_Input(token, kept, before, began))

        hook = self._policy.network.token_projection.register_forward_hook(keep)
        try:
            return super().act(observations, trial_start, episode_start)
        finally:
            hook.remove()

    @property
    def memory_config(self) -> MemoryConfig:
        """Kind and sizes of the memory."""
        return self._memory.config

    def observed(self, name: str) -> Tensor | None:
        """Observation `name` at every step so far, [T, ...]; None where it is none, or an image."""
        if not self._inputs or name not in self._inputs[0].observations:
            return None
        return torch.cat([each.observations[name] for each in self._inputs]).cpu()

    @torch.inference_mode()
    def looks(self, steps: Iterable[int]) -> Iterator[Look]:
        """Take these steps of the trial again, in order.

        The memory in front of a step is made by `extend`, which equals acting step by step.
        """
        policy, memory = self._policy, self._memory
        tokens = torch.stack([each.token for each in self._inputs], dim=1)
        starts = torch.stack([each.episode_start for each in self._inputs], dim=1).cpu()
        cache = memory.new_cache(1, tokens.device, policy.cache_dtype, record=True)
        for step in sorted(set(steps)):
            done = int(cache.steps)
            with policy.autocast():
                if step > done:
                    memory.extend(tokens[:, done:step], cache, starts[:, done:step])
                held = cache.repeated(1)
                acting.drop_old(memory, held, starts[:, step])
            yield self._look(step, held)

    def _look(self, step: int, held: KVCache) -> Look:
        memory = self._memory
        parts = remembered(held, memory.config.summary_length)
        now = held.repeated(1)
        with observe(now) as probe:
            answer = self._answer(step, now)
        by_token = probe.stats[0].by_token[0]
        sink, on_tokens = by_token[:, 0], by_token[:, 1:]
        shares = torch.zeros(len(sink), len(parts))
        for number, part in enumerate(parts):
            shares[:, number] = on_tokens[:, list(part.places)].sum(-1)

        @torch.inference_mode()
        def answer_without(numbers: Iterable[int]) -> Answer:
            with self._policy.autocast():
                other = without(memory, held, *(parts[number].places for number in numbers))
            return self._answer(step, other)

        own = on_tokens[:, parts[-1].places.stop if parts else 0 :].sum(-1)
        return Look(step, answer, sink, own, parts, shares, answer_without)

    def _answer(self, step: int, cache: KVCache) -> Answer:
        """Take step `step` on this cache, which it changes."""
        policy, given = self._policy, self._inputs[step]
        with policy.autocast():
            out = self._memory.step(given.token, cache, given.episode_start)
        heads = policy.network.heads(
            out.float(), given.observations, given.previous, given.episode_start
        )
        place = None
        if heads.recalled is not None:
            forward, left = (TRIAL_SCALE * heads.recalled.place[0]).tolist()
            place = forward, left
        return Answer(heads.logits[0].log_softmax(-1).cpu(), float(heads.values), place)
