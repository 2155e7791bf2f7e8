"""What a training run tells while it runs: a progress bar, and one JSON line an update."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm


class ProgressFile:
    """JSON lines, one per update; a resumed run drops the lines past where it goes on from."""

    def __init__(self, path: str, resume_at: int) -> None:
        self._path = Path(path) if path else None
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        kept = [row for row in read_progress(self._path) if row["steps"] <= resume_at]
        partial = self._path.with_name(f"{self._path.name}.partial")
        partial.write_text("".join(json.dumps(row) + "\n" for row in kept))
        partial.replace(self._path)

    def append(self, row: dict[str, Any]) -> None:
        """Write one row; nothing where no file is wanted."""
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(json.dumps(row) + "\n")


def read_progress(path: Path) -> list[dict[str, Any]]:
    """Rows of a progress file; a last line cut off by a kill is left out."""
    rows = []
    if path.is_file():
        for line in path.read_text().splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
    return rows


def steps_bar(done: int, total: float) -> tqdm[Any]:
    """Environment steps with rate and time left; silent where stderr is not a terminal."""
    return tqdm(
        total=int(total),
        initial=done,
        unit="step",
        unit_scale=True,
        desc="train",
        disable=not sys.stderr.isatty(),
        dynamic_ncols=True,
    )
