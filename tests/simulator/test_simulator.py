"""EmbreeSim-v0 as a Habitat simulator: poses, episodes, caches, determinism, errors."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest
import quaternion
from habitat.core.registry import registry

from memo_habitat.errors import UserError
from memo_habitat.simulator.embree.scene import clear_caches
from memo_habitat.simulator.embree.sim import EmbreeSim, heading_of
from memo_habitat.testing.tasks import simulator_config
from tests.factories.houses import write_test_house

FORWARD, LEFT, RIGHT, UP, DOWN = 1, 2, 3, 4, 5


@pytest.fixture
def own_house(tmp_path):
    """A house of the test's own, to be damaged."""
    return write_test_house(tmp_path / "house")


def config_of(house, **changes):
    return simulator_config(house.scene_id, house.scene_dataset_config, **changes)


def test_it_is_registered_with_habitat():
    assert registry.get_simulator("EmbreeSim-v0") is EmbreeSim


def test_same_seed_and_actions_give_the_same_bits(house, make_sim):
    actions = np.random.default_rng(0).integers(0, 6, size=80)

    def play():
        clear_caches()
        sim = make_sim(sensors=("rgb", "depth", "panoptic"))
        sim.seed(5)
        sim.set_agent_state(sim.sample_navigable_point(), [0, 0, 0, 1])
        trace = []
        for action in actions:
            observations = sim.step(int(action))
            trace += [observations[name].tobytes() for name in sorted(observations)]
            trace.append(sim.agent_pose()[0].tobytes())
            trace.append(sim.geodesic_distance(sim.agent_pose()[0], [2.0, 0.0, 0.0]))
        return trace

    assert play() == play()


def test_the_observations_have_the_spaces_that_are_announced(sim):
    observations = sim.reset()
    assert set(observations) == set(sim.sensor_suite.observation_spaces.spaces)
    for name, space in sim.sensor_suite.observation_spaces.spaces.items():
        assert observations[name].shape == space.shape
        assert observations[name].dtype == space.dtype


def test_poses_survive_a_round_trip(sim):
    for heading in (-3.0, -1.0, 0.0, 0.5, 3.1):
        rotation = [0.0, math.sin(heading / 2), 0.0, math.cos(heading / 2)]
        sim.set_agent_state([1.0, 0.0, 0.5], rotation)
        state = sim.get_agent_state()
        np.testing.assert_allclose(state.position, [1.0, 0.0, 0.5])
        np.testing.assert_allclose(
            quaternion.as_float_array(state.rotation), np.roll(rotation, 1), atol=1e-12
        )
        assert heading_of(state.rotation) == pytest.approx(heading)
    with pytest.raises(UserError, match="quaternion"):
        sim.set_agent_state([0, 0, 0], [0, 0, 0, 0])


def test_observations_elsewhere_leave_the_agent_where_it_is(sim):
    sim.start_next_episode_at(np.array([2.0, 0.0, 0.0]), 0.3)
    here = sim.reset()["head_rgb"]
    there = sim.get_observations_at([-3.0, 0.0, 0.0], [0, 0, 0, 1])["head_rgb"]
    assert (here != there).any()
    np.testing.assert_allclose(sim.agent_pose()[0], [2.0, 0.0, 0.0])
    np.testing.assert_array_equal(sim.step(None)["head_rgb"], here)
    sim.get_observations_at([-3.0, 0.0, 0.0], [0, 0, 0, 1], keep_agent_at_new_pose=True)
    np.testing.assert_allclose(sim.agent_pose()[0], [-3.0, 0.0, 0.0])


def test_the_start_of_the_config_is_used_as_nav_v0_sets_it(house):
    config = config_of(
        house,
        agent_is_set_start_state=True,
        agent_start_position=[3.0, 0.0, 1.0],
        agent_start_rotation=[0.0, 1.0, 0.0, 0.0],
    )
    sim = EmbreeSim(config)
    sim.reset()
    np.testing.assert_allclose(sim.agent_pose()[0], [3.0, 0.0, 1.0])
    assert abs(sim.agent_pose()[1]) == pytest.approx(math.pi)


def test_an_unchanged_episode_keeps_house_and_arrangement(house, sim):
    geometry, own = sim.arrangement.geometry, sim.scene
    sim.reconfigure(sim.habitat_config, house.arrangement())
    assert sim.arrangement.geometry is geometry and sim.scene is own


def test_a_new_arrangement_keeps_the_house_with_its_fields(house, sim):
    own = sim.scene
    goals = np.array([[2.0, 0.0, 0.0]])
    field = own.geodesics.field(goals)
    sim.reconfigure(sim.habitat_config, house.arrangement(1))
    assert sim.scene is own and own.geodesics.field(goals) is field
    assert [instance.category for instance in sim.instances] == ["blue_ball", "red_cube"]


def test_a_second_simulator_finds_the_house_loaded(make_sim):
    assert make_sim().scene is make_sim().scene


def test_objects_are_found_in_the_data_set_when_the_extra_paths_are_gone(house, sim):
    episode = house.arrangement()
    episode.additional_obj_config_paths = ["nowhere/objects/"]
    sim.reconfigure(sim.habitat_config, episode)
    assert len(sim.instances) == 3


def test_random_points_are_navigable_and_repeat_with_the_seed(sim):
    sim.seed(3)
    first = [sim.sample_navigable_point() for _ in range(20)]
    sim.seed(3)
    assert first == [sim.sample_navigable_point() for _ in range(20)]
    assert all(sim.is_navigable(point) for point in first)
    assert not sim.is_navigable([0.0, 0.0, 1.5]) and not sim.is_navigable([2.0, 1.0, 0.0])
    assert sim.island_radius([2.0, 0.0, 0.0]) == pytest.approx(4.2, abs=0.4)
    assert sim.island_radius([50.0, 0.0, 0.0]) == 0.0


def test_shortest_path_points_begin_and_end_where_asked(sim):
    points = sim.get_straight_shortest_path_points([-2.0, 0.0, -1.5], [2.0, 0.0, -1.5])
    np.testing.assert_allclose(points[0], [-2.0, 0.0, -1.5])
    np.testing.assert_allclose(points[-1], [2.0, 0.0, -1.5])
    length = np.linalg.norm(np.diff(points, axis=0), axis=1).sum()
    assert length == pytest.approx(sim.geodesic_distance(points[0], points[-1]))
    with pytest.raises(NotImplementedError, match="next_best_action"):
        sim.action_space_shortest_path(None, [])


def test_unknown_actions_are_refused(sim):
    with pytest.raises(UserError, match="fly"):
        sim.step("fly")


def test_render_gives_the_picture_of_a_sensor(sim):
    sim.reset()
    assert sim.render("head_rgb").shape == (64, 64, 3)
    np.testing.assert_array_equal(sim.render("rgb"), sim.render("head_rgb"))
    with pytest.raises(UserError, match=r"no camera 'wrist_rgb': it has .*head_rgb"):
        sim.render("wrist_rgb")


def test_sensors_can_be_asked_by_name(sim):
    assert set(sim.sensors) == {"head_rgb", "head_depth", "head_panoptic"}
    assert sim.get_sensor("head_rgb").uuid == "head_rgb"


def test_a_mesh_alone_is_a_scene_too(house):
    sim = EmbreeSim(simulator_config(f"{house.root}/stages/{house.house}.glb"))
    assert sim.reset()["head_rgb"].any()


def test_a_scene_file_finds_its_own_data_set(house):
    sim = EmbreeSim(simulator_config(house.scene_id))
    assert len(sim.scene.parts) == 2


def damage(path, text="{"):
    path.write_text(text)


def only_a_cube(house):
    """Leaves nothing of the house but a cube too small to stand on."""
    shutil.copy(house.root / "objects/red_cube.glb", house.root / f"stages/{house.house}.glb")
    damage(
        house.root / f"scenes/{house.house}.scene_instance.json",
        json.dumps({"stage_instance": {"template_name": house.house}}),
    )


BAD = {
    "missing data set": (
        lambda h: (h.root / f"{h.name}.scene_dataset_config.json").unlink(),
        "data",
    ),
    "corrupt data set": (
        lambda h: damage(h.root / f"{h.name}.scene_dataset_config.json"),
        r"scene_dataset_config\.json is malformed",
    ),
    "missing scene": (
        lambda h: (h.root / f"scenes/{h.house}.scene_instance.json").unlink(),
        "two_r",
    ),
    "corrupt scene": (
        lambda h: damage(h.root / f"scenes/{h.house}.scene_instance.json", "[]"),
        "two_rooms.scene_instance.json.*object",
    ),
    "unknown stage": (
        lambda h: damage(
            h.root / f"scenes/{h.house}.scene_instance.json",
            json.dumps({"stage_instance": {"template_name": "castle"}}),
        ),
        "castle",
    ),
    "unknown furniture": (
        lambda h: damage(
            h.root / f"scenes/{h.house}.scene_instance.json",
            json.dumps(
                {
                    "stage_instance": {"template_name": h.house},
                    "object_instances": [{"template_name": "throne"}],
                }
            ),
        ),
        r"object_instances\[0\].*throne",
    ),
    "bad numbers": (
        lambda h: damage(
            h.root / f"scenes/{h.house}.scene_instance.json",
            json.dumps({"stage_instance": {"template_name": h.house, "translation": [1, "x", 2]}}),
        ),
        "translation.*3 numbers",
    ),
    "missing mesh": (
        lambda h: (h.root / f"stages/{h.house}.glb").unlink(),
        r"two_rooms\.glb.*missing",
    ),
    "corrupt mesh": (
        lambda h: damage(h.root / f"stages/{h.house}.glb", "glTF?"),
        r"two_rooms\.glb cannot be read",
    ),
    "cut mesh": (
        lambda h: (h.root / f"stages/{h.house}.glb").write_bytes(
            (h.root / f"stages/{h.house}.glb").read_bytes()[:500]
        ),
        r"two_rooms\.glb cannot be read",
    ),
    "no render asset": (
        lambda h: damage(h.root / f"stages/{h.house}.stage_config.json"),
        "stage_config.json",
    ),
    "nothing navigable": (lambda h: only_a_cube(h), "nothing is navigable in .*two_rooms"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_named_with_a_remedy(own_house, name):
    spoil, pattern = BAD[name]
    spoil(own_house)
    with pytest.raises(UserError, match=pattern) as caught:
        EmbreeSim(config_of(own_house))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rigid_objs", "pattern"),
    [
        ([["unicorn.object_config.json", np.eye(4).tolist()]], "unicorn"),
        ([["red_cube.object_config.json", [[1, 2], [3, 4]]]], "4x4"),
        ([["red_cube.object_config.json"]], r"rigid_objs\[0\]"),
    ],
)
def test_bad_objects_of_an_episode_are_named(sim, house, rigid_objs, pattern):
    episode = house.arrangement()
    episode.rigid_objs = rigid_objs
    with pytest.raises(UserError, match=pattern):
        sim.reconfigure(sim.habitat_config, episode)


def test_ids_that_overlap_the_furniture_are_refused(house):
    config = config_of(house, object_ids_start=1)
    sim = EmbreeSim(config)
    with pytest.raises(UserError, match="object_ids_start=1"):
        sim.reconfigure(config, house.arrangement())


def test_sensors_that_cannot_be_rendered_are_refused(house):
    config = config_of(house)
    config.agents.main_agent.sim_sensors.head_rgb.sensor_subtype = "ORTHOGRAPHIC"
    with pytest.raises(UserError, match="ORTHOGRAPHIC"):
        EmbreeSim(config)
