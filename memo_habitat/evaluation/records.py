"""Episode records: one JSON object per line, written as each episode ends."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from memo_habitat.errors import UserError

RECORDS_FILE = "records.jsonl"


@dataclass(frozen=True)
class EpisodeRecord:
    """One finished episode.

    Attributes:
        trial_id: "<house>/<arrangement>/<repetition>".
        scene_id: house as the data set names it.
        arrangement_id: placement of the small objects in that house.
        repetition: how often the arrangement had been used before by this evaluation.
        episode_index: 0 for the trial's first episode.
        target_category: what was to be found.
        trial_step_start: steps of the trial taken before the episode began.
        trial_step_end: steps of the trial taken when it ended.
        success: 1.0 or 0.0.
        spl: success weighted by path length, in [0, 1].
        soft_spl: SPL with the share of the way covered in place of success, in [0, 1].
        distance_to_goal: geodesic distance left to the nearest viewpoint, m.
        num_steps: steps of the episode.
        collisions: steps that touched something.
        reward: sum of the episode's rewards.
        start_distance: geodesic distance to the nearest viewpoint at the start, m.
        path_length: way covered, m.
        truncated: whether the trial's end cut the episode off.
        context_tokens: tokens the agent could attend to at the end; None without memory.
        kv_bytes: bytes of their keys and values; None without memory.
        full_context_kv_bytes: bytes if every step of the trial were kept; None without memory.
        path: [P][2] positions (x, z) in m, one per step, the start first.
        start_position: [3] m.
        goal_positions: [G][3] m, the target's instances.
        waypoint_positions: [W][3] m, what has to be visited before the target, in this order.
        grid_shape: cells along x and z where the episode took place on a grid, whose cell (i, j)
            is the point x = i, z = j of the positions; empty elsewhere.
    """

    trial_id: str
    scene_id: str
    arrangement_id: str
    repetition: int
    episode_index: int
    target_category: str
    trial_step_start: int
    trial_step_end: int
    success: float
    spl: float
    soft_spl: float
    distance_to_goal: float
    num_steps: int
    collisions: float
    reward: float
    start_distance: float
    path_length: float
    truncated: bool
    context_tokens: int | None = None
    kv_bytes: int | None = None
    full_context_kv_bytes: int | None = None
    path: tuple[tuple[float, ...], ...] = ()
    start_position: tuple[float, ...] = ()
    goal_positions: tuple[tuple[float, ...], ...] = ()
    waypoint_positions: tuple[tuple[float, ...], ...] = ()
    grid_shape: tuple[int, ...] = ()

    @property
    def house(self) -> str:
        """Name of the house, the first part of the trial's name."""
        return self.trial_id.rsplit("/", 2)[0]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a text is needed")
    return value


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("a whole number from 0 on is needed")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("a finite number is needed")
    return float(value)


def _share(value: Any) -> float:
    number = _number(value)
    if not -1e-6 <= number <= 1 + 1e-6:
        raise ValueError("a number from 0 to 1 is needed")
    return min(1.0, max(0.0, number))


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false is needed")
    return value


def _optional_count(value: Any) -> int | None:
    return None if value is None else _count(value)


def _point(value: Any) -> tuple[float, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError("a list of numbers is needed")
    return tuple(_number(item) for item in value)


def _counts(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError("a list of whole numbers is needed")
    return tuple(_count(item) for item in value)


def _points(value: Any) -> tuple[tuple[float, ...], ...]:
    if not isinstance(value, list | tuple):
        raise ValueError("a list of points is needed")
    return tuple(_point(item) for item in value)


_PARSERS: dict[str, Callable[[Any], Any]] = {
    "str": _text,
    "int": _count,
    "float": _number,
    "bool": _flag,
    "int | None": _optional_count,
    "tuple[float, ...]": _point,
    "tuple[int, ...]": _counts,
    "tuple[tuple[float, ...], ...]": _points,
}
_SHARES = frozenset({"success", "spl", "soft_spl"})
# Fields that records written by earlier versions lack, and tasks without such things leave out.
_OPTIONAL = frozenset({"waypoint_positions", "grid_shape"})


def record_from_mapping(values: Mapping[str, Any]) -> EpisodeRecord:
    """Check `values` and make a record of them; fields that no record has are ignored.

    Raises:
        ValueError: a field is missing or of the wrong kind; the text names it.
    """
    parsed: dict[str, Any] = {}
    for field in fields(EpisodeRecord):
        if field.name not in values:
            if field.name in _OPTIONAL:
                continue
            raise ValueError(f"field '{field.name}' is missing")
        parse = _share if field.name in _SHARES else _PARSERS[str(field.type)]
        try:
            parsed[field.name] = parse(values[field.name])
        except ValueError as error:
            shown = repr(values[field.name])[:60]
            raise ValueError(f"field '{field.name}' is {shown}: {error}") from error
    return EpisodeRecord(**parsed)


def _parse_line(
    line: str,
    path: Path,
    number: int,
    paths: bool = True,
    trials: Collection[str] | None = None,
) -> EpisodeRecord | None:
    try:
        values = json.loads(line)
        if not isinstance(values, dict):
            raise ValueError("a JSON object is needed")
        if trials is not None and values.get("trial_id") not in trials:
            return None
        if not paths:
            values["path"] = ()
        return record_from_mapping(values)
    except ValueError as error:
        raise UserError(
            f"{path}, line {number}: malformed episode record ({error}); "
            "remove the line, or delete the file and evaluate again"
        ) from error


def iterate_records(
    path: Path, paths: bool = True, trials: Collection[str] | None = None
) -> Iterator[EpisodeRecord]:
    """The records of `path`, one at a time.

    Args:
        path: the records file.
        paths: whether their positions are wanted; without them, reading takes half the time.
        trials: names of the trials whose records are wanted; None: all.

    Raises:
        UserError: the file cannot be read, or a line is malformed; names file and line.
    """
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                record = _parse_line(line, path, number, paths, trials)
                if record is not None:
                    yield record
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"cannot read the records {path} ({error}); run `memo-habitat eval` to make them"
        ) from error


class RecordWriter:
    """Appends records to `path`, each one flushed, so that a kill loses no finished episode.

    What an earlier, interrupted evaluation left is kept where its trial is complete and dropped
    where it is not, because memory and draws of a trial cannot be taken up in its middle.
    """

    def __init__(self, path: Path, steps_per_trial: int) -> None:
        """Open `path`, making its folder.

        Args:
            path: the records file.
            steps_per_trial: a trial with an episode that ended at this step is complete.

        Raises:
            UserError: the file holds a malformed record, or the place cannot be written.
        """
        self.path = path
        self.written = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.complete = _keep_complete_trials(path, steps_per_trial)
            self._file: TextIO = path.open("a", encoding="utf-8")
        except OSError as error:
            raise UserError(
                f"cannot write the records {path} ({error.strerror or error}); "
                "give another output folder or make this one writable"
            ) from error

    def write(self, record: EpisodeRecord) -> None:
        """Append one record and flush it."""
        self._file.write(json.dumps(asdict(record), allow_nan=False, separators=(",", ":")) + "\n")
        self._file.flush()
        self.written += 1

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def complete_trials(path: Path, steps_per_trial: int) -> frozenset[str]:
    """Names of the trials in `path` whose last step was reached; empty if there is no file."""
    return frozenset(trial for trial, _ in _complete_lines(path, steps_per_trial)[0].items())


def _complete_lines(path: Path, steps_per_trial: int) -> tuple[dict[str, None], list[str]]:
    """Complete trials (in order), and the lines that belong to them."""
    if not path.exists():
        return {}, []
    complete: dict[str, None] = {}
    owners: list[tuple[str, str]] = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith("\n"):
                break  # torn by a kill in the middle of a write: its trial is not complete either
            if not line.strip():
                continue
            record = _parse_line(line, path, number, paths=False)
            if record is None:
                continue
            owners.append((record.trial_id, line))
            if record.trial_step_end >= steps_per_trial:
                complete[record.trial_id] = None
    return complete, [line for trial, line in owners if trial in complete]


def _keep_complete_trials(path: Path, steps_per_trial: int) -> frozenset[str]:
    """Rewrite `path`, atomically, with the records of complete trials alone; returns those."""
    if not path.exists():
        return frozenset()
    complete, kept = _complete_lines(path, steps_per_trial)
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.writelines(kept)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    return frozenset(complete)
