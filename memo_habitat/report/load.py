"""Reads what a run folder holds: evaluations, training progress, config and versions."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from memo_habitat.errors import UserError, command
from memo_habitat.evaluation.attention import ATTENTION_FILE, TrialBin, over_trials
from memo_habitat.evaluation.recorder import (
    FRAMES_FOLDER,
    FRAMES_INDEX,
    MAPS_FOLDER,
    REWARDS_FILE,
    TRACE_FILE,
    FilmedEpisode,
    RewardLine,
    TracePoint,
)
from memo_habitat.evaluation.records import (
    RECORDS_FILE,
    EpisodeRecord,
    EvaluationMeta,
    iterate_records,
)
from memo_habitat.report.episodes import Episodes, Headline, headline, tabulate
from memo_habitat.report.statistics import FloatArray
from memo_habitat.simulator.interface import TopDownMap
from memo_habitat.trainer.run_dir import RunFolder
from memo_habitat.utils.files import file_name, read_json, read_json_lines

EVAL_FOLDER = "eval"


@dataclass(frozen=True)
class TrialRewards:
    """Rewards along T equally long trials."""

    ends: FloatArray  # float64 [B], the last step of each bin
    sums: FloatArray  # float64 [T, B], sum of the rewards in each bin

    def by_trial(self) -> list[TrialRewards]:
        """Those of each trial alone."""
        return [TrialRewards(self.ends, row[None]) for row in self.sums]

    def cumulative(self) -> tuple[FloatArray, FloatArray]:
        """Steps [B + 1] from 0 on, and the mean over trials of what was earned by then [B + 1]."""
        return np.append(0.0, self.ends), np.append(0.0, np.cumsum(self.sums.mean(axis=0)))

    def rate(self, parts: int = 10) -> tuple[FloatArray, FloatArray]:
        """Middles [P] of `parts` equal parts of the trial, and the mean reward per step there [P].

        The cumulative reward is taken to grow evenly within a bin.
        """
        edges = np.linspace(0.0, self.ends[-1], min(parts, len(self.ends)) + 1)
        gained = np.diff(np.interp(edges, *self.cumulative()))
        return (edges[1:] + edges[:-1]) / 2, gained / np.diff(edges)


def read_rewards(path: Path, trials: Collection[str], steps: int) -> TrialRewards | None:
    """Rewards along `trials`, of `steps` steps each; None unless all of them are there.

    A mean over some of them would stand for the whole evaluation: an evaluation whose first
    trials were played without a log has no curve. A trial's last line counts: it was played again
    where there are several.
    """
    found: dict[str, list[float]] = {}
    width = 0
    for line in read_json_lines(path, RewardLine.model_validate):
        width = line.bin_steps
        if len(line.rewards) != -(-steps // width):
            raise UserError(
                f"{path}: {len(line.rewards)} sums over {width} steps make no trial of {steps} "
                "steps; delete the file"
            )
        if line.trial_id in trials:
            found[line.trial_id] = line.rewards
    if not found or len(found) < len(set(trials)):
        return None
    sums = np.array([found[trial] for trial in sorted(found)])
    return TrialRewards(np.minimum(width * np.arange(1.0, sums.shape[1] + 1), steps), sums)


@dataclass(frozen=True)
class Evaluation:
    """One evaluated agent."""

    folder: Path  # eval/<name> of its run
    label: str  # how the report calls it
    meta: EvaluationMeta  # what it says about itself
    steps: int  # length of a trial, or of what is taken of it where none is complete
    episodes: Episodes  # of the trials that are complete, or have come as far as `steps`
    unfinished: int  # trials that are not complete
    trials: frozenset[str]  # names of the trials in `episodes`

    @property
    def agent(self) -> str:
        """Kind of agent, one of `evaluation.records.AGENTS`."""
        return self.meta.agent

    @cached_property
    def headline(self) -> Headline:
        """Its headline numbers."""
        return headline(self.episodes, self.steps)

    @property
    def shortfall(self) -> str:
        """What is missing of it, in words; empty where nothing is."""
        if self.steps < (self.meta.steps_per_trial or 0):
            return f"no trial is complete: of {len(self.trials)} the first {self.steps} steps count"
        plural = "s" if self.unfinished != 1 else ""
        return f"{self.unfinished} unfinished trial{plural} left out" if self.unfinished else ""

    @property
    def is_finished(self) -> bool:
        """Whether it has played all its trials to their end."""
        return self.meta.finished is not None and not self.unfinished

    def records(self, trials: Collection[str] | None = None) -> Iterator[EpisodeRecord]:
        """Its records with their paths, one at a time; of the given trials alone, if any are."""
        chosen = self.trials if trials is None else self.trials.intersection(trials)
        return iterate_records(self.folder / RECORDS_FILE, chosen)

    def rewards(self) -> TrialRewards | None:
        """Rewards along its trials; None where not all were written down."""
        return read_rewards(self.folder / REWARDS_FILE, self.trials, self.steps)

    def trace(self) -> dict[str, list[TracePoint]]:
        """Points of context along the trial, by trial; one played again replaces its points."""
        found: dict[str, list[TracePoint]] = {}
        for point in read_json_lines(self.folder / TRACE_FILE, TracePoint.model_validate):
            points = found.setdefault(point.trial_id, [])
            if points and point.trial_step <= points[-1].trial_step:
                points.clear()
            points.append(point)
        return found

    def attention(self) -> list[TrialBin]:
        """Where the memory attended, by part of the trial over all trials; empty if unknown."""
        bins = read_json_lines(self.folder / ATTENTION_FILE, TrialBin.model_validate)
        return over_trials(part for part in bins if part.trial_id in self.trials)

    def film_strips(self) -> list[tuple[FilmedEpisode, list[Path]]]:
        """Filmed episodes in order, with their files."""
        folder = self.folder / FRAMES_FOLDER
        found = {}
        for film in read_json_lines(folder / FRAMES_INDEX, FilmedEpisode.model_validate):
            files = [folder / name for name in film.files]
            if all(file.exists() for file in files):
                found[film.trial_id, film.episode_index] = film, files
        return [strip for _, strip in sorted(found.items())]


def read_house_map(folder: Path, house: str) -> TopDownMap | None:
    """The map of `house` in the folder of an evaluation, if there is one."""
    path = folder / MAPS_FOLDER / f"{file_name(house)}.npz"
    if not path.exists():
        return None
    try:
        with np.load(path) as saved:
            x, z = (float(value) for value in saved["origin"])
            return TopDownMap(saved["free"].astype(bool), (x, z), float(saved["resolution"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"cannot read the map {path} ({error}); delete it") from error


@dataclass(frozen=True)
class Run:
    """One run folder."""

    folder: Path  # where it is
    name: str  # the folder's, with as much of its path as tells it from the others
    info: dict[str, Any]  # run.json: versions, git revision, seed, command; empty if there is none
    config: str  # config.yaml as text; empty if there is none
    progress: list[dict[str, Any]]  # one mapping of metrics per update, from progress.jsonl
    evaluations: list[Evaluation]  # evaluated agents
    notes: tuple[str, ...] = ()  # what is left out, one sentence each

    @cached_property
    def settings(self) -> Any:
        """The config (an OmegaConf DictConfig); empty if there is none.

        Raises:
            UserError: it is no YAML.
        """
        return RunFolder(self.folder).config() if self.config else OmegaConf.create()


def load_runs(folders: Iterable[Path]) -> list[Run]:
    """Read run folders; with several, labels of evaluations begin with the run's name.

    Raises:
        UserError: a folder is missing, holds no records, or malformed ones.
    """
    chosen = [Path(folder) for folder in folders]
    if not chosen:
        raise UserError("no run folder given; name at least one, such as runs/<run>")
    if len(chosen) == 1:
        return [load_run(chosen[0])]
    return [load_run(*named) for named in zip(chosen, _names(chosen), strict=True)]


def _names(folders: list[Path]) -> list[str]:
    """The folders' names, with as many folders around them as tell them apart."""
    paths = [folder.resolve() for folder in folders]
    for count in range(1, max(len(path.parts) for path in paths)):
        names = ["/".join(path.parts[-count:]) for path in paths]
        if len(set(names)) == len(set(paths)):
            break
    return names


def evaluation_folders(run: Path) -> list[Path]:
    """Folders of the evaluations of a run, by name."""
    found = (path.parent for path in run.glob(f"{EVAL_FOLDER}/*/{RECORDS_FILE}"))
    # Hidden are those of `watch` and `inspect`, which a kill may leave.
    return sorted(folder for folder in found if not folder.name.startswith("."))


def evaluations_begun(run: Path) -> list[Path]:
    """Those of `evaluation_folders` that hold a record."""

    def is_begun(folder: Path) -> bool:
        with (folder / RECORDS_FILE).open("rb") as file:
            return file.readline().endswith(b"\n")

    return list(filter(is_begun, evaluation_folders(run)))


def left_out(run: Path) -> list[str]:
    """One sentence on each evaluation of a run that holds no record yet."""
    begun = evaluations_begun(run)
    return [
        f"{folder.name} is left out: {folder / RECORDS_FILE} holds no record; evaluate it again, "
        "or delete that folder"
        for folder in evaluation_folders(run)
        if folder not in begun
    ]


def load_run(folder: Path, name: str = "") -> Run:
    """Read the run `folder`; a name is put in front of the labels."""
    if not folder.is_dir():
        raise UserError(
            f"run folder {folder} does not exist; `memo-habitat train` makes one under runs/"
        )
    found = evaluation_folders(folder)
    if not found:
        raise UserError(
            f"{folder} holds no evaluation ({EVAL_FOLDER}/*/{RECORDS_FILE}); "
            f"run `{command('eval', folder)}` first"
        )
    # Without any there is nothing to report, which `load_evaluation` says of the first.
    kept = evaluations_begun(folder) or found
    prefix = f"{name} · " if name else ""
    evaluations = [load_evaluation(path, prefix + path.name) for path in kept]
    # Reference agents around the trained ones, checkpoints in the order they were made.
    place = {"random": 0, "forward": 0, "perfect_memory": 2, "oracle": 3}
    evaluations.sort(key=lambda e: (place.get(e.agent, 1), e.meta.step or 0, e.label))
    config, info = folder / "config.yaml", folder / "run.json"
    return Run(
        folder,
        name or folder.resolve().name,
        read_json(info) if info.exists() else {},
        config.read_text(encoding="utf-8") if config.exists() else "",
        list(read_json_lines(folder / "progress.jsonl")),
        evaluations,
        tuple(left_out(folder)),
    )


def load_evaluation(folder: Path, label: str) -> Evaluation:
    """Read one evaluated agent's folder."""
    path, meta = folder / RECORDS_FILE, EvaluationMeta.read(folder)
    episodes = tabulate(iterate_records(path), meta.measures)
    if len(episodes) == 0:
        raise UserError(
            f"{path} holds no record; run `memo-habitat eval` again, which goes on from there"
        )
    reached = np.zeros(len(episodes.trial_names), dtype=np.int64)
    np.maximum.at(reached, episodes.trial, episodes.end)
    steps = meta.steps_per_trial or int(reached.max())
    unfinished = int((reached < steps).sum())
    if unfinished == len(reached):  # better what there is than nothing: where the most was played
        lengths = np.sort(reached)
        steps = int(lengths[np.argmax(lengths * np.arange(len(lengths), 0, -1))])
    is_whole = reached >= steps
    whole = episodes.select(is_whole[episodes.trial] & (episodes.end <= steps))
    numbers = np.cumsum(is_whole) - 1  # houses of other trials do not count either
    names = tuple(np.array(episodes.trial_names)[is_whole].tolist())
    whole = replace(whole, trial=numbers[whole.trial], trial_names=names)
    return Evaluation(folder, label, meta, steps, whole, unfinished, frozenset(names))


def first_and_last(
    evaluation: Evaluation, houses: int, keep: Callable[[EpisodeRecord], bool]
) -> list[EpisodeRecord]:
    """First and last episode of the first trial in each of `houses` houses, of those to `keep`."""
    trial_of: dict[str, str] = {}
    found: dict[str, list[EpisodeRecord]] = {}
    for record in evaluation.records():
        if trial_of.setdefault(record.house, record.trial_id) == record.trial_id and keep(record):
            found.setdefault(record.house, [])[1:] = [record]
    return [record for house in sorted(found)[:houses] for record in found[house]]
