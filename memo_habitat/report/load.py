"""Reads what a run folder holds: evaluations, training progress, config and versions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from memo_habitat.errors import UserError
from memo_habitat.evaluation.attention import MEMORY_FILE, Stretch, over_trials, parse_stretches
from memo_habitat.evaluation.recorder import (
    FRAMES_FOLDER,
    FRAMES_INDEX,
    MAPS_FOLDER,
    TRACE_FILE,
    file_name,
)
from memo_habitat.evaluation.records import (
    RECORDS_FILE,
    EpisodeRecord,
    EvaluationMeta,
    iterate_records,
)
from memo_habitat.report.rewards import REWARDS_FILE, TrialRewards, parse_rewards
from memo_habitat.report.statistics import Episodes, tabulate
from memo_habitat.utils.files import read_json, read_json_lines

EVAL_FOLDER = "eval"


@dataclass(frozen=True)
class HouseMap:
    """Where an agent can stand in a house.

    Attributes:
        free: bool [Z, X].
        origin: (x, z) in m of the outer corner of cell [0, 0].
        resolution: m per cell.
    """

    free: np.ndarray
    origin: tuple[float, float]
    resolution: float


@dataclass(frozen=True)
class Evaluation:
    """One evaluated agent.

    Attributes:
        folder: eval/<name> of its run.
        label: how the report calls it.
        meta: what it says about itself.
        steps: length of a trial.
        episodes: episodes of the complete trials (of all trials if none is complete).
        unfinished: trials that are not complete, left out.
        trials: names of the trials in `episodes`.
    """

    folder: Path
    label: str
    meta: EvaluationMeta
    steps: int
    episodes: Episodes
    unfinished: int
    trials: frozenset[str]

    @property
    def agent(self) -> str:
        """Kind of agent: checkpoint, random or oracle."""
        return self.meta.agent

    @property
    def is_finished(self) -> bool:
        """Whether it has played all its trials to their end."""
        return self.meta.finished is not None and not self.unfinished

    def records(self, trials: Collection[str] | None = None) -> Iterator[EpisodeRecord]:
        """Its records with their paths, one at a time; of the given trials alone, if any are."""
        chosen = self.trials if trials is None else self.trials.intersection(trials)
        return iterate_records(self.folder / RECORDS_FILE, trials=chosen)

    def rewards(self) -> TrialRewards | None:
        """Rewards along its trials; None where not all were written down."""
        path = self.folder / REWARDS_FILE
        return parse_rewards(path, read_json_lines(path), self.trials, self.steps)

    def trace(self) -> dict[str, list[dict[str, Any]]]:
        """Points of context along the trial, by trial; a trial played anew replaces its points."""
        found: dict[str, list[dict[str, Any]]] = {}
        for point in read_json_lines(self.folder / TRACE_FILE):
            points = found.setdefault(str(point["trial_id"]), [])
            if points and point["trial_step"] <= points[-1]["trial_step"]:
                points.clear()
            points.append(point)
        return found

    def attention(self) -> list[Stretch]:
        """Where the memory attended, by stretch of the trial over all trials; empty if unknown."""
        path = self.folder / MEMORY_FILE
        found = parse_stretches(path, read_json_lines(path))
        return over_trials(stretch for stretch in found if stretch.trial_id in self.trials)

    def film_strips(self) -> list[dict[str, Any]]:
        """Filmed episodes in order, their `files` as paths."""
        folder = self.folder / FRAMES_FOLDER
        found = {}
        for line in read_json_lines(folder / FRAMES_INDEX):
            files = [folder / name for name in line["files"]]
            if all(file.exists() for file in files):
                found[line["trial_id"], line["episode_index"]] = {**line, "files": files}
        return [strip for _, strip in sorted(found.items())]

    def house_map(self, house: str) -> HouseMap | None:
        """The saved map of `house`, if there is one."""
        path = self.folder / MAPS_FOLDER / f"{file_name(house)}.npz"
        if not path.exists():
            return None
        try:
            with np.load(path) as saved:
                x, z = (float(value) for value in saved["origin"])
                return HouseMap(saved["free"].astype(bool), (x, z), float(saved["resolution"]))
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"cannot read the map {path} ({error}); delete it") from error


@dataclass(frozen=True)
class Run:
    """One run folder.

    Attributes:
        folder: where it is.
        info: run.json: versions, git revision, seed, command; empty if there is none.
        config: config.yaml as text; empty if there is none.
        progress: one mapping of metrics per update, from progress.jsonl.
        evaluations: evaluated agents.
    """

    folder: Path
    info: dict[str, Any]
    config: str
    progress: list[dict[str, Any]]
    evaluations: list[Evaluation]

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name


def load_runs(folders: Iterable[Path]) -> list[Run]:
    """Read run folders; with several, labels of evaluations begin with the run's name.

    Raises:
        UserError: a folder is missing, holds no records, or malformed ones.
    """
    chosen = [Path(folder) for folder in folders]
    if not chosen:
        raise UserError("no run folder given; name at least one, such as runs/<run>")
    return [load_run(folder, with_name=len(chosen) > 1) for folder in chosen]


def load_run(folder: Path, with_name: bool = False) -> Run:
    """Read the run `folder`; `with_name` puts its name in front of the labels."""
    if not folder.is_dir():
        raise UserError(
            f"run folder {folder} does not exist; `memo-habitat train` makes one under runs/"
        )
    found = sorted(path.parent for path in folder.glob(f"{EVAL_FOLDER}/*/{RECORDS_FILE}"))
    if not found:
        raise UserError(
            f"{folder} holds no evaluation ({EVAL_FOLDER}/*/{RECORDS_FILE}); "
            f"run `memo-habitat eval {folder}` first"
        )
    prefix = f"{folder.resolve().name} · " if with_name else ""
    evaluations = [load_evaluation(path, prefix + path.name) for path in found]
    evaluations.sort(key=_rank)
    config, info = folder / "config.yaml", folder / "run.json"
    return Run(
        folder,
        read_json(info) if info.exists() else {},
        config.read_text(encoding="utf-8") if config.exists() else "",
        [_flat(line) for line in read_json_lines(folder / "progress.jsonl")],
        evaluations,
    )


def load_evaluation(folder: Path, label: str) -> Evaluation:
    """Read one evaluated agent's folder."""
    path, meta = folder / RECORDS_FILE, EvaluationMeta.read(folder)
    everything = tabulate(iterate_records(path), meta.measures)
    if len(everything) == 0:
        raise UserError(
            f"{path} holds no record; run `memo-habitat eval` again, which goes on from there"
        )
    steps = meta.steps_per_trial or int(everything.end.max())
    is_whole = np.zeros(len(everything.trial_names), dtype=bool)
    is_whole[everything.trial[everything.end >= steps]] = True
    unfinished = 0
    if is_whole.any():
        unfinished = int((~is_whole).sum())
        everything = everything.select(is_whole[everything.trial])
    else:
        is_whole[:] = True
    names = zip(everything.trial_names, is_whole, strict=True)
    whole = frozenset(name for name, complete in names if complete)
    return Evaluation(folder, label, meta, steps, everything, unfinished, whole)


def _rank(evaluation: Evaluation) -> tuple[int, int, str]:
    """Reference agents around the trained ones, checkpoints in the order they were made."""
    order = {"random": 0, "oracle": 2}
    return order.get(evaluation.agent, 1), evaluation.meta.step or 0, evaluation.label


def _flat(line: dict[str, Any]) -> dict[str, Any]:
    """A progress line with its mappings spelled out: {"metrics": {"spl": 1}} -> metrics/spl."""
    flat: dict[str, Any] = {}
    for key, value in line.items():
        if isinstance(value, dict):
            flat.update({f"{key}/{name}": item for name, item in _flat(value).items()})
        else:
            flat[key] = value
    return flat


def first_and_last(
    evaluation: Evaluation, houses: int, keep: Callable[[EpisodeRecord], bool]
) -> list[EpisodeRecord]:
    """First and last episode of the first trial in each of `houses` houses, of those to `keep`."""
    trial_of: dict[str, str] = {}
    found: dict[str, list[EpisodeRecord]] = {}
    for record in evaluation.records():
        if trial_of.setdefault(record.house, record.trial_id) != record.trial_id:
            continue
        if keep(record):
            own = found.setdefault(record.house, [])
            own[1:] = [record]
    chosen = [found[house] for house in sorted(found)][:houses]
    return [record for own in chosen for record in own]
