"""Hydra finds our configs in Habitat's applications, and other applications are left alone."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from multiprocessing import forkserver
from pathlib import Path

import pytest

from memo_habitat.compat import startup
from memo_habitat.register import TRAINING

UNRELATED = """
import sys
from hydra import compose, initialize
from hydra.core.hydra_config import HydraConfig
with initialize(version_base=None, config_path=None):
    config = compose(return_hydra_config=True)
print([source.path for source in config.hydra.runtime.config_sources])
print(sorted({"habitat", "torch", "numpy", "memo_habitat.register"} & set(sys.modules)))
"""

WORKER = """
import multiprocessing


def ask(queue):
    from habitat.core.registry import registry
    queue.put([kind("ExtObjNav" + rest) is not None for kind, rest in
               [(registry.get_task, "Task-v0"), (registry.get_dataset, "-v0")]])


if __name__ == "__main__":
    from memo_habitat.config.compose import compose_config
    compose_config("extobjnav/studio")
    context = multiprocessing.get_context("forkserver")
    queue = context.Queue()
    worker = context.Process(target=ask, args=(queue,))
    worker.start()
    print(queue.get(timeout=60))
    worker.join()
"""


def run(*command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    checkout = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=cwd, timeout=240
    )


def test_an_unrelated_hydra_application_gets_no_path_and_no_heavy_import(tmp_path):
    done = run(sys.executable, "-c", UNRELATED, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    paths, modules = done.stdout.splitlines()
    assert "habitat_configs" not in paths
    assert modules == "[]"


def test_the_plugin_is_where_hydra_looks():
    from hydra.core.plugins import Plugins
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    names = [plugin.__name__ for plugin in Plugins.instance().discover(SearchPathPlugin)]
    assert names.count("MemoHabitatSearchPath") == 1


def test_hydra_plugins_stays_a_namespace(checkout):
    assert not (checkout / "hydra_plugins/__init__.py").exists()


def test_preloading_keeps_what_the_application_preloads():
    before = list(getattr(forkserver._forkserver, "_preload_modules", ["__main__"]))
    try:
        multiprocessing.set_forkserver_preload(["json"])
        startup.prepare_forkserver()
        startup.prepare_forkserver()
        assert forkserver._forkserver._preload_modules == ["json", startup.PRELOAD]
    finally:
        multiprocessing.set_forkserver_preload(before)


@pytest.mark.slow
def test_a_forkserver_worker_knows_our_registrations(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(WORKER)
    done = run(sys.executable, str(script), cwd=tmp_path)
    assert done.stdout == "[True, True]\n", done.stderr


def test_every_module_that_registers_with_habitat_is_registered(checkout):
    from memo_habitat.register import register_all

    register_all()
    marks = ("@registry.register_", "@baseline_registry.register_")
    for path in (checkout / "memo_habitat").rglob("*.py"):
        if "testing" in path.parts or not any(mark in path.read_text() for mark in marks):
            continue
        name = ".".join(path.relative_to(checkout).with_suffix("").parts)
        assert name in sys.modules, f"{name} registers a class, but memo_habitat.register skips it"
    assert len(set(TRAINING)) == len(TRAINING)


@pytest.mark.integration
def test_the_untouched_command_finds_a_config_from_any_folder(tmp_path):
    command = Path(sys.executable).with_name("habitat-baselines")
    if not command.exists():
        pytest.skip("the habitat-baselines command is not installed beside this interpreter")
    name = "--config-name=extobjnav/apartments"
    done = run(str(command), name, "--cfg", "job", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "type: ExtObjNavTask-v0" in done.stdout
    assert "trainer_name: memo" in done.stdout
