"""Training passes: a whole trial through the stack, with gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from memo_habitat.memory.at_once import Episodes, SegmentsAtOnce
from memo_habitat.memory.backbone import Backbone
from memo_habitat.memory.prefix import Prefix

# Outputs [B, T, D] and the summaries [B, M, D] of all segments but the last.
Read = tuple[Tensor, list[Tensor]]


def whole(backbone: Backbone, tokens: Tensor, episode_starts: Tensor | None) -> Read:
    """Trials [B, T, D] of a variant that makes no summaries."""
    live, steps = backbone.draw_layers(), tokens.shape[1]
    if backbone.variant.within_episode and episode_starts is not None:
        return backbone.push(tokens, Episodes(episode_starts), steps, live), []
    prefix = Prefix(tokens.device, capacity=0, top_k=0)
    return backbone.push(tokens, prefix.open(steps), steps, live), []


def segment_after_segment(backbone: Backbone, segments: tuple[Tensor, ...]) -> Read:
    """Each segment sees the summaries before it, which come in as embeddings, once.

    A pass takes [summary of the segment before (M) | steps | queries (M)]; the prefix
    keeps what the first M tokens added and forgets the rest.
    """
    live, config = backbone.draw_layers(), backbone.config
    length = config.summary_length
    most = len(segments) - 1 if backbone.variant.accumulates else 1
    prefix = Prefix(segments[0].device, most * length, config.top_k)
    outputs: list[Tensor] = []
    summaries: list[Tensor] = []
    handed_on = segments[0][:, :0]
    for index, steps in enumerate(segments):
        final = index + 1 == len(segments)
        parts = [handed_on, steps] if final else [handed_on, steps, _queries(backbone, steps)]
        new = torch.cat(parts, dim=1)
        wanted = new.shape[1] - handed_on.shape[1]
        if not backbone.variant.accumulates:
            prefix.forget()
        encoded = backbone.push(new, prefix.open(new.shape[1], handed_on.shape[1]), wanted, live)
        output, made = torch.split(encoded, [steps.shape[1], wanted - steps.shape[1]], dim=1)
        outputs.append(output)
        if not final:
            summaries.append(backbone.summary(made))
            handed_on = backbone.variant.hand_on(summaries[-1])
    return torch.cat(outputs, dim=1), summaries


def segments_at_once(backbone: Backbone, segments: tuple[Tensor, ...]) -> Read:
    """All segments and their queries in one pass; keys and values at the queries are the memory."""
    config = backbone.config
    lengths = [steps.shape[1] for steps in segments]
    context = SegmentsAtOnce(lengths, config.summary_length, segments[0].device, config.top_k)
    parts = [part for steps in segments for part in (steps, _queries(backbone, steps))][:-1]
    new = torch.cat(parts, dim=1)
    encoded = backbone.push(new, context, new.shape[1], backbone.draw_layers())
    pieces = torch.split(encoded, [part.shape[1] for part in parts], dim=1)
    return torch.cat(pieces[::2], dim=1), list(pieces[1::2])


def _queries(backbone: Backbone, steps: Tensor) -> Tensor:
    return backbone.query_tokens(len(steps)).to(steps.dtype)
