"""Random numbers that are the same on every machine and in every Python."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Draw:
    """A stream of random choices named by a key.

    Only ``random.Random.random`` is used, because Python promises its sequence for a given integer
    seed; the streams of NumPy's generators may change from one release to the next.
    """

    def __init__(self, *key: object) -> None:
        digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
        self._random = random.Random(int.from_bytes(digest[:8], "big"))

    def unit(self) -> float:
        """Uniform in [0, 1)."""
        return self._random.random()

    def uniform(self, low: float, high: float) -> float:
        """Uniform in [low, high] on a grid of 0.01, so that sums stay short decimals."""
        return round(low + (high - low) * self.unit(), 2)

    def integer(self, low: int, high: int) -> int:
        """Uniform integer in [low, high]."""
        return low + int(self.unit() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.unit() < probability

    def choice(self, items: Sequence[T]) -> T:
        """One of the items."""
        return items[int(self.unit() * len(items))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """A copy in random order."""
        left = list(items)
        return [left.pop(int(self.unit() * len(left))) for _ in range(len(left))]
