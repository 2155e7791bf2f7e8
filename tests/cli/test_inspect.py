"""`memo-habitat inspect`: a page and its numbers, and nothing else left behind."""

from __future__ import annotations

import shutil

import pytest

from memo_habitat.cli.main import main
from memo_habitat.evaluation.inspection import Inspection


@pytest.mark.slow
def test_it_writes_a_page_and_numbers_and_leaves_no_evaluation(tmp_path, checkout, capsys):
    run = shutil.copytree(checkout / "data/agents/recall", tmp_path / "run")
    words = ["--steps", "150", "--house", "loft_0_test_003", "--moments", "140"]
    assert main(["inspect", str(run), *words]) == 0
    page = run / "inspect/loft_0_test_003.html"
    assert capsys.readouterr().out.splitlines()[-1] == str(page)
    assert "<h3>Step 140</h3>" in page.read_text()
    found = Inspection.model_validate_json(page.with_suffix(".json").read_text())
    assert [moment.step for moment in found.moments] == [140]
    assert [part.segment for part in found.moments[0].parts] == [0, 1]
    assert not list((run / "eval").iterdir())


def test_moments_are_checked_before_anything_is_played(tmp_path, capsys):
    assert main(["inspect", str(tmp_path), "--moments", "lost"]) == 2
    assert "moment 'lost': write asked" in capsys.readouterr().err
