"""What measures declare decides what an episode's record holds."""

from __future__ import annotations

import math

import numpy as np
import pytest

from memo_habitat.tasks.record_fields import (
    EPISODE_MEASURE,
    SUCCESS,
    RecordField,
    declared_fields,
    recorded_values,
)


class Arrived:
    record = SUCCESS


class Detour:
    record = RecordField(kind="length", unit="m")


class StepReward:
    record = None


class Hits:
    record = {"count": RecordField(kind="count", name="hits"), "is_hit": None}


class Undeclared:
    pass


MEASURES = {
    "task_arrived": Arrived(),
    "detour_of_path": Detour(),
    "r": StepReward(),
    "hit": Hits(),
    "x": Undeclared(),
}


def test_a_declaration_is_read_off_the_class_and_named_by_the_uuid_where_it_has_no_name() -> None:
    declared = declared_fields(MEASURES)
    assert declared["task_arrived"] == SUCCESS
    assert declared["r"] is None and "x" not in declared
    detour = declared["detour_of_path"]
    assert detour is not None
    assert (detour.name, detour.title) == ("detour_of_path", "Detour of path")


def test_scalars_are_recorded_by_their_declared_name_and_nothing_else() -> None:
    info = {
        "task_arrived": np.float64(1.0),
        "detour_of_path": np.array([0.5], dtype=np.float32),
        "r": 3.0,
        "hit": {"count": 2, "is_hit": True},
        "x": True,
        "image": np.zeros((2, 2)),
        "text": "no",
        "collisions": {"count": 3, "is_collision": False},
        EPISODE_MEASURE: {"trial_id": "a", "path_length": 2.0},
    }
    found = recorded_values(info, declared_fields(MEASURES))
    assert {name: value for name, (_, value) in found.items()} == {
        "success": 1.0,
        "detour_of_path": 0.5,
        "hits": 2,
        "x": 1.0,
        "collisions.count": 3,
        "collisions.is_collision": 0.0,
    }


@pytest.mark.parametrize(
    ("value", "kind"), [(True, "rate"), (3, "count"), (0.5, "quantity"), (None, "quantity")]
)
def test_what_is_not_declared_is_taken_for_what_its_values_look_like(value, kind) -> None:
    assert recorded_values({"x": value}, {})["x"][0].kind == kind


def test_a_name_that_tasks_share_means_the_same_undeclared() -> None:
    assert recorded_values({"spl": 0.5}, {})["spl"][0].kind == "rate"


def test_not_a_number_is_recorded_as_missing() -> None:
    assert recorded_values({"x": math.nan}, {})["x"][1] is None


def test_a_condition_is_true_false_or_unknown() -> None:
    declared = {"seen": RecordField("condition").called("seen")}
    values = [recorded_values({"seen": v}, declared)["seen"][1] for v in (1.0, 0, None, True)]
    assert values == [True, False, None, True]


@pytest.mark.parametrize(
    ("info", "text"),
    [
        ({"spl": 1.2}, "'spl' is 1.2"),
        ({"x": math.inf}, "'x' is inf"),
        ({"task_arrived": 1.0, "success": 0.0}, "two measures .* 'success'"),
    ],
)
def test_what_cannot_be_recorded_is_named(info, text) -> None:
    with pytest.raises(ValueError, match=text):
        recorded_values(info, declared_fields(MEASURES))
