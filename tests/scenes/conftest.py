"""Small generated sets that the tests of the homes share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from memo_habitat.scenes.generate import generate
from tests.scenes.scene_sets import SETS


@pytest.fixture(scope="session", params=sorted(SETS))
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a generated set, one of each kind."""
    folder = tmp_path_factory.mktemp("homes") / request.param
    generate(replace(SETS[request.param], out=folder))
    return folder
