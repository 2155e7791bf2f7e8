"""Geometry of generated homes: doors, support, intersections, mesh size and the house check."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh

from memo_habitat.scenes.files import read_manifest
from memo_habitat.scenes.floor_plan import RandomStream
from memo_habitat.scenes.furniture import CATALOGUE
from memo_habitat.scenes.generate import KINDS, sample_house
from memo_habitat.scenes.mesh import Mesh
from memo_habitat.scenes.object_placement import sample_arrangement
from memo_habitat.scenes.objects import SMALL_OBJECTS
from memo_habitat.scenes.plans import apartment_plan, studio_plan
from memo_habitat.scenes.views import FIRST_ID, SimulatedHouse
from tests.scenes.scene_sets import SETS, read_episodes

TOLERANCE = 1e-3


def boxes_of(mesh: trimesh.Trimesh) -> list[np.ndarray]:
    """Bounds [2, 3] of a mesh's connected solids."""
    mesh = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    mesh.merge_vertices(merge_norm=True, merge_tex=True)
    return [part.bounds for part in mesh.split(only_watertight=False)]


def load(path: Path) -> trimesh.Trimesh:
    return trimesh.load(path, force="mesh", process=False)


def rotation(wxyz: list[float]) -> np.ndarray:
    return trimesh.transformations.quaternion_matrix(wxyz)


def furniture_boxes(folder: Path, scene: str) -> list[np.ndarray]:
    """Bounds of every solid part of every piece of furniture, in the world."""
    document = json.loads((folder / "scenes" / scene).read_text())
    found = []
    for entry in document["object_instances"]:
        transform = rotation(entry["rotation"])
        transform[:3, 3] = entry["translation"]
        mesh = load(folder / "furniture" / f"{entry['template_name']}.glb")
        mesh.apply_transform(transform)
        found += boxes_of(mesh)
    return found


def object_points(folder: Path, entry: list) -> np.ndarray:
    """Vertices [V, 3] of a small object, in the world."""
    mesh = load(folder / "objects" / entry[0].replace(".object_config.json", ".glb"))
    mesh.apply_transform(np.asarray(entry[1]))
    return np.asarray(mesh.vertices)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Depth by which two boxes [2, 3] overlap, m; negative or 0 where they do not."""
    return float((np.minimum(a[1], b[1]) - np.maximum(a[0], b[0])).min())


def test_small_objects_rest_on_something_and_intersect_nothing(made: Path) -> None:
    for episodes in read_episodes(made).values():
        for episode in episodes:
            solids = furniture_boxes(made, Path(episode["scene_id"]).name)
            placed: list[np.ndarray] = []
            for entry in episode["rigid_objs"]:
                points = object_points(made, entry)
                bounds = np.stack([points.min(axis=0), points.max(axis=0)])
                where = f"{episode['scene_id']} {entry[0]} {bounds.tolist()}"
                assert max((overlap(bounds, s) for s in solids), default=0) < TOLERANCE, where
                assert max((overlap(bounds, p) for p in placed), default=0) < TOLERANCE, where
                placed.append(bounds)
                assert supported(bounds, solids), where


def supported(bounds: np.ndarray, solids: list[np.ndarray]) -> bool:
    """Whether the whole underside lies on the floor or on the top of one solid."""
    low, high = bounds
    if abs(low[1]) < TOLERANCE:
        return True
    return any(
        abs(solid[1][1] - low[1]) < TOLERANCE
        and (solid[0][[0, 2]] <= low[[0, 2]] + TOLERANCE).all()
        and (solid[1][[0, 2]] >= high[[0, 2]] - TOLERANCE).all()
        for solid in solids
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", sorted(SETS))
def test_furniture_stands_in_its_room_apart_from_the_rest_and_out_of_doorways(
    kind: str, seed: int
) -> None:
    houses = (sample_house(replace(SETS[kind], seed=seed), "train", 0, i) for i in range(20))
    house = next(h for h in houses if h is not None)
    for layout in house.layouts:
        rects = [piece.footprint for piece in layout.placed]
        for i, rect in enumerate(rects):
            assert layout.room.floor.contains(rect)
            assert not any(rect.overlaps(door) for door in layout.doors)
            assert not any(rect.overlaps(other) for other in rects[:i])


@pytest.mark.parametrize("seed", range(30))
def test_apartments_have_four_to_eight_rooms_and_doors_wide_enough(seed: int) -> None:
    plan = apartment_plan(RandomStream("plan", seed))
    rooms = [room for room in plan.rooms if room.kind != "corridor"]
    assert 4 <= len(rooms) <= 8
    assert len(plan.doors) >= len(rooms)
    for door in plan.doors:
        t = door.threshold
        width, thickness = (t.depth, t.width) if door.along_x else (t.width, t.depth)
        assert width >= 0.9
        assert 0.1 <= thickness <= 0.2
    for i, room in enumerate(plan.rooms):
        assert min(room.floor.width, room.floor.depth) >= 1.4 - 1e-9
        assert not any(room.floor.overlaps(other.floor) for other in plan.rooms[:i])


@pytest.mark.parametrize("seed", range(10))
def test_studios_are_one_room_of_four_to_six_metres(seed: int) -> None:
    (room,) = studio_plan(RandomStream("plan", seed)).rooms
    assert 4.0 <= room.floor.width <= 6.0
    assert 4.0 <= room.floor.depth <= 6.0


def test_written_houses_pass_the_check_with_the_simulators_navigability(made: Path) -> None:
    made_by = read_manifest(made)
    config = made / f"{made_by['name']}.scene_dataset_config.json"
    for episodes in read_episodes(made).values():
        for episode in episodes:
            scene = made / "scenes" / Path(episode["scene_id"]).name
            house = SimulatedHouse(scene, config)
            assert house.main_island_share() >= 0.95
            assert house.grid.island_at(np.array([episode["start_position"]]))[0] == 1
            reachable = house.arranged(episode["rigid_objs"]).reachable(1)
            assert len(reachable) >= KINDS[made_by["kind"]].reachable


def test_point_goals_lie_on_the_connected_floor(made: Path) -> None:
    config = next(made.glob("*.scene_dataset_config.json"))
    for episodes in read_episodes(made, "pointnav").values():
        for episode in episodes:
            house = SimulatedHouse(made / "scenes" / Path(episode["scene_id"]).name, config)
            ends = [episode["start_position"], episode["goals"][0]["position"]]
            assert house.grid.island_at(np.array(ends)).tolist() == [1, 1]


def test_houses_are_small_enough_to_render_fast(made: Path) -> None:
    for scene in (made / "scenes").glob("*.json"):
        document = json.loads(scene.read_text())
        names = [entry["template_name"] for entry in document["object_instances"]]
        stage = load(made / "stages" / f"{document['stage_instance']['template_name']}.glb")
        triangles = len(stage.faces) + sum(len(CATALOGUE[n].mesh.triangles) for n in names)
        assert triangles < 6000
        assert len(names) < FIRST_ID


@pytest.mark.parametrize("sides", [5, 8, 12])
@pytest.mark.parametrize("shape", ["box", "ball", "cone", "vase"])
def test_shapes_are_closed_and_face_outwards(shape: str, sides: int) -> None:
    mesh, colour = Mesh(), (1, 2, 3)
    if shape == "box":
        mesh.box((0, 0, 0), (1, 2, 3), colour)
    elif shape == "ball":
        mesh.sphere((1, 2, 3), 0.5, colour, sides)
    elif shape == "cone":
        mesh.revolve([(0.5, 0.0, colour), (0.0, 1.0, colour)], (1, 1), sides)
    else:
        mesh.revolve([(0.5, 0.0, colour), (0.1, 1.0, colour), (0.4, 1.0, colour)], sides=sides)
    solid = trimesh.Trimesh(np.array(mesh.positions), np.array(mesh.triangles), process=True)
    assert solid.is_watertight
    assert solid.volume > 0


def test_furniture_and_small_objects_are_solid_and_centred() -> None:
    for template in CATALOGUE.values():
        assert volume(template.mesh) > 0, template.name
        assert template.mesh.bounds()[0][1] == 0.0, template.name
        low, high = template.mesh.centred()[0].bounds()
        assert np.add(low, high) == pytest.approx(np.zeros(3), abs=2e-4), template.name
    for shape in SMALL_OBJECTS.values():
        assert volume(shape.mesh) > 0, shape.category
        low, high = shape.mesh.bounds()
        assert np.add(low, high) == pytest.approx(np.zeros(3), abs=2e-4), shape.category


def volume(mesh: Mesh) -> float:
    return trimesh.Trimesh(np.array(mesh.positions), np.array(mesh.triangles), process=False).volume


def test_stage_faces_look_into_the_rooms(made: Path) -> None:
    """From the middle of the house's free floor every ray of sight meets a face's front."""
    config = next(made.glob("*.scene_dataset_config.json"))
    for scene in (made / "scenes").glob("*.json"):
        grid = SimulatedHouse(scene, config).grid
        document = json.loads(scene.read_text())
        stage = load(made / "stages" / f"{document['stage_instance']['template_name']}.glb")
        rows, columns = np.nonzero(grid.islands == 1)
        middle = len(rows) // 2
        eye = grid.world(np.array([[rows[middle] + 0.5, columns[middle] + 0.5]]))[0]
        eye = eye + np.array([0, 1.2, 0])
        directions = trimesh.unitize(np.random.default_rng(0).normal(size=(400, 3)))
        origins = np.tile(eye, (400, 1))
        hit, ray, _ = stage.ray.intersects_id(
            origins, directions, multiple_hits=False, return_locations=True
        )
        assert len(ray) == 400
        facing = (stage.face_normals[hit] * directions[ray]).sum(axis=1)
        assert (facing < 0).all()


def test_an_arrangement_that_does_not_fit_is_given_up_not_squeezed_in() -> None:
    options = replace(SETS["studio"], instances=60, categories=20)
    house = sample_house(options, "train", 0, 0)
    assert house is not None
    arrangements = [sample_arrangement(house, 60, 20) for _ in range(2)]
    assert all(a is None or len(a.items) == 60 for a in arrangements)
