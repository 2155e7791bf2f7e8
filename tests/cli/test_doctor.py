"""`memo-habitat doctor`: what is ready, and every broken set-up named with its remedy."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import pytest

from memo_habitat.cli import doctor, doctor_machine, doctor_probes
from memo_habitat.cli.doctor_packages import Impaired
from memo_habitat.cli.main import main
from memo_habitat.compat import habitat_sim_stub
from memo_habitat.errors import UserError
from memo_habitat.simulator.habitat_sim import device
from memo_habitat.utils import data_paths
from memo_habitat.utils.processes import explain_exit

GIB = 2**30
UNWRITABLE = Path("/proc/memo-habitat")  # for the superuser, too


def find(name):
    """What the check `name` of the command finds."""
    (finding,) = doctor.examine({name: doctor.CHECKS[name]})
    return finding


@pytest.fixture
def version_of(monkeypatch):
    """Sets the version that a package seems to have; None: it is not installed."""
    installed = metadata.version

    def set_to(name, version):
        def answer(asked):
            if asked != name:
                return installed(asked)
            if version is None:
                raise metadata.PackageNotFoundError(name)
            return version

        monkeypatch.setattr(metadata, "version", answer)

    return set_to


@pytest.mark.parametrize(
    ("package", "version", "status", "remedy"),
    [
        ("habitat-lab", "0.3.320250101", "FAIL", "pip install habitat-lab==0.3.320260507"),
        ("habitat-baselines", None, "FAIL", "missing: pip install habitat-baselines==0.3.3"),
        ("hydra-core", "1.3.1", "FAIL", "Python 3.11): pip install 'hydra-core>=1.3.2'"),
        ("opencv-python", "5.0.0", "FAIL", "`import habitat`): pip install 'opencv-python<5'"),
        ("gym", "0.26.2", "FAIL", "pip install 'gym<0.23.1,>=0.22'"),
        ("numpy", "1.24.0", "FAIL", "pip install 'numpy>=1.26.4'"),
        ("numpy", "2.4.6", "WARN", "Habitat-Lab asks for 1.26.4"),
        ("torch", "2.0.1", "FAIL", "pip install 'torch>=2.4'"),
        ("torchvision", None, "FAIL", "missing: pip install 'torchvision>=0.19'"),
    ],
)
def test_a_package_that_does_not_fit_is_named_with_what_to_install(
    version_of, package, version, status, remedy
):
    version_of(package, version)
    finding = find(package)
    assert finding.status == status
    assert remedy in finding.says and (version is None or version in finding.says)


def test_a_package_without_a_line_of_its_own_is_named_too(version_of):
    version_of("safetensors", "0.1")
    finding = find("other packages")
    assert finding.status == "FAIL" and "pip install 'safetensors>=0.4'" in finding.says


def test_optional_packages_are_listed_and_none_is_needed(version_of):
    version_of("gymnasium", None)
    finding = find("extras")
    assert finding.status == "OK"
    assert "gymnasium" in finding.says.partition("not: ")[2]


def test_a_python_that_habitat_does_not_run_on(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 13, 0, "final", 0))
    finding = find("python")
    assert finding.status == "FAIL" and "3.10 to 3.12" in finding.says


def test_a_torch_that_does_not_import(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    finding = find("torch")
    assert finding.status == "FAIL"
    assert "pip install --force-reinstall torch torchvision" in finding.says
    assert find("gpu").status == "FAIL"


@pytest.mark.parametrize("version", ["0.3.3", "0.3.4", None])
@pytest.mark.parametrize(
    ("method", "status", "told"),
    [
        ("render_sensors", "OK", ""),
        ("get_sensor_observations", "FAIL", "install 0.3.4 or the main branch"),
    ],
)
def test_habitat_sim_offers_what_habitat_lab_calls_whatever_its_version(
    monkeypatch, tmp_path, version_of, version, method, status, told
):
    package = tmp_path / "habitat_sim"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('a look must not load it')")
    (package / "simulator.py").write_text(f"class Simulator:\n    def {method}(self): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "habitat_sim", raising=False)
    version_of("habitat-sim", version)
    finding = find("habitat-sim")
    assert finding.status == status and told in finding.says
    assert (version or "of unknown version") in finding.says


def test_without_habitat_sim_nothing_is_drawn_with_it(monkeypatch):
    monkeypatch.setattr(habitat_sim_stub, "habitat_sim_is_missing", lambda: True)
    finding = find("habitat-sim")
    assert finding.status == "OK"
    assert "not installed" in finding.says and "docs/habitat_sim.md" in finding.says
    finding = find("rendering")
    assert finding.status == "OK" and "EmbreeSim" in finding.says


@pytest.fixture
def renderer(monkeypatch):
    """Sets what draws (a text, or the error of the process), and whether there is a GPU."""
    monkeypatch.setattr(habitat_sim_stub, "habitat_sim_is_missing", lambda: False)

    def set_to(answer, has_gpu):
        def who_draws():
            if isinstance(answer, UserError):
                raise answer
            return answer

        monkeypatch.setattr(doctor_probes, "who_draws", who_draws)
        monkeypatch.setattr(device, "has_nvidia_gpu", lambda: has_gpu)

    return set_to


@pytest.mark.parametrize(
    ("answer", "has_gpu", "status", "told"),
    [
        ("Mesa", False, "OK", "Mesa"),
        ("GPU 0", True, "OK", "GPU 0"),
        ("Mesa", True, "WARN", "CUDA_VISIBLE_DEVICES"),
        (UserError("cannot draw: no driver; install one"), False, "FAIL", "install one"),
    ],
)
def test_it_tells_what_draws(renderer, answer, has_gpu, status, told):
    renderer(answer, has_gpu)
    finding = find("rendering")
    assert finding.status == status and told in finding.says


def test_the_cause_and_the_remedy_are_read_from_the_last_words():
    said = "a warning\nPlatform::WindowlessEglApplication: cannot get default EGL display\n"
    told = explain_exit(1, said)
    assert "cannot get default EGL display; install an OpenGL driver" in told
    assert "killed by SIGABRT; its last words: oh; HABITAT_SIM_LOG" in explain_exit(-6, "oh")


@pytest.mark.habitat_sim
@pytest.mark.slow
def test_a_fresh_process_draws_a_bundled_home():
    assert doctor_probes.who_draws() in ("Mesa", "GPU 0")


@pytest.mark.parametrize(
    ("visible", "status", "told"), [(None, "WARN", "update the driver"), ("", "OK", "hidden")]
)
def test_a_driver_without_a_gpu_for_torch(monkeypatch, visible, status, told):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(device, "has_nvidia_gpu", lambda: True)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    finding = find("gpu")
    assert finding.status == status and told in finding.says


def test_another_packages_hydra_plugins_hide_ours_from_habitats_command(monkeypatch):
    def run(program, **more):
        if program[-1] == "memo-habitat":  # which registers its plugin itself
            return doctor_probes.subprocess.CompletedProcess([], 0, doctor_probes.FOUND, "")
        said = "MissingConfigException: Cannot find primary config 'extobjnav/studio'."
        return doctor_probes.subprocess.CompletedProcess([], 1, "", said)

    monkeypatch.setattr(doctor_probes.subprocess, "run", run)
    finding = find("discovery")
    assert finding.status == "WARN"
    assert "habitat-baselines does not" in finding.says and "__init__.py" in finding.says


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("ImportError: libGL.so.1: cannot open shared object file", "apt-get install libgl1"),
        ("AttributeError: module 'cv2' has no attribute 'x'", "pip install 'opencv-python<5'"),
        ("RuntimeError: operator torchvision::nms does not exist", "torch torchvision"),
        ("a worker does not know the task ExtObjNavTask-v0", "pip install ."),
    ],
)
def test_an_import_that_fails_in_parent_or_worker(monkeypatch, said, remedy):
    done = doctor_probes.subprocess.CompletedProcess([], 1, "", f"Traceback\n{said}\n")
    monkeypatch.setattr(doctor_probes.subprocess, "run", lambda *args, **more: done)
    finding = find("discovery")
    assert finding.status == "FAIL" and said in finding.says and remedy in finding.says


def test_homes_that_are_not_there(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(data_paths, "data_roots", lambda: ())
    finding = find("data/studios")
    assert finding.status == "FAIL" and "run from the folder that holds data/" in finding.says


def test_homes_of_which_a_part_is_missing(monkeypatch, tmp_path, checkout):
    shutil.copytree(checkout / "data/studios", tmp_path / "data/studios")
    missing = min((tmp_path / "data/studios").rglob("*.glb"))
    missing.unlink()
    monkeypatch.chdir(tmp_path)
    finding = find("data/studios")
    assert finding.status == "FAIL" and missing.name in finding.says


@pytest.mark.parametrize(("free", "status"), [(2 * GIB, "WARN"), (8 * GIB, "OK")])
def test_little_memory(monkeypatch, free, status):
    monkeypatch.setattr(doctor_machine, "free_memory", lambda: free)
    finding = find("memory")
    assert finding.status == status and f"{free // GIB}.0 GiB" in finding.says
    assert ("num_environments" in finding.says) == (status == "WARN")


def test_a_small_shared_memory(monkeypatch):
    usage = shutil._ntuple_diskusage(2**26, 0, 2**26)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    finding = find("shared memory")
    assert finding.status == "WARN" and "--shm-size" in finding.says


def test_no_locks_between_processes(monkeypatch):
    def refuse():
        raise OSError(13, "Permission denied")

    context = doctor_machine.multiprocessing.get_context("spawn")
    monkeypatch.setattr(context, "Lock", refuse)
    finding = find("shared memory")
    assert finding.status == "FAIL" and "mount a tmpfs" in finding.says


def test_a_full_disk(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    usage = shutil._ntuple_diskusage(GIB, GIB, 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    finding = find("runs")
    assert finding.status == "WARN" and "1 MiB free" in finding.says and "--root" in finding.says


@pytest.mark.parametrize(
    ("check", "remedy"),
    [("runs", "--root"), ("cache", "XDG_CACHE_HOME"), ("temporary files", "TMPDIR")],
)
def test_a_folder_that_cannot_be_written(monkeypatch, check, remedy):
    monkeypatch.chdir("/proc")
    monkeypatch.setenv("XDG_CACHE_HOME", str(UNWRITABLE))
    monkeypatch.setattr(tempfile, "tempdir", str(UNWRITABLE))
    finding = find(check)
    assert finding.status == "WARN"
    assert "cannot be written" in finding.says and remedy in finding.says


@pytest.mark.parametrize("folder", [UNWRITABLE, None])
def test_compiled_loops_that_cannot_be_kept(monkeypatch, folder):
    monkeypatch.setattr(doctor_machine, "numba_folder", lambda: folder)
    finding = find("compiled loops")
    assert finding.status == "WARN" and "NUMBA_CACHE_DIR" in finding.says


@pytest.mark.parametrize(
    ("left", "unset"),
    [
        ({"LOCAL_RANK": "1", "RANK": "1", "WORLD_SIZE": "2"}, "LOCAL_RANK, RANK and WORLD_SIZE"),
        (
            {
                "SLURM_JOBID": "7",
                "SLURM_PROCID": "0",
                "SLURM_LOCALID": "0",
                "SLURM_STEP_NUM_TASKS": "2",
            },
            "SLURM_STEP_NUM_TASKS",
        ),
    ],
)
def test_what_an_earlier_launcher_left_behind(monkeypatch, left, unset):
    for name, value in left.items():
        monkeypatch.setenv(name, value)
    finding = find("rendezvous")
    assert finding.status == "WARN" and finding.says.endswith(f"unset {unset}")


def test_one_failure_ends_the_command_with_1_and_keeps_no_check_from_being_made(
    monkeypatch, capsys
):
    def raises(error):
        def check():
            raise error

        return check

    checks = {
        "broken": raises(UserError("missing: install it")),
        "odd": raises(AttributeError("no _ARRAY_API")),
        "slow": raises(Impaired("slower\n  than need be")),
        "well": lambda: "as it should be",
    }
    monkeypatch.setattr(doctor, "CHECKS", checks)
    assert main(["doctor"]) == doctor.MISSING
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["FAIL", "broken"],
        ["FAIL", "odd"],
        ["WARN", "slow"],
        ["OK", "well"],
    ]
    assert main(["doctor", "--json"]) == doctor.MISSING
    said = json.loads(capsys.readouterr().out)
    assert said["ready"] is False
    assert said["checks"][2] == {"check": "slow", "status": "WARN", "says": "slower than need be"}
    del checks["broken"], checks["odd"]
    assert main(["doctor", "--json"]) == 0


@pytest.mark.slow
def test_a_machine_on_which_the_tests_run_is_ready(capsys):
    assert main(["doctor", "--json"]) == 0
    checks = json.loads(capsys.readouterr().out)["checks"]
    names = {check["check"] for check in checks if check["status"] == "OK"}
    assert {"python", "torch", "discovery", "data/studios", "compiled loops"} <= names
