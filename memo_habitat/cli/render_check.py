"""Whether Habitat-Sim can draw here, found out in a process of its own.

A renderer that finds no driver ends its process, and an OpenGL context loads what other commands
must not: `memo-habitat doctor` runs this module as a program.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from memo_habitat.errors import UserError
from memo_habitat.utils.processes import explain_exit

#: Seconds for imports, a house and its navigation mesh on a busy machine.
_PATIENCE = 300
_SIZE = 16
_DRAWN = "drawn by "
#: Of this interpreter, beside what is known of the libraries that draw.
_REMEDIES = {"numpy": "pip install numpy==1.26.4"}


def who_draws() -> str:
    """The renderer, "Mesa" or "GPU 0", with which a new process drew a frame of a bundled home.

    Raises:
        UserError: it drew nothing; says why and what to do.
    """
    quiet = {**os.environ, "HABITAT_SIM_LOG": "quiet", "MAGNUM_LOG": "quiet"}
    command = [sys.executable, "-m", "memo_habitat.cli.render_check"]
    try:
        done = subprocess.run(
            command,
            env=quiet,
            capture_output=True,
            check=False,
            timeout=_PATIENCE,
            errors="replace",
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"cannot draw: no frame within {_PATIENCE} s; HABITAT_SIM_LOG=debug says more"
            " (docs/habitat_sim.md)"
        ) from error
    answers = [line for line in done.stdout.splitlines() if line.startswith(_DRAWN)]
    if done.returncode == 0 and answers:
        return answers[-1].removeprefix(_DRAWN)
    raise UserError(f"cannot draw: {explain_exit(done.returncode, done.stderr, _REMEDIES)}")


def draw() -> str:
    """Draw a frame of a bundled home in this process; returns the renderer.

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
    config = simulator_config(str(scene), str(dataset), _SIZE, ("rgb",), **changes)
    sim = make_sim(config.type, config=config)
    frame = sim.reset()["head_rgb"]
    sim.close()
    if frame.std() == 0:
        raise UserError(f"the frame is of one colour, {frame[0, 0].tolist()}: the driver is broken")
    return "Mesa" if device == SOFTWARE else f"GPU {device}"


if __name__ == "__main__":
    try:
        sys.stdout.write(f"{_DRAWN}{draw()}\n")
    except UserError as failure:
        sys.exit(str(failure))
