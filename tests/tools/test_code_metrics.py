"""The package's shape: what `tools/code_metrics.py` measures and never may be."""

from __future__ import annotations

import json
import subprocess
import sys


def test_no_circle_no_import_upward_no_long_module_or_function(checkout):
    command = [sys.executable, str(checkout / "tools/code_metrics.py"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    figures = json.loads(done.stdout)
    assert figures["circles"] == figures["upward_imports"] == []
    assert figures["long_functions"] == figures["many_arguments"] == []
    assert figures["longest_modules"][0][1] <= 400
