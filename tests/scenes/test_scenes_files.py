"""File formats and folders: GLB, PNG and gzip writers, paths, refusals, pictures."""

from __future__ import annotations

import gzip
import io
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from memo_habitat.errors import UserError
from memo_habitat.scenes.files import replace_folder
from memo_habitat.scenes.generate import GenerateOptions, generate
from memo_habitat.scenes.mesh import Mesh, glb_bytes, gzip_bytes, palette_textured, png_bytes
from memo_habitat.scenes.views import ShowOptions, show
from memo_habitat.testing.tasks import episode_record, write_episodes
from memo_habitat.utils.data_paths import resolve
from tests.scenes.scene_sets import SETS, contents, read_episodes

ONE = replace(SETS["studio"], houses=1, split_sizes=(1, 0, 0), arrangements=1)


@given(st.binary(max_size=200) | st.integers(65_530, 65_540).map(lambda n: b"x" * n))
@settings(max_examples=30)
def test_gzip_writer_is_read_back_by_the_standard_library(data: bytes) -> None:
    assert gzip.decompress(gzip_bytes(data)) == data


def test_png_writer_is_read_back_by_pillow() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (37, 23, 3), dtype=np.uint8)
    read = Image.open(io.BytesIO(png_bytes(pixels)))
    assert np.array_equal(np.asarray(read), pixels)


def test_glb_writer_is_read_back_by_trimesh_with_its_colours(tmp_path: Path) -> None:
    mesh = Mesh()
    mesh.box((0, 0, 0), (1, 2, 3), (200, 10, 20))
    mesh.box((2, 0, 0), (3, 1, 1), (10, 20, 200))
    (tmp_path / "boxes.glb").write_bytes(glb_bytes([palette_textured(mesh)]))
    read = trimesh.load(tmp_path / "boxes.glb", force="mesh", process=False)
    assert read.volume == pytest.approx(7.0)
    assert read.visual.material.metallicFactor == 0
    colours = read.visual.to_color().vertex_colors[:, :3]
    assert np.array_equal(colours, np.asarray(mesh.colours))


def test_a_moved_set_is_found_beside_its_episode_file(made: Path, tmp_path: Path) -> None:
    moved = tmp_path / "somewhere" / "else"
    shutil.copytree(made, moved)
    for split, episodes in read_episodes(moved).items():
        for episode in episodes:
            file = moved / "episodes" / f"{split}.json.gz"
            for path in (
                episode["scene_id"],
                episode["scene_dataset_config"],
                *episode["additional_obj_config_paths"],
            ):
                assert moved in resolve(path, beside=file).parents


def test_bundled_paths_are_found_from_any_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve("data/studios/studios.scene_dataset_config.json").is_file()
    assert resolve("data/apartments/objects/").is_dir()


def test_the_working_directory_comes_before_the_bundled_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data" / "studios").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert resolve("data/studios").resolve() == tmp_path / "data" / "studios"


def test_a_missing_path_is_named() -> None:
    with pytest.raises(UserError, match="data/no_such_set"):
        resolve("data/no_such_set/x.json")


@pytest.mark.parametrize(
    "change,named",
    [
        ({"kind": "castle"}, "castle"),
        ({"houses": 0, "split_sizes": None}, "houses is 0"),
        ({"houses": 3}, "1,0,0"),
        ({"split_sizes": (2, -1, 0)}, "2,-1,0"),
        ({"seed": -1}, "seed is -1"),
        ({"arrangements": 0}, "arrangements is 0"),
        ({"categories": 21}, "categories is 21"),
        ({"instances": 3}, "instances is 3"),
        ({"name": "../x"}, "../x"),
    ],
)
def test_options_that_cannot_be_met_are_refused_by_value(
    change: dict, named: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserError) as caught:
        generate(replace(ONE, out=out, **change))
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not out.exists()


def test_default_split_sizes_add_up() -> None:
    for houses in range(1, 60):
        sizes = GenerateOptions(Path("x"), houses=houses).sizes()
        assert sum(sizes.values()) == houses
        assert sizes["train"] > 0


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(UserError, match="out"):
            generate(replace(ONE, out=tmp_path / "out", overwrite=overwrite))
    assert contents(tmp_path) == {"out/thesis.txt": b"precious"}


def test_a_generated_set_is_replaced_only_when_asked(tmp_path: Path) -> None:
    options = replace(ONE, out=tmp_path / "out")
    generate(options)
    before = contents(tmp_path)
    with pytest.raises(UserError, match="--overwrite"):
        generate(replace(options, seed=8))
    with pytest.raises(UserError, match="apartments"):
        generate(replace(options, kind="apartment", overwrite=True))
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"notes\.txt"):
        generate(replace(options, overwrite=True))
    (tmp_path / "out" / "notes.txt").unlink()
    assert contents(tmp_path) == before
    generate(replace(options, seed=8, overwrite=True))
    assert any("studio_8_" in name for name in contents(tmp_path))
    assert not any("studio_5_" in name for name in contents(tmp_path))


def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old.txt").write_text("old")
    with pytest.raises(RuntimeError), replace_folder(tmp_path / "out") as folder:
        (folder / "half.txt").write_text("half")
        raise RuntimeError
    assert contents(tmp_path) == {"out/old.txt": b"old"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_house_that_cannot_be_filled_is_named_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memo_habitat.scenes.generate.MAX_FAILURES", 1)
    with pytest.raises(UserError, match="studio_5_train_000"):
        generate(replace(ONE, out=tmp_path / "out", instances=60, categories=20))
    assert not list(tmp_path.iterdir())


def test_an_unwritable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="file"):
            generate(replace(ONE, out=out))
    assert contents(tmp_path) == {"file": b""}


@pytest.mark.slow
def test_show_draws_a_picture_with_plan_and_views(made: Path, tmp_path: Path) -> None:
    name = Path(read_episodes(made)["test"][0]["scene_id"]).name.split(".")[0]
    for house in (0, name):
        out = tmp_path / f"{house}.png"
        show(ShowOptions(made, house, out, arrangement=1, views=2, view_size=32))
        assert min(Image.open(out).size) > 300


def test_show_tells_houses_apart_whose_names_have_a_point(tmp_path: Path) -> None:
    records = [episode_record([], house=name) for name in ("home.upper", "home.lower")]
    write_episodes(tmp_path / "episodes" / "val.json.gz", records)
    with pytest.raises(UserError, match=r"give 0 to 1 or a name such as home\.upper"):
        show(ShowOptions(tmp_path, 2, tmp_path / "x.png"))


def test_a_malformed_episode_is_named_by_show(tmp_path: Path) -> None:
    file = tmp_path / "episodes" / "val.json.gz"
    file.parent.mkdir()
    file.write_bytes(gzip_bytes(b'{"episodes": [{"episode_id": "a0"}]}'))
    with pytest.raises(UserError, match="episode 'a0': field 'scene_id' is missing"):
        show(ShowOptions(tmp_path, 0, tmp_path / "x.png"))


@pytest.mark.parametrize(
    "change,named",
    [
        ({"house": 99}, "99"),
        ({"house": "nowhere"}, "nowhere"),
        ({"arrangement": 50}, "50"),
        ({"dataset_dir": Path("no/set")}, "no/set"),
        ({"out": Path("/proc/no/picture.png")}, "picture.png"),
    ],
)
def test_show_refuses_by_value(made: Path, tmp_path: Path, change: dict, named: str) -> None:
    options = ShowOptions(made, 0, tmp_path / "x.png", views=1, view_size=16)
    with pytest.raises(UserError) as caught:
        show(replace(options, **change))
    assert named in str(caught.value)
    assert not (tmp_path / "x.png").exists()
