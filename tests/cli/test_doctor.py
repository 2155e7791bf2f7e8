"""`memo-habitat doctor` on Habitat-Sim: missing, drawing, drawing badly, not drawing."""

from __future__ import annotations

import pytest

from memo_habitat.cli import doctor, render_check
from memo_habitat.cli.main import main
from memo_habitat.compat import habitat_sim_stub
from memo_habitat.errors import UserError
from memo_habitat.simulator.habitat_sim import device
from memo_habitat.utils.processes import explain_exit


@pytest.fixture
def line_of(monkeypatch, capsys):
    """The exit status and doctor's line `name`, where Habitat-Sim is installed or not."""

    def run(name, is_missing=False):
        monkeypatch.setattr(habitat_sim_stub, "habitat_sim_is_missing", lambda: is_missing)
        status = main(["doctor"])
        lines = capsys.readouterr().out.splitlines()
        return status, next(line for line in lines if line[3:].startswith(name))

    return run


@pytest.fixture
def renderer(monkeypatch):
    """Sets what draws (a text, or the error of the process), and whether there is a GPU."""

    def set_to(answer, has_gpu):
        def who_draws():
            if isinstance(answer, UserError):
                raise answer
            return answer

        monkeypatch.setattr(render_check, "who_draws", who_draws)
        monkeypatch.setattr(device, "has_nvidia_gpu", lambda: has_gpu)

    return set_to


def test_without_habitat_sim_nothing_is_drawn_with_it(line_of, renderer):
    renderer(UserError("must not be asked"), False)
    _, line = line_of("habitat-sim", is_missing=True)
    assert line.startswith("ok") and "not installed" in line and "docs/habitat_sim.md" in line
    _, line = line_of("rendering", is_missing=True)
    assert line.startswith("ok") and "EmbreeSim" in line


@pytest.mark.parametrize(
    ("answer", "has_gpu", "mark", "told"),
    [
        ("Mesa", False, "ok", "Mesa"),
        ("GPU 0", True, "ok", "GPU 0"),
        ("Mesa", True, "??", "CUDA_VISIBLE_DEVICES"),
    ],
)
def test_it_tells_what_draws(line_of, renderer, answer, has_gpu, mark, told):
    renderer(answer, has_gpu)
    _, line = line_of("rendering")
    assert line.startswith(mark) and told in line


def test_a_renderer_that_draws_nothing_fails_with_the_remedy(line_of, renderer):
    renderer(UserError("cannot draw: no driver; install one"), False)
    status, line = line_of("rendering")
    assert status == doctor.MISSING
    assert line.startswith("!!") and "install one" in line


def test_the_cause_and_the_remedy_are_read_from_the_last_words():
    said = "a warning\nPlatform::WindowlessEglApplication: cannot get default EGL display\n"
    told = explain_exit(1, said)
    assert "cannot get default EGL display; install an OpenGL driver" in told
    assert "killed by SIGABRT; its last words: oh; HABITAT_SIM_LOG" in explain_exit(-6, "oh")


@pytest.mark.habitat_sim
@pytest.mark.slow
def test_a_fresh_process_draws_a_bundled_home():
    assert render_check.who_draws() in ("Mesa", "GPU 0")
