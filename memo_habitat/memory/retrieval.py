"""Top-k retrieval: each head sees only the summary tokens that it scores highest."""

from __future__ import annotations

import torch
from torch import Tensor


def causal_mask(queries: int, places: int, device: torch.device) -> Tensor:
    """What each of the last `queries` of `places` sees: bool [Tq, Tk], itself and all before it."""
    mask = torch.ones(queries, places, dtype=torch.bool, device=device)
    return mask.tril_(places - queries)


def retrieve(q: Tensor, k: Tensor, visible: Tensor, candidates: Tensor, top_k: int) -> Tensor:
    """Hide the candidates, except the visible ones with the `top_k` highest scores of each head.

    q: [B, H, Tq, dh]; k: [B, H, Tk, dh]; visible, candidates: bool, broadcast to [B, H, Tq, Tk].
    Returns what remains visible, bool [B, H, Tq, Tk].
    """
    with torch.no_grad():
        scores = (q @ k.transpose(-1, -2)).masked_fill(~(visible & candidates), -torch.inf)
        best = scores.topk(min(top_k, scores.shape[-1]), dim=-1).indices
        chosen = torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, best, True)
        return visible & (chosen | ~candidates)
