"""`memo-habitat data get` against a hub on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from memo_habitat.cli.main import main
from memo_habitat.utils import hub as downloads
from tests.factories.hub import FakeHub, serve

pytest.importorskip("huggingface_hub", reason="needs the extra hub (pip install memo-habitat[hub])")

YCB, VC1 = downloads.SOURCES["ycb"].repository, downloads.SOURCES["vc1"].repository
HSSD = downloads.SOURCES["hssd"].repository
OLD, NEW = "a" * 40, "b" * 40
FILES = {"configs/mug.object_config.json": b"{}", "folder/mug.bin": bytes(range(256)) * 40}
WHOLE = sum(map(len, FILES.values()))


@pytest.fixture
def hub(tmp_path):
    pinned = downloads.SOURCES["hssd"].revision
    assert pinned is not None
    made = FakeHub(
        {YCB: dict(FILES), VC1: {"weights.bin": b"w" * 5000}, HSSD: {"hssd.json": b"{}"}},
        {YCB: {"main": OLD, "v1": NEW}, VC1: {"main": OLD}, HSSD: {"main": NEW, "pin": pinned}},
    )
    with serve(made):
        yield made


def get(hub: FakeHub, folder: Path, *arguments: str, **environment: str) -> tuple[int, str, str]:
    """Run the command in a process of its own, since the client reads its address at import."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    clean |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(folder / "home"), "COLUMNS": "200"}
    command = [sys.executable, "-m", "memo_habitat.cli.main", "data", "get", *arguments]
    done = subprocess.run(
        [*command, "--to", str(folder / "data")],
        env=clean | {"HF_HUB_DISABLE_PROGRESS_BARS": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.returncode, done.stdout, (done.stderr.strip().splitlines() or [""])[-1]


def test_everything_arrives_where_episodes_look_for_it(hub, tmp_path):
    status, out, _ = get(hub, tmp_path, "ycb")
    assert status == 0
    target = tmp_path / "data/objects/ycb"
    assert {name: (target / name).read_bytes() for name in FILES} == FILES
    assert "2 files" in out and "CC BY 4.0" in out and OLD in out
    assert json.loads((target / downloads.RECORD).read_text()) == {
        **{"repository": YCB, "revision": OLD},
        **{"files": 2, "bytes": WHOLE},
    }


def test_a_dry_run_lists_sizes_and_targets_and_writes_nothing(hub, tmp_path):
    status, out, _ = get(hub, tmp_path, "hssd", "ycb", "vc1", "--dry-run")
    assert status == 0
    assert not (tmp_path / "data").exists()
    assert "10.2kB" in out and "5.00kB" in out
    assert "data/scene_datasets/hssd-hab" in out and "gated" in out
    assert not hub.asked


def test_the_pinned_commit_is_fetched_and_not_the_newest(hub, tmp_path):
    _, out, _ = get(hub, tmp_path, "hssd", "--dry-run")
    assert downloads.SOURCES["hssd"].revision in out


@pytest.mark.slow
def test_what_was_begun_goes_on_at_the_same_commit_with_what_is_missing(hub, tmp_path):
    assert get(hub, tmp_path, "ycb")[0] == 0
    hub.commits[YCB]["main"] = NEW
    hub.commits[YCB]["before"] = OLD
    (tmp_path / "data/objects/ycb/configs/mug.object_config.json").unlink()
    hub.asked.clear()
    status, out, _ = get(hub, tmp_path, "ycb")
    assert status == 0 and OLD in out
    assert list(hub.asked) == [("configs/mug.object_config.json", 0)]
    assert NEW in get(hub, tmp_path, "ycb", "--revision", "v1", "--dry-run")[1]


@pytest.mark.slow
def test_a_transfer_that_is_cut_off_goes_on_where_it_ended(hub, tmp_path):
    # The client keeps whole pieces of 10 MiB.
    hub.files[VC1]["weights.bin"] = content = bytes(range(256)) * 4096 * 12
    hub.cut["weights.bin"] = 11 * 2**20
    status, _, line = get(hub, tmp_path, "vc1")
    if status:  # clients before 2.0 do not try again by themselves
        assert "run the same command again" in line
        assert get(hub, tmp_path, "vc1")[0] == 0
    assert (tmp_path / "data/models/vc1-base/weights.bin").read_bytes() == content
    assert [first > 0 for path, first in hub.asked if path == "weights.bin"] == [False, True]


@pytest.mark.slow
@pytest.mark.parametrize("name", list(FILES))
def test_damaged_files_are_named_and_fetched_again(hub, tmp_path, name):
    hub.damaged.add(name)
    status, _, line = get(hub, tmp_path, "ycb")
    assert status == 2
    assert "1 of 2 files" in line and name in line
    hub.damaged.clear()
    hub.asked.clear()
    assert get(hub, tmp_path, "ycb")[0] == 0
    assert {path for path, _ in hub.asked} == {name}


@pytest.mark.slow
def test_gated_hidden_unknown_and_offline_are_one_line_with_the_remedy(hub, tmp_path):
    hub.gated.add(HSSD)
    hub.hidden.add(VC1)
    assert "licence" in get(hub, tmp_path, "hssd")[2]
    assert "hf auth login" in get(hub, tmp_path, "vc1")[2]
    assert "no such revision" in get(hub, tmp_path, "ycb", "--revision", "v9")[2]
    status, _, line = get(hub, tmp_path, "ycb", HF_HUB_OFFLINE="1")
    assert status == 2 and "HF_HUB_OFFLINE" in line
    assert get(hub, tmp_path, "hssd", "vc1", HF_TOKEN="good")[0] == 0


def test_no_connection_is_one_line(hub, tmp_path):
    status, _, line = get(hub, tmp_path, "ycb", HF_ENDPOINT="http://127.0.0.1:9")
    assert status == 2
    assert line.startswith("memo-habitat data: ") and "run the same command again" in line


def test_too_little_space_is_said_before_anything_is_written(tmp_path, monkeypatch):
    files = [downloads.RemoteFile("a", 10**18, "")]
    download = downloads.Download(downloads.SOURCES["ycb"], OLD, tmp_path / "here", files)
    with pytest.raises(downloads.UserError, match=r"needs 1.00EB .* free"):
        downloads.fetch(download)
    assert not (tmp_path / "here").exists()


def test_unknown_names_and_a_revision_of_several_are_refused(capsys):
    assert main(["data", "get", "hm3d"]) == 2
    assert "hssd, extobjnav, ycb, vc1" in capsys.readouterr().err
    assert main(["data", "get", "ycb", "vc1", "--revision", "v1"]) == 2
    assert "one NAME" in capsys.readouterr().err


def test_without_the_client_the_extra_is_named(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert main(["data", "get", "ycb"]) == 2
    assert "pip install 'memo-habitat[hub]'" in capsys.readouterr().err
