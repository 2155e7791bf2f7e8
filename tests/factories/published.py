"""Homes, small objects and episodes laid out and written as the published ones are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from memo_habitat.testing.tasks import episode_record, write_episodes
from tests.factories.houses import write_test_house

SCENES = ("102344193", "102344280", "108736872_177263607")
CAN, SPONGE = "002_master_chef_can", "026_sponge"
EPISODES = "datasets/ExtObjNav"


def write_published(root: Path) -> list[dict[str, Any]]:
    """Write a data folder; returns the records of the split train.

    Three homes with one plan, two kinds of objects, two arrangements of three objects in each home.
    As in the published files, the folder of the homes has another name than where it lies.
    """
    homes, objects = root / "scene_datasets/hssd-hab", root / "objects/ycb"
    house = write_test_house(homes)
    scene = Path(house.scene_id)
    for name in SCENES:
        shutil.copy(scene, scene.with_name(f"{name}.scene_instance.json"))
    scene.unlink()
    shutil.rmtree(homes / "episodes")
    Path(house.scene_dataset_config).rename(homes / "hssd-hab.scene_dataset_config.json")
    (objects / "configs").mkdir(parents=True)
    for own, name in (("red_cube", CAN), ("blue_ball", SPONGE)):
        mesh = objects / "meshes" / name / "textured.glb"
        mesh.parent.mkdir(parents=True)
        (homes / "objects" / f"{own}.glb").rename(mesh)
        (objects / "configs" / f"{name}.object_config.json").write_text(
            json.dumps({"render_asset": f"../meshes/{name}/textured.glb", "COM": [0, 0, 0]})
        )
    shutil.rmtree(homes / "objects")
    records = [_record(scene, number) for scene in SCENES for number in range(2)]
    write_episodes(root / EPISODES / "train/train.json.gz", records)
    write_episodes(root / EPISODES / "val/val.json.gz", records[:2])
    return records


def _record(scene: str, number: int) -> dict[str, Any]:
    places = [(CAN, (2.0, 0.15, 1.0)), (SPONGE, (-3.0, 0.15, -1.0)), (CAN, (-2.0, 0.95, 1.2))]
    return episode_record(
        places[::-1] if number else places,
        episode_id=str(number),
        scene_id=f"data/hssd-hab/scenes/{scene}.scene_instance.json",
        scene_dataset_config="data/hssd-hab/hssd-hab.scene_dataset_config.json",
        additional_obj_config_paths=["data/objects/ycb/configs/"],
        start_position=[-3.0, 0.0, 0.0],
        name_to_receptacle={
            f"{CAN}_:0000": "floor|receptacle_mesh_0",
            f"{SPONGE}_:0000": "floor|receptacle_mesh_0",
            f"{CAN}_:0001": "counter_:0000|receptacle_aabb_top",
        },
        target_receptacles=[["counter_:0000", 0]],
        goal_receptacles=[["counter_:0000", 0]],
        info={"object_labels": {}, "dist": 3.2},
        filtered_receptacles={"counter": ["receptacle_aabb_top"]},
        seed_of_scene=17,
    )
