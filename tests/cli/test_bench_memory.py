"""`bench memory`: rows as JSON lines, or a table with a plot; one line for bad input."""

from __future__ import annotations

import json

import pytest

from memo_habitat.cli.bench_memory import VARIANTS
from memo_habitat.cli.bench_memory_rows import RATIOS, draw, markdown
from memo_habitat.cli.main import main
from memo_habitat.config.memory import MemoryConfig

SPELT = VARIANTS.replace(",", ", ")
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
            trained |= {"train_ratio_to_fct": share, "peak_train_bytes": 2_000_000}
            found.append(dict.fromkeys(bench.FIELDS) | named | trained)
            for steps in (1024, 8192):
                acted = {"steps": steps, "batch": 4, "act_ms": share * steps / 1024}
                acted |= {"act_ratio_to_fct": share, "refresh_seconds": 1.0}
                acted |= {"cache_bytes": 1_000_000, "cache_ratio_to_fct": share}
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
    assert RATIOS in text


def test_help_says_what_is_measured_and_how_long_it_takes(capsys):
    with pytest.raises(SystemExit):
        main(["bench", "memory", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    sizes = MemoryConfig()
    for name, size in (
        *(("D", sizes.width), ("L", sizes.layers), ("H", sizes.heads)),
        *(("S", sizes.segment_length), ("M", sizes.summary_length)),
    ):
        assert f"{name}={size}" in text
    assert "depth dropout 0, segment jitter 0" in text
    assert "about 12 minutes" in text


def test_json_lines_are_all_that_is_on_stdout_and_nothing_is_left_behind(capsys, tmp_path):
    from memo_habitat.memory.bench import FIELDS

    assert main(["bench", "memory", "--json", *SMALL]) == 0
    captured = capsys.readouterr()
    rows = [json.loads(line) for line in captured.out.splitlines()]
    assert [row["variant"] for row in rows] == ["memo", "fct"]
    assert all(tuple(row) == FIELDS for row in rows)
    assert all(row["train_seconds"] > 0 and row["peak_train_bytes"] > 0 for row in rows)
    assert " thread" in captured.err
    assert list(tmp_path.iterdir()) == []


def test_without_json_there_are_a_table_a_plot_and_the_rows(capsys, tmp_path, rows):
    assert main(["bench", "memory"]) == 0
    heading, *lines, note = capsys.readouterr().out.splitlines()
    assert RATIOS in note
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
    assert (folder / "memory_bench.md").read_text().endswith(markdown(rows))


def test_a_measurement_that_ends_without_a_row_leaves_nothing(tmp_path, monkeypatch):
    from memo_habitat.memory import bench

    def interrupted(options):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(bench, "bench_memory", interrupted)
    (tmp_path / "mine").mkdir()
    for output in ("runs/bench", "mine"):
        assert main(["bench", "memory", "--output", output]) == 130
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]


def test_rows_that_were_measured_before_an_interruption_stay(tmp_path, monkeypatch, rows):
    from memo_habitat.memory import bench

    def interrupted(options):
        yield rows[0]
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "bench_memory", interrupted)
    assert main(["bench", "memory"]) == 130
    assert json.loads((tmp_path / "runs/bench/memory_bench.jsonl").read_text()) == rows[0]


def test_markdown_tables_have_the_reference_in_each_and_bytes_in_megabytes(rows):
    trained, acted, held = markdown(rows).split("\n\n")
    assert trained.splitlines()[0] == "| | T=4096, B=2: s | / fct | peak MB |"
    assert acted.splitlines()[0] == "| | 1,024 steps: ms | / fct | 8,192 steps: ms | / fct |"
    assert held.splitlines()[2] == "| `memo` | 1.0 | 0.500 | 1 | 1.0 | 0.500 | 1 |"
    for table in (trained, acted, held):
        names = [line.split(" | ")[0] for line in table.splitlines()[2:]]
        assert names == ["| `memo`", "| `fct`", "| `memo`, bfloat16", "| `fct`, bfloat16"]


def test_a_variant_has_the_same_colour_whatever_else_is_drawn(rows, tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    drawn = []
    bar = Axes.bar

    def noted(axes, *values, color, label, **others):
        drawn.append((label, color))
        return bar(axes, *values, color=color, label=label, **others)

    monkeypatch.setattr(Axes, "bar", noted)
    draw([row for row in rows if row["variant"] == "fct"], tmp_path / "alone.png")
    draw(rows, tmp_path / "both.png")
    assert len(drawn) == 2 + 4
    assert len(set(drawn)) == 2


def test_json_writes_plot_and_rows_only_into_a_folder_that_was_asked_for(capsys, tmp_path, rows):
    assert main(["bench", "memory", "--json", "--output", "there"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(rows)
    assert sorted(path.name for path in (tmp_path / "there").iterdir()) == [
        *("memory_bench.jsonl", "memory_bench.md", "memory_bench.png")
    ]


@pytest.mark.parametrize("left_out", ["act_ms", "train_seconds"])
def test_training_or_acting_alone_can_be_drawn(tmp_path, rows, left_out):
    draw([row for row in rows if row[left_out] is None], tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--variants", "memo,mem"), f"--variants mem: not known here, use {SPELT}"),
        (("--variants", ""), "--variants '': not known here, use memo, memo_kv"),
        (("--steps", "many"), "--steps many"),
        (("--act-steps", "1,x"), "--act-steps 1,x"),
        (("--steps", "none", "--act-steps", "none"), "--steps none"),
        (("--steps", "0"), "--steps 0: at least 1"),
        (("--steps", "-8,16"), "--steps -8,16: at least 1"),
        (("--act-steps", "64,0"), "--act-steps 64,0: at least 1"),
        (("--act-batch", "0"), "--act-batch 0: at least 1"),
        (("--batch", "1,2,3"), "--batch 1,2,3: give one, or one for each of 4096,16384"),
        (("--batch", "0"), "--batch 0: at least 1"),
        (("--precision", "half"), "--precision half: not known here, use float32, bfloat16"),
        (("--repeats", "0"), "--repeats 0: at least 1"),
        (("--device", "abacus"), "--device abacus: not known here, use cpu"),
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
