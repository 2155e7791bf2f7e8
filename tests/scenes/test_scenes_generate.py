"""Generated sets: reproducible, disjoint, small, and of the published form."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from memo_habitat.scenes.files import read_manifest
from memo_habitat.scenes.furniture import CATALOGUE
from memo_habitat.scenes.generate import GenerateOptions, generate
from memo_habitat.scenes.objects import SMALL_OBJECTS
from tests.scenes.scene_sets import SETS, contents, read_document, read_episodes

CHECKOUT = Path(__file__).resolve().parents[2]
BUNDLED = {"studios": (24, 4, 8), "apartments": (8, 2, 4)}


def test_same_seed_gives_the_same_bytes_wherever_it_is_written(made: Path, tmp_path: Path) -> None:
    kind = read_manifest(made)["kind"]
    generate(replace(SETS[kind], out=tmp_path / "elsewhere"))
    assert contents(tmp_path / "elsewhere") == contents(made)


def test_another_seed_gives_other_houses_and_arrangements(tmp_path: Path) -> None:
    made = {}
    for seed in (5, 6):
        out = tmp_path / str(seed)
        generate(replace(SETS["studio"], out=out, seed=seed, houses=1, split_sizes=(1, 0, 0)))
        (stage,) = (out / "stages").glob("*.glb")
        (episode, *_) = read_episodes(out)["train"]
        made[seed] = stage.read_bytes(), episode["rigid_objs"]
    assert made[5][0] != made[6][0]
    assert made[5][1] != made[6][1]


def test_a_house_does_not_depend_on_how_many_others_there_are(made: Path, tmp_path: Path) -> None:
    kind = read_manifest(made)["kind"]
    generate(replace(SETS[kind], out=tmp_path / "one", houses=1, split_sizes=(1, 0, 0)))
    ours, theirs = contents(tmp_path / "one"), contents(made)
    houses = [name for name in ours if name.startswith(("stages/", "scenes/"))]
    assert houses
    assert all(ours[name] == theirs[name] for name in houses)


def test_splits_share_no_house_and_no_geometry(made: Path) -> None:
    houses = {
        split: {episode["scene_id"] for episode in episodes}
        for split, episodes in read_episodes(made).items()
    }
    assert len(houses) > 1
    assert sum(map(len, houses.values())) == len(set().union(*houses.values()))
    stages = [path.read_bytes() for path in (made / "stages").glob("*.glb")]
    assert len(set(stages)) == len(stages)


def test_arrangements_of_a_house_differ(made: Path) -> None:
    for episodes in read_episodes(made).values():
        placed = [json.dumps(episode["rigid_objs"]) for episode in episodes]
        assert len(set(placed)) == len(placed)


def test_episodes_have_the_published_fields_types_and_shapes(made: Path) -> None:
    name = read_manifest(made)["name"]
    for episodes in read_episodes(made).values():
        for number, episode in enumerate(episodes):
            assert episode["episode_id"] == str(number)
            assert episode["scene_id"].startswith(f"data/{name}/scenes/")
            assert episode["scene_id"].endswith(".scene_instance.json")
            assert (
                episode["scene_dataset_config"] == f"data/{name}/{name}.scene_dataset_config.json"
            )
            assert episode["additional_obj_config_paths"] == [f"data/{name}/objects/"]
            assert np.asarray(episode["start_position"], dtype=float).shape == (3,)
            rotation = np.asarray(episode["start_rotation"], dtype=float)
            assert rotation.shape == (4,)
            assert np.linalg.norm(rotation) == pytest.approx(1.0, abs=1e-6)
            for field in ("ao_states", "targets", "name_to_receptacle", "info"):
                assert isinstance(episode[field], dict)
            for field in ("markers", "target_receptacles", "goal_receptacles"):
                assert episode[field] == []
            for config, transform in episode["rigid_objs"]:
                assert (made / "objects" / config).is_file()
                matrix = np.asarray(transform, dtype=float)
                assert matrix.shape == (4, 4)
                assert matrix[3].tolist() == [0, 0, 0, 1]
                assert matrix[:3, :3] @ matrix[:3, :3].T == pytest.approx(np.eye(3), abs=1e-6)
                assert np.linalg.det(matrix[:3, :3]) == pytest.approx(1.0, abs=1e-6)


def test_every_instance_has_a_receptacle_named_after_it(made: Path) -> None:
    for episodes in read_episodes(made).values():
        for episode in episodes:
            categories = [c.removesuffix(".object_config.json") for c, _ in episode["rigid_objs"]]
            names = [f"{c}_:{categories[:i].count(c):04d}" for i, c in enumerate(categories)]
            assert sorted(names) == sorted(episode["name_to_receptacle"])
            assert 1 < len(set(categories)) < len(categories)


def test_episode_file_lists_all_twenty_categories_sorted(made: Path) -> None:
    for file in (made / "episodes").glob("*.json.gz"):
        categories = read_document(file)["categories"]
        assert categories == sorted(SMALL_OBJECTS)
        assert len(categories) == 20


def test_no_template_name_is_part_of_another() -> None:
    names = [*CATALOGUE, *SMALL_OBJECTS]
    assert not [(a, b) for a in names for b in names if a != b and a in b]


def test_small_objects_are_a_quarter_to_two_fifths_of_a_metre() -> None:
    for shape in SMALL_OBJECTS.values():
        assert 0.25 <= 2 * max(shape.half) <= 0.4 + 1e-6, shape.category
        assert 2 * min(shape.half) >= 0.2, shape.category


@pytest.mark.parametrize("name", sorted(BUNDLED))
def test_bundled_sets_are_complete_and_as_their_readme_says(name: str) -> None:
    folder = CHECKOUT / "data" / name
    houses = {
        split: {episode["scene_id"] for episode in episodes}
        for split, episodes in read_episodes(folder).items()
    }
    sizes = tuple(len(houses[split]) for split in ("train", "val", "test"))
    assert sizes == BUNDLED[name]
    for scenes in houses.values():
        assert all((CHECKOUT / scene).is_file() for scene in scenes)
    readme = (CHECKOUT / "data" / "README.md").read_text()
    made = read_manifest(folder)
    command = f"--kind {made['kind']} --houses {made['houses']} --seed {made['seed']}"
    assert command in readme
    assert f"--split-sizes {','.join(map(str, sizes))}" in readme


def test_bundled_data_stays_below_fifteen_megabytes() -> None:
    files = [path for path in (CHECKOUT / "data").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 15_000_000


@pytest.mark.parametrize(
    "kind,name", [("studio", "studios"), ("apartment", "apartments"), ("loft", "lofts")]
)
def test_bundled_sets_are_what_the_generator_makes_today(
    kind: str, name: str, tmp_path: Path
) -> None:
    folder = CHECKOUT / "data" / name
    seed = read_manifest(folder)["seed"]
    generate(GenerateOptions(tmp_path / "new", 1, seed, kind, (1, 0, 0)))
    ours, bundled = contents(tmp_path / "new"), contents(folder)
    shared = [n for n in ours if not n.startswith(("episodes", "pointnav", "generated"))]
    assert len(shared) > 100
    assert [n for n in shared if ours[n] != bundled[n]] == []


def test_point_goals_are_in_the_form_of_habitats_own_data_set() -> None:
    from habitat.datasets.pointnav.pointnav_dataset import PointNavDatasetV1

    file = CHECKOUT / "data" / "studios" / "pointnav" / "train.json.gz"
    dataset = PointNavDatasetV1()
    dataset.from_json(json.dumps(read_document(file)), scenes_dir=str(CHECKOUT))
    assert len(dataset.episodes) == 4 * BUNDLED["studios"][0]
    for episode in dataset.episodes:
        assert Path(episode.scene_id).is_file()
        start, goal = np.asarray(episode.start_position), np.asarray(episode.goals[0].position)
        assert np.linalg.norm(start - goal) >= 1.0
