"""The learning rate as a function of environment steps."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class LearningRate:
    """Linear warm-up from `peak * warmup_start` over `warmup_steps`, then cosine to `final`."""

    peak: float
    warmup_steps: float
    warmup_start: float
    final: float
    total_steps: float

    def at(self, steps: float) -> float:
        """Learning rate after `steps` environment steps, summed over all workers."""
        if steps < self.warmup_steps:
            share = self.warmup_start + (1.0 - self.warmup_start) * steps / self.warmup_steps
            return self.peak * share
        span = max(self.total_steps - self.warmup_steps, 1.0)
        done = min((steps - self.warmup_steps) / span, 1.0)
        return self.final + (self.peak - self.final) * 0.5 * (1.0 + math.cos(math.pi * done))
