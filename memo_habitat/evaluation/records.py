"""What the folder of an evaluation says: about itself, and of every episode as it ends."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, NonNegativeInt

from memo_habitat.errors import UserError
from memo_habitat.tasks.record_fields import RecordField, Value
from memo_habitat.utils.files import atomic_path, atomic_write, read_json, read_json_lines
from memo_habitat.utils.provenance import Provenance

META_FILE = "meta.json"
RECORDS_FILE = "records.jsonl"
LOCK_FILE = ".lock"  # held by who evaluates
# Who can be evaluated: what was trained, and those it is compared with. `SENSOR_AGENTS` are sensors
# of the task, named `<agent>_action`.
SENSOR_AGENTS = ("oracle", "perfect_memory")
AGENTS = ("checkpoint", "random", "forward", *SENSOR_AGENTS)
# What is the same all through an evaluation.
_SAME = ("agent", "step", "weights", "steps_per_trial", "seed", "deterministic", "forget", "split")


class EvaluationMeta(Provenance):
    """What was evaluated, and how."""

    # Records may have been made by other means than this program.
    command: list[str] = []
    started: str = ""
    git_revision: str | None = None
    versions: dict[str, str] = {}
    machine: dict[str, str | int] = {}

    agent: str = AGENTS[0]  # one of `AGENTS`
    # Environment steps that the checkpoint was trained for; None for other agents.
    step: int | None = None
    split: str | None = None  # of the data set
    trials_per_house: int | None = None  # how many trials were planned in each house
    steps_per_trial: int | None = None  # length of a trial
    seed: int | None = None  # from which, with the trial's name, its episodes were drawn
    deterministic: bool = False  # whether the agent took its likeliest action instead of sampling
    forget: bool = False  # whether its memory was emptied at the start of every episode
    # One step in so many was looked at for attention; None: none was.
    inspect_every: int | None = None
    shard: str = ""  # which part of the trials, such as 3/16; empty: all
    # sha256 of the checkpoint's file; None for other agents.
    weights: str | None = None
    # `config.evaluation.evaluation_settings`.
    settings: dict[str, Any] = {}
    environments: int | None = None  # how many there were
    houses: tuple[str, ...] = ()  # their names
    device: str | None = None  # of the agent
    measures: dict[str, RecordField] = {}  # what was recorded, by its name in records
    finished: str | None = None  # when it ended, ISO 8601; None before that
    seconds: float | None = None  # how long it took

    def check_continues(self, folder: Path) -> None:
        """Refuse to go on in a folder with another evaluation; more trials may be asked for.

        Raises:
            UserError: names what differs.
        """
        if not (folder / META_FILE).exists():
            return
        different = EvaluationMeta.read(folder).differences(self)
        if different:
            told = [f"{name}={had!r}, now {has!r}" for name, (had, has) in different.items()]
            more = f"; and {len(told) - 3} more" if told[3:] else ""
            raise UserError(
                f"{folder} holds an evaluation with {'; '.join(told[:3])}{more}: choose another "
                "name (--name, or habitat_baselines.evaluator.name) or delete that folder"
            )

    def differences(self, other: EvaluationMeta, *more: str) -> dict[str, tuple[Any, Any]]:
        """What would make trials of both no parts of one evaluation: name -> both values.

        `more` fields are compared as well.
        """
        both = {name: (getattr(self, name), getattr(other, name)) for name in (*_SAME, *more)}
        for key in {**self.settings, **other.settings}:
            both[key] = self.settings.get(key), other.settings.get(key)
        return {name: values for name, values in both.items() if values[0] != values[1]}

    def write(self, folder: Path) -> None:
        """Write it into the folder of its evaluation."""
        atomic_write(folder / META_FILE, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> EvaluationMeta:
        """Read it from there; for records that came without one, the folder's name is the agent.

        Raises:
            UserError: it is malformed.
        """
        path = folder / META_FILE
        if not path.is_file():
            return cls(agent=folder.name, finished="unknown")
        return read_json(path, cls.model_validate)


# JSON knows lists alone: they are taken for tuples. What they hold is still checked strictly.
_Point = Annotated[tuple[FiniteFloat, ...], Field(strict=False)]
_Points = Annotated[tuple[_Point, ...], Field(strict=False)]


class EpisodeRecord(BaseModel):
    """One finished episode; further fields are the measures that the task declares."""

    model_config = ConfigDict(frozen=True, strict=True, extra="allow")
    __pydantic_extra__: dict[str, bool | FiniteFloat | None] = Field(init=False)

    trial_id: str  # "<house>/<arrangement>/<repetition>"
    scene_id: str  # house as the data set names it
    arrangement_id: str  # placement of the small objects in that house
    repetition: NonNegativeInt  # how often the arrangement had been used before by this evaluation
    episode_index: NonNegativeInt  # 0 for the trial's first episode
    target_category: str  # what was to be found
    trial_step_start: NonNegativeInt  # steps of the trial taken before the episode began
    trial_step_end: NonNegativeInt  # steps of the trial taken when it ended
    success: Annotated[FiniteFloat, Field(ge=0, le=1)]  # 1.0 or 0.0
    num_steps: NonNegativeInt  # steps of the episode
    reward: FiniteFloat  # sum of the episode's rewards
    start_distance: FiniteFloat  # geodesic distance to the nearest viewpoint at the start, m
    path_length: FiniteFloat  # way covered, m
    truncated: bool  # whether the trial's end cut the episode off
    # Tokens the agent could attend to at the end; None without memory.
    context_tokens: NonNegativeInt | None = None
    kv_bytes: NonNegativeInt | None = None  # bytes of their keys and values; None without memory
    # Bytes if every step since the memory was last emptied were kept; None without memory.
    full_context_kv_bytes: NonNegativeInt | None = None
    path: _Points = ()  # [P][2] positions (x, z) in m, one per step, the start first
    start_position: _Point = ()  # [3] m
    # Rad about the world's +Y axis; None where there is none.
    start_heading: FiniteFloat | None = None
    goal_positions: _Points = ()  # [G][3] m, the target's instances
    # [W][3] m, what has to be visited before the target, in this order.
    waypoint_positions: _Points = ()
    # Cells along x and z where the episode took place on a grid, whose cell (i, j) is the point x =
    # i, z = j of the positions; empty elsewhere.
    grid_shape: Annotated[tuple[NonNegativeInt, ...], Field(strict=False)] = ()

    @property
    def house(self) -> str:
        """Name of the house, the first part of the trial's name."""
        return self.trial_id.rsplit("/", 2)[0]

    @property
    def measures(self) -> dict[str, Value]:
        """What was measured, by name in the task's declaration."""
        own = {"success": self.success, "num_steps": self.num_steps, "reward": self.reward}
        return {**own, **self.__pydantic_extra__}


def iterate_records(path: Path, trials: Collection[str] | None = None) -> Iterator[EpisodeRecord]:
    """Yield the records of `path`, one at a time, of the named trials alone if any are named.

    A torn last line is left out.

    Raises:
        UserError: the file cannot be read, or a line is malformed; names file and line.
    """
    if not path.is_file():
        raise UserError(f"there are no records {path}; run `memo-habitat eval` to make them")
    for record in read_json_lines(path, EpisodeRecord.model_validate):
        if trials is None or record.trial_id in trials:
            yield record


def complete_trials(path: Path, steps_per_trial: int) -> frozenset[str]:
    """Names of the trials in `path` whose last step was reached; empty if there is no file."""
    records = read_json_lines(path, EpisodeRecord.model_validate)
    return frozenset(r.trial_id for r in records if r.trial_step_end >= steps_per_trial)


def keep_trials(path: Path, trials: Collection[str]) -> frozenset[str]:
    """Drop the lines of other trials from `path`, if it exists; returns the trials it then holds.

    What an interrupted evaluation left of trials that will be played again must not stay, nor a
    line that was torn by a kill.
    """
    if not path.exists():
        return frozenset()
    kept = set()
    with atomic_path(path) as temporary, temporary.open("wb") as written, path.open("rb") as lines:
        for trial, line in _lines(path, lines):
            if trial in trials:
                written.write(line)
                kept.add(trial)
    return frozenset(kept)


def sort_by_trial(sources: Sequence[Path], to: Path, places: Mapping[str, int]) -> None:
    """Write the lines of `sources` that tell of trials to `to`, by `places` of the trials.

    Those of one trial keep their order, those of others come last. Nothing is written where no
    source exists. What a line says stays byte for byte; one line at a time is in memory.
    """
    found: list[tuple[int, int, int, int]] = []  # place, source, first byte, length
    there = [path for path in sources if path.exists()]
    for number, path in enumerate(there):
        with path.open("rb") as lines:
            begin = 0
            for trial, line in _lines(path, lines):
                found.append((places.get(trial, len(places)), number, begin, len(line)))
                begin += len(line)
    if not there:
        return
    with atomic_path(to) as temporary, contextlib.ExitStack() as opened:
        files = [opened.enter_context(path.open("rb")) for path in there]
        written = opened.enter_context(temporary.open("wb"))
        for _, number, begin, length in sorted(found):
            files[number].seek(begin)
            written.write(files[number].read(length))


def _lines(path: Path, lines: Iterable[bytes]) -> Iterator[tuple[str, bytes]]:
    """Each whole line with the trial that it tells of."""
    for line in lines:
        if not line.endswith(b"\n"):  # torn by a kill
            return
        try:
            yield str(json.loads(line)["trial_id"]), line
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: a line names no trial; repair or remove it") from error
