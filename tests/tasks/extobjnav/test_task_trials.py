"""Trials: which episodes they deal out, in which order, and where their randomness comes from."""

from __future__ import annotations

import copy
import pickle

import pytest

from memo_habitat.errors import UserError
from memo_habitat.tasks.extobjnav.dataset import parse_episodes
from memo_habitat.tasks.extobjnav.episode import Trial, TrialIterator
from memo_habitat.testing.tasks import episode_record


@pytest.fixture
def arrangements(tmp_path):
    records = [
        episode_record([("mug", (1.0, 0.2, 1.0))], house=house, episode_id=str(number))
        for number in range(3)
        for house in ("a", "b")
    ]
    return parse_episodes({"episodes": records}, tmp_path / "e.json.gz")


def trial_ids(iterator: TrialIterator, count: int) -> list[str]:
    """Names of the next trials, each ended after its first episode."""
    names = []
    for _ in range(count):
        names.append(next(iterator).trial.trial_id)
        iterator.trial.over = True
    return names


def test_episodes_stay_in_one_trial_until_it_is_over(arrangements):
    iterator = TrialIterator(arrangements)
    first = [next(iterator) for _ in range(4)]
    assert {id(episode.trial) for episode in first} == {id(first[0].trial)}
    assert [episode.episode_index for episode in first] == [0, 1, 2, 3]
    assert all(episode.rigid_objs is arrangements[0].rigid_objs for episode in first)
    first[0].trial.over = True
    following = next(iterator)
    assert following.trial is not first[0].trial
    assert following.trial.trial_id == "b/0/0"
    assert following.episode_index == 0


def test_dealing_out_episodes_leaves_the_data_set_as_it_was(arrangements):
    episode = next(TrialIterator(arrangements))
    episode.start_position = [9.0, 9.0, 9.0]
    assert arrangements[0].trial is None
    assert arrangements[0].start_position == [0.0, 0.0, 0.0]


def test_unshuffled_order_is_the_data_sets_and_later_passes_are_repetitions(arrangements):
    iterator = TrialIterator(arrangements)
    assert trial_ids(iterator, 8) == [
        "a/0/0", "b/0/0", "a/1/0", "b/1/0", "a/2/0", "b/2/0", "a/0/1", "b/0/1",
    ]  # fmt: skip


def test_without_cycling_every_arrangement_is_played_once(arrangements):
    iterator = TrialIterator(arrangements, cycle=False)
    trial_ids(iterator, len(arrangements))
    with pytest.raises(StopIteration):
        next(iterator)


def test_shuffled_passes_hold_everything_differ_and_repeat_with_the_seed(arrangements):
    one, same, other = (TrialIterator(arrangements, shuffle=True, seed=s) for s in (4, 4, 5))
    first, second = trial_ids(one, 6), trial_ids(one, 6)
    assert sorted(first) == sorted(trial_ids(TrialIterator(arrangements), 6))
    assert [name[:-2] for name in first] != [name[:-2] for name in second]
    assert trial_ids(same, 12) == first + second
    assert trial_ids(other, 6) != first


def test_order_does_not_depend_on_global_random_state(arrangements):
    import random

    orders = []
    for seed in (1, 2):
        random.seed(seed)
        orders.append(trial_ids(TrialIterator(arrangements, shuffle=True, seed=3), 6))
    assert orders[0] == orders[1]


def test_grouping_keeps_the_arrangements_of_a_house_together(arrangements):
    iterator = TrialIterator(arrangements, shuffle=True, group_by_scene=True, seed=1)
    houses = [name[0] for name in trial_ids(iterator, 6)]
    assert houses in (list("aaabbb"), list("bbbaaa"))


def test_draws_do_not_depend_on_order_or_on_other_trials(arrangements):
    forwards = {e.trial.trial_id: e for e in _first_episodes(arrangements)}
    backwards = {e.trial.trial_id: e for e in _first_episodes(arrangements[::-1])}
    assert forwards.keys() == backwards.keys()
    for name, episode in forwards.items():
        draws = episode.trial.generator(2).random(3).tolist()
        assert draws == backwards[name].trial.generator(2).random(3).tolist()


def test_draws_differ_between_seeds_arrangements_repetitions_and_episodes(arrangements):
    trials = [
        Trial(arrangement, repetition, seed)
        for arrangement in arrangements
        for repetition in range(2)
        for seed in (1, 2)
    ]
    draws = {trial.generator(index).random() for trial in trials for index in range(3)}
    assert len(draws) == 3 * len(trials)


def test_draws_do_not_depend_on_where_the_data_lie(arrangements):
    here = next(TrialIterator(arrangements)).trial
    moved = copy.copy(arrangements[0])
    moved.scene_id = f"/elsewhere/{moved.scene_id}"
    there = next(TrialIterator([moved])).trial
    assert there.arrangement.scene_id != here.arrangement.scene_id
    assert there.generator(1).random(3).tolist() == here.generator(1).random(3).tolist()


def test_chosen_trials_are_played_first(arrangements):
    iterator = TrialIterator(arrangements)
    next(iterator)
    iterator.play([("b", "2", 4), ("a", "1", 0)])
    assert trial_ids(iterator, 3) == ["b/2/4", "a/1/0", "b/0/0"]
    with pytest.raises(UserError, match="c/0"):
        iterator.play([("c", "0", 0)])


def test_habitats_jumps_begin_a_trial_of_that_arrangement(arrangements):
    iterator = TrialIterator(arrangements)
    iterator.set_next_episode_by_index(3)
    assert next(iterator).trial.trial_id == "b/1/0"
    iterator.set_next_episode_by_id("2")
    assert next(iterator).trial.trial_id == "a/2/0"
    with pytest.raises(UserError, match="99"):
        iterator.set_next_episode_by_id("99")
    with pytest.raises(UserError, match="-1"):
        iterator.set_next_episode_by_index(-1)


def test_a_sample_of_arrangements_is_fixed_by_the_seed(arrangements):
    samples = [
        sorted(trial_ids(TrialIterator(arrangements, num_episode_sample=4, seed=s), 4))
        for s in (1, 1, 2)
    ]
    assert samples[0] == samples[1] != samples[2]
    assert len(set(samples[0])) == 4


@pytest.mark.parametrize("count", [0, 7])
def test_an_impossible_sample_and_unknown_options_are_refused(arrangements, count):
    with pytest.raises(UserError, match=str(count)):
        TrialIterator(arrangements, num_episode_sample=count)
    with pytest.raises(UserError, match="surprise"):
        TrialIterator(arrangements, surprise=True)
    with pytest.raises(UserError, match="no episodes"):
        TrialIterator([])


def test_episodes_travel_between_processes(arrangements):
    episode = pickle.loads(pickle.dumps(next(TrialIterator(arrangements))))
    assert episode.trial.trial_id == "a/0/0"


def _first_episodes(arrangements):
    iterator = TrialIterator(arrangements)
    for _ in arrangements:
        yield next(iterator)
        iterator.trial.over = True
