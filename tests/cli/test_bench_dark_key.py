"""`bench dark-key`: rows as JSON lines or a table; one line for bad input."""

from __future__ import annotations

import json

import pytest

from memo_habitat.cli.main import main

SMALL = ("--layouts", "50", "--seconds", "0.001")


def test_json_lines_carry_the_returns_with_intervals_and_the_rate(capsys):
    assert main(["bench", "dark-key", "--json", *SMALL]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["setting"], row["size"], row["trial_steps"]) for row in rows] == [
        ("quick", 5, 150),
        ("default", 9, 500),
        ("hard", 13, 1000),
    ]
    for row in rows:
        for agent in ("oracle", "searcher", "random"):
            assert row[f"{agent}_low"] < row[agent] < row[f"{agent}_high"]
        assert row["oracle"] > row["searcher"]
        assert row["searcher_low"] > row["random_high"]
        assert row["layouts"] == 50
        assert row["env_steps_per_second_64"] > 0 and row["env_steps_per_second_4096"] > 0


def test_the_same_seed_gives_the_same_returns(capsys):
    def returns(*arguments):
        main(["bench", "dark-key", "--json", "--settings", "quick", *SMALL, *arguments])
        row = json.loads(capsys.readouterr().out)
        return {key: row[key] for key in row if key.startswith(("oracle", "searcher", "random"))}

    assert returns() == returns() != returns("--seed", "1")


def test_the_table_has_a_line_for_every_setting_and_says_what_it_shows(capsys):
    assert main(["bench", "dark-key", "--settings", "quick,hard", *SMALL]) == 0
    heading, *lines, note = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["quick", "hard"]
    assert {len(line) for line in lines} == {len(heading)}
    assert "50 trials" in note and "95 %" in note


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--settings", "slow"), "quick,default,hard"),
        (("--settings", ""), "quick,default,hard"),
        (("--layouts", "1"), "layouts is 1"),
        (("--seconds", "0"), "--seconds 0"),
        (("--seed", "-1"), "--seed -1"),
    ],
    ids=" ".join,
)
def test_bad_input_gives_one_line(capsys, arguments, named):
    assert main(["bench", "dark-key", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert named in error
