"""What teaches to remember what was detected, and tells the actor what is recalled of the target.

None of it is the paper's. Without them nothing in the reward says what a summary has to hold
before it is known what will be sought.

Legend: B trials, T steps (t of them so far), K summaries of M tokens, C categories, E width of a
category's embedding, D of a token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import (
    binary_cross_entropy_with_logits,
    layer_norm,
    scaled_dot_product_attention,
    smooth_l1_loss,
)

from memo_habitat.policy.detection_encoder import DETECTIONS, TARGET, TARGET_DETECTION
from memo_habitat.tasks.extobjnav.detections import AGENT_SCALE, TRIAL_SCALE, WIDTH

_HIDDEN = 128
_PLACE_WEIGHT = 5.0  # an error of 0.1 (1 m) then weighs as much as an answer half wrong
_PLACE_BETA = 0.05  # 0.5 m, below which errors count by their square
_UNSEEN_SHARE = 0.05  # weight of a category not seen beside one that was, in drawn targets


class CategoryReader(nn.Module):
    """What a vector [*, D] says of a category [*, E].

    The two are multiplied, since that is how a sum of things bound to embeddings is asked for one
    of them; a plain network on both would have to learn the product.
    """

    def __init__(self, width: int, category_width: int, outputs: int) -> None:
        super().__init__()
        self.state = nn.Linear(width, _HIDDEN)
        self.category = nn.Linear(category_width, _HIDDEN)
        self.answer = nn.Sequential(
            nn.Linear(2 * _HIDDEN, _HIDDEN),
            nn.GELU(approximate="tanh"),
            nn.Linear(_HIDDEN, outputs),
        )

    def forward(self, states: Tensor, categories: Tensor) -> Tensor:
        """[*, outputs]; leading dimensions are broadcast."""
        state = self.state(states)
        product = state * self.category(categories)
        answer: Tensor = self.answer(torch.cat([product, state.expand_as(product)], dim=-1))
        return answer


class Sightings(NamedTuple):
    """What a trial has shown up to each step, from its detections alone.

    seen: bool [B, T, C], at this step or before. now: bool [B, T, C], at this step.
    place: [B, T, C, 2] forward and left in the trial's frame, in 10 m, where it was seen last.
    """

    seen: Tensor
    now: Tensor
    place: Tensor


def sightings(detections: Tensor) -> Sightings:
    """The sightings in the detections [B, T, C, 6] of trials from their first step on."""
    now = detections[..., 0] > 0
    steps = torch.arange(detections.shape[1], device=detections.device)[:, None]
    latest = torch.where(now, steps, -1).cummax(dim=1).values
    index = latest.clamp(min=0)[..., None].expand(-1, -1, -1, 2)
    return Sightings(latest >= 0, now, detections[..., 3:5].gather(1, index))


def relative_place(place: Tensor, gps: Tensor, compass: Tensor) -> Tensor:
    """Places [*, 2] of the trial's frame, m, as seen from poses: forward and left, m [*, 2].

    gps: [*, 2] m. compass: [*, 1] rad.
    """
    forward, left = (place - gps).unbind(-1)
    cos, sin = compass.cos().squeeze(-1), compass.sin().squeeze(-1)
    return torch.stack([forward * cos + left * sin, left * cos - forward * sin], dim=-1)


class Recalled(NamedTuple):
    """Where the target was seen last, as outputs of the memory have it.

    seen: [*] logit that the trial has shown it. place: [*, 2] forward and left in the trial's
    frame, in 10 m.
    """

    seen: Tensor
    place: Tensor


class TargetRecall(nn.Module):
    """Reads from each step's output where the target was seen, asked by its embedding.

    What is read is also told to the actor, turned into the agent's own frame: to turn a place
    by a heading takes products of numbers, which a network learns slowly and can be given.
    """

    #: Numbers per step that the actor is told.
    FEATURES = 8

    def __init__(self, width: int, category_width: int) -> None:
        """Read outputs [*, width] by embeddings [*, category_width]."""
        super().__init__()
        self.read = CategoryReader(width, category_width, outputs=3)

    def forward(self, outputs: Tensor, target: Tensor, table: Tensor) -> Recalled:
        """What outputs [*, D] say of targets [*, C], one-hot, with embeddings [C, E]."""
        said = self.read(outputs, target.to(table.dtype) @ table)
        return Recalled(said[..., 0], said[..., 1:])

    def features(self, recalled: Recalled, gps: Tensor, compass: Tensor) -> Tensor:
        """[*, 8] for the actor: place, direction, distance (5 m) and how sure that is.

        No gradient: what is remembered is learned from what was seen, not from rewards.
        """
        place = relative_place(TRIAL_SCALE * recalled.place.detach(), gps, compass)
        distance = place.norm(dim=-1, keepdim=True).clamp(min=1e-3)
        direction, sure = place / distance, recalled.seen.detach().sigmoid()[..., None]
        scaled = [place / AGENT_SCALE, direction, distance / AGENT_SCALE, (-distance).exp()]
        return torch.cat([*scaled, sure, sure * direction[..., 1:]], dim=-1)

    @staticmethod
    def loss(
        recalled: Recalled, observations: Mapping[str, Tensor], first: int
    ) -> tuple[Tensor, dict[str, float]]:
        """The loss [] and what it is made of.

        Args:
            recalled: of the steps from `first` on.
            observations: of all steps from the trial's first one on, [B, t, ...].
            first: the first step that is asked.
        """
        shown = sightings(observations[DETECTIONS])
        asked = observations[TARGET][:, first:].argmax(-1, keepdim=True)
        seen, now = (x[:, first:].gather(2, asked).squeeze(2) for x in (shown.seen, shown.now))
        index = asked[..., None].expand(-1, -1, -1, 2)
        place = shown.place[:, first:].gather(2, index).squeeze(2)
        was_seen = binary_cross_entropy_with_logits(recalled.seen, seen.float(), reduction="none")
        error = smooth_l1_loss(recalled.place, place, reduction="none", beta=_PLACE_BETA).mean(-1)
        hidden = (~now).float()
        loss_seen = _mean_where(was_seen, hidden)
        loss_place = _mean_where(error, seen.float())
        metres = TRIAL_SCALE * (recalled.place.detach() - place).norm(dim=-1)
        parts = {
            "recall_seen": loss_seen.item(),
            "recall_error_m": _mean_where(metres, seen * hidden).item(),
        }
        return loss_seen + _PLACE_WEIGHT * loss_place, parts


def with_drawn_targets(observations: Mapping[str, Tensor], reach: float) -> dict[str, Tensor]:
    """The observations [B, t, ...] of the same steps, had each of them sought something else.

    reach: m up to which a stop succeeds.

    A trial of 500 steps seeks some fifteen things; asked in hindsight, every one of its steps asks
    for another, mostly one that the trial has shown. That is what made recall learned within
    hundreds of optimiser steps (docs/results/recall).
    """
    detections = observations[DETECTIONS]
    likely = sightings(detections).seen.float() + _UNSEEN_SHARE
    drawn = torch.multinomial(likely.flatten(0, 1), 1).view(*likely.shape[:2], 1)
    row = detections.gather(2, drawn[..., None].expand(-1, -1, -1, WIDTH)).squeeze(2)
    near = row[..., 1:3].norm(dim=-1) * AGENT_SCALE <= reach
    within_reach = (row[..., 0] > 0) & near
    target = torch.zeros_like(observations[TARGET]).scatter_(2, drawn, 1.0)
    detection = torch.cat([row, within_reach[..., None].to(row.dtype)], dim=-1)
    return {**observations, TARGET: target, TARGET_DETECTION: detection}


class ObservationLoss(nn.Module):
    """Asks each segment's summary, by each category, whether it was detected there and where.

    The category's embedding attends over the summary's M tokens; what it finds says whether, and
    the mean place (trial's frame, 10 m) of its detections in that segment.
    """

    def __init__(self, width: int, category_width: int, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.query = nn.Linear(category_width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.read = CategoryReader(width, category_width, outputs=3)

    def forward(
        self, summaries: Sequence[Tensor], detections: Tensor, table: Tensor, segment_length: int
    ) -> Tensor:
        """Mean error over segments and categories; 0 where no segment has closed.

        Args:
            summaries: [B, M, D] of each of the K closed segments.
            detections: [B, t, C, 6] of the trial so far, with t >= K * segment_length.
            table: [C, E] embeddings.
            segment_length: steps of a segment in this pass.
        """
        if not summaries:
            return table.new_zeros(())
        closed = detections[:, : len(summaries) * segment_length]
        closed = closed.unflatten(1, (len(summaries), segment_length))
        count = closed[..., 0].sum(2)
        detected = (count > 0).float()
        # Rows of what is not detected are zeros.
        place = closed[..., 3:5].sum(2) / count.clamp(min=1.0)[..., None]
        tokens = torch.stack(list(summaries), dim=1).flatten(0, 1)
        said = self._ask(tokens, table).unflatten(0, detected.shape[:2])
        whether = binary_cross_entropy_with_logits(said[..., 0], detected)
        error = smooth_l1_loss(said[..., 1:], place, reduction="none", beta=0.1).mean(-1)
        return whether + _PLACE_WEIGHT * _mean_where(error, detected)

    def _ask(self, tokens: Tensor, table: Tensor) -> Tensor:
        """Summaries [B K, M, D] asked by all categories: [B K, C, 3]."""
        tokens = layer_norm(tokens, tokens.shape[-1:])
        q = self._split(self.query(table)[None]).expand(len(tokens), -1, -1, -1)
        k, v = (self._split(x) for x in self.key_value(tokens).chunk(2, dim=-1))
        found = scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.read(found, table)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self._heads, -1)).transpose(1, 2)


def _mean_where(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum() / weights.sum().clamp(min=1.0)
