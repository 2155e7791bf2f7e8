"""Scene data sets as Habitat-Sim reads them: defaults, inline configs, frames, articulations."""

from __future__ import annotations

import itertools
import json
import random

import numpy as np
import pytest

from memo_habitat.errors import UserError
from memo_habitat.simulator.embree.navgrid import AgentShape
from memo_habitat.simulator.embree.scene import load_scene, place_objects
from memo_habitat.simulator.embree.templates import (
    OBJECT,
    STAGE,
    object_soup,
    read_template,
    stage_soup,
)
from tests.factories.scene_sets import BLOCK, ROOM, box_glb, write_json, write_small_set

SHAPE = AgentShape(cell=0.1)
#: The 24 frames along the axes: up and front.
FRAMES = [
    (up.tolist(), front.tolist())
    for up, front in itertools.product(np.vstack([np.eye(3), -np.eye(3)]), repeat=2)
    if up @ front == 0
]


@pytest.fixture
def load(tmp_path):
    """Writes a small set with some changes and loads its scene."""

    def make(scene_name="s", **changes):
        dataset, scene = write_small_set(tmp_path, **changes)
        return load_scene(scene_name or scene, str(dataset), SHAPE, 1, 1)

    return make


def block_at(**keys):
    """The keys of a scene whose only piece is the block."""
    piece = {"template_name": "block", "translation": [0, 1, 0], **keys}
    return {"object_instances": [piece], "articulated_object_instances": []}


def turned(wxyz, point):
    """The vector turned by the quaternion: q v q*, written out."""
    w, x, y, z = wxyz
    t = 2 * np.cross([x, y, z], point)
    return point + w * t + np.cross([x, y, z], t)


def expected_bounds(attributes, place, by_asset):
    """Where the corners of the block go, one at a time: turned to up and front, scaled, moved by
    the centre of mass, then rotated and placed."""
    up, front = np.array(attributes["up"]), np.array(attributes["front"])
    scale = np.array(attributes["scale"]) * place["uniform_scale"] * place["non_uniform_scale"]
    corners = np.array(list(itertools.product(*((0.0, size) for size in BLOCK))))
    corners = np.array([[np.cross(front, up) @ p, up @ p, -front @ p] for p in corners]) * scale
    centre = (corners.min(axis=0) + corners.max(axis=0)) / 2
    if "COM" in attributes:
        centre = attributes["COM"] * scale
    corners -= 0 if by_asset else centre
    corners = np.array([turned(place["rotation"], p) for p in corners]) + place["translation"]
    return [corners.min(axis=0), corners.max(axis=0)]


@pytest.mark.parametrize("first", range(0, 60, 15))
def test_blocks_stand_where_their_attributes_put_them(tmp_path, first):
    for seed in range(first, first + 15):
        rng = random.Random(seed)
        layers = [_attributes(rng) for _ in range(3)]  # defaults, file, inline config
        source = rng.choice(("file", "inline over file", "inline"))
        used = {"file": layers[:2], "inline over file": layers, "inline": [layers[0], layers[2]]}
        effective = {"up": [0, 1, 0], "front": [0, 0, -1], "scale": [1, 1, 1]}
        for layer in used[source]:
            # A COM counts where it was written last only.
            effective = {**{k: v for k, v in effective.items() if k != "COM"}, **layer}
        inline = {"template_handle": "other", "attributes": dict(layers[2])}
        if source == "inline":
            inline["attributes"]["render_asset"] = "objects/block.glb"
        else:
            inline["original_file"] = "objects/block.object_config.json"
        objects = {"default_attributes": layers[0], "configs": [inline]}
        place = {
            "translation": [rng.uniform(-1, 1), 1.2, rng.uniform(-1, 1)],
            "rotation": _unit(rng),
            "uniform_scale": rng.choice((1.0, 0.5)),
            "non_uniform_scale": rng.choice(([1, 1, 1], [1, 0.5, 2])),
        }
        origin = rng.choice(("", "COM", "asset_local"))
        usual = rng.choice(("", "com", "ASSET_LOCAL"))
        piece = {"template_name": "block" if source == "file" else "other", **place}
        piece["translation_origin"] = origin
        scene = {"translation_origin": usual, "object_instances": [piece]}
        scene["articulated_object_instances"] = []
        dataset, name = write_small_set(
            tmp_path / str(seed), object=layers[1], dataset={"objects": objects}, scene=scene
        )
        house = load_scene(name, str(dataset), SHAPE, 1, 1)
        by_asset = (origin or usual).lower() == "asset_local"
        np.testing.assert_allclose(
            house.parts[1].bounds, expected_bounds(effective, place, by_asset), atol=1e-5
        )


def _attributes(rng):
    chosen = {}
    if rng.random() < 0.5:
        chosen["up"], chosen["front"] = rng.choice(FRAMES)
    if rng.random() < 0.5:
        chosen["scale"] = [rng.choice((0.5, 1.0, 1.5)) for _ in range(3)]
    if rng.random() < 0.4:
        chosen["COM"] = [rng.uniform(-0.2, 0.4) for _ in range(3)]
    return chosen


def _unit(rng):
    values = np.array([rng.gauss(0, 1) for _ in range(4)])
    return (values / np.linalg.norm(values)).tolist()


@pytest.mark.parametrize(("up", "front"), FRAMES)
def test_stages_are_turned_by_every_frame_and_scaled_after_it(tmp_path, up, front):
    (tmp_path / "a.glb").write_bytes(box_glb((0, 0, 0), (1, 2, 3)))
    keys = {"render_asset": "a.glb", "up": up, "front": front, "scale": [1, 1, 2]}
    bounds = stage_soup(write_json(tmp_path / "a.stage_config.json", keys)).bounds
    size = np.abs(
        [np.cross(front, up) @ [1, 2, 3], up @ np.array([1, 2, 3]), front @ np.array([1, 2, 3])]
    )
    np.testing.assert_allclose(bounds[1] - bounds[0], size * [1, 1, 2], atol=1e-6)


def test_bare_glb_stages_have_z_up_and_other_bare_files_y_up(tmp_path):
    (tmp_path / "scan.glb").write_bytes(box_glb((0, 0, 0), (1, 2, 3)))
    assert stage_soup(tmp_path / "scan.glb").bounds[1].tolist() == [1, 3, 0]
    assert object_soup(tmp_path / "scan.glb")[0].bounds[1].tolist() == [1, 2, 3]
    # Defaults of a data set take the place of that, whatever they hold.
    template = read_template(tmp_path / "scan.glb", STAGE, {})
    assert stage_soup(template).bounds[1].tolist() == [1, 2, 3]
    template = read_template(tmp_path / "scan.glb", STAGE, {"up": [0, 0, 1], "front": [0, 1, 0]})
    assert stage_soup(template).bounds[1].tolist() == [1, 3, 0]
    write_json(
        tmp_path / "scan.stage_config.json", {"render_asset": "scan.glb", "scale": [2, 2, 2]}
    )
    assert stage_soup(tmp_path / "scan.glb").bounds[1].tolist() == [2, 4, 6]


def test_frames_that_would_shear_a_house_give_the_usual_one_or_are_refused(load, said):
    x, y, z = ROOM
    house = load(stage={"up": [0, 1, 0], "front": [0, 0.6, -0.8]})
    np.testing.assert_allclose(house.parts[0].bounds[1], [x / 2, y, z / 2], atol=1e-6)
    assert len(said) == 1 and "right angles" in said[0]
    with pytest.raises(UserError, match="length 1"):
        load(stage={"up": [0, 0, 2], "front": [0, 1, 0]})
    with pytest.raises(UserError, match="up is"):
        load(object={"up": [0, "a", 2]})


def test_a_stages_origin_moves_nothing_as_in_habitat_sim(load):
    assert (
        load(stage={"origin": [1, 2, 3]}).parts[0].bounds.tolist()
        == load().parts[0].bounds.tolist()
    )


def test_default_attributes_hold_for_stages_too_and_inline_stages_are_scenes(load):
    house = load(
        "tall",
        dataset={
            "stages": {
                "default_attributes": {"scale": [1, 2, 1]},
                "configs": [
                    {"template_handle": "tall", "attributes": {"render_asset": "stages/room.glb"}}
                ],
            }
        },
    )
    assert house.parts[0].bounds[1, 1] == pytest.approx(4.8)


def test_inline_configs_whose_original_is_missing_are_said_and_left_out(load, said):
    configs = [{"original_file": "gone", "template_handle": "a", "attributes": {}}]
    load(dataset={"objects": {"configs": configs}})
    assert len(said) == 1 and "'gone'" in said[0] and "configs[0]" in said[0]
    with pytest.raises(UserError, match=r"objects\.configs\[0\] needs"):
        load(dataset={"objects": {"configs": [{"template_handle": "a"}]}})


def test_a_part_of_a_handle_that_only_one_template_has_is_enough(load, tmp_path):
    assert len(load(scene=block_at(template_name="BLOC")).parts) == 2
    for name in ("block_a", "block_b"):
        write_json(tmp_path / f"objects/{name}.object_config.json", {"render_asset": "block.glb"})
    assert len(load(scene=block_at(template_name="block")).parts) == 2  # the whole name of one
    assert len(load(scene=block_at(template_name="BLOCK")).parts) == 2
    with pytest.raises(UserError, match="block_a, block_b: write the whole name"):
        load(scene=block_at(template_name="block_"))


@pytest.mark.parametrize("name", [5, None, "", ["block"], {"a": 1}, True, 0.5])
def test_a_template_name_that_is_no_text_is_refused_in_one_line(load, name):
    with pytest.raises(UserError, match=r"object_instances\[0\]\.template_name is"):
        load(scene=block_at(template_name=name))


def test_primitives_are_named_as_not_offered(load):
    for name in ("cubeSolid", "icosphereSolid_subdivs_1", "cylinderWireframe"):
        with pytest.raises(UserError, match=f"{name}.*primitive"):
            load(scene=block_at(template_name=name))
    with pytest.raises(UserError, match=r"cubeSolid.*primitive"):
        load(object={"render_asset": "cubeSolid"})


def test_articulated_objects_stand_at_rest_and_in_the_way(load, said):
    piece = {"template_name": "cupboard", "translation": [0, 0, 0], "uniform_scale": 1.5}
    scene = {"object_instances": [], "articulated_object_instances": [piece]}
    house = load(scene=scene)
    np.testing.assert_allclose(
        house.parts[1].bounds, [[-0.3, 0, -0.3], [0.3, 1.5, 0.33]], atol=1e-6
    )
    assert not house.grid.island_at(np.array([[0.0, 0.0, 0.0]])).any()
    empty = load(scene={**scene, "articulated_object_instances": []})
    assert empty.grid.island_at(np.array([[0.0, 0.0, 0.0]])).all() and not said
    load(scene={**scene, "articulated_object_instances": [{**piece, "initial_joint_pose": [0.4]}]})
    assert "initial_joint_pose" in said[0]


def test_urdfs_are_read_through_configs_and_refused_by_name(load, tmp_path):
    write_small_set(tmp_path)
    config = {"urdf_filepath": "cupboard.urdf", "uniform_scale": 0.5}
    write_json(tmp_path / "urdf/half.ao_config.json", config)
    piece = {"template_name": "half", "translation": [0, 0, 0]}
    scene = {"object_instances": [], "articulated_object_instances": [piece]}
    dataset = {"articulated_objects": {"paths": {".json": ["urdf"]}}}
    bounds = load(scene=scene, dataset=dataset).parts[1].bounds
    np.testing.assert_allclose(bounds, [[-0.1, 0, -0.1], [0.1, 0.5, 0.11]], atol=1e-6)
    for text, words in (
        ("<robot", "valid XML"),
        ("<robot/>", "no visual"),
        (
            '<robot><link name="a"><visual><geometry><box/></geometry></visual></link></robot>',
            "size",
        ),
        ('<robot><joint><parent link="a"/></joint></robot>', "<child>"),
    ):
        (tmp_path / "urdf/broken.urdf").write_text(text)
        write_json(tmp_path / "urdf/half.ao_config.json", {"urdf_filepath": "broken.urdf"})
        with pytest.raises(UserError, match=words):
            load(scene=scene, dataset=dataset)


def test_what_changes_on_disk_is_seen_in_the_same_process(load, tmp_path):
    house = load()
    dataset = str(tmp_path / "small.scene_dataset_config.json")
    assert load_scene("s", dataset, SHAPE, 2, 1) is house
    (tmp_path / "stages/room.glb").write_bytes(box_glb((-4, 0, -4), (4, 3, 4), True))
    larger = load_scene("s", dataset, SHAPE, 2, 1)
    assert larger.parts[0].bounds[1].tolist() == [4, 3, 4]
    assert len(load_scene("s", dataset, SHAPE, 2, 1).parts) == 3
    scene = json.loads((tmp_path / "scenes/s.scene_instance.json").read_text())
    write_json(tmp_path / "scenes/new.scene_instance.json", {**scene, "object_instances": []})
    assert len(load_scene("new", dataset, SHAPE, 2, 1).parts) == 2
    write_json(
        tmp_path / "objects/block.object_config.json",
        {"render_asset": "block.glb", "scale": [2] * 3},
    )
    again = load_scene("s", dataset, SHAPE, 2, 1)
    assert np.ptp(again.parts[1].bounds[:, 1]) == pytest.approx(1.6)
    placed = place_objects(again, [["block", np.eye(4).tolist()]], [], 100)
    assert np.ptp(placed.bounds[0, :, 1]) == pytest.approx(1.6)


def test_small_objects_of_episodes_have_the_data_sets_defaults(load, tmp_path):
    house = load(dataset={"objects": {"default_attributes": {"scale": [0.5, 0.5, 0.5]}}})
    for folders in ([], [str(tmp_path / "objects")]):
        placed = place_objects(house, [["block", np.eye(4).tolist()]], folders, 100)
        assert np.ptp(placed.bounds[0], axis=0) == pytest.approx(np.array(BLOCK) / 2)
    assert read_template(tmp_path / "objects/block.glb", OBJECT).name == "block"
