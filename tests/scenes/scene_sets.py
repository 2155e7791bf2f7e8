"""Options of the sets that tests generate, and readers of what was written."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from memo_habitat.scenes.generate import GenerateOptions

SETS = {
    "studio": GenerateOptions(Path(), houses=4, seed=5, kind="studio", split_sizes=(2, 1, 1)),
    "apartment": GenerateOptions(
        Path(), houses=2, seed=5, kind="apartment", split_sizes=(1, 0, 1), arrangements=2
    ),
}


def read_document(file: Path) -> dict[str, Any]:
    """One gzip JSON file."""
    document: dict[str, Any] = json.loads(gzip.decompress(file.read_bytes()))
    return document


def read_episodes(folder: Path, kind: str = "episodes") -> dict[str, list[dict[str, Any]]]:
    """Episodes of each split of a set."""
    return {
        file.name.split(".")[0]: read_document(file)["episodes"]
        for file in sorted((folder / kind).glob("*.json.gz"))
    }


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by its path inside it."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
