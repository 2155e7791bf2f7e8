"""The vector environment: both ways to step agree, and evaluations get what they ask for."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from habitat_baselines.utils.common import batch_obs
from habitat_baselines.utils.info_dict import extract_scalars_from_infos
from omegaconf import OmegaConf

from memo_habitat.config.evaluation import EvaluationPlan
from memo_habitat.errors import UserError
from memo_habitat.evaluation.agents import RandomAgent, SensorAgent
from memo_habitat.evaluation.play_trials import evaluate
from memo_habitat.evaluation.recorder import Recorder
from memo_habitat.evaluation.records import RECORDS_FILE, iterate_records
from memo_habitat.tasks.dark_key.layouts import SETTINGS, STAY, DrawnLayouts, Setting
from memo_habitat.tasks.dark_key.oracle import oracle_returns, steps_to_door
from memo_habitat.tasks.dark_key.vector_env import (
    ARRANGEMENT,
    ORACLE_ACTION,
    DarkKeyVectorEnv,
    DarkKeyVectorEnvFactory,
    house_name,
)

QUICK = SETTINGS["quick"]


class NoBar:
    def update(self, n):
        pass

    def set_postfix_str(self, s, refresh=True):
        pass


def play_out(setting, count, trials, make, folder, seed=0, oracle=False):
    """Records of an evaluation with the evaluator that runs everywhere."""
    envs = DarkKeyVectorEnv(setting, count, 99, oracle=oracle, records=True)
    plan = EvaluationPlan(trials, setting.trial_steps, seed=seed, map_resolution=0.0)
    folder.mkdir(exist_ok=True)
    with Recorder(folder, plan) as recorder:
        agents = [make() for _ in range(count)]
        evaluate(envs, agents, plan, recorder, NoBar(), lambda seen: batch_obs([seen]))
    return list(iterate_records(folder / RECORDS_FILE))


def returns_of(records):
    totals = {}
    for record in records:
        totals[record.repetition] = totals.get(record.repetition, 0.0) + record.reward
    return [totals[number] for number in sorted(totals)]


def test_both_ways_to_step_give_the_same():
    batched, listed = (DarkKeyVectorEnv(QUICK, 6, 3) for _ in range(2))
    seen = batched.reset_batch()
    rows = listed.reset()
    rng = np.random.default_rng(0)
    for _ in range(2 * QUICK.trial_steps + 7):
        for uuid, values in seen.items():
            assert np.array_equal(values, np.stack([row[uuid] for row in rows]))
        actions = rng.integers(5, size=6)
        step = batched.step_batch(actions)
        seen = step.observations
        for index, action in enumerate(actions):
            listed.async_step_at(index, int(action))
        rows, rewards, ends, infos = zip(
            *[listed.wait_step_at(index) for index in range(6)], strict=True
        )
        assert list(rewards) == step.rewards.tolist()
        assert list(ends) == step.episode_ends.tolist()
        assert [info["success"] for info in infos] == step.measures["success"].tolist()
        assert [info["num_steps"] for info in infos] == step.measures["num_steps"].tolist()
        assert set(extract_scalars_from_infos(list(infos))) == {"success", "num_steps"}


def test_observations_lie_in_their_spaces():
    envs = DarkKeyVectorEnv(Setting(3, 4, 9), 3, 0, oracle=True)
    rows = envs.reset()
    rng = np.random.default_rng(0)
    for _ in range(30):
        for row, space in zip(rows, envs.observation_spaces, strict=True):
            assert space.contains(row)
        rows = [
            dict((uuid, values[i].copy()) for uuid, values in step.observations.items())
            for step in [envs.step_batch(rng.integers(5, size=3))]
            for i in range(3)
        ]


def test_a_view_made_once_shows_every_step():
    envs = DarkKeyVectorEnv(QUICK, 2, 0)
    views = {uuid: torch.from_numpy(values) for uuid, values in envs.reset_batch().items()}
    for _ in range(QUICK.trial_steps + 3):
        step = envs.step_batch(np.array([STAY, STAY]))
        for uuid, view in views.items():
            assert view.data_ptr() == torch.from_numpy(step.observations[uuid]).data_ptr()


def test_observations_of_single_environments_may_be_kept():
    envs = DarkKeyVectorEnv(Setting(), 2, 0)
    first = envs.reset()[0]
    kept = {uuid: values.copy() for uuid, values in first.items()}
    envs.async_step_at(0, STAY)
    envs.wait_step_at(0)
    assert all(np.array_equal(first[uuid], kept[uuid]) for uuid in first)


def test_memory_is_emptied_exactly_where_trials_begin():
    envs = DarkKeyVectorEnv(Setting(3, 4, 10), 3, 0)
    begins = [envs.reset_batch()["trial_step"][:, 0].tolist()]
    for _ in range(25):
        begins.append(envs.step_batch(np.full(3, STAY)).observations["trial_step"][:, 0].tolist())
    assert begins == [[number % 10] * 3 for number in range(26)]


@pytest.mark.parametrize("misuse", ["twice", "none"])
def test_a_step_is_begun_once_and_waited_for_once(misuse):
    envs = DarkKeyVectorEnv(QUICK, 2, 0)
    envs.reset()
    envs.async_step_at(0, STAY)
    with pytest.raises(RuntimeError, match="environment"):
        envs.async_step_at(0, STAY) if misuse == "twice" else envs.wait_step_at(1)


@pytest.mark.parametrize("count", [1, 4, 7])
def test_the_evaluator_plays_the_oracle_to_its_known_return(count, tmp_path):
    records = play_out(QUICK, count, 10, SensorAgent, tmp_path, seed=5, oracle=True)
    layouts = DrawnLayouts(5, QUICK.cells).of(np.arange(10))
    assert returns_of(records) == oracle_returns(QUICK, layouts).tolist()
    to_key, to_door = steps_to_door(layouts, QUICK.size)
    for record in records:
        assert record.start_distance == to_key[record.repetition] + to_door[record.repetition]
        if not record.truncated:
            assert record.success == record.spl == record.soft_spl == 1.0
            assert record.num_steps == record.start_distance
            assert record.distance_to_goal == record.collisions == 0.0
        assert len(record.path) == record.num_steps + 1
        assert record.trial_step_end - record.trial_step_start == record.num_steps
        assert record.trial_id == f"{house_name(5)}/{ARRANGEMENT}/{record.repetition}"


def test_records_of_random_actions_agree_with_what_was_done(tmp_path):
    setting = Setting(3, 25, 150)
    records = play_out(setting, 3, 6, lambda: RandomAgent(5), tmp_path)
    layouts = DrawnLayouts(0, setting.cells).of(np.arange(6))
    assert any(record.success for record in records)
    assert any(record.collisions for record in records)
    for record in records:
        start, key, door = (
            (float(cell % 3), float(cell // 3)) for cell in layouts[record.repetition]
        )
        path = list(record.path)
        assert path[0] == start
        assert all(abs(a[0] - b[0]) + abs(a[1] - b[1]) <= 1 for a, b in pairwise(path))
        moves = sum(a != b for a, b in pairwise(path))
        assert record.path_length == moves
        assert record.reward == (key in path[1:]) + record.success
        if record.success:
            assert path[-1] == door
            assert record.distance_to_goal == 0.0
            assert record.spl == pytest.approx(record.start_distance / record.num_steps)
        else:
            assert record.distance_to_goal > 0.0
            assert record.num_steps == 25 or record.truncated
        assert record.goal_positions == ((door[0], 0.0, door[1]),)
    ends = [record.trial_step_end for record in records if record.truncated]
    assert set(ends) == {150}


def test_a_trial_does_not_depend_on_how_many_environments_there_are(tmp_path):
    found = []
    for count in (1, 5):
        records = play_out(QUICK, count, 5, SensorAgent, tmp_path / str(count), oracle=True)
        found.append(sorted(json.dumps(vars(record)) for record in records))
    assert found[0] == found[1]


def factory_config(**changed):
    config = {
        "habitat": {
            "seed": 11,
            "task": {"size": 5, "trial_steps": 150},
            "environment": {"max_episode_steps": 25},
        },
        "habitat_baselines": {
            "num_environments": 3,
            "evaluator": {"agent": "checkpoint", "seed": 0},
        },
    }
    return OmegaConf.merge(config, OmegaConf.create(changed))


def test_the_factory_makes_what_the_config_says():
    envs = DarkKeyVectorEnvFactory().construct_envs(factory_config())
    assert envs.setting == QUICK
    assert envs.num_envs == len(envs.observation_spaces) == len(envs.action_spaces) == 3
    assert ORACLE_ACTION not in envs.observation_spaces[0].spaces
    same = DarkKeyVectorEnv(QUICK, 3, 11).reset_batch()
    assert np.array_equal(envs.reset_batch()["grid"], same["grid"])
    evaluated = DarkKeyVectorEnvFactory().construct_envs(
        factory_config(habitat_baselines={"evaluator": {"agent": "oracle"}}),
        enforce_scenes_greater_eq_environments=True,
    )
    assert ORACLE_ACTION in evaluated.observation_spaces[0].spaces


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"habitat_baselines": {"num_environments": 0}}, "num_environments=0"),
        ({"habitat": {"task": {"size": 1}}}, "size of Dark-Key-To-Door is 1"),
        ({"habitat": {"seed": -1}}, "-1"),
    ],
)
def test_the_factory_names_what_is_wrong(changed, named):
    with pytest.raises(UserError, match=named):
        DarkKeyVectorEnvFactory().construct_envs(factory_config(**changed))


def test_an_unknown_question_is_answered_with_what_may_be_asked():
    with pytest.raises(UserError, match="schedule_trials"):
        DarkKeyVectorEnv(QUICK, 1, 0).call_at(0, "render")


def test_the_map_is_an_empty_grid_with_cell_centres_at_whole_metres():
    answer = DarkKeyVectorEnv(QUICK, 1, 0).call_at(0, "top_down_map", {"resolution": 0.05})
    assert answer.free.shape == (5, 5)
    assert answer.free.all()
    assert (answer.origin, answer.resolution) == ((-0.5, -0.5), 1.0)


def test_the_grid_before_is_the_step_befores_and_nothing_at_a_trials_start():
    envs = DarkKeyVectorEnv(Setting(3, 4, 9), 5, seed=1)
    drawn = np.random.default_rng(0)
    before = envs.reset_batch()["grid"].copy()
    assert not envs.reset_batch()["grid_before"].any()
    stood_still = np.zeros(5, dtype=bool)
    kept = np.zeros((5, 4), dtype=np.float32)
    for turn in range(40):
        only = drawn.random(5) < 0.7
        step = envs.step_batch(drawn.integers(0, 5, 5), only if turn % 2 else None)
        stood_still = ~only if turn % 2 else np.zeros(5, dtype=bool)
        begun = step.observations["trial_step"][:, 0] == 0
        expected = np.where(begun[:, None], 0.0, before)
        expected = np.where(stood_still[:, None], kept, expected)
        np.testing.assert_array_equal(step.observations["grid_before"], expected)
        before, kept = step.observations["grid"].copy(), expected
