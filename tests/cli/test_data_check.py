"""`memo-habitat data check`: what is whole is counted, the first thing that is not is named."""

from __future__ import annotations

import json

import pytest

from memo_habitat.cli.main import main
from memo_habitat.scenes.check_data import check
from memo_habitat.testing.tasks import write_episodes
from tests.factories.published import CAN, EPISODES, SCENES, SPONGE, write_published

CONFIG = "scene_datasets/hssd-hab/hssd-hab.scene_dataset_config.json"
TRAIN = f"{EPISODES}/train/train.json.gz"


@pytest.fixture
def root(tmp_path):
    write_published(tmp_path)
    return tmp_path


def complaint(capsys, folder) -> str:
    """The one line on stderr of a check that must fail."""
    assert main(["data", "check", str(folder)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_everything_is_counted_by_split_and_category(root, capsys):
    counts = {count.file.relative_to(root).as_posix(): count for count in check(root)}
    assert set(counts) == {CONFIG, TRAIN, f"{EPISODES}/val/val.json.gz"}
    assert counts[CONFIG].houses == 3
    train = counts[TRAIN]
    assert (train.houses, train.episodes) == (3, 6)
    assert dict(train.objects) == {CAN: 12, SPONGE: 6}
    assert main(["data", "check", str(root)]) == 0
    out = capsys.readouterr().out
    assert f"ok {root / TRAIN}: 3 houses, 6 episodes with 18 objects" in out
    assert f"{CAN} 12, {SPONGE} 6" in out


def test_a_split_with_a_file_for_each_house_is_one_split(root, tmp_path):
    records = write_published(tmp_path / "second")
    folder = tmp_path / "second" / EPISODES / "train"
    write_episodes(folder / "train.json.gz", [])
    for name in SCENES:
        mine = [record for record in records if name in record["scene_id"]]
        write_episodes(folder / f"content/{name}.json.gz", mine)
    (count,) = [c for c in check(tmp_path / "second") if "train" in str(c.file)]
    assert (count.houses, count.episodes, count.objects.total()) == (3, 6, 18)


def test_a_broken_episode_is_named_with_its_field(root, capsys):
    records = write_published(root / "other")
    del records[4]["name_to_receptacle"]
    records[4]["episode_id"] = "broken"
    path = write_episodes(root / "other" / TRAIN, records)
    assert f"{path}: episode 'broken': field 'name_to_receptacle' is missing" in complaint(
        capsys, root
    )


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"scene_id": "data/hssd-hab/scenes/9.scene_instance.json"}, ["'scene_id'", "9.scene"]),
        ({"scene_dataset_config": "data/a/b.scene_dataset_config.json"}, ["b.scene_dataset"]),
        ({"additional_obj_config_paths": ["data/nowhere"]}, ["'rigid_objs'", f"{CAN}."]),
        ({"rigid_objs": [["mug.object_config.json", None]]}, ["'rigid_objs'"]),
    ],
)
def test_references_of_episodes_that_lead_nowhere_are_named(root, capsys, changes, named):
    records = write_published(root / "other")
    records[1] |= {"episode_id": "lost", **changes}
    path = write_episodes(root / "other" / TRAIN, records)
    line = complaint(capsys, root)
    assert all(text in line for text in [f"{path}: episode 'lost'", *named])


@pytest.mark.parametrize(
    ("missing", "named_by"),
    [
        ("stages/two_rooms.glb", "stages/two_rooms.stage_config.json"),
        ("furniture/counter.glb", "furniture/counter.object_config.json"),
        ("furniture/counter.*", f"scenes/{SCENES[0]}.scene_instance.json"),
    ],
)
def test_files_that_scenes_miss_are_named_with_who_names_them(root, capsys, missing, named_by):
    homes = root / "scene_datasets/hssd-hab"
    for path in homes.glob(missing):
        path.unlink()
    assert str(homes / named_by) in complaint(capsys, root)


def test_a_mesh_of_a_small_object_is_missing(root, capsys):
    (root / "objects/ycb/meshes" / SPONGE / "textured.glb").unlink()
    line = complaint(capsys, root)
    assert "episode '0'" in line and f"{SPONGE}.object_config.json" in line


def test_point_goals_are_checked_for_their_scenes(root, capsys):
    scene = {"scene_id": f"data/hssd-hab/scenes/{SCENES[0]}.scene_instance.json", "goals": []}
    goals = [{**scene, "scene_dataset_config": f"data/{CONFIG}", "episode_id": i} for i in "01"]
    path = write_episodes(root / "datasets/pointnav/train.json.gz", goals)
    (count,) = [count for count in check(root) if count.file == path]
    assert (count.houses, count.episodes, len(count.objects)) == (1, 2, 0)
    # As in Habitat's own data sets: a file for each house, and an empty one of the split.
    write_episodes(root / "datasets/gibson/train.json.gz", [])
    write_episodes(root / "datasets/gibson/content/house.json.gz", goals)
    assert any(count.file.parts[-2] == "gibson" and count.episodes == 2 for count in check(root))
    goals[1]["scene_id"] = "nowhere"
    write_episodes(path, goals)
    assert f"{path}: episode number 1: field 'scene_id'" in complaint(capsys, root)


def test_what_the_download_client_keeps_for_itself_is_left_alone(root):
    hidden = root / "datasets/.cache/huggingface/download/train.json.gz"
    hidden.parent.mkdir(parents=True)
    hidden.write_text(json.dumps({"not": "gzip"}))
    assert len(list(check(root))) == 3


def test_an_empty_folder_and_a_file_are_refused(tmp_path, capsys):
    assert "neither" in complaint(capsys, tmp_path)
    (tmp_path / "a").touch()
    assert "no folder" in complaint(capsys, tmp_path / "a")
