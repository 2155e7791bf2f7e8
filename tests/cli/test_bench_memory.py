"""`bench memory`: rows as JSON lines, or a table with a plot; one line for bad input."""

from __future__ import annotations

import json

import pytest

from memo_habitat.cli import main
from memo_habitat.cli_bench_memory import VARIANTS

SMALL = ("--variants", "memo", "--steps", "24", "--batch", "1", "--act-steps", "none")
SMALL = (*SMALL, "--repeats", "1")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KINETO_LOG_LEVEL", "6")


@pytest.fixture
def rows(monkeypatch):
    """Rows of both kinds for two variants and precisions, in the place of measured ones."""
    from memo_habitat.memory import bench

    found = []
    for precision in ("float32", "bfloat16"):
        for variant, share in (("memo", 0.5), ("fct", 1.0)):
            named = {"variant": variant, "precision": precision}
            trained = {"steps": 4096, "batch": 2, "train_seconds": 8 * share}
            trained |= {"train_ratio_to_fct": share, "peak_train_bytes": 2**21}
            found.append(dict.fromkeys(bench.FIELDS) | named | trained)
            for steps in (1024, 8192):
                acted = {"steps": steps, "batch": 4, "act_ms": share * steps / 1024}
                acted |= {"act_ratio_to_fct": share, "refresh_seconds": 1.0}
                acted |= {"cache_bytes": 2**20, "cache_ratio_to_fct": share}
                found.append(dict.fromkeys(bench.FIELDS) | named | acted)
    monkeypatch.setattr(bench, "bench_memory", lambda options: iter(found))
    return found


def test_help_names_every_variant_and_that_fct_is_always_measured(capsys):
    from memo_habitat.memory.bench import BENCHED

    with pytest.raises(SystemExit) as left:
        main(["bench", "memory", "--help"])
    assert left.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert VARIANTS in text
    assert tuple(VARIANTS.split(",")) == tuple(BENCHED)
    assert "fct, the reference of all ratios, is always measured" in text
    assert "memo-habitat bench memory --json" in text


def test_json_lines_are_all_that_is_on_stdout_and_nothing_is_left_behind(capsys, tmp_path):
    from memo_habitat.memory.bench import FIELDS

    assert main(["bench", "memory", "--json", *SMALL]) == 0
    captured = capsys.readouterr()
    rows = [json.loads(line) for line in captured.out.splitlines()]
    assert [row["variant"] for row in rows] == ["memo", "fct"]
    assert all(tuple(row) == FIELDS for row in rows)
    assert all(row["train_seconds"] > 0 and row["peak_train_bytes"] > 0 for row in rows)
    assert "threads" in captured.err
    assert list(tmp_path.iterdir()) == []


def test_without_json_there_are_a_table_a_plot_and_the_rows(capsys, tmp_path, rows):
    assert main(["bench", "memory"]) == 0
    heading, *lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(rows)
    assert {len(line) for line in lines} == {len(heading)}
    assert lines[0].split() == [
        *("memo", "4096", "2", "float32", "4.000", "0.500", "2.0", *5 * "-")
    ]
    assert lines[1].split() == [
        *("memo", "1024", "4", "float32", "-", "-", "-", "0.50", "0.500", "1.000", "1.0", "0.500")
    ]
    folder = tmp_path / "runs/bench"
    assert (folder / "memory_bench.png").read_bytes().startswith(b"\x89PNG")
    written = (folder / "memory_bench.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in written] == rows


def test_json_writes_plot_and_rows_only_into_a_folder_that_was_asked_for(capsys, tmp_path, rows):
    assert main(["bench", "memory", "--json", "--output", "there"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(rows)
    assert sorted(path.name for path in (tmp_path / "there").iterdir()) == [
        *("memory_bench.jsonl", "memory_bench.png")
    ]


@pytest.mark.parametrize("left_out", ["act_ms", "train_seconds"])
def test_training_or_acting_alone_can_be_drawn(tmp_path, rows, left_out):
    from memo_habitat.cli_bench_memory import draw

    draw([row for row in rows if row[left_out] is None], tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--variants", "memo,mem"), VARIANTS),
        (("--variants", ""), "memo,memo_kv"),
        (("--steps", "many"), "--steps many"),
        (("--act-steps", "1,x"), "--act-steps 1,x"),
        (("--steps", "none", "--act-steps", "none"), "--steps none"),
        (("--batch", "1,2,3"), "batch [1, 2, 3]"),
        (("--precision", "half"), "float32,bfloat16"),
        (("--repeats", "0"), "repeats is 0"),
        (("--device", "abacus"), "abacus"),
    ],
    ids=" ".join,
)
def test_bad_input_gives_one_line_and_leaves_nothing(capsys, tmp_path, arguments, named):
    assert main(["bench", "memory", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("memo-habitat bench:")
    assert named in error
    assert list(tmp_path.iterdir()) == []
