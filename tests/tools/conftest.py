"""Running the benchmark scripts as a user does."""

from __future__ import annotations

import json
import runpy
import sys

import pytest


@pytest.fixture
def bench(checkout, tmp_path, monkeypatch, capsys):
    """Runs tools/bench/NAME.py with --json in an empty folder; returns its rows.

    In this process, which has long imported what a script needs seconds for.
    """
    folder = checkout / "tools/bench"
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(folder)  # as Python does for the script that it is started with

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [f"{name}.py", "--json", *arguments])
        runpy.run_path(str(folder / f"{name}.py"), run_name="__main__")
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    yield run
    for name in ("common", "memory"):  # scripts that others import
        sys.modules.pop(name, None)
