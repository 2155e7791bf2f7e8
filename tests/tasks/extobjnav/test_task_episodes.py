"""The task in an empty room with exact distances: episodes, trials, measures and errors."""

from __future__ import annotations

import math
from collections import Counter

import habitat
import numpy as np
import pytest
from habitat.core.environments import RLTaskEnv

from memo_habitat.errors import UserError
from memo_habitat.testing.tasks import episode_record, write_episodes
from tests.factories.simulators import flat_room_config

#: One instance 3 m to the right of the middle: viewpoints lie within 2 m of it.
ONE = [("mug", (3.0, 0.2, 0.0))]
SEVERAL = [
    ("mug", (3.0, 0.2, 0.0)),
    ("box", (-3.0, 0.2, 1.0)),
    ("mug", (-1.0, 0.2, -2.0)),
    ("hat", (0.0, 0.2, 2.0)),
    ("sun", (50.0, 0.2, 0.0)),  # far outside: present but without a viewpoint
]
STOP, FORWARD, LEFT, RIGHT, UP, DOWN = range(6)


@pytest.fixture
def make_env(tmp_path):
    """Environment factory: records and dotted overrides in, habitat.Env out."""
    environments = []

    def make(records=None, categories=None, env_class=habitat.Env, **overrides):
        records = records or [episode_record(ONE)]
        path = write_episodes(tmp_path / "e.json.gz", records, categories)
        changes = {name.replace("__", "."): value for name, value in overrides.items()}
        environments.append(env_class(flat_room_config(path, overrides=changes)))
        return environments[-1]

    yield make
    for environment in environments:
        environment.close()


class _Chosen:
    """A generator whose category is the first one and whose heading is chosen."""

    def __init__(self, heading):
        self.heading = heading

    def integers(self, high):
        return 0

    def uniform(self, low, high):
        return self.heading


def place(env, position, heading):
    """Let all episodes of the running trial start at a chosen pose."""
    env.sim.sample_floor_point = lambda rng: np.array(position, dtype=float)
    env.current_episode.trial.generator = lambda index: _Chosen(heading)


def test_a_hand_worked_success_gets_the_numbers_of_the_specification(make_env):
    env = make_env()
    place(env, (0.0, 0.0, 0.0), -math.pi / 2)  # faces the mug; its nearest viewpoint is (1, 0, 0)
    env.reset()
    assert env.get_metrics()["distance_to_goal"] == pytest.approx(1.0)
    rewards = []
    for action in [FORWARD] * 4 + [STOP]:
        env.step(action)
        rewards.append(env.get_metrics()["extobjnav_reward"])
    assert rewards == pytest.approx([0.247] * 4 + [1.997])
    metrics = env.get_metrics()
    assert env.episode_over
    assert metrics["extobjnav_success"] == 1.0
    assert metrics["spl"] == pytest.approx(1.0)
    assert metrics["soft_spl"] == pytest.approx(1.0)
    assert metrics["distance_to_goal"] == pytest.approx(0.0, abs=1e-9)
    assert metrics["num_steps"] == 5
    assert metrics["collisions"] == {"count": 0, "is_collision": False}


def test_a_detour_lowers_spl_by_its_length_in_metres_not_in_steps(make_env):
    env = make_env()
    place(env, (0.0, 0.0, 0.0), math.pi / 2)  # looks away from the mug
    env.reset()
    for action in [FORWARD] * 4 + [LEFT] * 6 + [FORWARD] * 8 + [STOP]:
        env.step(action)
    metrics = env.get_metrics()
    assert metrics["extobjnav_success"] == 1.0
    assert metrics["spl"] == pytest.approx(1.0 / 3.0)
    assert metrics["num_steps"] == 19


@pytest.mark.parametrize(
    ("start", "heading", "reason"),
    [
        ((0.0, 0.0, 0.0), -math.pi / 2, "sees it, 3 m away"),
        ((2.0, 0.0, 0.0), math.pi / 2, "near it, looking away"),
    ],
)
def test_a_stop_that_is_not_near_or_does_not_see_fails_and_ends_the_episode(
    make_env, start, heading, reason
):
    env = make_env()
    place(env, start, heading)
    env.reset()
    env.step(STOP)
    metrics = env.get_metrics()
    assert env.episode_over, reason
    assert metrics["extobjnav_success"] == 0.0, reason
    assert metrics["spl"] == 0.0
    assert metrics["extobjnav_reward"] == pytest.approx(-0.003)


def test_starting_at_a_viewpoint_gives_spl_of_one_on_success(make_env):
    env = make_env()
    place(env, (2.0, 0.0, 0.0), -math.pi / 2)
    env.reset()
    for action in (LEFT, RIGHT, STOP):
        env.step(action)
    metrics = env.get_metrics()
    assert (metrics["spl"], metrics["soft_spl"]) == (1.0, 1.0)


def test_too_few_pixels_are_not_seeing_it(make_env):
    env = make_env(task__min_visible_pixels=100000)
    place(env, (2.0, 0.0, 0.0), -math.pi / 2)
    env.reset()
    env.step(STOP)
    assert env.get_metrics()["extobjnav_success"] == 0.0


def test_looking_down_brings_a_near_object_into_view(make_env):
    env = make_env([episode_record([("mug", (0.5, 0.0, 0.0))])])
    place(env, (0.0, 0.0, 0.0), -math.pi / 2)
    outcomes = []
    for looks in ([], [DOWN]):
        env.reset()
        for action in [*looks, STOP]:
            env.step(action)
        outcomes.append(env.get_metrics()["extobjnav_success"])
    assert outcomes == [0.0, 1.0]


def test_running_into_a_wall_counts_collisions_and_no_path(make_env):
    env = make_env()
    place(env, (4.0, 0.0, 0.0), -math.pi / 2)
    env.reset()
    for action in (FORWARD, FORWARD, LEFT, STOP):
        env.step(action)
    assert env.get_metrics()["collisions"] == {"count": 2, "is_collision": False}
    assert env.get_metrics()["episode_record"]["path_length"] == pytest.approx(0.0)


def test_habitats_reinforcement_environment_adds_nothing_to_the_reward(make_env):
    env = make_env(env_class=RLTaskEnv)
    place(env.habitat_env, (0.0, 0.0, 0.0), -math.pi / 2)
    env.reset()
    total, done = 0.0, False
    for action in [FORWARD] * 4 + [STOP]:
        _, reward, done, info = env.step(action=action)
        assert reward == pytest.approx(info["extobjnav_reward"])
        total += reward
    assert done
    assert total == pytest.approx(1.0 - 5 * 0.003 + 2.0)


@pytest.mark.parametrize("option", ["slack_reward", "success_reward"])
def test_a_reward_that_habitat_would_add_a_second_time_is_refused(make_env, option):
    with pytest.raises(UserError, match=option):
        make_env(**{f"task__{option}": 1.0})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("trial_steps", 0),
        ("success_distance", 0.0),
        ("viewpoint_spacing", -1.0),
        ("min_visible_pixels", 0),
        ("camera", "tail_rgb"),
    ],
)
def test_options_that_cannot_work_are_named(make_env, option, value):
    with pytest.raises(UserError, match=f"{option}.*{value}"):
        make_env(**{f"task__{option}": value})


def test_a_trial_keeps_house_and_arrangement_and_the_next_one_changes_them(make_env):
    records = [episode_record(SEVERAL, house=house) for house in ("one", "two")]
    env = make_env(records, task__trial_steps=30, environment__max_episode_steps=12)
    seen = []
    for _ in range(6):
        env.reset()
        while not env.episode_over:
            env.step(LEFT)
        record = env.get_metrics()["episode_record"]
        seen.append(
            (
                record["trial_id"],
                record["episode_index"],
                record["trial_step_start"],
                record["trial_step_end"],
                record["truncated"],
            )
        )
    assert seen == [
        ("one/0/0", 0, 0, 12, False),
        ("one/0/0", 1, 12, 24, False),
        ("one/0/0", 2, 24, 30, True),
        ("two/0/0", 0, 0, 12, False),
        ("two/0/0", 1, 12, 24, False),
        ("two/0/0", 2, 24, 30, True),
    ]


def test_a_stop_at_the_trials_last_step_is_not_truncated(make_env):
    env = make_env(task__trial_steps=3)
    env.reset()
    for action in (LEFT, LEFT, STOP):
        env.step(action)
    assert env.episode_over
    assert env.get_metrics()["episode_record"]["truncated"] is False


def _draws(env, episodes):
    drawn = []
    for _ in range(episodes):
        env.reset()
        episode = env.current_episode
        drawn.append(
            (
                episode.trial.trial_id,
                episode.target_category,
                tuple(episode.start_position),
                tuple(episode.start_rotation),
            )
        )
        env.step(STOP)
    return drawn


def test_the_same_trial_played_twice_draws_the_same_whatever_ran_before(make_env):
    records = [episode_record(SEVERAL, house=house) for house in ("one", "two")]
    first = _draws(make_env(records, task__trial_steps=8), 32)  # each arrangement twice
    again = _draws(make_env(records, task__trial_steps=8), 32)
    swapped = _draws(make_env(records[::-1], task__trial_steps=8), 32)
    assert first == again
    assert first[:8] == swapped[8:16]
    assert first[8:16] == swapped[:8]
    assert sorted(first) == sorted(swapped)
    assert [draw[1:] for draw in first[:8]] != [draw[1:] for draw in first[16:24]]


def test_what_the_agent_does_does_not_change_what_is_drawn(make_env):
    records = [episode_record(SEVERAL)]
    idle = _draws(make_env(records), 6)
    env = make_env(records)
    busy = []
    for _ in range(6):
        env.reset()
        busy.append(tuple(env.current_episode.start_position))
        for action in (FORWARD, LEFT, FORWARD, STOP):
            env.step(action)
    assert [draw[2] for draw in idle] == busy


def test_another_seed_draws_something_else(make_env):
    records = [episode_record(SEVERAL)]
    assert _draws(make_env(records, seed=1), 4) != _draws(make_env(records, seed=2), 4)


def test_targets_are_uniform_over_reachable_categories_and_starts_over_the_room(make_env):
    env = make_env([episode_record(SEVERAL)], task__trial_steps=10**6)
    draws = _draws(env, 900)
    counts = Counter(category for _, category, _, _ in draws)
    assert set(counts) == {"mug", "box", "hat"}  # not by instance: mug has two; never the sun
    assert all(abs(count - 300) < 4.5 * math.sqrt(900 * 2 / 9) for count in counts.values())
    positions = np.array([position for _, _, position, _ in draws])
    assert abs(positions[:, 0].mean()) < 0.35
    assert abs(positions[:, 2].mean()) < 0.3
    headings = np.array([2 * math.atan2(r[1], r[3]) for *_, r in draws])
    assert abs(np.exp(1j * headings).mean()) < 0.15


def test_viewpoints_are_worked_out_once_per_arrangement(make_env):
    env = make_env([episode_record(SEVERAL)], task__trial_steps=4)
    searches = Counter()
    original = env.sim.floor_points_near
    env.sim.floor_points_near = lambda *a: (searches.update(["near"]), original(*a))[1]
    goals = set()
    for _ in range(12):  # three trials
        env.reset()
        goals.add(id(env.task.goals.viewpoints))
        env.step(STOP)
    assert searches["near"] == len(SEVERAL)
    assert len(goals) == 3


def test_the_distance_is_looked_up_once_per_step(make_env):
    env = make_env()
    env.reset()
    before = env.sim.distance_searches
    for _ in range(10):
        env.step(FORWARD)
    assert env.sim.distance_searches - before == 10


def test_viewpoints_are_within_reach_on_the_grid_and_inside_the_room(make_env):
    env = make_env()
    env.reset()
    points = env.task.goals.viewpoints
    distance = np.hypot(points[:, 0] - 3.0, points[:, 2])
    assert distance.max() <= 2.0
    assert points[:, 0].max() <= 4.0
    assert np.allclose(points[:, [0, 2]], np.round(points[:, [0, 2]], 1))
    grid = np.stack(np.meshgrid(np.arange(-40, 41), np.arange(-30, 31)), -1).reshape(-1, 2) * 0.1
    assert len(points) == (np.hypot(grid[:, 0] - 3.0, grid[:, 1]) <= 2.0).sum()


@pytest.mark.parametrize("value", [math.inf, math.nan])
@pytest.mark.parametrize("moment", ["reset", "step"])
def test_a_distance_that_is_no_number_raises_with_scene_episode_and_position(
    make_env, value, moment
):
    env = make_env()
    if moment == "step":
        env.reset()
    env.sim.distance_to = lambda position, goals: value
    with pytest.raises(UserError) as error:
        env.reset() if moment == "reset" else env.step(FORWARD)
    position = [round(x, 4) for x in env.task.pose.position]
    for part in ("scenes/room.scene_instance.json", "'0'", str(value)):
        assert part in str(error.value)
    assert moment == "reset" or str(position) in str(error.value)


def test_a_house_with_nothing_reachable_is_refused_with_scene_and_episode(make_env):
    env = make_env([episode_record([("sun", (50.0, 0.2, 0.0))], episode_id="dark")])
    with pytest.raises(UserError, match=r"scenes/room\.scene_instance\.json.*'dark'.*sun"):
        env.reset()
    env = make_env([episode_record([], episode_id="bare")], categories=["mug"])
    with pytest.raises(UserError, match=r"'bare'.*no objects"):
        env.reset()


def test_an_episode_without_a_trial_is_refused(make_env):
    env = make_env()
    env.current_episode = env.episodes[0]
    with pytest.raises(UserError, match="belongs to no trial"):
        env.reset()


def test_the_simulators_config_gets_scene_search_paths_and_start(make_env):
    env = make_env()
    env.reset()
    simulator = env.sim.habitat_config
    assert simulator.scene == "scenes/room.scene_instance.json"
    assert simulator.scene_dataset == "rooms.scene_dataset_config.json"
    assert list(simulator.additional_object_paths) == ["objects/"]
    assert simulator.agents.main_agent.is_set_start_state


def test_reading_the_task_before_an_episode_says_so(make_env):
    env = make_env()
    with pytest.raises(RuntimeError, match="reset"):
        _ = env.task.progress


def test_an_episodes_record_holds_one_point_of_path_per_step(make_env):
    env = make_env([episode_record(SEVERAL)])
    env.reset()
    for action in (FORWARD, LEFT, FORWARD, STOP):
        env.step(action)
    record = env.get_metrics()["episode_record"]
    assert len(record["path"]) == 5
    assert record["path"][0] == pytest.approx(np.array(record["start_position"])[[0, 2]])
    assert record["target_category"] == env.current_episode.target_category
    assert len(record["goal_positions"]) == len(env.task.goals.instances)
