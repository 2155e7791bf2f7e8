"""Running the benchmark scripts as a user does."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


@pytest.fixture
def bench(checkout, tmp_path):
    """Runs tools/bench/NAME.py with --json in an empty folder; returns its rows."""

    def run(name, *arguments):
        command = [sys.executable, str(checkout / f"tools/bench/{name}.py"), "--json", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run
