"""Habitat's log: in files always, on the terminal as the user says, also in processes we start.

And the garbage collector, which stands still while modules are imported.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys

import pytest

from memo_habitat.compat import startup

# Habitat's own logger without the rest of Habitat, whose import takes seconds.
PROGRAM = """
import subprocess, sys
from importlib.util import find_spec, module_from_spec
from memo_habitat.compat import startup
habitat = sys.modules["habitat"] = module_from_spec(find_spec("habitat"))
from habitat.core.logging import logger
habitat.logger = logger
startup.log_to_files_only()
path, generations = sys.argv[1], int(sys.argv[2])
logger.add_filehandler(path)
logger.info(f"generation {generations}")
if generations:
    command = [sys.executable, "-c", sys.argv[3], path, str(generations - 1), sys.argv[3]]
    subprocess.run(command, check=True)
"""


@pytest.mark.parametrize(
    ("level", "logged", "shown"),
    [(None, True, False), ("20", True, True)],
    ids=["not set", "all"],
)
def test_what_a_process_and_one_it_starts_log_and_show(tmp_path, level, logged, shown):
    own = ("HABITAT_LAB_LOG", "MEMO_HABITAT_LAB_LOG")
    environment = {key: value for key, value in os.environ.items() if key not in own}
    if level is not None:
        environment["HABITAT_LAB_LOG"] = level
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "log"), "1", PROGRAM]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    for text, wanted in (((tmp_path / "log").read_text(), logged), (done.stderr, shown)):
        for generation in (0, 1):
            assert (f"generation {generation}" in text) == wanted


def test_the_collector_of_cycles_works_again_after_an_import_that_failed():
    with pytest.raises(ImportError), startup.importing("module_that_is_nowhere"):
        assert not gc.isenabled()
        raise ImportError
    assert gc.isenabled() and gc.get_freeze_count() > 0
    with startup.importing("pytest"):  # which is here
        assert gc.isenabled()
