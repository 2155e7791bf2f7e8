"""What is registered with Habitat and Hydra, under which names."""

from __future__ import annotations

import pytest
from habitat.core.registry import registry
from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from memo_habitat.config import task as task_configs
from memo_habitat.config.compose import choices, compose_config
from memo_habitat.config.evaluation import evaluation_config
from memo_habitat.trainer.validation import check_training_settings

DEFAULTS = [
    {"/habitat": "habitat_config_base"},
    {"/habitat/task": "extobjnav_task_base"},
    {
        "/habitat/task/actions": [
            "stop",
            "move_forward",
            "turn_left",
            "turn_right",
            "extobjnav_look_up",
            "extobjnav_look_down",
        ]
    },
    {"/habitat/task/measurements": list(task_configs.MEASUREMENTS)},
    {"/habitat/task/lab_sensors": list(task_configs.SENSORS)},
    {"/habitat/dataset": "extobjnav_dataset_base"},
    "_self_",
]


@pytest.fixture(scope="module")
def composed():
    import habitat.config.default_structured_configs  # noqa: F401

    task_configs.register_configs()
    ConfigStore.instance().store(
        name="extobjnav_for_test", node={"defaults": DEFAULTS}, package="_global_"
    )
    with initialize_config_module("habitat.config", version_base=None):
        return compose("extobjnav_for_test")


def test_the_nodes_compose_into_one_config(composed):
    task = composed.habitat.task
    assert task.type == "ExtObjNavTask-v0"
    assert (task.trial_steps, task.success_distance, task.min_visible_pixels) == (4096, 2.0, 10)
    assert (task.reward_measure, task.success_measure) == ("extobjnav_reward", "extobjnav_success")
    assert list(task.actions) == [
        "stop", "move_forward", "turn_left", "turn_right", "look_up", "look_down",
    ]  # fmt: skip
    assert composed.habitat.dataset.type == "ExtObjNav-v0"
    reward = task.measurements.extobjnav_reward
    assert (reward.distance_reward, reward.slack_reward, reward.success_reward) == (1, -0.003, 2)


def test_options_refuse_a_value_of_another_type(composed):
    with pytest.raises(Exception, match="trial_steps"):
        OmegaConf.update(composed.copy(), "habitat.task.trial_steps", "many")


def test_every_type_named_in_the_configs_is_registered(composed):
    task = composed.habitat.task
    assert registry.get_task(task.type) is not None
    assert registry.get_dataset(composed.habitat.dataset.type) is not None
    for group, look_up in (
        (task.measurements, registry.get_measure),
        (task.lab_sensors, registry.get_sensor),
        (task.actions, registry.get_task_action),
    ):
        for node in group.values():
            assert look_up(node.type) is not None, node.type


def test_measures_and_sensors_have_the_names_of_the_specification(composed):
    task = composed.habitat.task
    measures = {registry.get_measure(m.type).cls_uuid for m in task.measurements.values()}
    assert measures == {
        "extobjnav_success",
        "spl",
        "soft_spl",
        "distance_to_goal",
        "num_steps",
        "collisions",
        "failure",
        "target_seen_earlier",
        "extobjnav_reward",
        "episode_record",
    }
    sensors = {registry.get_sensor(s.type).cls_uuid for s in task.lab_sensors.values()}
    assert sensors == {
        "one_hot_target_sensor",
        "gps",
        "compass",
        "trial_step",
        "target_found",
        "detections",
        "target_detection",
        "last_reward",
        "range_scan",
        "camera_tilt",
        "perfect_memory_action",
        "oracle_action",
    }


def test_habitats_own_registrations_are_left_alone():
    for look_up, names in (
        (
            registry.get_measure,
            ["SPL", "SoftSPL", "DistanceToGoal", "NumStepsMeasure", "Collisions"],
        ),
        (registry.get_sensor, ["GPSSensor", "CompassSensor"]),
        (registry.get_task_action, ["LookUpAction", "LookDownAction", "StopAction"]),
    ):
        for name in names:
            assert look_up(name).__module__.startswith("habitat."), name


def test_habitats_own_nodes_are_left_alone(composed):
    for group, name in (
        ("measurements", "spl"),
        ("measurements", "num_steps"),
        ("lab_sensors", "gps_sensor"),
        ("actions", "look_up"),
    ):
        node = ConfigStore.instance().load(f"habitat/task/{group}/{name}.yaml").node
        assert not str(node.type).startswith(("ExtObjNav", "Trial"))


@pytest.mark.parametrize("home", choices("home"))
def test_every_home_is_a_choice(home):
    config = compose_config("extobjnav/apartments", [f"home={home}"])
    folder = {"hssd": "datasets/ExtObjNav/"}.get(home, home)  # where it is downloaded to
    assert config.habitat.dataset.data_path.startswith(f"data/{folder}")
    assert config.habitat.task.trial_steps == 4096


@pytest.mark.parametrize("choice", choices("memory"))
def test_every_memory_is_a_choice(choice):
    memory = compose_config("extobjnav/studio", [f"memory={choice}"]).habitat_baselines.rl.memory
    assert memory.kind == choice.removesuffix("_fixed")
    assert (memory.segment_jitter == 0) == choice.endswith("_fixed")
    assert memory.segment_length == 64


@pytest.mark.parametrize(("experiment", "size"), [("studio", (256, 1)), ("apartments", (512, 2))])
def test_an_lstm_sees_its_last_reward_and_is_as_large_as_the_transformer(experiment, size):
    config = compose_config(f"extobjnav/{experiment}", ["memory=lstm"])
    rl = config.habitat_baselines.rl
    assert (rl.memory.width, rl.memory.layers) == size
    assert rl.encoder.last_reward
    assert "last_reward_sensor" in config.habitat.task.lab_sensors


def test_a_memory_of_ones_own_is_a_file_in_ones_own_folder(tmp_path):
    (tmp_path / "memory").mkdir()
    text = "# @package habitat_baselines.rl.memory\nkind: mine\nwidth: 96\n"
    (tmp_path / "memory/mine.yaml").write_text(text)
    chosen = [f"hydra.searchpath=[file://{tmp_path}]", "memory=mine"]
    memory = compose_config("extobjnav/studio", chosen).habitat_baselines.rl.memory
    assert (memory.kind, memory.width, memory.layers) == ("mine", 96, 2)


@pytest.mark.parametrize("memory", choices("memory"))
def test_recall_is_trained_with_every_memory(memory):
    config = compose_config("extobjnav/recall", [f"memory={memory}"])
    check_training_settings(config)
    rl, task = config.habitat_baselines.rl, config.habitat.task
    assert (rl.encoder.kind, rl.encoder.recall, rl.ppo.hindsight_passes) == (
        *("detections", "target"),
        1,
    )
    assert config.habitat.dataset.data_path == "data/lofts/episodes/{split}.json.gz"
    assert task.lab_sensors.perfect_memory_action_sensor.moves == "reactive"
    # Only summaries can be asked what their segment showed.
    summarises = rl.memory.kind in ("memo", "rmt", "ac")
    assert rl.memory.memory_loss == ("observations" if summarises else "none")


@pytest.mark.parametrize(
    ("agent", "players"),
    [
        ("checkpoint", []),
        ("random", []),
        ("oracle", ["oracle_action_sensor"]),
        ("perfect_memory", ["perfect_memory_action_sensor"]),
    ],
)
def test_in_evaluations_there_is_no_player_but_the_one_that_acts(agent, players):
    asked = [f"habitat_baselines.evaluator.agent={agent}"]
    config = compose_config("extobjnav/recall", asked)
    sensors = evaluation_config(config, None).habitat.task.lab_sensors
    assert [name for name in sensors if name.endswith("_action_sensor")] == players
    assert "perfect_memory_action_sensor" in config.habitat.task.lab_sensors
    if agent == "perfect_memory":  # the mark, however the teacher moves
        assert sensors.perfect_memory_action_sensor.moves == "planned"
