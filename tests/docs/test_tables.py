"""Tables in the documentation agree with the records and the code that they speak of."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from memo_habitat.memory.variants import PARTICULAR, kinds, takes
from memo_habitat.tasks.dark_key.layouts import SETTINGS

DOCS = Path(__file__).parents[2] / "docs"


def test_the_plan_on_the_page_is_that_of_its_record() -> None:
    plan = json.loads((DOCS / "results/memory/plan_studio.json").read_text())
    page = (DOCS / "results/memory.md").read_text()
    for name, planned, measured in (
        ("update", plan["update_bytes"], plan["measured"]["update_bytes"]),
        ("refresh", plan["refresh_bytes"], plan["measured"]["refresh_bytes"]),
    ):
        assert f"| {name} | {planned / 1e6:.1f} MB | {measured / 1e6:.1f} MB |" in page


def test_the_options_of_each_kind_are_those_that_are_accepted() -> None:
    page = (DOCS / "configs.md").read_text()
    assert f"| | {' | '.join(kinds())} |" in page
    rows = re.findall(r"^\| `(\w+)` ((?:\| (?:yes )?){7})\|$", page, re.MULTILINE)
    stated = {
        option: [
            kind for kind, cell in zip(kinds(), cells.split("|")[1:], strict=True) if "y" in cell
        ]
        for option, cells in rows
    }
    assert set(stated) == set(PARTICULAR)
    for option, known in stated.items():
        assert known == [kind for kind in kinds() if takes(kind, option)], option


@pytest.mark.parametrize("name", SETTINGS)
def test_the_settings_of_dark_key_to_door_are_those_of_the_code(name: str) -> None:
    setting = SETTINGS[name]
    (row,) = re.findall(rf"^\| {name} \|.*$", (DOCS / "configs.md").read_text(), re.MULTILINE)
    assert f"| {setting.size}×{setting.size} | {setting.episode_steps} steps |" in row
    assert f"| {setting.trial_steps} steps |" in row
    assert f"`setting={name}`" in row
