"""`memo-habitat scenes episodes`: objects in any house stand, and can be found and reached."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from habitat.core.env import Env
from omegaconf import OmegaConf

import memo_habitat.register  # noqa: F401
from memo_habitat.cli.main import main
from memo_habitat.errors import UserError
from memo_habitat.scenes.any_house import AnyObject
from memo_habitat.scenes.check_data import check
from memo_habitat.scenes.house_episodes import EpisodeOptions, write_episodes
from memo_habitat.tasks.extobjnav.goals import GoalOptions, find_goals
from memo_habitat.testing.tasks import task_config
from tests.factories.houses import (
    CEILING,
    FURNITURE_CENTER,
    FURNITURE_EXTENTS,
    HALF_X,
    HALF_Z,
    OBJECT_SIZE,
    write_test_house,
)
from tests.scenes.scene_sets import contents, read_document, read_episodes

DATA = Path(__file__).parents[2] / "data"
TOP = FURNITURE_CENTER[1] + FURNITURE_EXTENTS[1] / 2
TABLE, TABLE_TOP = (1.2, 0.04, 0.8), 0.7


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    return write_test_house(tmp_path_factory.mktemp("house"))


def options(house, out, **changes):
    usual = EpisodeOptions(
        Path(house.scene_dataset_config),
        (Path(house.object_paths[0]),),
        out,
        instances=6,
        split_by="arrangements",
    )
    return replace(usual, **changes)


@pytest.fixture(
    scope="module", params=["embree", pytest.param("habitat_sim", marks=pytest.mark.habitat_sim)]
)
def simulator(request):
    return request.param


@pytest.fixture(scope="module")
def made(house, simulator, tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "mine"
    written = write_episodes(options(house, out, simulator=simulator))
    assert written.episodes == {"train": 3, "test": 1}
    return out


def placed(folder):
    """(category, origin [3], receptacle) of every object of every episode."""
    for episodes in read_episodes(folder).values():
        for episode in episodes:
            names = episode["name_to_receptacle"]
            for (config, transform), (name, place) in zip(
                episode["rigid_objs"], sorted(names.items()), strict=True
            ):
                assert name.split("_:")[0] == config.removesuffix(".object_config.json")
                yield config.split(".")[0], np.array(transform)[:3, 3], place


def test_objects_stand_on_the_floor_and_on_furniture_inside_the_house(made):
    for _, (x, y, z), place in placed(made):
        assert abs(x) < HALF_X and abs(z) < HALF_Z
        height = y - OBJECT_SIZE / 2
        if place == "floor":
            assert height == pytest.approx(0.0, abs=2e-3)
        else:
            assert place == "counter_:0000|surface_0"
            assert height == pytest.approx(TOP, abs=2e-3)
            # All of it: nothing hangs over an edge.
            for own, middle, size in zip(
                (x, z), FURNITURE_CENTER[::2], FURNITURE_EXTENTS[::2], strict=True
            ):
                assert abs(own - middle) <= (size - OBJECT_SIZE) / 2 + 1e-3
    assert {place for _, _, place in placed(made)} == {"floor", "counter_:0000|surface_0"}


def test_objects_do_not_overlap(made):
    for episodes in read_episodes(made).values():
        for episode in episodes:
            middles = [np.array(transform)[:3, 3] for _, transform in episode["rigid_objs"]]
            gaps = [math.dist(a, b) for i, a in enumerate(middles) for b in middles[:i]]
            assert min(gaps) >= OBJECT_SIZE


def test_the_result_is_whole_and_of_the_published_form(made, house):
    counts = list(check(made))
    assert [(c.houses, c.episodes, c.objects.total()) for c in counts] == [(1, 1, 6), (1, 3, 18)]
    content = read_document(made / "episodes/train.json.gz")
    assert content["categories"] == list(house.categories)
    (scene,) = {episode["scene_id"] for episode in content["episodes"]}
    assert scene == house.scene_id


def test_every_category_can_be_reached_in_the_task(made, house):
    config = task_config(made / "episodes/train.json.gz", image_size=16)
    with Env(OmegaConf.create(config).habitat) as env:
        for _ in range(3):
            env.reset()
            goals = find_goals(env.sim, GoalOptions.of(config.habitat.task))
            assert set(goals) == set(house.categories)
            assert min(len(each.viewpoints) for each in goals.values()) >= 10
            env.current_episode.trial.over = True


@pytest.mark.slow
def test_one_seed_gives_the_same_bytes_and_another_gives_others(made, house, simulator, tmp_path):
    usual = options(house, tmp_path / "again", name="mine", simulator=simulator)
    write_episodes(usual)
    assert contents(tmp_path / "again") == contents(made)
    write_episodes(replace(usual, out=tmp_path / "other", seed=1))
    assert contents(tmp_path / "other") != contents(made)


def _room(width: float, up: str) -> trimesh.Scene:
    """A room with a table on one leg, and stairs of clutter too high for anything to be put on."""
    scene = trimesh.Scene()

    def box(extents, center):
        mesh = trimesh.creation.box(extents=extents)
        mesh.apply_translation(center)
        scene.add_geometry(mesh)

    box((width, 0.1, 4.0), (0, -0.05, 0))
    for side in (-1, 1):
        box((0.1, CEILING, 4.0), (side * width / 2, CEILING / 2, 0))
        box((width, CEILING, 0.1), (0, CEILING / 2, side * 2.0))
    box(TABLE, (0.3, TABLE_TOP - TABLE[1] / 2, -0.4))
    box((0.1, TABLE_TOP, 0.1), (0.3, TABLE_TOP / 2, -0.4))
    box((0.5, 2.1, 0.4), (width / 2 - 0.3, 1.05, 1.7))
    if up == "z":
        scene.apply_transform(trimesh.transformations.rotation_matrix(np.pi / 2, (1, 0, 0)))
    return scene


@pytest.mark.slow
def test_the_simulator_shares_no_process_with_habitat_baselines():
    """Which loads Triton, beside which Habitat-Sim cannot draw without a GPU."""
    code = (
        "import sys; from memo_habitat.compat import startup; startup.silence_gym_notice();"
        "import memo_habitat.register, memo_habitat.scenes.house_episodes as episodes;"
        "episodes.HouseSimulator('embree');"
        "print(sorted({'triton', 'habitat_baselines', 'torchvision'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.split("\n")[-2] == "[]", done.stderr
    assert "unmaintained" not in done.stderr  # nor does the process that composes say so


@pytest.fixture(params=["y", "z"])
def scans(request, tmp_path):
    """A folder of GLB files, as a phone writes them (y up) or as others do, and one of objects."""
    for folder in ("scans", "things"):
        (tmp_path / folder).mkdir()
    for number in range(4):
        _room(4.0 + 0.3 * number, request.param).export(tmp_path / f"scans/room_{number}.glb")
    for name, size in (("cup", 0.1), ("book", 0.2)):
        trimesh.creation.box(extents=(size, 0.08, size)).export(tmp_path / f"things/{name}.glb")
    # Data stores link to files that lie elsewhere, and some programs write large letters.
    (tmp_path / "store").mkdir()
    (tmp_path / "scans/room_0.glb").rename(tmp_path / "store/abc")
    (tmp_path / "scans/room_0.glb").symlink_to("../store/abc")
    (tmp_path / "scans/room_1.glb").rename(tmp_path / "scans/room_1.GLB")
    return tmp_path, request.param


@pytest.mark.slow
def test_a_folder_of_glb_files_becomes_a_set_that_can_be_trained_on(scans, capsys):
    root, up = scans
    command = f"scenes episodes --scene-dataset {root}/scans --objects {root}/things --up {up} "
    command += f"--out {root}/mine --arrangements 2 --instances 4 --split-sizes 2,1,1"
    assert main(command.split()) == 0
    assert capsys.readouterr().out.split() == [
        f"{root}/mine", "train", "4", "val", "2", "test", "2",
    ]  # fmt: skip
    episodes = read_episodes(root / "mine")
    houses = {split: {e["scene_id"] for e in some} for split, some in episodes.items()}
    assert sum(map(len, houses.values())) == len(set.union(*houses.values())) == 4
    for _, (_, y, _), place in placed(root / "mine"):
        height = 0.0 if place == "floor" else TABLE_TOP
        assert y == pytest.approx(height + 0.04, abs=2e-3)
    # Moved as a folder, and the sources gone.
    (root / "scans").rename(root / "away")
    (root / "things").rename(root / "away_too")
    (root / "store").rename(root / "away_as_well")
    (root / "mine").rename(root / "moved")
    assert len(list(check(root / "moved"))) == 4
    config = task_config(root / "moved/episodes/train.json.gz", image_size=16)
    with Env(OmegaConf.create(config).habitat) as env:
        env.reset()
        env.step("turn_left")
    assert main(["scenes", "show", f"{root}/moved", "--house", "0", "--out", f"{root}/a.png"]) == 0


@pytest.mark.slow
def test_a_house_without_floor_and_an_object_too_large_are_left_out_and_named(scans, capsys):
    root, up = scans
    (root / "large").mkdir()
    trimesh.creation.box(extents=(2, 1, 1)).export(root / "large/sofa.glb")
    wall = trimesh.creation.box(extents=(0.1, 3, 0.1))
    wall.export(root / "scans/nothing.glb")
    command = f"scenes episodes --scene-dataset {root}/scans --objects {root}/things --up {up} "
    command += f"--objects {root}/large --out {root}/mine --arrangements 1 --instances 2 "
    command += "--split-sizes 2,1,1"
    assert main(command.split()) == 0
    sofa, nothing = capsys.readouterr().err.splitlines()
    assert sofa.startswith("left out sofa: ") and "2.00 m long" in sofa
    assert nothing.startswith("left out nothing: ")
    assert not any("nothing" in e["scene_id"] for e in read_episodes(root / "mine")["train"])
    fewer = command.replace("/mine", "/fewer").replace("2,1,1", "3,1,1")
    assert main(fewer.split()) == 2
    assert "4 houses are left, as 1 do not serve; nothing: " in capsys.readouterr().err


def test_what_cannot_be_is_refused_and_nothing_is_written(house, tmp_path):
    out = tmp_path / "out"
    big = tmp_path / "big"
    big.mkdir()
    trimesh.creation.box(extents=(2, 1, 1)).export(big / "sofa.glb")
    (tmp_path / "empty").mkdir()
    for changes, named in (
        ({"split_by": "rooms"}, "houses, arrangements"),
        ({"simulator": "unity"}, "embree"),
        ({"split_by": "houses"}, "too few"),
        ({"houses": "castle*"}, house.house),
        ({"objects": (big,), "instances": 1}, "2.00 m long"),
        ({"objects": (tmp_path / "empty",)}, "neither"),
        ({"scene_dataset": tmp_path / "empty"}, "GLB"),
        ({"categories": 3}, "give 1 to 2"),
        ({"instances": 7}, "2 to 6"),
        ({"split_sizes": (1, 1, 1)}, "add up to 4"),
        ({"split_by": "houses", "split_sizes": (1, 1, 0)}, "add up to 1"),
        ({"name": "a b"}, "letters"),
        ({"out": big}, "other files"),
    ):
        with pytest.raises(UserError, match=named):
            write_episodes(replace(options(house, out), **changes))
        assert not out.exists()


@pytest.mark.slow
def test_houses_too_small_for_so_many_objects_say_so(house, tmp_path):
    objects = tmp_path / "objects"
    objects.mkdir()
    for number in range(20):
        trimesh.creation.box(extents=(0.58, 0.5, 0.58)).export(objects / f"crate_{number}.glb")
    with pytest.raises(UserError, match="ask for fewer instances"):
        write_episodes(
            options(house, tmp_path / "o", objects=(objects,), instances=20, categories=20)
        )


@pytest.mark.slow
def test_generated_homes_are_houses_like_any_other(tmp_path):
    source, objects = DATA / "studios", (DATA / "studios/objects",)
    given = EpisodeOptions(source, objects, tmp_path / "o", houses="*_val_*", arrangements=1)
    write_episodes(replace(given, split_sizes=(3, 1, 0), instances=12, categories=8))
    places = [place for _, _, place in placed(tmp_path / "o")]
    assert len(places) == 48
    tables = [place for place in places if place != "floor"]
    assert len(tables) >= 12
    # Named as in generated homes: TEMPLATE_:NNNN|surface_N.
    furniture = {path.name.split(".")[0] for path in (source / "furniture").glob("*.json")}
    assert {place.split("_:")[0] for place in tables} <= furniture
    record = json.loads((tmp_path / "o/generated.json").read_text())
    assert record["houses"] == "*_val_*"


def _with_receptacle(tmp_path, **fields):
    """The house, whose counter has a receptacle in the half that is nearer to the wall."""
    house = write_test_house(tmp_path / "house")
    config = house.root / "furniture/counter.object_config.json"
    name = "receptacle_mesh_left" if "mesh_filepath" in fields else "receptacle_aabb_left"
    document = json.loads(config.read_text())
    document["user_defined"] = {name: {"name": name, **fields}}
    config.write_text(json.dumps(document))
    half = np.array([[-0.5, 0.4, -0.3], [-0.5, 0.4, 0.3], [0.0, 0.4, 0.3], [0.0, 0.4, -0.3]])
    trimesh.Trimesh(half, [[0, 1, 2], [0, 2, 3]]).export(house.root / "furniture/left.ply")
    return house


@pytest.mark.parametrize(
    "fields",
    [
        {"position": [-0.25, 0.45, 0.0], "scale": [0.25, 0.05, 0.3]},
        # The same box, given turned by a quarter about +Y.
        {
            "position": [-0.25, 0.45, 0.0],
            "scale": [0.3, 0.05, 0.25],
            "rotation": [0.5**0.5, 0.0, 0.5**0.5, 0.0],
        },
        {"mesh_filepath": "left.ply"},
        {"mesh_filepath": "left.ply", "position": [0.0, 0.05, 0.0]},
    ],
)
def test_where_receptacles_are_named_objects_stand_on_these(tmp_path, fields):
    house = _with_receptacle(tmp_path, **fields)
    write_episodes(options(house, tmp_path / "out"))
    on_it = [(x, place) for _, (x, _, _), place in placed(tmp_path / "out") if place != "floor"]
    assert on_it
    for x, place in on_it:
        assert place.startswith("counter_:0000|receptacle_")
        assert FURNITURE_CENTER[0] - 0.5 <= x <= FURNITURE_CENTER[0]


def test_a_malformed_receptacle_is_named(tmp_path):
    house = _with_receptacle(tmp_path, scale=[1.0, 0.0, 1.0])
    with pytest.raises(UserError, match=r"counter\..*receptacle_aabb_left\.scale"):
        write_episodes(options(house, tmp_path / "out"))


def test_objects_of_configs_and_bare_ones_in_houses_elsewhere_can_be_moved(house, tmp_path):
    (tmp_path / "things").mkdir()
    trimesh.creation.box(extents=(0.1, 0.1, 0.1)).export(tmp_path / "things/cup.glb")
    objects = (Path(house.object_paths[0]), tmp_path / "things")
    write_episodes(options(house, tmp_path / "out", objects=objects, split_sizes=(4, 0, 0)))
    (tmp_path / "out").rename(tmp_path / "moved")
    (count,) = check(tmp_path / "moved")
    assert set(count.objects) == {"red_cube", "blue_ball", "cup"}
    config = task_config(tmp_path / "moved/episodes/train.json.gz", image_size=16)
    with Env(OmegaConf.create(config).habitat) as env:
        env.reset()
        assert {each.category for each in env.sim.instances} == set(count.objects)


def test_two_objects_of_one_name_are_refused_and_neither_file_is_written_into(house, tmp_path):
    contents = {}
    for number, folder in enumerate(("a", "b"), start=1):
        (tmp_path / folder).mkdir()
        cup = tmp_path / folder / "cup.glb"
        trimesh.creation.box(extents=(0.1 * number,) * 3).export(cup)
        contents[cup] = cup.read_bytes()
    with pytest.raises(UserError, match=r"b has a cup as another folder of objects has: rename it"):
        write_episodes(
            options(house, tmp_path / "out", objects=(tmp_path / "a", tmp_path / "b"), instances=1)
        )
    assert {path: path.read_bytes() for path in contents} == contents


@pytest.mark.slow
def test_a_set_may_have_the_name_of_the_one_with_its_houses(tmp_path, monkeypatch):
    monkeypatch.chdir(DATA.parent)
    source, objects = Path("data/studios"), (Path("data/studios/objects"),)
    given = EpisodeOptions(source, objects, tmp_path / "studios", houses="*_val_*", arrangements=1)
    write_episodes(replace(given, split_sizes=(3, 1, 0), instances=2, categories=2))
    places = {e["scene_dataset_config"] for e in read_episodes(tmp_path / "studios")["train"]}
    assert places == {"data/studios/studios.scene_dataset_config.json"}


def test_a_sheet_that_stands_upright_covers_a_line(tmp_path):
    corners = [[0, 0, 0], [0.2, 0, 0], [0.2, 0.1, 0], [0, 0.1, 0]]
    trimesh.Trimesh(corners, [[0, 1, 2], [0, 2, 3]]).export(tmp_path / "poster.glb")
    config = tmp_path / "poster.object_config.json"
    config.write_text('{"render_asset": "poster.glb"}')
    found = AnyObject.read("poster", config, None)
    np.testing.assert_allclose(sorted(found.outline), [(-0.1, 0), (0.1, 0)], atol=1e-6)
    assert found.height == pytest.approx(0.1)
