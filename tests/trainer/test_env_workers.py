"""Environments in processes of their own: what they load, and how their end is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from memo_habitat.trainer.worker_envs import worker_death

# As the console script of a command: what it imports, its workers must not.
COMMAND = """
    import sys
    from habitat_baselines.run import main
    from memo_habitat.config.compose import compose_config, import_habitat
    if __name__ == "__main__":
        import_habitat()
        import hydra
        from habitat.config.default import patch_config
        from pathlib import Path
        config = patch_config(compose_config("extobjnav/studio", sys.argv[1:]))
        envs = hydra.utils.instantiate(config.habitat_baselines.vector_env_factory).construct_envs(
            config
        )
        maps = Path(f"/proc/{envs._workers[0].pid}/maps").read_text()
        envs.reset()
        print("workers", [name in maps for name in ("libtorch_cpu", "libtriton", "torchvision")])
        envs.close()
"""


def run_command(tmp_path, checkout, *overrides):
    script = tmp_path / "memo-habitat"
    script.write_text(textwrap.dedent(COMMAND))
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    environment.pop("HABITAT_ENV_DEBUG", None)
    return subprocess.run(
        [sys.executable, script, "habitat_baselines.num_environments=1", *overrides],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no /proc to look into")
def test_a_worker_of_a_command_loads_neither_triton_nor_torchvision(tmp_path, checkout):
    done = run_command(tmp_path, checkout)
    assert "workers [True, False, False]" in done.stdout, done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.habitat_sim
def test_a_worker_draws_with_habitat_sim_beside_a_trainer_that_has_loaded_triton(
    tmp_path, checkout
):
    chosen = ["simulator=habitat_sim", "habitat.simulator.image_based_lighting=false"]
    done = run_command(tmp_path, checkout, *chosen)
    assert "workers [True, False, False]" in done.stdout, done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.habitat_sim
def test_a_missing_driver_is_told_as_that(tmp_path, checkout, monkeypatch):
    monkeypatch.setenv("__EGL_VENDOR_LIBRARY_FILENAMES", "/nowhere.json")
    done = run_command(tmp_path, checkout, "simulator=habitat_sim")
    assert "no OpenGL driver" in done.stderr and "lack of memory" not in done.stderr


def leave(folder, status, words=""):
    (folder / "3.exit").write_text(str(status))
    (folder / "3.stderr").write_text(words)
    return str(worker_death(folder))


def test_a_killed_worker_lacked_memory(tmp_path):
    told = leave(tmp_path, -signal.SIGKILL, "initializing sim\n")
    assert "environment 3 was killed by SIGKILL, most often for lack of memory" in told


def test_a_worker_that_llvm_ended_says_so(tmp_path):
    words = "initializing sim\nLLVM ERROR: Option 'default' already exists!\nAborted\n"
    told = leave(tmp_path, -signal.SIGABRT, words)
    assert "SIGABRT" in told and "Option 'default' already exists" in told and "Triton" in told
    assert "memory" not in told


def test_a_worker_without_a_driver_says_so(tmp_path):
    words = "WindowlessContext: Unable to create windowless context\n"
    told = leave(tmp_path, 1, words)
    assert "exit status 1" in told and "libegl1" in told and "memory" not in told


def test_what_a_worker_wrote_down_itself_comes_first(tmp_path):
    (tmp_path / "1.txt").write_text("the roof is on fire")
    assert leave(tmp_path, 1) == "environment 1: the roof is on fire"


CRASH = """initializing sim
Fatal Python error: Segmentation fault

Current thread 0x00007f1 (most recent call first):
  File "sim.py", line 12 in draw
  File "task.py", line 3 in step

Extension modules: numpy.core (total: 1)
"""


def test_a_crash_tells_where_python_was_and_what_was_said_before(tmp_path):
    told = leave(tmp_path, -signal.SIGSEGV, CRASH)
    assert 'killed by SIGSEGV at File "sim.py", line 12 in draw' in told
    assert "its last words: initializing sim" in told


def test_a_hung_worker_tells_for_how_long_and_where(tmp_path):
    (tmp_path / "3.hung").write_text("600")
    told = leave(tmp_path, -signal.SIGABRT, CRASH)
    assert "gave no answer for 600 s (habitat_baselines.worker_timeout), hung at File" in told


def test_scene_episode_actions_and_memory_are_told(tmp_path):
    trace = {"scene": "lofts/0", "episode": "lofts/0/a1/0", "trial_step": 41}
    trace |= {"actions": ["turn_left", "stop"], "resident": 812 * 2**20}
    (tmp_path / "3.trace").write_text(json.dumps(trace) + "\nrest of a longer one")
    assert leave(tmp_path, -signal.SIGKILL).endswith(
        "(scene lofts/0, episode lofts/0/a1/0, step 41 of the trial, last actions turn_left stop,"
        " 812 MiB resident)"
    )
