"""Whether Habitat's own command and its workers find our configs and classes.

Found out in new processes, which `memo-habitat doctor` starts: one that has imported this package
finds everything.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from multiprocessing.queues import Queue

from memo_habitat.cli.doctor_packages import Impaired, pip_install
from memo_habitat.errors import UserError
from memo_habitat.utils.processes import explain_exit

CONFIG, TASK, TRAINER = "extobjnav/studio", "ExtObjNavTask-v0", "memo"
#: Seconds for the imports of two processes on a busy machine.
_PATIENCE = 300
FOUND = "found by parent and worker"
_INSTALL = "pip install . (or -e .) in the checkout, with the Python of this command"
_PAIR = pip_install("--force-reinstall", "torch", "torchvision")
#: What to do about an import that failed, by a sign in the error.
_REMEDIES = {
    "No module named 'habitat_sim'": _INSTALL,
    "No module named 'magnum'": "install Habitat-Sim again, of which magnum is a part",
    "primary config": f"{_INSTALL}; no folder hydra_plugins may hold an __init__.py",
    "a worker does not know": _INSTALL,
    "mutable default": pip_install(
        "habitat-lab==0.3.320260507", "habitat-baselines==0.3.320260507"
    ),
    "operator torchvision": _PAIR,
    "cv2": pip_install("opencv-python<5"),
    "env_specs": pip_install("gym>=0.22,<0.23.1"),
}


def discover() -> str:
    """One line on who finds what.

    Raises:
        Impaired: the commands of this package find it, `habitat-baselines` does not.
        UserError: neither does.
    """
    untouched = _run("habitat-baselines")
    if untouched is None:
        return "configs and classes: memo-habitat, habitat-baselines and their workers find them"
    if ours := _run("memo-habitat"):
        raise UserError(f"Habitat does not import, or its workers do not: {ours}")
    raise Impaired(f"memo-habitat finds its configs, habitat-baselines does not: {untouched}")


def _run(command: str) -> str | None:
    """None where a process that begins as `command` does, and its worker, find what is ours."""
    program = [sys.executable, "-m", __name__, command]
    try:
        done = subprocess.run(
            program,
            capture_output=True,
            check=False,
            timeout=_PATIENCE,
            errors="replace",
            env={**os.environ, "HABITAT_SIM_LOG": "quiet", "MAGNUM_LOG": "quiet"},
        )
    except subprocess.TimeoutExpired:
        return f"nothing found within {_PATIENCE} s; try again on a machine that is less busy"
    if done.returncode == 0 and FOUND in done.stdout:
        return None
    return explain_exit(done.returncode, done.stderr, _REMEDIES)


def main(command: str) -> None:
    """Begin as `command` does, compose a config, and start a worker."""
    if command == "memo-habitat":
        from memo_habitat.config.compose import compose_config

        config = compose_config(CONFIG)
    else:
        import habitat_baselines.run  # noqa: F401  what the console script imports
        from hydra import compose, initialize

        with initialize(version_base=None, config_path=None):
            config = compose(CONFIG)
    from habitat_baselines.common.baseline_registry import baseline_registry

    if baseline_registry.get_trainer(config.habitat_baselines.trainer_name) is None:
        sys.exit(f"the trainer {TRAINER} is not registered")
    context = multiprocessing.get_context("forkserver")
    answers: Queue[bool] = context.Queue()
    worker = context.Process(target=_ask, args=(answers,), daemon=True)
    worker.start()
    # Whichever comes first: a worker whose imports fail ends without an answer.
    worker.join(timeout=_PATIENCE)
    if worker.exitcode != 0:
        sys.exit(f"a worker ended without an answer (exit status {worker.exitcode})")
    if not answers.get(timeout=_PATIENCE):
        sys.exit(f"a worker does not know the task {TASK}")
    sys.stdout.write(f"{FOUND}\n")


def _ask(answers: Queue[bool]) -> None:
    """In a worker: whether the forkserver has imported what our environments need."""
    from habitat.core.registry import registry

    answers.put(registry.get_task(TASK) is not None)


if __name__ == "__main__":
    main(sys.argv[1])
