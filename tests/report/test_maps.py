"""Episodes on a grid are drawn cell by cell, with the way's second part after the key."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from memo_habitat.report.maps import draw_grid
from tests.factories.episodes import episode


def drawn(path, key, success=1.0) -> ElementTree.Element:
    record = episode(
        path=path,
        success=success,
        grid_shape=(4, 3),
        waypoint_positions=((float(key[0]), 0.0, float(key[1])),),
        goal_positions=((3.0, 0.0, 2.0),),
    )
    return ElementTree.fromstring(draw_grid(record, 2))


def lines(root: ElementTree.Element) -> list[str]:
    return [part.attrib["points"] for part in root if part.tag == "polyline"]


def test_the_way_changes_where_the_key_is_found_and_up_is_up() -> None:
    root = drawn(((0.0, 0.0), (0.0, 1.0), (1.0, 1.0)), (0, 1))
    assert lines(root) == ["0.5,2.5 0.5,1.5", "0.5,1.5 1.5,1.5"]
    x, y, width, height = (float(value) for value in root.attrib["viewBox"].split())
    assert (x + width, y + height) == pytest.approx((4.05, 3.05))


def test_a_key_on_the_start_takes_a_step_of_its_own() -> None:
    root = drawn(((0.0, 0.0), (0.0, 0.0), (1.0, 0.0)), (0, 0))
    assert lines(root) == ["0.5,2.5 0.5,2.5", "0.5,2.5 1.5,2.5"]


def test_a_key_never_found_leaves_no_second_part() -> None:
    root = drawn(((0.0, 0.0), (1.0, 0.0)), (2, 2), success=0.0)
    assert lines(root)[1] == "1.5,2.5"
    assert any(part.attrib.get("class") == "end missed" for part in root)


def test_the_disc_visits_every_step_of_the_way() -> None:
    root = drawn(((0.0, 0.0), (1.0, 0.0), (1.0, 0.0), (1.0, 1.0)), (0, 1))
    animation = next(part for part in root.iter("animate") if part.attrib["attributeName"] == "cx")
    assert animation.attrib["values"].split(";")[:4] == ["0.5", "1.5", "1.5", "1.5"]
