"""Episode files: what is read, what is kept, and what is refused with its name."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from memo_habitat.errors import UserError
from memo_habitat.tasks.extobjnav.dataset import ExtObjNavDataset
from memo_habitat.testing.tasks import episode_record, write_episodes

OBJECTS = [("mug", (1.0, 0.2, 1.0)), ("box", (-1.0, 0.2, 0.0)), ("mug", (2.0, 0.2, 2.0))]


def load(path: Path, **options) -> ExtObjNavDataset:
    config = {"data_path": str(path), "split": "train", "content_scenes": ["*"], **options}
    return ExtObjNavDataset(OmegaConf.create(config))


def test_published_fields_arrive_and_unknown_ones_are_kept(tmp_path):
    record = episode_record(OBJECTS, goal_hints={"a": [1, 2]}, info={"difficulty": "easy"})
    dataset = load(write_episodes(tmp_path / "e.json.gz", [record]))
    (episode,) = dataset.episodes
    assert episode.extra == {"goal_hints": {"a": [1, 2]}}
    assert episode.info == {"difficulty": "easy"}
    assert episode.categories == ["box", "mug"]
    assert [name for name, _ in episode.rigid_objs] == [
        f"{c}.object_config.json" for c, _ in OBJECTS
    ]
    assert np.array(episode.rigid_objs[2][1])[:3, 3] == pytest.approx([2.0, 0.2, 2.0])
    assert dataset.scene_ids == ["scenes/room.scene_instance.json"]


def test_a_number_as_episode_id_and_missing_optional_fields_are_read(tmp_path):
    record = episode_record(OBJECTS, episode_id=7, ao_states=None, targets=None, markers=None)
    dataset = load(write_episodes(tmp_path / "e.json.gz", [record]))
    assert dataset.episodes[0].episode_id == "7"


def test_vocabulary_is_the_files_own_in_its_order(tmp_path):
    path = write_episodes(
        tmp_path / "e.json.gz", [episode_record(OBJECTS)], categories=["vase", "mug", "box"]
    )
    assert load(path).categories == ("vase", "mug", "box")


def test_vocabulary_without_an_own_one_is_the_union_before_houses_are_chosen(tmp_path):
    path = write_episodes(
        tmp_path / "e.json.gz",
        [
            episode_record([("mug", (0, 0, 0))], house="one"),
            episode_record([("box", (0, 0, 0))], house="two"),
        ],
    )
    dataset = load(path, content_scenes=["two"])
    assert dataset.categories == ("box", "mug")
    assert [episode.scene_id for episode in dataset.episodes] == ["scenes/two.scene_instance.json"]


def test_houses_are_named_after_their_scene_files(tmp_path):
    path = write_episodes(
        tmp_path / "train.json.gz",
        [episode_record(OBJECTS, house=name) for name in ("b", "a", "b")]
        + [episode_record(OBJECTS, scene_id="handle_17")],
    )
    config = OmegaConf.create({"data_path": str(tmp_path / "{split}.json.gz"), "split": "train"})
    assert ExtObjNavDataset.get_scenes_to_load(config) == ["a", "b", "handle_17"]
    assert ExtObjNavDataset.check_config_paths_exist(config)
    assert load(path).num_episodes == 4


def test_content_folder_adds_one_file_per_house(tmp_path):
    path = write_episodes(tmp_path / "train.json.gz", [])
    for house in ("b", "a"):
        write_episodes(
            tmp_path / "content" / f"{house}.json.gz", [episode_record(OBJECTS, house=house)]
        )
    assert [episode.scene_id for episode in load(path).episodes] == [
        "scenes/a.scene_instance.json",
        "scenes/b.scene_instance.json",
    ]


@pytest.mark.parametrize(
    ("pattern", "file"),
    [
        ("{data_path}/houses/{scene}.json.gz", "houses/a.json.gz"),
        ("{data_path}/houses/of_{scene}_v2.json.gz", "houses/of_a_v2.json.gz"),
        ("houses/{scene}.json.gz", "houses/a.json.gz"),
    ],
)
def test_a_split_says_where_the_files_of_its_houses_lie(tmp_path, pattern, file):
    path = write_episodes(tmp_path / "train.json.gz", [])
    for name, house in ((file, "a"), ("content/b.json.gz", "b"), ("houses/note.txt", "c")):
        write_episodes(tmp_path / name, [episode_record(OBJECTS, house=house)])
    content = {"episodes": [], "content_scenes_path": pattern}
    path.write_bytes(gzip.compress(json.dumps(content).encode()))
    assert [e.scene_id for e in load(path).episodes] == ["scenes/a.scene_instance.json"]
    for wrong in (5, "{data_path}/houses/a.json.gz"):
        path.write_bytes(
            gzip.compress(json.dumps({**content, "content_scenes_path": wrong}).encode())
        )
        with pytest.raises(UserError, match=r"train\.json\.gz.*content_scenes_path"):
            load(path)


def test_repeated_ids_in_a_house_are_told_apart(tmp_path):
    path = write_episodes(
        tmp_path / "e.json.gz",
        [episode_record(OBJECTS), episode_record(OBJECTS), episode_record(OBJECTS, house="other")],
    )
    assert [episode.episode_id for episode in load(path).episodes] == ["0", "0.2", "0"]


def test_a_name_that_the_file_has_itself_is_given_to_no_other(tmp_path):
    records = [episode_record(OBJECTS, episode_id=name) for name in ("a", "a", "a.2", "a")]
    path = write_episodes(tmp_path / "e.json.gz", records)
    assert [e.episode_id for e in load(path).episodes] == ["a", "a.3", "a.2", "a.4"]


def test_a_moved_data_set_finds_its_files_beside_the_episodes(tmp_path):
    (tmp_path / "moved" / "objects").mkdir(parents=True)
    (tmp_path / "moved" / "rooms.scene_dataset_config.json").write_text("{}")
    record = episode_record(
        OBJECTS,
        scene_dataset_config="elsewhere/rooms.scene_dataset_config.json",
        additional_obj_config_paths=["elsewhere/objects/"],
    )
    path = write_episodes(tmp_path / "moved" / "episodes" / "train.json.gz", [record])
    (episode,) = load(path).episodes
    assert Path(episode.scene_dataset_config).is_file()
    assert all(Path(folder).is_dir() for folder in episode.additional_obj_config_paths)


def _object(name: object, transform: object) -> list:
    return [[name, transform]]


EYE = np.eye(4).tolist()
MALFORMED = {
    "no episode_id": ({"episode_id": None}, "episode_id"),
    "no scene_id": ({"scene_id": None}, "scene_id"),
    "no scene_dataset_config": ({"scene_dataset_config": None}, "scene_dataset_config"),
    "no object paths": ({"additional_obj_config_paths": None}, "additional_obj_config_paths"),
    "no start_position": ({"start_position": None}, "start_position"),
    "no start_rotation": ({"start_rotation": None}, "start_rotation"),
    "no rigid_objs": ({"rigid_objs": None}, "rigid_objs"),
    "no name_to_receptacle": ({"name_to_receptacle": None}, "name_to_receptacle"),
    "empty scene": ({"scene_id": " "}, "scene_id"),
    "scene is a number": ({"scene_id": 3}, "scene_id"),
    "id is a list": ({"episode_id": [1]}, "episode_id"),
    "paths are a text": (
        {"additional_obj_config_paths": "objects/"},
        "additional_obj_config_paths",
    ),
    "two coordinates": ({"start_position": [1.0, 2.0]}, "start_position"),
    "text as coordinate": ({"start_position": [1.0, "x", 2.0]}, "start_position"),
    "position not a number": ({"start_position": [1.0, math.nan, 2.0]}, "start_position"),
    "position is an object": ({"start_position": {"x": 1}}, "start_position"),
    "rotation of length two": ({"start_rotation": [0.0, 0.0, 0.0, 2.0]}, "start_rotation"),
    "three rotation numbers": ({"start_rotation": [0.0, 0.0, 1.0]}, "start_rotation"),
    "objects are an object": ({"rigid_objs": {"a": 1}}, "rigid_objs"),
    "object without transform": ({"rigid_objs": [["mug.object_config.json"]]}, "rigid_objs"),
    "object without suffix": ({"rigid_objs": _object("mug.glb", EYE)}, "rigid_objs"),
    "object without category": ({"rigid_objs": _object(".object_config.json", EYE)}, "rigid_objs"),
    "3x4 transform": ({"rigid_objs": _object("mug.object_config.json", EYE[:3])}, "rigid_objs"),
    "ragged transform": (
        {"rigid_objs": _object("mug.object_config.json", [[1.0], [1.0, 2.0]])},
        "rigid_objs",
    ),
    "column-major transform": (
        {
            "rigid_objs": _object(
                "mug.object_config.json",
                [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [2, 0.5, 1, 1]],
            )
        },
        "rigid_objs",
    ),
    "unknown category": ({"rigid_objs": _object("sock.object_config.json", EYE)}, "rigid_objs"),
    "receptacles are a list": ({"name_to_receptacle": []}, "name_to_receptacle"),
    "states are a list": ({"ao_states": []}, "ao_states"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_episodes_are_refused_with_file_episode_and_field(tmp_path, case):
    changes, field = MALFORMED[case]
    good = episode_record(OBJECTS, episode_id="fine")
    bad = episode_record(OBJECTS, **{"episode_id": "broken", **changes})
    path = write_episodes(tmp_path / "e.json.gz", [good, bad], categories=["mug", "box"])
    with pytest.raises(UserError) as error:
        load(path)
    message = str(error.value)
    assert str(path) in message
    assert repr(field) in message
    assert "'broken'" in message or "episode_id" in changes
    assert "\n" not in message


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"episodes": "none"}, "'episodes'"),
        ({}, "'episodes'"),
        ([1, 2], "list"),
        ({"episodes": []}, "no episodes"),
        ({"episodes": [5]}, "number 0"),
        ({"episodes": [], "categories": ["a", "a"]}, "'categories'"),
        ({"episodes": [], "categories": "mug"}, "'categories'"),
        ({"episodes": [], "categories": [3]}, "'categories'"),
    ],
)
def test_malformed_files_are_refused_with_their_name(tmp_path, content, named):
    path = tmp_path / "e.json.gz"
    path.write_bytes(gzip.compress(json.dumps(content).encode()))
    with pytest.raises(UserError) as error:
        load(path)
    assert str(path) in str(error.value)
    assert named in str(error.value)


@pytest.mark.parametrize("damage", ["cut", "not gzip", "not json", "flipped"])
def test_damaged_files_are_refused_with_their_name(tmp_path, damage):
    path = write_episodes(tmp_path / "e.json.gz", [episode_record(OBJECTS)])
    whole = path.read_bytes()
    path.write_bytes(
        {
            "cut": whole[: len(whole) // 2],
            "not gzip": b"{}",
            "not json": gzip.compress(b"{'episodes'"),
            "flipped": whole[:30] + bytes(255 - b for b in whole[30:40]) + whole[40:],
        }[damage]
    )
    with pytest.raises(UserError, match=r"e\.json\.gz.*again"):
        load(path)


def test_a_missing_file_and_an_unknown_house_are_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.json\.gz"):
        load(tmp_path / "nowhere.json.gz")
    path = write_episodes(tmp_path / "e.json.gz", [episode_record(OBJECTS)])
    with pytest.raises(UserError, match=r"no house cellar.*room"):
        load(path, content_scenes=["cellar"])


def test_a_data_set_without_config_is_empty():
    assert ExtObjNavDataset().episodes == []
