"""What an evaluation folder says about itself, and whether an evaluation may go on in it."""

from __future__ import annotations

import json
import platform
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from memo_habitat.errors import UserError

META_FILE = "meta.json"
# Who can be evaluated: what was trained, and those it is compared with.
AGENTS = ("checkpoint", "random", "oracle")
# An evaluation may be continued, or given more trials, where all of these are as they were.
_IDENTITY = ("agent", "step", "steps_per_trial", "seed", "deterministic", "split")
_PACKAGES = ("memo-habitat", "habitat-lab", "habitat-baselines", "torch", "numpy")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def now() -> str:
    """The present time as ISO 8601, to the second, UTC."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`.

    Raises:
        UserError: it is not there or no JSON object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path} ({error}); evaluate again to make it anew") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no JSON object; delete it and evaluate again")
    return values


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file with one on each line; none where there is no such file.

    Raises:
        UserError: a line is no JSON object; names file and line.
    """
    if not path.exists():
        return
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith("\n"):
                return  # being written, or torn by a kill
            try:
                values = json.loads(line)
            except ValueError as error:
                raise UserError(
                    f"{path}, line {number} is no JSON ({error}); remove the line"
                ) from error
            if not isinstance(values, dict):
                raise UserError(f"{path}, line {number} is no JSON object; remove the line")
            yield values


def append_json_line(path: Path, line: Mapping[str, Any]) -> None:
    """Append `line` to a file with one JSON object on each line.

    Raises:
        UserError: it cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({error.strerror or error}); make its folder writable"
        ) from error


def keep_trials(path: Path, trials: Collection[str]) -> frozenset[str]:
    """Drop the lines of other trials from `path`, if it exists; returns the trials it then holds.

    For a file with one JSON object on each line: what an interrupted evaluation left of trials
    that will be played anew must not stay, nor a line that was torn by a kill.
    """
    if not path.exists():
        return frozenset()
    lines = [line for line in json_lines(path) if line.get("trial_id") in trials]
    partial = path.with_suffix(".partial")
    partial.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    partial.replace(path)
    return frozenset(str(line["trial_id"]) for line in lines)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write `values` to `path`, atomically."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        partial.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({error.strerror or error}); "
            "give another output folder or make this one writable"
        ) from error


def open_folder(folder: Path, meta: Mapping[str, Any]) -> None:
    """Begin or continue the evaluation `meta` in `folder`.

    Raises:
        UserError: the folder holds records of another evaluation; names what differs.
    """
    path = folder / META_FILE
    if path.exists():
        before = read_json(path)
        for name in _IDENTITY:
            if name in before and before[name] != meta.get(name):
                raise UserError(
                    f"{folder} holds an evaluation with {name}={before[name]!r}, now it is "
                    f"{meta.get(name)!r}; choose another name (habitat_baselines.evaluator.name) "
                    "or delete that folder"
                )
    write_json(path, meta)
