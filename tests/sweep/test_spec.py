"""What a sweep consists of: seeds, variants, order, and what may be added to a folder."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memo_habitat.config.compose import compose_config
from memo_habitat.errors import UserError
from memo_habitat.sweep.jobs import SweepJob
from memo_habitat.sweep.spec import (
    FIRST_TRAINING_SEED,
    LAST_SEED,
    SEED_STRIDE,
    Request,
    check_sweep,
    habitat_seed,
    parse_seeds,
    parse_slurm,
    plan_sweep,
    read_sweep,
    write_sweep,
)
from memo_habitat.trainer.run_dir import SWEEP_LOCK, SWEEP_LOG, discard_run, plan_run

KNOWN = (("dark_key_to_door", "extobjnav/studio"), ("memo", "fct", "rmt"))
DARK = "dark_key_to_door"


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("0..4", (0, 1, 2, 3, 4)),
        ("0,2,5", (0, 2, 5)),
        ("3", (3,)),
        ("5,0..2,1", (0, 1, 2, 5)),
        ("7..7", (7,)),
    ],
)
def test_seeds_are_read(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "4..0", "-1", "0..", "0...2", "1,,2", "0..100"])
def test_what_is_no_list_of_seeds_is_named(text):
    with pytest.raises(UserError, match=r"0\.\.4"):
        parse_seeds(text)


@pytest.mark.parametrize(
    ("text", "named"),
    [("4..0", r"'4\.\.0' is reversed; write 0\.\.4"), ("200..0", "'200..0' is out of range")],
)
def test_reversed_seeds_are_answered_with_the_right_way(text, named):
    with pytest.raises(UserError, match=named):
        parse_seeds(text)


def test_no_two_seeds_draw_the_same_and_all_are_numpys():
    steps = 39_000_000
    environments = 1024
    for number in range(LAST_SEED):
        # Environment i after a resume at s steps draws from habitat.seed + s + i.
        assert habitat_seed(number) + steps + environments < habitat_seed(number + 1)
    assert habitat_seed(0) == FIRST_TRAINING_SEED
    assert habitat_seed(LAST_SEED) + steps < 2**32
    assert SEED_STRIDE % 2
    assert SEED_STRIDE % 5


def test_an_unknown_variant_is_answered_with_what_there_is(tmp_path):
    with pytest.raises(UserError, match="'mamba'; there are memo, fct, rmt"):
        planned(tmp_path, variants=["memo", "mamba"])


def test_a_class_of_ones_own_is_a_variant_in_a_folder_of_its_name(tmp_path):
    sweep = planned(tmp_path, variants=["memo", "my.memories:HalfCredit"], seeds=[0])
    assert [run.path.parent.name for run in sweep.runs()] == ["memo", "HalfCredit"]
    commands = [SweepJob(sweep, run).pending().commands[0] for run in sweep.runs()]
    assert "memory=memo" in commands[0]
    assert "habitat_baselines.rl.memory.kind=my.memories:HalfCredit" in commands[1]
    assert not any(word.startswith("memory=") for word in commands[1])
    write_sweep(sweep)
    assert read_sweep(tmp_path) == sweep


def test_variants_that_would_share_a_folder_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"a:Mine and b:Mine would both be trained in Mine"):
        planned(tmp_path, variants=["a:Mine", "b:Mine"])


@pytest.mark.slow
def test_a_class_that_is_not_there_is_refused_before_anything_is_run(tmp_path):
    sweep = planned(tmp_path, variants=["no_such_module:Mine"])
    with pytest.raises(UserError, match="'no_such_module:Mine': No module named"):
        check_sweep(sweep)
    check_sweep(planned(tmp_path, variants=["tests.memory.my_memories:HalfCredit"]))


@pytest.mark.slow
def test_a_choice_of_ones_own_is_found_where_train_finds_it(tmp_path):
    (tmp_path / "own/memory").mkdir(parents=True)
    (tmp_path / "own/memory/mine.yaml").write_text(
        "# @package habitat_baselines.rl.memory\nkind: memo\nsummary_length: 2\n"
    )
    search = f"hydra.searchpath=[file://{tmp_path}/own]"
    with pytest.raises(UserError, match=r"'mine'; there are memo.*hydra\.searchpath"):
        planned(tmp_path / "sweep", variants=["mine"])
    sweep = planned(tmp_path / "sweep", variants=["mine"], overrides=[search])
    assert sweep.variants == ("mine",)
    config = compose_config(DARK, [search, "memory=mine"])
    assert config.habitat_baselines.rl.memory.summary_length == 2


@pytest.mark.parametrize("option", ["nonsense", "partition", "=gpu", "partition=", "a b=c"])
def test_options_of_slurm_are_keys_with_values(option):
    assert parse_slurm(["partition=gpu", "time=720"]) == {"partition": "gpu", "time": 720}
    assert parse_slurm(["account=0123", "qos=²"]) == {"account": "0123", "qos": "²"}
    with pytest.raises(UserError, match=f"^--slurm {option}: write KEY=VALUE"):
        parse_slurm(["partition=gpu", option])


def planned(folder: Path, config: str | None = DARK, **request):
    for name, value in request.items():
        if isinstance(value, list):
            request[name] = tuple(value)
    return plan_sweep(Request(config, **request), folder, Path("runs"), *KNOWN)


def begun(folder: Path, **request):
    """A sweep of which one run was made."""
    sweep = planned(folder, **request)
    write_sweep(sweep)
    run = sweep.runs()[0].path
    run.mkdir(parents=True)
    (run / "config.yaml").touch()
    return sweep


@given(
    st.lists(st.sampled_from(["memo", "fct", "rmt"]), min_size=1, unique=True),
    st.lists(st.integers(0, 9), min_size=1, unique=True),
)
def test_an_interrupted_queue_is_balanced(tmp_path_factory, variants, seeds):
    sweep = planned(tmp_path_factory.mktemp("sweep"), variants=variants, seeds=seeds)
    runs = sweep.runs()
    assert len({run.path for run in runs}) == len(runs) == len(variants) * len(seeds)
    for cut in range(len(runs)):
        counts = [sum(r.variant == name for r in runs[:cut]) for name in variants]
        assert max(counts) - min(counts) <= 1


def test_by_default_memo_alone_is_run(tmp_path):
    sweep = planned(tmp_path)
    assert sweep.variants == ("memo",)
    assert sweep.seeds == (0, 1, 2)


def test_what_was_written_is_read(tmp_path):
    sweep = begun(tmp_path, variants=["memo", "fct"], seeds=[1, 3], overrides=["a=1"], trials=7)
    assert read_sweep(tmp_path) == sweep
    assert planned(tmp_path, None) == sweep


def test_variants_and_seeds_are_added_to_a_sweep(tmp_path):
    begun(tmp_path, variants=["memo"], seeds=[0], overrides=["a=1"])
    more = planned(tmp_path, None, variants=["fct"], seeds=[2])
    assert more.variants == ("memo", "fct")
    assert more.seeds == (0, 2)
    assert more.overrides == ("a=1",)
    assert planned(tmp_path, overrides=["a=1"]).variants == ("memo",)


@pytest.mark.parametrize(
    ("request_", "named"),
    [
        ({"overrides": ["a=2"]}, "with a=1 b=3, now it is a=2"),
        ({}, "with a=1 b=3, now it is no overrides"),
        ({"config": None, "overrides": ["b=3"]}, "with a=1 b=3, now it is b=3"),
        ({"config": "extobjnav/studio"}, "sweep of dark_key_to_door, now it is extobjnav/studio"),
        ({"overrides": ["a=1", "b=3"], "trials": 5}, "--trials 5.* on 8"),
    ],
)
def test_another_sweep_in_the_same_folder_is_refused_with_both(tmp_path, request_, named):
    begun(tmp_path, overrides=["a=1", "b=3"], trials=8)
    with pytest.raises(UserError, match=named):
        planned(tmp_path, **request_)


OWN = """
    # @package _global_
    defaults: [/dark_key_to_door, _self_]
    habitat_baselines: {plugins: [own_plugin_of_a_sweep]}
"""


def test_a_config_of_ones_own_means_the_same_from_everywhere(tmp_path, monkeypatch):
    own = tmp_path / "configs/own.yaml"
    own.parent.mkdir()
    own.write_text(dedent(OWN))
    monkeypatch.chdir(tmp_path)
    sweep = planned(tmp_path / "sweep", "configs/own.yaml")
    assert sweep.config == str(own)
    monkeypatch.chdir(own.parent)
    begun(tmp_path / "sweep", config="own.yaml")
    assert planned(tmp_path / "sweep", "own.yaml") == sweep
    with pytest.raises(UserError, match=r"sweep of .*own\.yaml, now it is dark_key_to_door"):
        planned(tmp_path / "sweep", DARK)
    new = plan_sweep(Request("own.yaml"), None, Path("runs"), *KNOWN)
    assert new.folder.name.startswith("sweep-own-")


@pytest.mark.slow
def test_plugins_are_imported_before_anything_is_run(tmp_path, monkeypatch):
    own = tmp_path / "own.yaml"
    own.write_text(dedent(OWN))
    sweep = planned(tmp_path / "sweep", str(own))
    with pytest.raises(UserError, match=r"plugins=own_plugin_of_a_sweep: No module.*PYTHONPATH"):
        check_sweep(sweep)
    (tmp_path / "own_plugin_of_a_sweep.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    check_sweep(sweep)
    assert sys.modules.pop("own_plugin_of_a_sweep")


def test_the_order_of_overrides_is_no_difference(tmp_path):
    begun(tmp_path, overrides=["a=1", "b=3"])
    assert planned(tmp_path, overrides=["b=3", "a=1"]).overrides == ("a=1", "b=3")


def test_overrides_that_no_run_was_made_with_may_be_corrected(tmp_path):
    write_sweep(planned(tmp_path, overrides=["mistyped=1"]))
    assert planned(tmp_path, overrides=["typed=1"]).overrides == ("typed=1",)


@pytest.mark.parametrize(
    "key", ["habitat.seed", "memory", "habitat_baselines.rl.memory.kind", "run_dir"]
)
@pytest.mark.parametrize("override", ["{}=1", "+{}=1", "++{}=1", " {} =1", "~{}"])
def test_what_a_sweep_sets_itself_is_refused_at_once(tmp_path, key, override):
    given_ = override.format(key)
    with pytest.raises(UserError, match=f"^{re.escape(given_)}: a sweep "):
        check_sweep(planned(tmp_path, overrides=["a=1", given_]))


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match="other files"):
        planned(tmp_path)
    with pytest.raises(UserError, match=r"sweep\.json"):
        planned(tmp_path, None)


def test_a_run_is_not_taken_for_a_sweep(tmp_path):
    (tmp_path / "config.yaml").touch()
    with pytest.raises(UserError, match=f"is a run, not a sweep.* train --resume {tmp_path}$"):
        planned(tmp_path, None)


def test_a_run_may_begin_beside_the_log_of_its_sweep_which_outlives_it(tmp_path):
    run = plan_run("dark", out=tmp_path / "run")
    for name in ("checkpoints", "eval/final"):
        (run.path / name).mkdir(parents=True)
    for name in (SWEEP_LOG, SWEEP_LOCK, "config.yaml"):
        (run.path / name).touch()
    with pytest.raises(UserError, match="other files"):
        plan_run("dark", out=run.path)
    discard_run(run)
    assert sorted(path.name for path in run.path.iterdir()) == sorted([SWEEP_LOG, SWEEP_LOCK])
    assert plan_run("dark", out=run.path).path == run.path


def test_nothing_is_left_of_a_discarded_run_without_a_sweep(tmp_path):
    run = plan_run("dark", out=tmp_path / "run")
    run.tensorboard_dir.mkdir(parents=True)
    run.config_path.touch()
    discard_run(run)
    assert not run.path.exists()
