"""Losses that teach to remember what was detected: asked by a category, never seen by the policy.

Neither loss is the paper's. Without them nothing in the reward says what a summary has to hold
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

from memo_habitat.policy.detection_encoder import COMPASS, DETECTIONS, GPS, TARGET
from memo_habitat.tasks.extobjnav.detections import AGENT_SCALE, TRIAL_SCALE

#: Categories beside the target that the dense loss asks every output for.
RECALLED_OTHERS = 8
_HIDDEN = 128
_PLACE_WEIGHT = 5.0  # an error of 0.1 (1 m) then weighs as much as an answer half wrong


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
    """Places [*, Q, 2] of the trial's frame, m, as seen from poses: forward and left, m [*, Q, 2].

    gps: [*, 2] m. compass: [*, 1] rad.
    """
    forward, left = (place - gps[..., None, :]).unbind(-1)
    cos, sin = compass.cos(), compass.sin()
    return torch.stack([forward * cos + left * sin, left * cos - forward * sin], dim=-1)


class RecallLoss(nn.Module):
    """Asks each step's output where things lie that the trial has shown and that are out of view.

    Asked by a category's embedding, a small head says whether the category was seen, on which
    side of the agent it was, and where. Only categories that are not in view are asked for.
    """

    def __init__(self, width: int, category_width: int, others: int) -> None:
        """Ask outputs [*, width] for the target and `others` categories drawn at every step."""
        super().__init__()
        self.others = others
        self.read = CategoryReader(width, category_width, outputs=5)

    def forward(
        self, outputs: Tensor, observations: Mapping[str, Tensor], table: Tensor, first: int
    ) -> tuple[Tensor, dict[str, float]]:
        """The loss [] and what it is made of.

        Args:
            outputs: [B, t - first, D] of the steps from `first` on.
            observations: of all steps from the trial's first one on, [B, t, ...].
            table: [C, E] embeddings.
            first: the first step that is asked.
        """
        shown = sightings(observations[DETECTIONS])
        asked = observations[TARGET][:, first:].argmax(-1, keepdim=True)
        if self.others:
            shape = (*asked.shape[:2], self.others)
            drawn = torch.randint(len(table), shape, device=asked.device)
            asked = torch.cat([asked, drawn], dim=-1)
        seen, now = (x[:, first:].gather(2, asked) for x in (shown.seen, shown.now))
        index = asked[..., None].expand(-1, -1, -1, 2)
        place = relative_place(
            TRIAL_SCALE * shown.place[:, first:].gather(2, index),
            observations[GPS][:, first:],
            observations[COMPASS][:, first:],
        )
        said = self.read(outputs[:, :, None], table[asked])
        hidden, known = (~now).float(), (seen & ~now).float()
        truth = (seen.float(), (place > 0).float(), place / AGENT_SCALE)
        was_seen = binary_cross_entropy_with_logits(said[..., 0], truth[0], reduction="none")
        side = binary_cross_entropy_with_logits(said[..., 1:3], truth[1], reduction="none")
        error = smooth_l1_loss(said[..., 3:], truth[2], reduction="none", beta=0.2)
        parts = {
            "recall_seen": _mean_where(was_seen, hidden),
            "recall_side": _mean_where(side.mean(-1), known),
            "recall_place": _mean_where(error.mean(-1), known),
        }
        return torch.stack(list(parts.values())).sum(), {k: v.item() for k, v in parts.items()}


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
