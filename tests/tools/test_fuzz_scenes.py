"""Mutated GLB and JSON files are a scene or one clear line; the fuzzer notices what is neither."""

from __future__ import annotations

import importlib.util
import itertools
import sys

import pytest

from memo_habitat.simulator.embree import meshes
from tests.factories.scene_sets import write_small_set


@pytest.fixture
def fuzz_scenes(checkout):
    spec = importlib.util.spec_from_file_location("fuzz_scenes", checkout / "tools/fuzz_scenes.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz_scenes"] = module
    spec.loader.exec_module(module)
    return module


def test_mutated_files_are_scenes_or_one_line(fuzz_scenes):
    answers, failures = fuzz_scenes.fuzz(write_small_set, files=80, seed=3)
    assert not failures
    assert answers["scene"] >= 3 and answers["refused"] >= 20


def test_the_fuzzer_keeps_files_that_end_in_a_traceback(fuzz_scenes, monkeypatch, tmp_path):
    read, calls = meshes.read_gltf, itertools.count()
    # The set itself, of three meshes, is read; after that nothing is.
    monkeypatch.setattr(meshes, "read_gltf", lambda path: read(path) if next(calls) < 3 else 1 / 0)
    monkeypatch.setattr(meshes, "UserError", RuntimeError)
    _, failures = fuzz_scenes.fuzz(write_small_set, files=8, seed=0, out=tmp_path / "kept")
    assert failures and "RuntimeError" in failures[0]
    assert len(list((tmp_path / "kept").iterdir())) == len(failures)
