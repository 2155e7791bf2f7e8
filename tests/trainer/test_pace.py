"""`rl.ddppo.sync_frac`: who lags behind learns from what there is, and makes up for it."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from memo_habitat.trainer.collection import Pace

TRIAL, UPDATES, PROCESSES = 64, 4, 4


class Counter:
    """The store of all processes: what `torch.distributed.Store.add` does."""

    def __init__(self):
        self.counts = {}

    def add(self, key, more):
        self.counts[key] = self.counts.get(key, 0) + more
        return self.counts[key]


def config(share, updates=UPDATES):
    ppo, ddppo = {"updates_per_trial": updates}, {"sync_frac": share}
    return OmegaConf.create(
        {
            "habitat": {"task": {"trial_steps": TRIAL}},
            "habitat_baselines": {"rl": {"ppo": ppo, "ddppo": ddppo}},
        }
    )


def pace(store, share, updates=UPDATES):
    return Pace(config(share, updates), store)


def collect(paces, speeds):
    """All step until each is through; steps at the end, of each."""
    storages = [SimpleNamespace(steps=own.done) for own in paces]
    under_way = dict(enumerate(own.steps(s) for own, s in zip(paces, storages, strict=True)))
    for tick in range(1000):
        for index, steps in list(under_way.items()):
            if tick % speeds[index]:
                continue
            if next(steps, "through") == "through":
                del under_way[index]
            else:
                storages[index].steps += 1
    for own, storage in zip(paces, storages, strict=True):
        own.done = storage.steps % TRIAL
    return [storage.steps for storage in storages]


@pytest.fixture
def team(monkeypatch):
    for name, value in (("LOCAL_RANK", 0), ("RANK", 0), ("WORLD_SIZE", PROCESSES)):
        monkeypatch.setenv(name, str(value))

    def make(share, updates=UPDATES):
        store = Counter()
        paces = [pace(store, share, updates) for _ in range(PROCESSES)]
        for own in paces:
            own.done = 0
        return paces

    return make


def test_the_slowest_lets_the_others_wait_at_the_end_of_a_trial_alone(team):
    paces = team(0.6)
    for _ in range(2):  # trials
        found = [collect(paces, [1, 1, 1, 3]) for _ in range(UPDATES)]
        assert [own[:3] for own in found] == [[16] * 3, [32] * 3, [48] * 3, [64] * 3]
        last = [own[3] for own in found]
        assert last[0] < 16
        assert last[-1] == TRIAL
        # More than before every time, and at least a quarter of what is due.
        assert all(after - before >= 4 for before, after in pairwise(last))


def test_another_one_slow_at_each_update_catches_up(team):
    paces = team(0.6)
    speeds = [[3 if slow == who else 1 for who in range(PROCESSES)] for slow in range(UPDATES)]
    found = [collect(paces, speed) for speed in speeds]
    assert found[0][0] < 16
    assert found[1][0] == 32
    assert found[-1] == [TRIAL] * PROCESSES


@pytest.mark.parametrize(("share", "updates"), [(1.0, UPDATES), (0.6, 1)])
def test_all_are_waited_for_if_all_shall_be_or_a_trial_has_one_update(team, share, updates):
    paces = team(share, updates)
    assert collect(paces, [1, 1, 1, 3]) == [TRIAL // updates] * PROCESSES


def test_who_goes_on_within_a_trial_knows_which_update_is_next():
    late = Pace(config(share=0.6), Counter(), update=2)
    storage = SimpleNamespace(steps=20)  # of 32: it was cut short before
    for _ in late.steps(storage):
        storage.steps += 1
    assert (storage.steps, late.update) == (48, 3)


def test_who_is_alone_asks_nobody():
    storage, alone = SimpleNamespace(steps=0), pace(None, 0.6)
    for update in range(1, UPDATES + 1):
        for _ in alone.steps(storage):
            storage.steps += 1
        assert storage.steps == update * TRIAL // UPDATES
