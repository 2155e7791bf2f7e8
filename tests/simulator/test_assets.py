"""Reading meshes and scene data sets: colours, transforms, centres of mass, moved folders."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import trimesh
from PIL import Image

from memo_habitat.simulator.embree.geometry import join, rotation_matrix
from memo_habitat.simulator.embree.meshes import load_soup
from memo_habitat.simulator.embree.navgrid import AgentShape
from memo_habitat.simulator.embree.scene import load_scene, place_objects
from memo_habitat.simulator.embree.scene_dataset import find_scene, load_dataset
from memo_habitat.simulator.embree.templates import object_soup, stage_soup, stem


def write(path, mesh):
    mesh.export(path)
    return path


def test_vertex_colours_and_transforms_of_nodes_are_kept(tmp_path):
    cube = trimesh.creation.box(extents=(1, 1, 1))
    cube.visual = trimesh.visual.ColorVisuals(cube, vertex_colors=[[255, 0, 51, 255]] * 8)
    scene = trimesh.Scene()
    shift = trimesh.transformations.translation_matrix([0, 5, 0])
    scene.add_geometry(cube, transform=shift)
    soup = load_soup(write(tmp_path / "a.glb", scene))
    assert len(soup) == 12
    np.testing.assert_allclose(soup.bounds, [[-0.5, 4.5, -0.5], [0.5, 5.5, 0.5]], atol=1e-6)
    np.testing.assert_allclose(soup.colours.reshape(-1, 3), [[1.0, 0.0, 0.2]] * 36, atol=1e-6)
    assert (soup.texture == -1).all()


def test_base_colour_textures_and_factors_are_kept(tmp_path):
    corners = np.array([[0, 0, 0], [0, 0, 1], [1, 0, 1.0]])
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[0, 0] = (10, 20, 30)
    material = trimesh.visual.material.PBRMaterial(
        baseColorTexture=Image.fromarray(pixels), baseColorFactor=[255, 255, 0, 255]
    )
    visual = trimesh.visual.TextureVisuals(uv=[[0, 0], [0, 1], [1, 1]], material=material)
    mesh = trimesh.Trimesh(corners, [[0, 1, 2]], visual=visual, process=False)
    soup = load_soup(write(tmp_path / "a.glb", mesh))
    assert soup.textures[0].shape == (4, 8, 3) and soup.texture.tolist() == [0]
    np.testing.assert_array_equal(soup.textures[0][0, 0], [10, 20, 30])
    np.testing.assert_allclose(soup.uv[0], [[0, 0], [0, 1], [1, 1]], atol=1e-6)
    np.testing.assert_allclose(soup.colours[0, 0], [1, 1, 0])


def test_a_file_is_read_once_until_it_changes(tmp_path):
    import os

    path = write(tmp_path / "a.glb", trimesh.creation.box())
    first = load_soup(path)
    assert load_soup(path) is first
    write(path, trimesh.creation.icosphere(1))
    os.utime(path, ns=(1, 1))
    assert len(load_soup(path)) == 80


def test_shared_textures_are_kept_once_and_mirroring_keeps_faces_outside(tmp_path):
    soup = load_soup(write(tmp_path / "a.glb", trimesh.creation.box()))
    mirrored = soup.transformed(np.diag([-1.0, 1.0, 1.0, 1.0]))
    for part in (soup, mirrored):
        normals = np.cross(
            part.corners[:, 1] - part.corners[:, 0], part.corners[:, 2] - part.corners[:, 0]
        )
        assert (np.einsum("ti,ti->t", normals, part.corners.mean(axis=1)) > 0).all()
    assert len(join([soup, mirrored])) == 24 and len(join([])) == 0


@pytest.fixture
def vase(tmp_path):
    """An object whose mesh stands on its origin: 1 m high, from y = 0 to y = 1."""
    mesh = trimesh.creation.box(extents=(0.2, 1.0, 0.2))
    mesh.apply_translation([0, 0.5, 0])
    write(tmp_path / "vase.glb", mesh)

    def configure(**keys):
        path = tmp_path / "vase.object_config.json"
        path.write_text(json.dumps({"render_asset": "vase.glb", **keys}))
        return path

    return configure


def test_objects_move_by_their_centre_of_mass_as_in_habitat_sim(vase):
    np.testing.assert_allclose(object_soup(vase())[1], [0, 0.5, 0], atol=1e-6)
    np.testing.assert_allclose(object_soup(vase(COM=[0, 0, 0]))[1], [0, 0, 0])
    soup, center = object_soup(vase(scale=[1, 2, 1]))
    np.testing.assert_allclose(soup.bounds[1], [0.1, 2, 0.1], atol=1e-6)
    np.testing.assert_allclose(center, [0, 1, 0], atol=1e-6)


def test_scene_instances_place_by_asset_origin_where_they_say_so(house, vase, tmp_path):
    root = shutil.copytree(house.root, tmp_path / "copy")
    vase()
    for name in ("vase.glb", "vase.object_config.json"):
        shutil.copy(tmp_path / name, root / "furniture" / name)
    scene = root / "scenes" / f"{house.house}.scene_instance.json"
    tops = []
    for origin in ("asset_local", "COM"):
        document = json.loads(scene.read_text())
        document["translation_origin"] = origin
        document["object_instances"] = [
            {
                "template_name": "vase",
                "translation": [2, 0, 0],
                "rotation": [0.7071068, 0, 0.7071068, 0],
            }
        ]
        scene.write_text(json.dumps(document))
        loaded = load_scene(
            str(scene), str(root / f"{house.name}.scene_dataset_config.json"),
            AgentShape(cell=0.0501 if origin == "COM" else 0.05), 1, 4,
        )  # fmt: skip
        tops.append(loaded.parts[1].bounds[1, 1])
    np.testing.assert_allclose(tops, [1.0, 0.5], atol=1e-5)


def test_a_moved_data_set_is_used_from_its_new_place(house, tmp_path):
    root = shutil.copytree(house.root, tmp_path / "moved")
    dataset = str(root / f"{house.name}.scene_dataset_config.json")
    # The episode still names the scene and its objects where they once were.
    stale = f"somewhere/else/scenes/{house.house}.scene_instance.json"
    loaded = load_scene(stale, dataset, AgentShape(), 2, 4)
    assert str(loaded.source).startswith(str(root))
    placed = place_objects(loaded, house.rigid_objs[0], ["somewhere/else/objects/"], 100)
    assert [instance.id for instance in placed.instances] == [100, 101, 102]


def test_stage_up_and_front_are_turned_to_habitats(tmp_path):
    mesh = trimesh.creation.box(extents=(1, 2, 3))
    write(tmp_path / "s.glb", mesh)
    config = tmp_path / "s.stage_config.json"
    config.write_text(json.dumps({"render_asset": "s.glb", "up": [0, 0, 1], "front": [0, 1, 0]}))
    np.testing.assert_allclose(stage_soup(config).bounds[1], [0.5, 1.5, 1.0], atol=1e-6)


def test_templates_are_found_by_name_whatever_the_handle_looks_like(house):
    for handle in ("red_cube", "objects/red_cube", "x/red_cube.object_config.json"):
        assert stem(handle) == "red_cube"
    dataset = load_dataset(house.root / f"{house.name}.scene_dataset_config.json")
    assert set(dataset.objects) == {"counter", "red_cube", "blue_ball"}
    _, by_name = find_scene(house.house, house.scene_dataset_config)
    _, by_path = find_scene(house.scene_id, "default")
    assert by_name.source == by_path.source and len(by_path.furniture) == 1


def test_rotations_are_those_of_quaternions():
    turn = rotation_matrix(np.array([np.cos(0.3), 0, np.sin(0.3), 0]))
    np.testing.assert_allclose(turn @ [0, 0, -1], [-np.sin(0.6), 0, -np.cos(0.6)], atol=1e-12)
