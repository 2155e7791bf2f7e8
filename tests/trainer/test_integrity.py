"""No damaged checkpoint or state is read unnoticed; the newest good one takes its place."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from memo_habitat.trainer.checkpoint import (
    read_checkpoint,
    read_resume_state,
    write_checkpoint,
    write_resume_state,
)
from memo_habitat.trainer.integrity import DamagedError
from memo_habitat.trainer.run_dir import (
    LATEST,
    PREVIOUS_STATE,
    RESUME_STATE,
    RunFolder,
    newest_checkpoint,
)

CONFIG = OmegaConf.create({"habitat": {"seed": 3, "note": '"digest":"' + "0" * 64 + '"'}})
WEIGHTS = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2)}
# A state is read from the folder that holds it.
READ = {
    "ckpt.0.safetensors": read_checkpoint,
    RESUME_STATE: lambda path: read_resume_state(path.parent),
}


@pytest.fixture(scope="module", params=READ)
def whole(request, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("whole") / request.param
    write_checkpoint(path.parent / "ckpt.0.safetensors", WEIGHTS, CONFIG, {"step": 7}, origin={})
    # Without the generators, whose states are most of its bytes.
    write_resume_state(path.parent, {"state_dict": WEIGHTS, "random": {}}, CONFIG)
    assert torch.equal(READ[path.name](path)["state_dict"]["weight"], WEIGHTS["weight"])
    return path


def is_refused(path: Path, content: bytes) -> bool:
    path.write_bytes(content)
    try:
        READ[path.name](path)
    except DamagedError:
        return True
    return False


@pytest.fixture(scope="module")
def scratch(whole, tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("scratch") / whole.name


def test_a_file_cut_off_anywhere_is_refused(whole, scratch):
    content = whole.read_bytes()
    # Densely at both ends, where sizes and seals are.
    ends = {*range(0, 120), *range(0, len(content), 29), *range(len(content) - 200, len(content))}
    assert [end for end in sorted(ends) if not is_refused(scratch, content[:end])] == []


@given(place=st.floats(0, 1, exclude_max=True), mask=st.integers(1, 255))
def test_a_changed_byte_is_refused(whole, scratch, place, mask):
    content = bytearray(whole.read_bytes())
    content[int(place * len(content))] ^= mask
    assert is_refused(scratch, bytes(content))


@given(more=st.binary(min_size=1, max_size=100))
def test_bytes_behind_the_end_are_refused(whole, scratch, more):
    assert is_refused(scratch, whole.read_bytes() + more)


@pytest.mark.parametrize("name", [b"format", b"digest", b"memo-habitat-2", b"sha256"])
def test_each_byte_that_tells_of_the_digest_counts(whole, scratch, name):
    content = whole.read_bytes()
    start = content.rfind(name)
    for at in range(start, start + len(name)) if start >= 0 else ():
        for value in (content[at] ^ 0x20, ord("1"), ord("z")):
            changed = content[:at] + bytes([value]) + content[at + 1 :]
            assert changed == content or is_refused(scratch, changed)


def test_a_checkpoint_tells_where_it_comes_from(tmp_path, checkout):
    data = str(checkout / "data/studios/episodes/{split}.json.gz")
    config = OmegaConf.create({"habitat": {"dataset": {"data_path": data, "split": "val"}}})
    write_checkpoint(tmp_path / LATEST, WEIGHTS, config, {"step": 1})
    origin = read_checkpoint(tmp_path / LATEST)["origin"]
    assert {"git_revision", "versions", "data"} == set(origin)
    assert "torch" in origin["versions"]
    assert len(origin["data"]) == 64


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_the_newest_good_checkpoint_stands_in_for_a_damaged_one_and_it_is_said(tmp_path, caplog):
    run = RunFolder(tmp_path)
    run.checkpoint_dir.mkdir()
    for number in range(12):
        name = f"ckpt.{number}.safetensors"
        write_checkpoint(run.checkpoint_dir / name, WEIGHTS, CONFIG, {"step": number}, origin={})
    shutil.copy(run.checkpoint_dir / "ckpt.11.safetensors", run.latest_checkpoint)
    assert run.find_checkpoint(None) == run.latest_checkpoint
    damage(run.latest_checkpoint)
    damage(run.checkpoint_dir / "ckpt.11.safetensors")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert run.find_checkpoint(None).name == "ckpt.10.safetensors"
    (line,) = [record.getMessage() for record in caplog.records]
    assert f"{run.latest_checkpoint} is damaged" in line
    assert "ckpt.10.safetensors of step 10 is used" in line
    # What is asked for by name is not replaced.
    with pytest.raises(DamagedError, match=r"ckpt\.11\.safetensors is damaged"):
        read_checkpoint(run.find_checkpoint("ckpt.11"))


def test_where_every_checkpoint_is_damaged_the_latest_is_refused_by_name(tmp_path):
    write_checkpoint(tmp_path / LATEST, WEIGHTS, CONFIG, {"step": 1}, origin={})
    damage(tmp_path / LATEST)
    with pytest.raises(DamagedError, match=LATEST):
        read_checkpoint(newest_checkpoint(tmp_path))


def states(folder: Path) -> None:
    for steps in (1, 2, 3):
        write_resume_state(folder, {"counts": {"num_steps_done": steps}}, CONFIG)


def test_a_damaged_state_is_replaced_by_the_one_before_and_it_is_said(tmp_path):
    states(tmp_path)
    assert "instead" not in read_resume_state(tmp_path)
    damage(tmp_path / RESUME_STATE)
    state = read_resume_state(tmp_path)
    assert state["counts"]["num_steps_done"] == 2
    assert RESUME_STATE in state["instead"] and PREVIOUS_STATE in state["instead"]
    assert state["instead"].count("\n") == 0
    damage(tmp_path / PREVIOUS_STATE)
    with pytest.raises(DamagedError, match=RESUME_STATE):
        read_resume_state(tmp_path)


def test_without_hard_links_the_state_before_is_kept_as_well(tmp_path, monkeypatch):
    def none(*args):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("os.link", none)
    states(tmp_path)
    damage(tmp_path / RESUME_STATE)
    assert read_resume_state(tmp_path)["counts"]["num_steps_done"] == 2
    assert {path.name for path in tmp_path.iterdir()} == {RESUME_STATE, PREVIOUS_STATE}
