"""The stubs appear only where they must, and say what is missing when they are used."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from memo_habitat.compat import habitat_sim_stub
from memo_habitat.errors import UserError

needs_absence = pytest.mark.skipif(
    not habitat_sim_stub.habitat_sim_is_missing(), reason="the real Habitat-Sim is installed"
)
INSTALL = "from memo_habitat.compat.habitat_sim_stub import install; install(); "


def python(code: str, *path: Path) -> subprocess.CompletedProcess[str]:
    """Run `code` in an interpreter of its own, with `path` and the checkout to import from."""
    checkout = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*path, checkout]))}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=600
    )


def packages(folder: Path, **sources: str) -> Path:
    """Write packages of one __init__.py each."""
    for name, source in sources.items():
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(source)
    return folder


@needs_absence
def test_other_code_cannot_import_habitat_sim():
    done = python(INSTALL + "import habitat_sim")
    assert done.returncode == 1
    assert "ModuleNotFoundError: No module named 'habitat_sim'" in done.stderr


def test_install_twice_adds_one_finder():
    habitat_sim_stub.install()
    habitat_sim_stub.install()
    assert sum(isinstance(finder, habitat_sim_stub.StubFinder) for finder in sys.meta_path) == 1
    assert isinstance(sys.meta_path[-1], habitat_sim_stub.StubFinder)


@pytest.mark.parametrize("before", ["", INSTALL], ids=["installed by .pth or not", "installed"])
def test_a_real_package_always_wins(tmp_path, before):
    folder = packages(
        tmp_path,
        habitat="import habitat_sim, magnum; print(habitat_sim.WHO, magnum.WHO)",
        habitat_sim="WHO = 'real'",
        magnum="WHO = 'real too'",
    )
    assert python(before + "import habitat", folder).stdout == "real real too\n"


def test_a_missing_part_of_a_real_habitat_sim_stays_an_error(tmp_path):
    folder = packages(tmp_path, habitat="import magnum", habitat_sim="")
    # Without what is installed: a real Habitat-Sim brings a real magnum.
    alone = (
        "import site, sys; sys.path = [p for p in sys.path if p not in site.getsitepackages()]; "
    )
    assert "No module named 'magnum'" in python(INSTALL + alone + "import habitat", folder).stderr


def test_a_missing_submodule_of_a_real_habitat_sim_stays_an_error(tmp_path):
    folder = packages(tmp_path, habitat="import habitat_sim.physics", habitat_sim="")
    assert (
        "No module named 'habitat_sim.physics'" in python(INSTALL + "import habitat", folder).stderr
    )


def test_a_broken_habitat_sim_is_not_hidden(tmp_path):
    broken = "raise ImportError('libEGL.so.1: cannot open shared object file')"
    folder = packages(tmp_path, habitat="import habitat_sim", habitat_sim=broken)
    assert "libEGL.so.1" in python(INSTALL + "import habitat", folder).stderr


@pytest.mark.slow
@needs_absence
@pytest.mark.parametrize(
    "order",
    ["import habitat, memo_habitat.register", "import memo_habitat.register, habitat"],
)
def test_habitat_imports_in_either_order(order):
    code = (
        INSTALL + order + "; from habitat.core.registry import registry; "
        "print(registry.get_task('ExtObjNavTask-v0') is not None)"
    )
    assert python(code).stdout == "True\n"


@needs_absence
def test_all_of_habitat_imports_and_its_registries_fill():
    import habitat.tasks.rearrange  # noqa: F401
    import habitat_baselines.run  # noqa: F401
    from habitat.core.registry import registry

    assert registry.get_task("Nav-v0") is not None
    assert registry.get_task("RearrangeEmptyTask-v0") is not None
    assert registry.get_sensor("HabitatSimRGBSensor") is not None


@needs_absence
@pytest.mark.parametrize("simulator", ["ExtObjNavSim-v0", "Sim-v0", "RearrangeSim-v0"])
def test_making_a_simulator_of_habitat_sim_names_the_package_and_how_to_get_it(simulator):
    from habitat.sims import make_sim

    import memo_habitat.register  # noqa: F401

    with pytest.raises(habitat_sim_stub.MissingHabitatSim) as caught:
        make_sim(simulator, config=None)
    assert isinstance(caught.value, ImportError)
    assert isinstance(caught.value, UserError)
    text = str(caught.value)
    assert "habitat_sim" in text
    assert "conda install habitat-sim headless withbullet -c conda-forge -c aihabitat" in text
    assert "EmbreeSim-v0" in text
    assert "\n" not in text


@pytest.fixture
def module() -> habitat_sim_stub.StubModule:
    return habitat_sim_stub.StubModule("habitat_sim.made_up")


def test_attributes_are_classes_and_stay_the_same(module):
    assert module.Thing is module.Thing
    assert module.SensorType.COLOR is module.SensorType.COLOR
    assert module.SensorType.COLOR is not module.SensorType.DEPTH
    assert {module.SensorType.COLOR: 1}[module.SensorType.COLOR] == 1
    assert not isinstance(3, module.Thing)


def test_stubs_serve_in_annotations_and_as_bases(module):
    from typing import Optional

    def annotated(x: module.Vector3 | None, y: Optional[module.Thing] = None) -> None: ...

    class Child(module.Thing):
        own = 5

    assert annotated.__annotations__
    assert issubclass(Child, module.Thing)
    assert Child.own == 5


def test_calling_iterating_and_building_a_subclass_raise(module):
    class Child(module.Thing): ...

    for use in (lambda: module.Thing(1), lambda: list(module.Kind), lambda: Child()):
        with pytest.raises(habitat_sim_stub.MissingHabitatSim, match="habitat_sim"):
            use()


def test_errors_can_be_caught(module):
    with pytest.raises(KeyError):
        try:
            raise KeyError
        except module.GreedyFollowerError:
            pass


@needs_absence
def test_what_habitat_does_without_has_no_stub():
    from habitat.utils import profiling_wrapper

    profiling_wrapper.configure(1, 2)
    with profiling_wrapper.RangeContext("name"):
        pass


def test_python_asking_for_its_own_names_gets_an_honest_no(module):
    assert not hasattr(module, "__file__")
    assert not hasattr(module.Thing, "__array__")
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        pickle.dumps(module)
