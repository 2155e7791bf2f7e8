"""The names of `memo_habitat` that a notebook begins with."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import memo_habitat
from memo_habitat.errors import UserError


def test_importing_the_package_imports_nothing_else():
    code = (
        "import sys; before = set(sys.modules); import memo_habitat; memo_habitat.__version__; "
        "print(sorted(m for m in set(sys.modules) - before if not m.startswith('memo_habitat')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_a_memory_is_built_from_its_config():
    memory = memo_habitat.build_memory(memo_habitat.MemoryConfig(width=16, heads=2, layers=1))
    assert memory(torch.randn(2, 5, 16)).shape == (2, 5, 16)


def test_an_environment_is_made_from_the_name_of_a_config():
    with memo_habitat.make_env("extobjnav/studio", ["habitat.seed=5"]) as env:
        assert "one_hot_target_sensor" in env.reset()
        assert not env.step("turn_left")["target_found"].any()
    with pytest.raises(UserError, match=r"gymnasium\.make"):
        memo_habitat.make_env("dark_key_to_door")


def test_every_name_is_there_and_no_other():
    for name in dir(memo_habitat):
        assert getattr(memo_habitat, name) is not None or name.startswith("__")
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = memo_habitat.nonsense
