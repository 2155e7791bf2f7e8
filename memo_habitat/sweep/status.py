"""What a sweep tells while it runs: a line for each event, and one on the whole at a terminal."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

from memo_habitat.errors import UserError
from memo_habitat.sweep.spec import Member, Sweep
from memo_habitat.trainer.progress import share_done
from memo_habitat.trainer.run_dir import RunFolder
from memo_habitat.utils.processes import tail

# Seconds between two looks at the progress of the runs.
_EVERY = 2.0


class Terminal:
    """Lines that stay, on stdout, above one line that changes, on stderr if it is a terminal.

    Runs outlive who reads of them: a terminal that was closed is not written to, nor an error.
    """

    def __init__(self) -> None:
        self._shown = False
        self._live = sys.stderr.isatty()
        self._next = 0.0

    def say(self, line: str) -> None:
        """Write a line that stays."""
        self.clear()
        _write(sys.stdout, line + "\n")

    def is_due(self) -> bool:
        """Whether the changing line is to be made anew."""
        if not self._live or time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + _EVERY
        return True

    def show(self, line: str) -> None:
        """Replace the line that changes."""
        width = shutil.get_terminal_size().columns
        _write(sys.stderr, f"\r\x1b[K{line[: width - 1]}")
        self._shown = True

    def clear(self) -> None:
        """Remove the line that changes."""
        if self._shown:
            _write(sys.stderr, "\r\x1b[K")
            self._shown = False


class Estimate:
    """How much of the training is done, and how long the rest takes at the measured rates."""

    def __init__(self, sweep: Sweep, jobs: int) -> None:
        self._members, self._jobs = sweep.members(), jobs
        self._baselines: dict[Path, Any] = {}

    def line(self, finished: int, tasks: int) -> str:
        """For the terminal, such as "2/6 done · training 41 % · 1 h 20 min left"."""
        shares, seconds = self._measure()
        parts = [f"{finished}/{tasks} done", f"training {100 * sum(shares) / len(shares):.0f} %"]
        if seconds is not None:
            parts.append(f"about {duration(seconds)} of training left")
        return " · ".join(parts)

    def _measure(self) -> tuple[list[float], float | None]:
        """Share done of every run, and seconds left; None as long as nothing is measured."""
        shares, whole = [], dict[str, list[float]]()
        for member in self._members:
            row = last_row(RunFolder(member.path).progress_file)
            share = 0.0 if row is None else self._share(member, row)
            shares.append(share)
            if row is not None and share > 0:
                whole.setdefault(member.variant, []).append(float(row["seconds"]) / share)
        if not whole:
            return shares, None
        everything = _mean(_mean(own) for own in whole.values())
        left = sum(
            (1 - share) * (_mean(whole[m.variant]) if m.variant in whole else everything)
            for m, share in zip(self._members, shares, strict=True)
        )
        at_once = min(self._jobs, sum(share < 1 for share in shares))
        return shares, left / max(1, at_once)

    def _share(self, member: Member, row: dict[str, Any]) -> float:
        if member.path not in self._baselines:  # reading a config takes a while
            try:
                self._baselines[member.path] = RunFolder(member.path).config().habitat_baselines
            except UserError:  # the task of that run tells of it
                return 0.0
        return share_done(self._baselines[member.path], row["steps"], row["updates"])


def last_row(progress: Path) -> dict[str, Any] | None:
    """The last whole row of a progress file, without reading all of it."""
    rows = _last_rows(progress)
    return rows[-1] if rows else None


def last_return(progress: Path) -> str:
    """The return of the trials, or reward of the episodes, that ended last; empty if unknown."""
    for row in reversed(_last_rows(progress)):
        trials = row.get("trials") or {}
        if trials.get("count") and trials.get("return") is not None:
            return f"last return {trials['return']:.2f}"
    row = last_row(progress)
    reward = None if row is None else row.get("metrics", {}).get("reward")
    return "" if reward is None else f"last reward per episode {reward:.2f}"


def duration(seconds: float) -> str:
    """90 as "2 min"; from an hour on with hours."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def _write(stream: TextIO, text: str) -> None:
    with contextlib.suppress(OSError):
        stream.write(text)
        stream.flush()


def _last_rows(progress: Path) -> list[dict[str, Any]]:
    if not progress.is_file():
        return []
    rows = []
    for line in tail(progress).splitlines(keepends=True):
        try:
            row = json.loads(line) if line.endswith("\n") else None
        except ValueError:  # the first one may have been cut
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)
