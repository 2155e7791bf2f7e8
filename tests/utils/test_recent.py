"""What was used last is kept."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

from memo_habitat.utils.recent import Recent


def test_the_least_recently_used_value_is_dropped_first() -> None:
    recent: Recent[str] = Recent(2)
    made: list[str] = []

    def make(key: str) -> str:
        made.append(key)
        return key.upper()

    keys = ("a", "b", "a", "c", "a", "b")
    assert [recent.get(key, lambda key=key: make(key)) for key in keys] == list("ABACAB")
    assert made == ["a", "b", "c", "b"]


def test_threads_may_ask_at_the_same_time() -> None:
    recent: Recent[int] = Recent(2)
    interval = sys.getswitchinterval()

    def ask(start: int) -> bool:
        return all(recent.get(i % 3, lambda i=i: i % 3) == i % 3 for i in range(start, 20_000))

    try:
        sys.setswitchinterval(1e-6)
        with ThreadPoolExecutor(4) as threads:
            assert all(threads.map(ask, range(4)))
    finally:
        sys.setswitchinterval(interval)
