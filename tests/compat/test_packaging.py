"""What an installation carries: configs, plugin, data, and the .pth file, editable or not."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path

import pytest

PARTS = ("memo_habitat", "habitat_configs", "hydra_plugins", "data")
FILES = ("setup.py", "pyproject.toml", "README.md", "LICENSE")
BUILD = "import sys, setuptools.build_meta as build; getattr(build, sys.argv[1])(sys.argv[2])"


@pytest.fixture(scope="module")
def sources(tmp_path_factory, checkout) -> Path:
    setuptools = pytest.importorskip("setuptools")
    if int(setuptools.__version__.split(".")[0]) < 71:
        pytest.skip(f"setuptools {setuptools.__version__} is older than pyproject.toml asks for")
    copy = tmp_path_factory.mktemp("sources")
    for part in PARTS:
        shutil.copytree(checkout / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    for file in FILES:
        shutil.copy(checkout / file, copy / file)
    return copy


@pytest.fixture(scope="module")
def build(sources, tmp_path_factory):
    """The wheel of a kind, built once."""

    @cache
    def of_kind(kind: str) -> zipfile.ZipFile:
        return _build(sources, kind, tmp_path_factory.mktemp(kind))

    return of_kind


def _build(sources: Path, kind: str, out: Path) -> zipfile.ZipFile:
    done = subprocess.run(
        [sys.executable, "-c", BUILD, kind, str(out)],
        cwd=sources,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = out.glob("*.whl")
    return zipfile.ZipFile(wheel)


@pytest.mark.parametrize("kind", ["build_wheel", "build_editable"])
def test_both_kinds_of_installation_carry_the_hook_and_the_plugin(build, kind):
    wheel = build(kind)
    names = wheel.namelist()
    (record,) = [name for name in names if name.endswith(".dist-info/RECORD")]
    recorded = {line.split(",")[0] for line in wheel.read(record).decode().splitlines()}
    hook = wheel.read("memo_habitat_stub.pth").decode()
    assert "hydra_plugins/memo_habitat_plugin.py" in names
    # An uninstall removes what RECORD lists.
    assert recorded == set(names)
    assert len(names) == len(set(names))
    assert hook.count("\n") == 1
    assert hook.startswith("import ")


def test_a_wheel_carries_configs_data_and_template(build, checkout):
    names = set(build("build_wheel").namelist())
    for path in (checkout / "habitat_configs").rglob("*.yaml"):
        assert path.relative_to(checkout).as_posix() in names
    for path in (checkout / "data").rglob("*"):
        if path.is_file():
            assert f"memo_habitat/{path.relative_to(checkout).as_posix()}" in names
    assert any(name.startswith("memo_habitat/report/templates/") for name in names)
    assert "hydra_plugins/__init__.py" not in names


def test_the_hook_is_silent_where_the_package_is_gone(build):
    line = build("build_wheel").read("memo_habitat_stub.pth").decode()
    code = "import sys; sys.modules['memo_habitat'] = None\n" + line + "print('fine')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout == "fine\n"
    assert done.stderr == ""
