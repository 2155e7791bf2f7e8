"""Houses are dealt out to the environments of all processes that train together."""

from __future__ import annotations

import pytest

from memo_habitat.tasks.vector_env import deal_houses

HOUSES = list("abcdefgh")


@pytest.fixture
def deal(monkeypatch):
    """Houses of the environments of each of `processes`, as each works it out for itself."""

    def go(count, processes, is_eval=False):
        dealt = []
        for rank in range(processes):
            for name, value in (("LOCAL_RANK", 0), ("RANK", rank), ("WORLD_SIZE", processes)):
                monkeypatch.setenv(name, str(value))
            dealt += deal_houses(HOUSES, count, is_eval)
        return dealt

    return go


@pytest.mark.parametrize(("count", "processes"), [(4, 1), (2, 2), (1, 4), (3, 1), (1, 8)])
def test_every_house_is_in_one_environment_however_many_processes_have_them(deal, count, processes):
    dealt = deal(count, processes)
    assert len(dealt) == count * processes
    assert sorted(house for own in dealt for house in own) == HOUSES
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1


def test_with_fewer_houses_than_environments_all_play_all(deal):
    assert deal(5, 2) == [HOUSES] * 10


def test_each_process_of_an_evaluation_has_all_houses(deal):
    assert deal(2, 2, is_eval=True) == [HOUSES[::2], HOUSES[1::2]] * 2
