"""ExtObjNav stepped all together against Habitat's own environments, one by one."""

from __future__ import annotations

from pathlib import Path

import habitat
import numpy as np
import pytest
from habitat.config import read_write
from omegaconf import OmegaConf, open_dict

from memo_habitat.config.task import SENSORS
from memo_habitat.errors import UserError
from memo_habitat.tasks.extobjnav.dataset import ExtObjNavDataset
from memo_habitat.tasks.extobjnav.vector_env import ExtObjNavVectorEnvFactory
from memo_habitat.testing.tasks import task_config

APARTMENTS = Path(__file__).parents[3] / "data/apartments/episodes/val.json.gz"
STOP = 0
COUNT = 2


def config_of(moves="planned", **changes):
    config = task_config(
        APARTMENTS,
        simulator="EmbreeSim-v0",
        image_size=48,
        oracle=True,
        overrides={
            "simulator.render_images": False,
            "task.trial_steps": 120,
            "environment.max_episode_steps": 50,
            **changes,
        },
    )
    config.habitat_baselines = OmegaConf.create({"num_environments": COUNT})
    with read_write(config):
        config.habitat.task.lab_sensors.perfect_memory_action_sensor.moves = moves
    return config


def make_envs(config, is_eval=False):
    return ExtObjNavVectorEnvFactory().construct_envs(config, False, is_eval)


def habitats_own(config, index):
    """Habitat's environment with the houses and the seed of environment `index`."""
    config = config.copy()
    houses = sorted(ExtObjNavDataset.get_scenes_to_load(config.habitat.dataset))
    with read_write(config):
        config.habitat.seed += index
        config.habitat.dataset.content_scenes = houses[index::COUNT]
    return habitat.Env(config)


def same(expected, found):
    """Whether two records agree, lengths within a millionth of a metre."""
    if isinstance(expected, str | bool):
        return expected == found
    return np.allclose(np.asarray(expected), np.asarray(found), rtol=0.0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("moves", "images"), [("planned", False), ("reactive", True)])
def test_every_observation_reward_and_measure_is_that_of_habitats_environment(moves, images):
    changes = {"task.detection_miss_probability": 0.2, "simulator.render_images": images}
    config = config_of(moves, **changes)
    together = make_envs(config)
    single = [habitats_own(config, index) for index in range(COUNT)]
    rng = np.random.default_rng(0)
    observed, expected = together.reset(), [env.reset() for env in single]
    trials, successes, reward = set(), 0, np.zeros((COUNT, 1))
    for _ in range(300):
        for index, env in enumerate(single):
            trials.add(env.current_episode.trial.trial_id)
            starts = env.current_episode.trial.steps == 0
            expected[index]["last_reward"] = np.float32([0.0 if starts else reward[index, 0]])
            assert observed[index].keys() == expected[index].keys()
            for uuid, value in expected[index].items():
                assert observed[index][uuid].dtype == value.dtype, uuid
                np.testing.assert_allclose(observed[index][uuid], value, atol=1e-6, err_msg=uuid)
        for index in range(COUNT):
            action = int(observed[index]["oracle_action"][0])
            if rng.random() < 0.4:
                action = int(rng.choice(6, p=[0.02, 0.38, 0.2, 0.2, 0.1, 0.1]))
            together.async_step_at(index, action)
            expected[index] = single[index].step(action)
        for index, env in enumerate(single):
            observed[index], reward[index], done, info = together.wait_step_at(index)
            metrics = env.get_metrics()
            record = metrics.pop("episode_record")
            for uuid in ("collisions", "failure"):
                parts = metrics.pop(uuid)
                metrics |= {f"{uuid}.{name}": value for name, value in parts.items()}
            assert done == env.episode_over
            assert {k: info[k] for k in metrics} == pytest.approx(metrics, abs=1e-6)
            assert reward[index, 0] == pytest.approx(metrics["extobjnav_reward"], abs=1e-6)
            successes += metrics["extobjnav_success"]
            if done:
                for name, value in record.items():
                    assert same(value, info["episode_record"][name]), name
                expected[index] = env.reset()
    assert ("head_rgb" in observed[0]) == images
    assert len(trials) >= 2 * COUNT and successes > 5


def test_environments_that_take_no_step_stand_still():
    envs = make_envs(config_of())
    first = {uuid: value.copy() for uuid, value in envs.reset_batch().items()}
    only = np.array([True, False])
    for _ in range(10):
        step = envs.step_batch(np.array([2, 2]), only)
    assert not np.array_equal(step.observations["compass"][0], first["compass"][0])
    for uuid, values in step.observations.items():
        np.testing.assert_array_equal(values[1], first[uuid][1], err_msg=uuid)


def test_a_scheduled_trial_is_the_same_in_every_environment():
    def play(index):
        envs = make_envs(config_of(**{"dataset.content_scenes": house}), is_eval=True)
        for each in range(envs.num_envs):
            pairs = envs.call_at(each, "arrangements")
            asked = {"trials": [(*pairs[0], 3)], "seed": 7 + (each != index)}
            envs.call_at(each, "schedule_trials", asked)
        return {uuid: value[index].copy() for uuid, value in envs.reset_batch().items()}

    names = sorted(ExtObjNavDataset.get_scenes_to_load(config_of().habitat.dataset))
    house = names[:1]
    alone = play(0)
    house = names[:2]
    for uuid, value in play(0).items():
        np.testing.assert_array_equal(value, alone[uuid], err_msg=uuid)


def test_maps_are_answered_for_the_present_house():
    envs = make_envs(config_of())
    envs.reset_batch()
    found = envs.call_at(0, "top_down_map", {"resolution": 0.1})
    assert found.free.any() and found.resolution == 0.1
    with pytest.raises(UserError, match="top_down_map"):
        envs.call_at(0, "fly")


@pytest.mark.parametrize(
    ("change", "value", "message"),
    [
        ("simulator.type", "FlatRoomSim-v0", "FlatRoomSim-v0.*MemoVectorEnvFactory"),
        ("task.camera", "elsewhere", "elsewhere"),
    ],
)
def test_what_cannot_be_stepped_here_is_refused(change, value, message):
    with pytest.raises(UserError, match=message):
        make_envs(config_of(**{change: value}))


def test_another_simulator_gets_a_worker_for_every_environment(monkeypatch):
    from memo_habitat.trainer.env_factory import BatchedVectorEnvFactory, MemoVectorEnvFactory

    asked = []
    monkeypatch.setattr(
        MemoVectorEnvFactory, "construct_envs", lambda self, config, *rest: asked.append(rest)
    )
    config = config_of(**{"simulator.type": "FlatRoomSim-v0"})
    BatchedVectorEnvFactory().construct_envs(config, False, False)
    assert asked == [(False, False)]


@pytest.mark.parametrize("group", ["lab_sensors", "measurements"])
@pytest.mark.parametrize("kind", ["Misspelt", "OfHabitatsForm"])
def test_what_has_no_name_of_its_own_is_refused_by_its_type(group, kind):
    from habitat.core.registry import registry

    @registry.register_sensor(name="OfHabitatsForm")
    class OfHabitatsSensor(habitat.Sensor):
        """Its uuid is a method's to say, as in Habitat's own."""

    @registry.register_measure(name="OfHabitatsForm")
    class OfHabitatsMeasure(habitat.Measure):
        """Likewise."""

    config = config_of()
    with read_write(config), open_dict(config):
        nodes = config.habitat.task[group]
        nodes.mine = next(iter(nodes.values())).copy()
        nodes.mine.type = kind
    with pytest.raises(UserError, match=f"{group} has {kind}, which environments in one process"):
        make_envs(config)


def test_a_sensor_of_ones_own_is_refused_by_name():
    from habitat.core.registry import registry

    from memo_habitat.tasks.extobjnav.sensors import TargetFoundSensor

    @registry.register_sensor(name="SmellSensor")
    class Smell(TargetFoundSensor):
        cls_uuid = "smell"

    config = config_of()
    with read_write(config):
        node = OmegaConf.structured(SENSORS["target_found_sensor"])
        node.type = "SmellSensor"
        config.habitat.task.lab_sensors["smell_sensor"] = node
    with pytest.raises(UserError, match="smell"):
        make_envs(config)
