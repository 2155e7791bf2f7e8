"""Detections of small objects, the target's among them, and the account of what was seen."""

from __future__ import annotations

import math
from pathlib import Path

import habitat
import numpy as np
import pytest

from memo_habitat.errors import UserError
from memo_habitat.tasks.extobjnav.detections import is_missed
from memo_habitat.tasks.extobjnav.goals import Pose, horizontal_distance, in_frame
from memo_habitat.testing.tasks import episode_record, task_config, write_episodes
from tests.factories.simulators import flat_room_config

STOP, FORWARD, LEFT = 0, 1, 2
OBJECTS = [
    ("mug", (3.0, 0.9, 0.0)),
    ("mug", (-3.0, 0.9, 1.0)),
    ("box", (0.0, 0.9, 2.0)),
    ("hat", (0.0, 0.9, -2.5)),
]
CATEGORIES = ["vase", "mug", "box", "hat"]
APARTMENTS = Path(__file__).parents[3] / "data/apartments/episodes/train.json.gz"


@pytest.fixture
def make_env(tmp_path):
    path = write_episodes(tmp_path / "e.json.gz", [episode_record(OBJECTS)], CATEGORIES)

    def make(**overrides):
        changes = {"task.trial_steps": 60, **{f"task.{k}": v for k, v in overrides.items()}}
        return habitat.Env(flat_room_config(path, overrides=changes))

    return make


def walk(env, steps, seed=0):
    """Observations of random steps, with the environment as it was when each was made."""
    rng = np.random.default_rng(seed)
    observations = env.reset()
    for _ in range(steps):
        yield observations
        if env.episode_over:
            observations = env.reset()
        else:
            observations = env.step(int(rng.choice([STOP, FORWARD, LEFT], p=[0.05, 0.5, 0.45])))


def expected_row(env, category, limit):
    """The specification's six numbers, from the simulator's own answers."""
    pose, origin = Pose(*env.sim.agent_pose()), env.current_episode.trial.origin
    seen = [
        (float(horizontal_distance(pose.position, i.position[None])[0]), pixels, i.position)
        for i in env.sim.instances
        for pixels in env.sim.visible_pixels([i.id], "head_rgb")
        if i.category == category and pixels >= 10
    ]
    seen = [entry for entry in seen if entry[0] <= limit]
    if not seen:
        return [0.0] * 6
    _, pixels, position = min(seen, key=lambda entry: entry[0])
    ahead = [value / 5.0 for value in in_frame(pose, position)]
    placed = [value / 10.0 for value in in_frame(origin, position)]
    return [1.0, *ahead, *placed, pixels / math.prod(env.sim.image_size("head_rgb"))]


@pytest.mark.parametrize("limit", [5.0, 2.5])
def test_each_row_is_the_nearest_visible_instance_of_its_category(make_env, limit):
    counts = np.zeros(len(CATEGORIES))
    with make_env(detection_range=limit) as env:
        for observations in walk(env, 150):
            table = observations["detections"]
            assert table.shape == (4, 6) and table.dtype == np.float32
            assert env.observation_space["detections"].contains(table)
            for row, category in enumerate(CATEGORIES):
                assert table[row] == pytest.approx(expected_row(env, category, limit), abs=1e-6)
            counts += table[:, 0]
    assert counts[0] == 0 and (counts[1:] > 0).all()


def test_the_targets_detection_is_its_row_and_whether_a_stop_would_succeed(make_env):
    reached = 0
    with make_env() as env:
        for observations in walk(env, 300):
            row = observations["target_detection"]
            target = CATEGORIES.index(env.current_episode.target_category)
            assert row.shape == (7,) and row.dtype == np.float32
            np.testing.assert_array_equal(row[:6], observations["detections"][target])
            assert row[6] == observations["target_found"][0]
            reached += row[6]
    assert 5 < reached < 295


def test_misses_are_as_frequent_as_asked_and_a_function_of_episode_step_and_instance(make_env):
    draws = [is_missed(np.uint64(7), step, i, 0.3) for step in range(200) for i in range(20)]
    assert np.mean(draws) == pytest.approx(0.3, abs=0.03)
    again = [is_missed(np.uint64(7), step, i, 0.3) for step in range(200) for i in range(20)]
    assert draws == again
    assert draws != [is_missed(np.uint64(8), s, i, 0.3) for s in range(200) for i in range(20)]

    def table(probability):
        with make_env(detection_miss_probability=probability) as env:
            return np.stack([observations["detections"] for observations in walk(env, 150)])

    perfect, half = table(0.0), table(0.5)
    np.testing.assert_array_equal(half, table(0.5))
    assert not table(1.0).any()
    assert 0.35 < half[:, 3, 0].sum() / perfect[:, 3, 0].sum() < 0.65


def test_a_target_counts_as_seen_earlier_once_it_was_detected_in_an_earlier_episode(make_env):
    values, trial, seen, before = set(), None, set(), set()
    with make_env() as env:
        for observations in walk(env, 400):
            episode = env.current_episode
            if episode.trial is not trial:
                trial, seen = episode.trial, set()
            if env.task.progress.steps == 0:
                before = set(seen)
            value = env.get_metrics()["target_seen_earlier"]
            assert value == float(episode.target_category in before)
            seen |= {CATEGORIES[row] for row in np.flatnonzero(observations["detections"][:, 0])}
            values.add(value)
    assert values == {0.0, 1.0}


@pytest.mark.slow
def test_without_an_image_the_task_is_the_same(tmp_path):
    def play(render_images):
        changes = {"simulator.render_images": render_images, "task.trial_steps": 60}
        config = task_config(APARTMENTS, simulator="EmbreeSim-v0", image_size=48, overrides=changes)
        found = []
        with habitat.Env(config) as env:
            for observations in walk(env, 100):
                kept = {k: v for k, v in observations.items() if not k.startswith("head_")}
                assert ("head_rgb" in observations) == render_images
                found.append((kept, env.get_metrics()))
        return found

    seeing, blind = play(True), play(False)
    for (kept, measures), (same, again) in zip(seeing, blind, strict=True):
        assert measures == again
        for uuid, value in kept.items():
            np.testing.assert_array_equal(value, same[uuid])
    assert sum(kept["detections"][:, 0].sum() for kept, _ in seeing) > 20


@pytest.mark.parametrize(
    ("option", "value"),
    [("detection_range", 0.0), ("detection_miss_probability", 1.5)],
)
def test_impossible_detectors_are_refused(make_env, option, value):
    with pytest.raises(UserError, match=f"{option}={value}"):
        make_env(**{option: value})
