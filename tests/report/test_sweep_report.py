"""The sweep's report says what its runs say, stands alone, and takes whatever is there."""

from __future__ import annotations

import csv
import json
import re
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from memo_habitat.cli.main import main
from memo_habitat.errors import UserError
from memo_habitat.report.sweep import write_sweep_report
from memo_habitat.report.sweep_data import load_sweep, read_progress
from memo_habitat.report.sweep_tables import results
from memo_habitat.tasks.dark_key.layouts import DrawnLayouts, Setting
from memo_habitat.tasks.dark_key.oracle import oracle_returns
from tests.factories.sweeps import STEPS_PER_UPDATE, UPDATES, write_progress, write_sweep

SETTING = Setting(size=4, episode_steps=12, trial_steps=60)
TRIALS = 6


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweeps") / "small"
    return write_sweep(folder, {"memo": 0.9, "fct": 0.4}, (0, 1), SETTING, TRIALS)


@pytest.fixture
def sweep(original: Path, tmp_path: Path) -> Path:
    """A copy that may be changed, without a report."""
    reported = shutil.ignore_patterns("report.html", "*.csv", "curve.*")
    return shutil.copytree(original, tmp_path / "sweep", ignore=reported)


@pytest.fixture(scope="module")
def page(original: Path) -> str:
    return write_sweep_report(original).read_text(encoding="utf-8")


def test_an_unwritable_report_names_no_option_that_sweeps_refuse(sweep: Path) -> None:
    (sweep / "report.html").mkdir()
    with pytest.raises(UserError, match=r"report\.html .*check space and permissions$"):
        write_sweep_report(sweep)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_page_refers_to_nothing_outside_itself(page: str) -> None:
    assert not re.search(r'(?:href|src|srcset|action)="(?!data:|#)', page)
    assert not re.search(r"<(script|link|iframe)\b|@import|url\((?!#)", page)
    pictures = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(pictures) > 10
    for svg in pictures:
        ElementTree.fromstring(svg)
    used = set(re.findall(r"var\((--[a-z0-9-]+)\)", page))
    assert used <= set(re.findall(r"(--[a-z0-9-]+):", page))


@pytest.mark.parametrize(
    "section", ["results", "learning", "course", "cost", "grids", "runs", "made"]
)
def test_every_section_is_there(page: str, section: str) -> None:
    assert f'<section id="{section}">' in page


def test_a_whole_sweep_has_nothing_missing(original: Path, page: str) -> None:
    assert load_sweep(original).notes == ()
    assert "Unfinished, missing" not in page
    assert f"evaluated on {TRIALS} held-out trials of 60 steps, the same for all" in page


def test_the_oracle_s_return_is_the_one_its_layouts_allow(original: Path) -> None:
    layouts = DrawnLayouts(0, SETTING.cells).of(np.arange(TRIALS))
    expected = float(oracle_returns(SETTING, layouts).mean())
    sweep = load_sweep(original)
    assert sweep.reference_return("oracle") == expected
    for run in sweep.runs:
        assert sweep.ratio(run) == run.held_out.mean / expected


def test_results_read_back_as_they_are(original: Path, page: str) -> None:
    expected = results(load_sweep(original))
    rows = rows_of(original / "results.csv")
    assert len(rows) == 4
    for row, result in zip(rows, expected, strict=True):
        assert (row["variant"], int(row["seed"])) == (result.variant, result.seed)
        for name, text in row.items():
            if name != "variant":
                assert float(text) == pytest.approx(getattr(result, name), nan_ok=True)
    assert int(rows[0]["steps"]) == UPDATES * STEPS_PER_UPDATE
    assert float(rows[0]["steps_per_second"]) == STEPS_PER_UPDATE / 2


def test_a_run_s_return_is_the_sum_of_its_records_over_its_trials(
    original: Path, page: str
) -> None:
    lines = (original / "fct/seed_1/eval/final/records.jsonl").read_text().splitlines()
    total = sum(json.loads(line)["reward"] for line in lines)
    row = rows_of(original / "results.csv")[3]
    assert (row["variant"], row["seed"]) == ("fct", "1")
    assert float(row["held_out_return"]) == pytest.approx(total / TRIALS)


def test_curves_read_back_and_are_thinned(sweep: Path) -> None:
    long = sweep / "memo" / "seed_0" / "progress.jsonl"
    with long.open("w") as file:
        for update in range(1, 1001):
            row = {"steps": 10 * update, "seconds": 1.0 * update}
            row["trials"] = {"count": 1 + update % 2, "return": float(update % 2)}
            file.write(json.dumps(row) + "\n")
    write_sweep_report(sweep)
    rows = rows_of(sweep / "curves.csv")
    thinned = [row for row in rows if (row["variant"], row["seed"]) == ("memo", "0")]
    assert 300 < len(thinned) <= 400
    assert int(thinned[-1]["steps"]) == 10_000
    # Updates 1 to 3: returns 1, 0, 1 of 2, 1, 2 trials.
    assert float(thinned[0]["return"]) == pytest.approx(4 / 5)
    assert len([row for row in rows if row["variant"] == "fct"]) == 2 * UPDATES


@pytest.mark.parametrize("agent", [("fct", "1"), ("random", "")], ids=" ".join)
def test_episodes_are_the_means_of_the_records_that_every_trial_has(
    original: Path, page: str, agent: tuple[str, str]
) -> None:
    folder = "reference/eval/random" if agent[0] == "random" else "fct/seed_1/eval/final"
    records = [json.loads(line) for line in (original / folder / "records.jsonl").open()]
    finished = [record for record in records if not record["truncated"]]
    trials = {record["trial_id"] for record in records}
    by_number: dict[int, list[dict[str, float]]] = {}
    for record in finished:
        by_number.setdefault(record["episode_index"], []).append(record)
    expected = [by_number[k] for k in sorted(by_number) if len(by_number[k]) == len(trials)]
    rows = [r for r in rows_of(original / "episodes.csv") if (r["variant"], r["seed"]) == agent]
    assert [int(row["episode"]) for row in rows] == list(range(1, len(expected) + 1))
    for row, own in zip(rows, expected, strict=True):
        assert int(row["trials"]) == len(trials)
        for column, name in (("length", "num_steps"), ("reward", "reward"), ("success", "success")):
            mean = sum(record[name] for record in own) / len(own)
            assert float(row[column]) == pytest.approx(mean)


def test_numbers_are_printed_of_each_seed_and_in_latex_over_seeds(
    original: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(original), "--csv"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    targets = {
        row["agent"]: float(row["mean"])
        for row in rows
        if (row["of"], row["measure"]) == ("all", "targets_per_1000_steps")
    }
    seeds = [f"{name}, seed {seed}" for name in ("memo", "fct") for seed in (0, 1)]
    assert [*targets] == ["random", *seeds, "oracle"]
    assert main(["report", str(original), "--latex"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("memo"))
    over_seeds = (targets["memo, seed 0"] + targets["memo, seed 1"]) / 2
    assert line.startswith(f"memo & ${over_seeds:.1f}$")
    assert main(["report", str(original), "--csv", "--out", "x.html"]) == 2
    assert "without --out" in capsys.readouterr().err


def test_the_picture_is_written(original: Path, page: str) -> None:
    assert (original / "curve.png").read_bytes().startswith(b"\x89PNG")
    ElementTree.parse(original / "curve.svg")


def test_what_is_missing_is_said_and_the_rest_reported(sweep: Path) -> None:
    shutil.rmtree(sweep / "memo" / "seed_1")
    shutil.rmtree(sweep / "fct" / "seed_0" / "eval")
    shutil.rmtree(sweep / "reference" / "eval" / "random")
    progress = sweep / "fct" / "seed_1" / "progress.jsonl"
    lines = progress.read_text().splitlines(keepends=True)
    progress.write_text("".join(lines[: UPDATES // 2]) + '{"steps": 1')
    text = write_sweep_report(sweep).read_text(encoding="utf-8")
    for note in (
        "memo, seed 1: not begun.",
        "fct, seed 0: not evaluated.",
        "random: not evaluated",
        "fct, seed 1: 50 % of its training done.",
    ):
        assert note in text
    assert len(rows_of(sweep / "results.csv")) == 3


def test_returns_below_zero_are_inside_the_pictures(sweep: Path) -> None:
    for seed in (0, 1):
        run = sweep / "fct" / f"seed_{seed}"
        for path in (run / "progress.jsonl", run / "eval" / "final" / "records.jsonl"):
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            for row in rows:
                if "trials" in row:
                    row["trials"]["return"] = -20.0 - seed
                else:
                    row["reward"] = -1.0
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = write_sweep_report(sweep).read_text(encoding="utf-8")
    assert "−" in (sweep / "curve.svg").read_text(encoding="utf-8")
    means = re.findall(r'<line x1="(\S+)" x2="\1"[^>]*class="mean"', text)
    assert len(means) == 4 and all(0 <= float(mean) <= 100 for mean in means)


def test_unfinished_trials_are_left_out_and_said_so(sweep: Path) -> None:
    records = sweep / "memo" / "seed_0" / "eval" / "final" / "records.jsonl"
    lines = records.read_text().splitlines(keepends=True)
    records.write_text("".join(lines[:-1]))
    assert "memo, seed 0: 1 unfinished trial left out." in load_sweep(sweep).notes
    write_sweep_report(sweep)


def test_runs_with_other_trials_are_said_not_to_be_the_same(sweep: Path) -> None:
    records = sweep / "fct" / "seed_1" / "eval" / "final" / "records.jsonl"
    lines = records.read_text().splitlines(keepends=True)
    gone = json.loads(lines[-1])["trial_id"]
    records.write_text("".join(line for line in lines if json.loads(line)["trial_id"] != gone))
    notes = load_sweep(sweep).notes
    assert len(notes) == 1 and notes[0].startswith("fct, seed 1: evaluated on 5 of the 6 trials")
    text = write_sweep_report(sweep).read_text(encoding="utf-8")
    assert "trials, not the same for all" in text and "steps, the same for all" not in text


def test_malformed_files_of_one_run_do_not_stop_the_report(sweep: Path) -> None:
    (sweep / "memo" / "seed_0" / "eval" / "final" / "records.jsonl").write_text("{}\n")
    progress = sweep / "fct" / "seed_0" / "progress.jsonl"
    progress.write_text(progress.read_text() + "[]\n")
    text = write_sweep_report(sweep).read_text(encoding="utf-8")
    assert "memo, seed 0:" in text and re.search(
        r"fct, seed 0: \S+progress.jsonl, line 61 is", text
    )


@pytest.mark.parametrize(
    "change",
    [
        {"steps": "many"},
        {"seconds": [1]},
        {"trials": {"count": "x", "return": 1.0}},
        {"trials": [1]},
        {"learner": {"memory_tokens": "few"}},
        {"learner": [1]},
    ],
)
def test_a_malformed_last_line_of_progress_counts_for_nothing(tmp_path: Path, change) -> None:
    write_progress(tmp_path, 0.5, 0, updates=3)
    path, notes = tmp_path / "progress.jsonl", list[str]()
    before = read_progress(path, notes, "memo")
    assert before is not None and before.memory["memory_tokens"] == 18.0 and not notes
    row = json.loads(path.read_text().splitlines()[-1])
    row["learner"]["memory_tokens"] = 99.0
    with path.open("a") as file:
        file.write(json.dumps({**row, **change}) + "\n")
    after = read_progress(path, notes, "memo")
    assert after is not None and after.memory == before.memory
    assert after.returns.tolist() == before.returns.tolist()
    assert len(notes) == 1 and "progress.jsonl, line 4 is malformed" in notes[0]


def test_a_training_alone_makes_a_page_too(sweep: Path) -> None:
    for path in sweep.glob("*/seed_*/eval"):
        shutil.rmtree(path)
    shutil.rmtree(sweep / "reference")
    text = write_sweep_report(sweep).read_text(encoding="utf-8")
    assert '<section id="learning">' in text and '<section id="course">' not in text


def test_progress_without_returns_has_no_curve_but_a_row(sweep: Path) -> None:
    for path in sweep.glob("*/seed_*/progress.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            del row["trials"]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = write_sweep_report(sweep).read_text(encoding="utf-8")
    assert "tells no return per trial" in text
    assert not (sweep / "curve.png").exists()
    assert {row["final_return"] for row in rows_of(sweep / "results.csv")} == {"nan"}


def test_other_layouts_than_the_oracle_s_give_no_ratio(sweep: Path) -> None:
    meta = sweep / "memo" / "seed_0" / "eval" / "final" / "meta.json"
    meta.write_text(json.dumps({**json.loads(meta.read_text()), "seed": 5}))
    found = load_sweep(sweep)
    assert [np.isnan(found.ratio(run)) for run in found.runs] == [True, False, False, False]
    assert "memo, seed 0: evaluated on other layouts" in found.notes[0]


def test_the_latest_checkpoint_stands_in_for_the_final_evaluation(sweep: Path) -> None:
    folder = sweep / "memo" / "seed_0" / "eval"
    shutil.copytree(folder / "final", folder / "ckpt.0")
    shutil.copytree(sweep / "reference" / "eval" / "random", folder / "random")
    (folder / "final").rename(folder / "ckpt.9")
    meta = folder / "ckpt.0" / "meta.json"
    meta.write_text(json.dumps({**json.loads(meta.read_text()), "step": 1}))
    evaluation = load_sweep(sweep).runs[0].evaluation
    assert evaluation is not None and evaluation.folder.name == "ckpt.9"


def test_a_folder_without_progress_is_refused(sweep: Path, tmp_path: Path) -> None:
    for path in sweep.glob("*/seed_*"):
        shutil.rmtree(path)
    with pytest.raises(UserError, match="4 are planned"):
        write_sweep_report(sweep)
    with pytest.raises(UserError, match=r"sweep\.json"):
        write_sweep_report(tmp_path)
    (sweep / "sweep.json").write_text("{}")
    with pytest.raises(UserError, match=r"sweep\.json is malformed.*variants"):
        write_sweep_report(sweep)
    assert not (sweep / "report.html").exists()


@pytest.mark.slow
def test_the_command_says_what_of_a_sweep_is_unfinished_before_the_path(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(sweep / "memo" / "seed_1")  # not begun
    shutil.rmtree(sweep / "fct" / "seed_0" / "eval")  # not evaluated
    shutil.rmtree(sweep / "reference" / "eval" / "random")
    page = str(sweep / "report.html")
    assert main(["report", str(sweep)]) == 0
    lines = ["2 of 4 runs are finished; random is not evaluated yet", page]
    assert capsys.readouterr().out.splitlines() == lines

    shutil.rmtree(sweep / "reference")
    meta = sweep / "fct" / "seed_1" / "eval" / "final" / "meta.json"  # stopped between two trials
    meta.write_text(json.dumps({**json.loads(meta.read_text()), "finished": None}))
    progress = sweep / "memo" / "seed_0" / "progress.jsonl"  # stopped in its training
    progress.write_text("".join(progress.read_text().splitlines(keepends=True)[:-1]))
    assert main(["report", str(sweep)]) == 0
    lines = ["0 of 4 runs are finished; oracle and random are not evaluated yet", page]
    assert capsys.readouterr().out.splitlines() == lines


def test_the_command_reports_a_sweep(
    sweep: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["report", str(sweep)]) == 0
    assert capsys.readouterr().out.strip() == str(sweep / "report.html")
    assert main(["report", str(sweep), "--out", str(tmp_path / "x.html")]) != 0
    assert "without --out" in capsys.readouterr().err


def test_targets_along_the_trial_of_everybody_are_in_a_file(original: Path, page: str) -> None:
    rows = rows_of(original / "targets.csv")
    assert {(r["variant"], r["seed"]) for r in rows} == {
        *(("memo", "0"), ("memo", "1"), ("fct", "0"), ("fct", "1")),
        *(("oracle", ""), ("random", "")),
    }
    own = [r for r in rows if (r["variant"], r["seed"]) == ("oracle", "")]
    assert [r["part"] for r in own[-3:]] == ["first", "last", "last/first"]
    parts = [float(r["targets"]) for r in own[:-3]]
    lines = (original / "reference/eval/oracle/records.jsonl").read_text().splitlines()
    found = sum(json.loads(line)["success"] for line in lines)
    assert np.mean(parts) == pytest.approx(1000 * found / (TRIALS * SETTING.trial_steps))
    first, last, ratio = (float(r["targets"]) for r in own[-3:])
    assert ratio == pytest.approx(last / first)


def test_perfect_memory_is_shown_where_it_was_evaluated(sweep: Path) -> None:
    references = sweep / "reference" / "eval"
    shutil.copytree(references / "oracle", references / "perfect_memory")
    meta = references / "perfect_memory" / "meta.json"
    meta.write_text(meta.read_text().replace('"oracle"', '"perfect_memory"'))
    found = load_sweep(sweep)
    assert list(found.references) == ["oracle", "random", "perfect_memory"]
    assert found.notes == () and found.unfinished() is None
    page = write_sweep_report(sweep).read_text(encoding="utf-8")
    legend = re.search(r'<p class="legend">.*?</p>', page, re.DOTALL)
    assert legend is not None and "perfect_memory" in legend[0] and "var(--series-10)" in page
    assert "perfect_memory" in {r["variant"] for r in rows_of(sweep / "targets.csv")}
