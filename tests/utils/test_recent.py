"""What was used last is kept."""

from __future__ import annotations

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
