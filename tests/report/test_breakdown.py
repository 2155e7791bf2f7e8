"""Evaluations by category, house and step of the trial; pairs of agents; tables for programs."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from memo_habitat.cli.main import main
from memo_habitat.report.breakdown import (
    by_category,
    by_house,
    by_trial_step,
    marks_of_trial,
    without_value,
)
from memo_habitat.report.comparison import compare, scores_by_house
from memo_habitat.report.episodes import tabulate
from memo_habitat.report.html import render
from memo_habitat.report.learning_figures import checkpoint_figure
from memo_habitat.report.load import load_run
from tests.factories.episodes import episode
from tests.factories.runs import write_run

RECORDS = [
    episode(trial_id="h/a/0", target_category="mug", trial_step_end=100, num_steps=100, spl=None),
    episode(trial_id="h/a/0", target_category="can", trial_step_end=150, num_steps=50, success=0.0),
    episode(trial_id="h/a/0", target_category="mug", trial_step_end=400, num_steps=250, spl=0.1),
    episode(trial_id="g/a/0", target_category="can", trial_step_end=400, num_steps=400),
]


def test_marks_double_and_the_last_part_is_no_stump() -> None:
    assert marks_of_trial(32_000) == [1000, 2000, 4000, 8000, 16_000, 32_000]
    assert marks_of_trial(4096) == [1000, 2000, 4096]
    assert marks_of_trial(256) == [32, 64, 128, 256]
    assert marks_of_trial(3) == [1, 2, 3]


def test_parts_by_category_and_house() -> None:
    episodes = tabulate(RECORDS)
    can, mug = by_category(episodes)
    assert (can.label, can.episodes, mug.label, mug.episodes) == ("can", 2, "mug", 2)
    assert can.targets.mean == pytest.approx(1000 / 450)
    assert mug.targets.mean == pytest.approx(2000 / 350)
    assert mug.estimates["spl"].mean == 0.1  # of one episode, the other has none
    assert [part.label for part in by_house(episodes)] == ["g", "h"]
    assert by_house(episodes)[1].estimates["success"].mean == pytest.approx(2 / 3)
    assert by_house(episodes)[0].estimates["path_length"].mean == 6.0
    assert without_value(episodes) == {"SPL": (1, 4)}


def test_parts_along_the_trial_count_steps_of_all_trials() -> None:
    parts = by_trial_step(tabulate(RECORDS), 400)
    assert [part.label for part in parts] == ["1–50", "51–100", "101–200", "201–400"]
    assert [part.targets.mean for part in parts] == [0, 1000 / 100, 0, 2 * 1000 / 400]
    assert [part.episodes for part in parts] == [0, 1, 1, 2]


def test_repeated_targets_are_told_from_first_ones() -> None:
    episodes = tabulate(RECORDS)
    assert episodes.columns["repeated_target"].tolist() == [0, 0, 1, 0]
    one = tabulate([record for record in RECORDS if record.target_category == "can"])
    assert "repeated_target" not in one.columns  # where all are the same it tells nothing


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    skills = {
        "random": (0.1, 0.1),
        "ckpt.0": (0.4, 0.6),
        "ckpt.1": (0.5, 0.8),
        "oracle": (1.0, 1.0),
    }
    return write_run(tmp_path_factory.mktemp("run"), skills, 600, 3, trials_per_house=2)


def test_agents_are_compared_with_the_first_trained_one_on_the_same_trials(folder: Path) -> None:
    run = load_run(folder)
    pairs = compare([(e.label, e) for e in run.evaluations])
    assert {pair.theirs for pair in pairs} == {"ckpt.0"}
    assert [pair.ours for pair in pairs][::3] == ["random", "ckpt.1", "oracle"]
    targets = {pair.ours: pair.found for pair in pairs if pair.measure == "targets"}
    of = {e.label: e.headline.targets.mean for e in run.evaluations}
    for name, found in targets.items():
        assert found.difference.mean == pytest.approx(of[name] - of["ckpt.0"])
    assert all(pair.adjusted >= pair.found.p for pair in pairs)
    assert compare([(e.label, e) for e in run.evaluations if e.agent != "checkpoint"]) == []


def test_scores_by_house_have_a_row_an_evaluation(folder: Path) -> None:
    evaluations = load_run(folder).evaluations
    scores = scores_by_house(evaluations)
    assert scores.shape == (4, 3)
    means = [e.headline.targets.mean for e in evaluations]
    assert np.allclose(scores.mean(axis=1), means)  # as many trials in every house
    assert scores_by_house([]).size == 0


def test_the_page_has_the_sections(folder: Path) -> None:
    page = render([load_run(folder)])
    for heading in ("On the same trials", "By category", "By house", "By step of the trial"):
        assert heading in page
    assert "Targets by checkpoint" not in page  # two are no curve


def test_a_run_has_one_curve_of_the_checkpoints_evaluated_alike(tmp_path: Path) -> None:
    # Two checkpoints without a token budget, then a third; four with one.
    budgets = dict(zip(map("ckpt.{}".format, range(7)), (0, 0, 0, 80, 80, 80, 80), strict=True))
    run = write_run(tmp_path, dict.fromkeys(budgets, (0.2, 0.5)), steps=512, houses=1)
    for number, (name, budget) in enumerate(budgets.items()):
        path = tmp_path / "eval" / name / "meta.json"
        meta = {**json.loads(path.read_text()), "step": number, "settings": {"budget": budget}}
        path.write_text(json.dumps(meta))
    loaded = load_run(run)

    def curves(of: int, runs_before: int = 0) -> list[str]:
        """Colours of the points where so many evaluations are there."""
        shown = replace(loaded, evaluations=loaded.evaluations[:of])
        runs = [*[replace(loaded, evaluations=[])] * runs_before, shown]
        return [c for f in checkpoint_figure(runs) for c in re.findall(r"--series-\d+", f.svg)]

    assert curves(2) == []
    assert set(curves(3)) == {"--series-2"}
    # In its own colour of the legend, whichever other runs have a curve.
    assert curves(3, runs_before=1) == [c.replace("2", "3") for c in curves(3)]
    assert len(curves(7)) > len(curves(6)) == len(curves(3))
    assert set(curves(7)) == {"--series-2"}


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["report", *words]) == 0
    return capsys.readouterr().out


def test_numbers_are_printed_for_other_programs(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = list(csv.DictReader(io.StringIO(printed(capsys, str(folder), "--csv"))))
    found = json.loads(printed(capsys, str(folder), "--json"))
    assert len(rows) == len(found["numbers"]) > 100
    first = next(row for row in found["numbers"] if row["agent"] == "ckpt.0")
    assert (first["of"], first["measure"]) == ("all", "targets_per_1000_steps")
    e = next(e for e in load_run(folder).evaluations if e.label == "ckpt.0")
    assert first["mean"] == e.headline.targets.mean
    assert {pair["less"] for pair in found["comparisons"]} == {"ckpt.0"}
    latex = printed(capsys, str(folder), "--latex")
    assert latex.startswith(r"\begin{tabular}{lr") and r"Success rate, \%" in latex
    assert not (folder / "report.html").exists()
    assert main(["report", str(folder), "--csv", "--json"]) == 2
