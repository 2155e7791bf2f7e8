"""The report is one file that needs nothing else, says what records say, refuses bad runs."""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from memo_habitat.cli.main import main
from memo_habitat.errors import UserError
from memo_habitat.evaluation.records import EvaluationMeta
from memo_habitat.report import plots
from memo_habitat.report.html import summarise, write_report
from memo_habitat.report.load import first_and_last, load_run, load_runs
from memo_habitat.report.maps import draw_map
from memo_habitat.report.plots import Curve
from memo_habitat.report.text import label_cells, short_bytes, short_number
from memo_habitat.simulator.interface import TopDownMap
from memo_habitat.tasks.record_fields import RecordField
from tests.factories.episodes import episode
from tests.factories.runs import write_run

AGENTS = {"random": (0.1, 0.1), "ckpt.2": (0.3, 0.7), "oracle": (1.0, 1.0)}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "memo-studio"
    return write_run(folder, AGENTS, steps=1200, houses=2, trials_per_house=3)


@pytest.fixture(scope="module")
def page(run: Path) -> str:
    return write_report([run]).read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_page_refers_to_nothing_outside_itself(page: str) -> None:
    links = re.findall(r'(?:href|src|srcset|action)="([^"]*)"', page)
    assert links
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in links)
    assert not re.search(r"<(script|link|iframe)\b|@import|url\((?!#)", page)
    assert len(page.encode()) < 3_000_000


def test_on_a_phone_every_cell_tells_its_column(page: str) -> None:
    rows = re.findall(r"<table(?: class=\"stacked\")? data-rows>.*?</table>", page, re.DOTALL)
    assert len(rows) >= 5 and not any("<td>" in table for table in rows)
    assert 'data-label="All targets: First quarter"' in page
    table = "<table><thead><tr><th>Agent</th><th>SPL,<br>%</th></tr></thead><tbody>\n"
    cells = '<tr><td class="agent">a</td><td>1</td></tr>'
    labelled = '<td data-label="Agent" class="agent">a</td><td data-label="SPL, %">1</td>'
    assert labelled in label_cells(f"{table}{cells}</tbody></table>")


def test_marked_points_tell_value_and_interval_where_they_are_drawn() -> None:
    curve = Curve([1, 200], [0.25, 0.5], 2, [0.1, math.nan], [0.4, math.nan], marked=True)
    svg = str(plots.rates([curve, Curve([1, 200], [0.1, 0.2], 3)], "step of the trial"))
    told = re.findall(r"<title>(.*?)</title>", svg)
    assert told == ["step of the trial 1: 25.0 % [10.0 %, 40.0 %]", "step of the trial 200: 50.0 %"]
    circles = re.findall(r'class="tip"[^>]* cx="([\d.]+)" cy="([\d.]+)"', svg)
    markers = re.findall(
        r'<use xlink:href="#[^"]*" x="([\d.]+)" y="([\d.]+)" style="fill: var\(--series-2\)', svg
    )
    for at, marker in zip(circles, markers[-2:], strict=True):  # behind the band
        assert [float(v) for v in at] == pytest.approx([float(v) for v in marker], abs=1)


def test_wide_charts_have_a_form_for_phones(page: str) -> None:
    assert page.count('<svg class="on-wide"') == page.count('<svg class="on-narrow"') >= 1


def test_the_page_is_well_formed_up_to_html_s_own_void_elements(page: str) -> None:
    for svg in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL):
        if "xlink:" in svg and "xmlns:xlink" not in svg:
            pytest.fail(svg[:200])
        ElementTree.fromstring(svg)
    assert page.count("<section") == page.count("</section>")
    assert page.count("<figure") == page.count("</figure>")


def test_the_colours_of_pictures_come_from_the_page(page: str) -> None:
    used = set(re.findall(r"var\((--[a-z0-9-]+)\)", page))
    assert used <= set(re.findall(r"(--[a-z0-9-]+):", page))
    assert "#0a0b" not in page and "#010203" not in page


def test_headline_numbers_and_their_definitions_are_in_the_page(run: Path, page: str) -> None:
    for evaluation in load_run(run).evaluations:
        row = evaluation.headline
        assert f">{100 * row.estimates['success'].mean:.1f}<" in page
        assert evaluation.label in page
    for term in ("Success rate", "SPL", "Soft SPL", "Targets per 1,000 steps", "Interval", "Gain"):
        assert f"<dt>{term}</dt>" in page


@pytest.mark.parametrize(
    "section", ["results", "course", "memory", "learning", "maps", "frames", "made"]
)
def test_every_section_is_there(page: str, section: str) -> None:
    assert f'<section id="{section}">' in page


def test_the_config_is_in_the_page(page: str) -> None:
    assert "success_distance: 2.0" in page


def test_several_runs_are_compared_under_their_names(run: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "fct-studio", {"ckpt.9": (0.2, 0.4)}, steps=600, houses=1)
    out = write_report([run, other], tmp_path / "both.html")
    text = out.read_text(encoding="utf-8")
    assert "memo-studio · ckpt.2" in text and "fct-studio · ckpt.9" in text


def test_runs_of_one_name_are_told_apart_by_the_folders_around_them(tmp_path: Path) -> None:
    folders = [
        write_run(tmp_path / place, {"ckpt.9": (0.2, 0.4)}, steps=300, houses=1)
        for place in ("sweep/memo/seed_1", "sweep/fct/seed_1", "sweep/fct/seed_2")
    ]
    assert [run.name for run in load_runs(folders)] == ["memo/seed_1", "fct/seed_1", "fct/seed_2"]
    assert [run.name for run in load_runs(folders[1:])] == ["seed_1", "seed_2"]
    assert [run.name for run in load_runs(folders[:1] * 2)] == ["seed_1", "seed_1"]


def test_a_run_of_the_random_agent_alone_makes_a_page_too(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", {"random": (0.0, 0.0)}, 300, houses=1, trials_per_house=1)
    (folder / "progress.jsonl").unlink()
    (folder / "run.json").unlink()
    (folder / "config.yaml").unlink()
    (folder / "eval" / "random" / "meta.json").unlink()
    text = write_report([folder]).read_text(encoding="utf-8")
    assert '<section id="memory">' not in text
    assert '<section id="learning">' not in text


def test_text_from_the_data_set_is_escaped(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", {"random": (0.0, 0.0)}, 300, houses=1, trials_per_house=1)
    records = folder / "eval" / "random" / "records.jsonl"
    lines = [json.loads(line) for line in records.read_text().splitlines()]
    for line in lines:
        line["target_category"] = "<b>mug"
    records.write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = write_report([folder]).read_text(encoding="utf-8")
    assert "<b>mug" not in text and "&lt;b&gt;mug" in text


@pytest.mark.slow
def test_long_trials_show_the_published_marks(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", {"ckpt.0": (0.2, 0.4)}, 32_000, 1, trials_per_house=2)
    text = write_report([folder]).read_text(encoding="utf-8")
    assert "Success rate up to 10k steps" in text and "SPL up to 32k" in text


def test_unfinished_trials_are_left_out_and_said_so(run: Path, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", {"ckpt.0": (0.5, 0.5)}, 600, 1, trials_per_house=3)
    records = folder / "eval" / "ckpt.0" / "records.jsonl"
    lines = records.read_text().splitlines(keepends=True)
    records.write_text("".join(lines[:-1]))
    evaluation = load_run(folder).evaluations[0]
    assert evaluation.unfinished == 1
    assert evaluation.trials == {"house_0/a0/0", "house_0/a1/0"}
    assert "1 unfinished trial left out" in write_report([folder]).read_text(encoding="utf-8")


def test_where_no_trial_is_finished_the_rates_are_by_the_steps_played(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", {"ckpt.0": (0.5, 0.5)}, 600, 1, trials_per_house=1)
    records = folder / "eval" / "ckpt.0" / "records.jsonl"
    lines = records.read_text().splitlines(keepends=True)[:3]
    records.write_text("".join(lines))
    evaluation = load_run(folder).evaluations[0]
    played = [json.loads(line) for line in lines]
    assert evaluation.steps == played[-1]["trial_step_end"] < 600
    expected = 1000 * sum(line["success"] for line in played) / evaluation.steps
    assert evaluation.headline.targets.mean == pytest.approx(expected)


def test_an_evaluation_without_a_finished_episode_has_a_page(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", {"ckpt.0": (0.0, 0.0)}, 600, 1, trials_per_house=1)
    records = folder / "eval" / "ckpt.0" / "records.jsonl"
    lines = [json.loads(line) for line in records.read_text().splitlines()]
    for line in lines:
        line["truncated"] = True
    records.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert write_report([folder]).is_file()


def test_the_summary_has_a_line_per_agent(run: Path) -> None:
    lines = summarise([run]).splitlines()
    assert [line.split()[0] for line in lines[2:5]] == ["random", "ckpt.2", "oracle"]
    assert max(map(len, lines)) <= 100


def test_measures_are_told_apart_by_a_condition(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", {"ckpt.0": (0.5, 0.5)}, 600, 1, trials_per_house=2)
    records = folder / "eval" / "ckpt.0" / "records.jsonl"
    lines = [json.loads(line) for line in records.read_text().splitlines()]
    for number, line in enumerate(lines):
        # Found where it was seen before, and nowhere else; of the first episode it is not known.
        line["seen_earlier"] = None if number == 0 else bool(number % 2)
        line["success"] = float(number % 2)
    records.write_text("".join(json.dumps(line) + "\n" for line in lines))
    path = folder / "eval" / "ckpt.0"
    meta = EvaluationMeta.read(path)
    condition = RecordField("condition", text="Seen before.").called("seen_earlier")
    meta.model_copy(update={"measures": {**meta.measures, "seen_earlier": condition}}).write(path)

    splits = load_run(folder).evaluations[0].headline.splits
    yes, no = (split for split in splits if split.condition.name == "seen_earlier")
    assert (yes.holds, no.holds) == (True, False)
    assert (yes.estimates["success"].mean, no.estimates["success"].mean) == (1.0, 0.0)
    steps = sum(line["num_steps"] for line in lines if line["seen_earlier"])
    found = sum(line["success"] for line in lines if line["seen_earlier"])
    assert yes.targets.mean == pytest.approx(1000 * found / steps)
    assert yes.share + no.share == pytest.approx(1)
    text = write_report([folder]).read_text(encoding="utf-8")
    assert "Seen earlier: yes" in text and "<dd>Seen before.</dd>" in text
    assert [line.split()[:2] for line in summarise([folder]).splitlines()[3:5]] == [
        ["seen_earlier:", "yes"],
        ["seen_earlier:", "no"],
    ]


def test_reference_agents_stand_around_the_checkpoints_in_order(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", AGENTS, steps=200, houses=1, trials_per_house=1)
    assert [e.label for e in load_run(folder).evaluations] == ["random", "ckpt.2", "oracle"]


def test_first_and_last_episode_of_one_trial_per_house(run: Path) -> None:
    evaluation = load_run(run).evaluations[1]
    chosen = first_and_last(evaluation, 2, lambda record: not record.truncated)
    assert [record.house for record in chosen] == ["house_0", "house_0", "house_1", "house_1"]
    assert chosen[0].episode_index == 0
    assert chosen[1].trial_id == chosen[0].trial_id
    assert chosen[1].episode_index > chosen[0].episode_index


def test_the_map_puts_path_and_ground_into_one_frame_of_metres() -> None:
    free = np.zeros((10, 20), dtype=bool)
    free[2:8, 4:16] = True
    record = episode(path=((1.0, 2.0), (1.5, 2.5)), goal_positions=((1.2, 0.3, 2.2),))
    svg = draw_map(record, TopDownMap(free, (0.0, 1.0), 0.2), success_distance=2.0, color=3)
    root = ElementTree.fromstring(svg)
    x, z, width, height = (float(v) for v in root.attrib["viewBox"].split())
    # Free cells reach from x 0.8 to 3.2 and z 1.4 to 2.6; a margin of 0.4 is left around.
    assert (x, z) == pytest.approx((0.4, 1.0))
    assert (x + width, z + height) == pytest.approx((3.6, 3.0))
    assert 'points="1.000,2.000 1.500,2.500"' in svg
    assert 'r="2.000"' in svg


def test_an_episode_without_map_and_path_still_draws() -> None:
    ElementTree.fromstring(draw_map(episode(path=(), goal_positions=()), None, None, 2))


def test_the_same_plot_has_the_same_bytes() -> None:
    curve = Curve([1, 2, 3], [0.1, 0.2, np.nan], 2, [0.0, 0.1, np.nan], [0.2, 0.3, np.nan])
    assert plots.rates([curve], "step") == plots.rates([curve], "step")


def ticks_of(svg: str) -> list[float]:
    """The numbers at both axes."""
    texts = re.findall(r">([−\d.]+)</text>", svg)
    return [float(text.replace("−", "-")) for text in texts]


def test_amounts_below_zero_are_inside_the_plot() -> None:
    below = plots.amounts([Curve([1, 2, 3], [-8.0, np.nan, 4.0], 2)], "step")
    assert min(ticks_of(below)) < -5 and 0 in ticks_of(below)
    above = plots.amounts([Curve([1, 2], [3.0, 4.0], 2, [-9, -9], [9, 9])], "step")
    assert min(ticks_of(above)) == 0


@pytest.mark.parametrize(
    ("values", "lows", "ends"),
    [
        ([2.0, 10.0], [1.0], (0.0, 11.0)),
        ([2.0, 10.0], [-30.0], (0.0, 11.0)),  # two seeds' interval of what is never negative
        ([-2.0, 10.0], [-30.0], (-33.0, 11.0)),
        ([-10.0, -2.0, np.nan], [np.nan], (-11.0, 0.0)),
        ([0.0, np.nan], [], (0.0, 1.0)),
        ([], [], (0.0, 1.0)),
    ],
)
def test_an_axis_holds_zero_and_all_values(values, lows, ends) -> None:
    assert plots.value_range(values, lows, 0.1) == pytest.approx(ends)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (999, "999"), (4096, "4,096"), (32_000, "32k"), (1_250_000, "1.25M")],
)
def test_numbers_are_written_short(value: float, text: str) -> None:
    assert short_number(value) == text


def test_bytes_are_written_in_binary_units() -> None:
    assert short_bytes(3 * 2**20) == "3 MiB"
    assert short_bytes(512) == "512 B"


def test_bad_runs_are_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run folder given"):
        write_report([])
    with pytest.raises(UserError, match="does not exist"):
        write_report([tmp_path / "absent"])
    with pytest.raises(UserError, match="memo-habitat eval"):
        write_report([tmp_path])
    folder = tmp_path / "run" / "eval" / "random"
    folder.mkdir(parents=True)
    (folder / "records.jsonl").write_text("")
    with pytest.raises(UserError, match="holds no record"):
        write_report([tmp_path / "run"])
    (folder / "records.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match=r"records\.jsonl, line 1"):
        write_report([tmp_path / "run"])
    assert not (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize("name", ["progress.jsonl", "run.json", "config.yaml"])
def test_a_malformed_file_of_the_run_is_named(tmp_path: Path, name: str) -> None:
    folder = write_run(tmp_path / "run", {"random": (0.1, 0.1)}, 200, 1, trials_per_house=1)
    (folder / name).write_text("{ [\n")
    with pytest.raises(UserError, match=re.escape(name)):
        write_report([folder])


def test_an_unwritable_report_names_the_remedy(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--out"):
        write_report([run], tmp_path / "file" / "report.html")


PLAYERS = {
    "random": (0.05, 0.05),
    "latest": (0.3, 0.9),
    "latest-forget": (0.3, 0.3),
    "perfect_memory": (0.4, 0.95),
    "oracle": (1.0, 1.0),
}


@pytest.mark.slow
def test_the_first_picture_is_what_was_found_along_the_trial_by_everybody(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", PLAYERS, 2048, 3, trials_per_house=2, seen=True)
    assert [e.label for e in load_run(folder).evaluations] == list(PLAYERS)
    text = write_report([folder]).read_text(encoding="utf-8")
    first = text[: text.index('<section id="results">')]
    assert first.count("<figure") == 1 and "Targets per 1,000 steps along the trial" in first
    assert text.count("Targets per 1,000 steps along the trial</h3>") == 1
    colors = {number for number in range(11) if f"var(--series-{number})" in first}
    assert colors == {0, 1, 2, 3, 10}  # random, oracle, two of one checkpoint, perfect memory
    legend = re.search(r'<p class="legend">.*?</p>', first, re.DOTALL)
    assert legend is not None
    assert re.findall(r"</span>([\w-]+)</span>", legend[0]) == list(PLAYERS)
    for title in ("All targets", "Target seen earlier: yes", "Target seen earlier: no"):
        assert f">{title}</th>" in first
    assert "Of perfect memory" in text and "memory emptied at each episode" in text


def test_evaluations_without_records_are_left_out_with_a_note(tmp_path: Path, capsys) -> None:
    folder = write_run(tmp_path / "run", AGENTS, 600, 1, trials_per_house=2)
    (folder / "eval" / "oracle" / "records.jsonl").write_text('{"torn": ')
    assert [e.label for e in load_run(folder).evaluations] == ["random", "ckpt.2"]
    assert main(["report", str(folder)]) == 0
    note, page = capsys.readouterr().out.splitlines()
    assert note.startswith("oracle is left out: ") and "evaluate it again" in note
    assert "oracle is left out" in Path(page).read_text(encoding="utf-8")
    assert "oracle is left out" in summarise([folder])
