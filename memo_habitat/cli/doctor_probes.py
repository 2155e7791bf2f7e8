"""What only a new process can find out for `memo-habitat doctor`: this module is its program.

    python -m memo_habitat.cli.doctor_probes memo-habitat|habitat-baselines|draw

One that has imported this package finds all configs and classes. A renderer that finds no driver
ends its process, and an OpenGL context loads what other commands must not.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from multiprocessing.queues import Queue
from typing import Any

from memo_habitat.cli.doctor_packages import Impaired, pip_install
from memo_habitat.errors import UserError
from memo_habitat.utils.processes import explain_exit

CONFIG, TASK, TRAINER = "extobjnav/studio", "ExtObjNavTask-v0", "memo"
#: Seconds for imports of two processes, or a house and its navigation mesh, on a busy machine.
_PATIENCE = 300
FOUND, _DRAWN = "found by parent and worker", "drawn by "
_INSTALL = "pip install . (or -e .) in the checkout, with the Python of this command"
#: What to do about a failure, by a sign in the error.
_REMEDIES = {
    "No module named 'habitat_sim'": _INSTALL,
    "No module named 'magnum'": "install Habitat-Sim again, of which magnum is a part",
    "primary config": f"{_INSTALL}; no folder hydra_plugins may hold an __init__.py",
    "a worker does not know": _INSTALL,
    "mutable default": pip_install(
        "habitat-lab==0.3.320260507", "habitat-baselines==0.3.320260507"
    ),
    "operator torchvision": pip_install("--force-reinstall", "torch", "torchvision"),
    "cv2": pip_install("opencv-python<5"),
    "env_specs": pip_install("gym>=0.22,<0.23.1"),
}
_DRAWING_REMEDIES = {"numpy": "pip install numpy==1.26.4"}


def discover() -> str:
    """One line on whether Habitat's own command and its workers find our configs and classes.

    Raises:
        Impaired: the commands of this package find it, `habitat-baselines` does not.
        UserError: neither does.
    """
    untouched = _unfound("habitat-baselines")
    if untouched is None:
        return "configs and classes: memo-habitat, habitat-baselines and their workers find them"
    if ours := _unfound("memo-habitat"):
        raise UserError(f"Habitat does not import, or its workers do not: {ours}")
    raise Impaired(f"memo-habitat finds its configs, habitat-baselines does not: {untouched}")


def _unfound(command: str) -> str | None:
    """None where a process that begins as `command` does, and its worker, find what is ours."""
    done = _probe(command)
    if done is None:
        return f"nothing found within {_PATIENCE} s; try again on a machine that is less busy"
    if done.returncode == 0 and FOUND in done.stdout:
        return None
    return explain_exit(done.returncode, done.stderr, _REMEDIES)


def who_draws() -> str:
    """The renderer, "Mesa" or "GPU 0", with which a new process drew a frame of a bundled home.

    Raises:
        UserError: it drew nothing; says why and what to do.
    """
    done = _probe("draw")
    if done is None:
        raise UserError(
            f"cannot draw: no frame within {_PATIENCE} s; HABITAT_SIM_LOG=debug says more"
            " (docs/habitat_sim.md)"
        )
    answers = [line for line in done.stdout.splitlines() if line.startswith(_DRAWN)]
    if done.returncode == 0 and answers:
        return answers[-1].removeprefix(_DRAWN)
    why = explain_exit(done.returncode, done.stderr, _DRAWING_REMEDIES)
    raise UserError(f"cannot draw: {why}")


def _probe(what: str) -> subprocess.CompletedProcess[str] | None:
    """Run this module; None where it did not end in time."""
    try:
        return subprocess.run(
            [sys.executable, "-m", __name__, what],
            capture_output=True,
            check=False,
            timeout=_PATIENCE,
            errors="replace",
            env={**os.environ, "HABITAT_SIM_LOG": "quiet", "MAGNUM_LOG": "quiet"},
        )
    except subprocess.TimeoutExpired:
        return None


def find(command: str) -> None:
    """In the new process: begin as `command` does, compose a config, and start a worker."""
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


def draw() -> str:
    """In the new process: draw a frame of a bundled home; returns the renderer.

    Raises:
        UserError: the frame is of one colour.
    """
    import memo_habitat.register  # noqa: F401  Habitat's import order
    from memo_habitat.simulator.habitat_sim.device import SOFTWARE, rendering_device
    from memo_habitat.testing.tasks import simulator_config
    from memo_habitat.utils.data_paths import resolve

    device = rendering_device(0)  # before Habitat brings Triton
    from habitat.sims import make_sim

    home = resolve("data/apartments")
    scene = min((home / "scenes").glob("*.scene_instance.json"))
    dataset = next(home.glob("*.scene_dataset_config.json"))
    changes: dict[str, Any] = {"type": "ExtObjNavSim-v0", "image_based_lighting": False}
    config = simulator_config(str(scene), str(dataset), 16, ("rgb",), **changes)
    sim = make_sim(config.type, config=config)
    frame = sim.reset()["head_rgb"]
    sim.close()
    if frame.std() == 0:
        raise UserError(f"the frame is of one colour, {frame[0, 0].tolist()}: the driver is broken")
    return "Mesa" if device == SOFTWARE else f"GPU {device}"


if __name__ == "__main__":
    try:
        if sys.argv[1] == "draw":
            sys.stdout.write(f"{_DRAWN}{draw()}\n")
        else:
            find(sys.argv[1])
    except UserError as failure:
        sys.exit(str(failure))
