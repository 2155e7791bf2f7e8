"""A training in a process of its own, stopped by a signal and by a kill at a random moment."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def test_a_training_goes_on_as_if_nothing_had_happened(checkout):
    signals = ("USR1", "KILL")
    options = ("--moments", "1", "--updates", "24", "--signals", *signals)
    command = [sys.executable, str(checkout / "tools/check_resume.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for by in signals:
        assert f"PASS SIG{by} at 1 moments" in done.stdout
