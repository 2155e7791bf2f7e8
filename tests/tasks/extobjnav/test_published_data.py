"""Files in the published form: homes, objects and episodes as they come from their makers."""

from __future__ import annotations

import pytest
from habitat.core.env import Env
from omegaconf import OmegaConf

import memo_habitat.simulator.embree.sim  # noqa: F401
from memo_habitat.errors import UserError
from memo_habitat.tasks.extobjnav.dataset import ExtObjNavDataset
from memo_habitat.testing.tasks import task_config, write_episodes
from tests.factories.published import CAN, EPISODES, SCENES, SPONGE, write_published


def load(root, split="train"):
    path = str(root / EPISODES / "{split}/{split}.json.gz")
    options = {"data_path": path, "split": split, "content_scenes": ["*"]}
    return ExtObjNavDataset(OmegaConf.create(options))


def test_several_homes_and_objects_load_and_unknown_fields_are_kept(tmp_path):
    records = write_published(tmp_path)
    dataset = load(tmp_path)
    assert dataset.categories == (CAN, SPONGE)
    assert [e.scene_id for e in dataset.episodes] == [r["scene_id"] for r in records]
    for episode, record in zip(dataset.episodes, records, strict=True):
        assert [list(pair) for pair in episode.rigid_objs] == record["rigid_objs"]
        assert episode.name_to_receptacle == record["name_to_receptacle"]
        assert episode.target_receptacles == record["target_receptacles"]
        assert episode.info == record["info"]
        assert episode.extra == {
            name: record[name] for name in ("filtered_receptacles", "seed_of_scene")
        }
    assert len(load(tmp_path, "val").episodes) == 2


def test_homes_and_objects_are_found_where_they_were_downloaded_to(tmp_path, monkeypatch):
    """Whatever their folder is called in the episodes, and from any working directory."""
    write_published(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    (episode, *_) = load(tmp_path / "elsewhere").episodes
    here = str(tmp_path / "elsewhere")
    assert episode.scene_dataset_config.startswith(f"{here}/scene_datasets/hssd-hab/hssd-hab.")
    assert episode.additional_obj_config_paths == [f"{here}/objects/ycb/configs"]


def test_trials_in_published_homes_are_played(tmp_path):
    write_published(tmp_path)
    config = task_config(tmp_path / EPISODES / "train/train.json.gz", image_size=16)
    with Env(OmegaConf.create(config).habitat) as env:
        env.reset()
        episode = env.current_episode
        assert episode.target_category in (CAN, SPONGE)
        assert episode.scene_id.endswith(f"{SCENES[0]}.scene_instance.json")
        names = [instance.name for instance in env.sim.instances]
        assert names == [f"{CAN}_:0000", f"{SPONGE}_:0000", f"{CAN}_:0001"]
        env.step("turn_left")


def test_one_broken_episode_is_refused_by_file_episode_and_field(tmp_path):
    records = write_published(tmp_path)
    records[3]["episode_id"] = "17"
    records[3]["rigid_objs"][1][1] = records[3]["rigid_objs"][1][1][:3]
    path = write_episodes(tmp_path / EPISODES / "train/train.json.gz", records)
    with pytest.raises(UserError, match=rf"{path}: episode '17': field 'rigid_objs'.*4x4"):
        load(tmp_path)
