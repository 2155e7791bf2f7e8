"""Disks that are full, limits on files, folders that cannot be written: whole or not at all."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import resource
import signal
import sys

import numba
import pytest
import torch
from omegaconf import OmegaConf

from memo_habitat.errors import UserError
from memo_habitat.trainer import checkpoint
from memo_habitat.trainer.run_dir import RunFolder, create_run
from memo_habitat.utils import compiled
from memo_habitat.utils.files import append_json_line, read_json_lines


@contextlib.contextmanager
def limit(size):
    """Within, no file of this process may be longer than so many bytes, as on a disk that is full.

    Not longer than it takes: pytest itself may be writing to a file.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    was = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, was)


def test_a_line_is_there_as_a_whole_or_not_at_all(tmp_path):
    path = tmp_path / "progress.jsonl"
    append_json_line(path, {"steps": 1})
    room = limit(path.stat().st_size + 10)
    with room, pytest.raises(UserError, match=r"progress\.jsonl .*check space"):
        append_json_line(path, {"steps": 2, "more": "x" * 100})
    append_json_line(path, {})
    assert list(read_json_lines(path)) == [{"steps": 1}, {}]


def test_a_state_that_does_not_fit_leaves_the_one_before(tmp_path):
    config = OmegaConf.create({"habitat": {"seed": 0}})
    checkpoint.write_resume_state(tmp_path, {"counts": {"steps": 1}}, config)
    there = sorted(path.name for path in tmp_path.iterdir())
    with (
        limit(20_000),
        pytest.raises(UserError, match=r"cannot write .*resume-state.* \(.*limit on the size"),
    ):
        checkpoint.write_resume_state(tmp_path, {"weights": torch.zeros(10**5)}, config)
    assert sorted(path.name for path in tmp_path.iterdir()) == there
    assert checkpoint.read_resume_state(tmp_path)["counts"] == {"steps": 1}


@pytest.mark.parametrize("size", [0, 100, 400])
def test_a_run_that_cannot_be_written_is_not_there(tmp_path, size):
    run = RunFolder(tmp_path / "run")
    config = OmegaConf.create({"habitat": {"seed": 0, "text": "x" * 200}})
    with limit(size), pytest.raises(UserError, match="cannot write"):
        create_run(run, "x", config)
    assert not run.path.exists()


MODULE = """
from memo_habitat.utils.compiled import compiled


@compiled
def twice(x):
    return 2 * x
"""


@pytest.fixture
def container(tmp_path, monkeypatch):
    """Import a module with a compiled loop where neither its folder nor HOME can be written."""
    (tmp_path / "__pycache__").touch()  # a file, of which nobody can make a folder
    (tmp_path / "compiled_module.py").write_text(MODULE)
    for name, value in {"HOME": "/proc/none", "NUMBA_CACHE_DIR": ""}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def load(temporary):
        monkeypatch.setattr(compiled.tempfile, "tempdir", str(temporary))
        spec = importlib.util.spec_from_file_location(
            "compiled_module", tmp_path / "compiled_module.py"
        )
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


def test_without_a_home_loops_are_kept_in_a_temporary_folder_of_ones_own(container, tmp_path):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    assert container(temporary).twice(3) == 6
    (own,) = temporary.iterdir()
    assert os.environ["NUMBA_CACHE_DIR"] == str(own)  # for the processes that are started
    assert not own.stat().st_mode & 0o077
    assert list(own.rglob("*.nbi"))


def test_with_no_place_at_all_or_one_of_others_they_are_compiled_all_the_same(container, tmp_path):
    assert container("/proc").twice(3) == 6
    other = tmp_path / f"memo-habitat-{os.getuid()}"
    other.mkdir()
    other.chmod(0o777)
    assert container(tmp_path).twice(3) == 6
    assert not list(other.iterdir())
    assert os.environ["NUMBA_CACHE_DIR"] == ""
