"""Reads what a sweep folder holds, however much of it is there yet."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import BaseModel, Field

from memo_habitat.errors import UserError
from memo_habitat.evaluation.records import RECORDS_FILE, EvaluationMeta
from memo_habitat.report import (
    FINAL,
    REFERENCE,
    REFERENCE_AGENTS,
    SEARCHER,
    SWEEP_FILE,
    member_folder,
)
from memo_habitat.report.episodes import return_per_trial, trial_returns
from memo_habitat.report.load import EVAL_FOLDER, Evaluation, evaluation_folders, load_evaluation
from memo_habitat.report.statistics import NOTHING, Estimate, FloatArray
from memo_habitat.trainer.progress import share_done
from memo_habitat.utils.files import read_json, read_json_lines

# What must be alike for two evaluations to have played the same layouts.
_LAYOUTS = ("seed", "steps_per_trial", "houses", "split")


@dataclass(frozen=True)
class Progress:
    """A training's progress over U updates."""

    steps: FloatArray  # float64 [U], environment steps by the end of each update
    seconds: FloatArray  # float64 [U], training time by then
    trials: FloatArray  # float64 [U], trials that ended in the update
    returns: FloatArray  # float64 [U], their mean return; NaN where none ended
    updates: int  # how many updates there were in all
    # memory_tokens, memory_kv_bytes, memory_kv_bytes_full_context at the last update's end, for one
    # environment; what is not known is missing.
    memory: dict[str, float]

    def ended(self) -> Progress:
        """The updates in which trials ended."""
        kept = self.trials > 0
        columns = ("steps", "seconds", "trials", "returns")
        return replace(self, **{name: getattr(self, name)[kept] for name in columns})


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep."""

    variant: str  # name of its variant
    seed: int  # its seed
    folder: Path  # its run folder
    progress: Progress  # of its training
    share: float  # part of its training that is done, 1 at its end
    evaluation: Evaluation | None  # on held-out layouts; None before it

    @property
    def is_finished(self) -> bool:
        """Whether it is trained and evaluated."""
        return self.share >= 1 and self.evaluation is not None and self.evaluation.is_finished

    @cached_property
    def held_out(self) -> Estimate:
        """Its return per trial in the evaluation, with its interval over trials."""
        return NOTHING if self.evaluation is None else return_per_trial(self.evaluation.episodes)


@dataclass(frozen=True)
class Sweep:
    """A sweep."""

    folder: Path  # where it is
    info: dict[str, Any]  # sweep.json: config, variants, seeds, overrides, command, versions
    variants: tuple[str, ...]  # names of the variants, in order
    runs: tuple[SweepRun, ...]  # those with progress, by variant and seed
    # Evaluations of oracle, perfect_memory and random, where there are any.
    references: dict[str, Evaluation]
    notes: tuple[str, ...]  # what is missing or unfinished, one sentence each

    def evaluations_of(self, variant: str) -> tuple[Evaluation, ...]:
        """Those of the runs of a variant that have one, by seed."""
        own = (run.evaluation for run in self.runs if run.variant == variant)
        return tuple(evaluation for evaluation in own if evaluation is not None)

    def reference_return(self, name: str, evaluation: Evaluation | None = None) -> float:
        """Mean return per trial of a reference agent; NaN where it is not known.

        Args:
            name: oracle, perfect_memory or random.
            evaluation: take the layouts that this one played alone.
        """
        if name not in self.references:
            return np.nan
        reference = self.references[name]
        returns = trial_returns(reference.episodes)
        if evaluation is not None:
            if not (same_layouts(reference, evaluation) and evaluation.trials <= returns.keys()):
                return np.nan
            returns = {trial: returns[trial] for trial in evaluation.trials}
        return float(np.mean(list(returns.values())))

    def ratio(self, run: SweepRun) -> float:
        """Held-out return of `run` as a share of the oracle's on the same layouts."""
        oracle = self.reference_return("oracle", run.evaluation)
        return float(run.held_out.mean / oracle) if oracle > 0 else np.nan

    def unfinished(self) -> str | None:
        """One line on what is not finished yet; None where everything is."""
        finished = sum(run.is_finished for run in self.runs)
        planned = len(self.variants) * len(self.info["seeds"])
        parts = [f"{finished} of {planned} runs are finished"] if finished < planned else []
        done = [name for name, found in self.references.items() if found.is_finished]
        if missing := [name for name in REFERENCE_AGENTS if name not in done]:
            verb = "is" if len(missing) == 1 else "are"
            parts.append(f"{' and '.join(missing)} {verb} not evaluated yet")
        return "; ".join(parts) or None


def same_layouts(first: Evaluation, second: Evaluation) -> bool:
    """Whether trials of the same name had the same layout in both."""
    return all(getattr(first.meta, name) == getattr(second.meta, name) for name in _LAYOUTS)


class SweepInfo(BaseModel, extra="allow"):
    """What the report needs of sweep.json; it shows the rest as it is."""

    variants: list[str] = Field(min_length=1)
    seeds: list[int]


def load_sweep(folder: Path) -> Sweep:
    """Read the sweep `folder`; what is missing is told in its notes.

    Raises:
        UserError: no sweep is there, or none of its runs has made progress.
    """
    path = folder / SWEEP_FILE
    if not path.exists():
        raise UserError(
            f"{folder} is no sweep folder (it has no {SWEEP_FILE}); `memo-habitat sweep` makes one"
        )
    info = read_json(path, SweepInfo.model_validate)
    notes: list[str] = []
    runs = [_load_run(folder, name, s, notes) for name in info.variants for s in info.seeds]
    found = tuple(run for run in runs if run is not None)
    if not found:
        raise UserError(
            f"no run of the sweep {folder} has made an update yet ({len(runs)} are planned); "
            "report again when one has"
        )
    references = {}
    for name in (*REFERENCE_AGENTS, SEARCHER):
        evaluation = _evaluation(folder / REFERENCE / EVAL_FOLDER / name, name, notes)
        if evaluation is not None:
            references[name] = evaluation
        elif name in REFERENCE_AGENTS:  # not every task has the other one
            notes.append(f"{name}: not evaluated, so it is not shown.")
    sweep = Sweep(folder, info.model_dump(), tuple(info.variants), found, references, ())
    return replace(sweep, notes=(*notes, *_differences(sweep)))


def _load_run(folder: Path, variant: str, seed: int, notes: list[str]) -> SweepRun | None:
    run, name = member_folder(folder, variant, seed), f"{variant}, seed {seed}"
    progress = read_progress(run / "progress.jsonl", notes, name)
    if progress is None:
        notes.append(f"{name}: {'no update yet' if run.is_dir() else 'not begun'}.")
        return None
    if not (progress.trials > 0).any():
        notes.append(f"{name}: its progress tells no return per trial, so it has no curve.")
    share = _share_done(run / "config.yaml", progress)
    if share < 1:
        notes.append(f"{name}: {100 * share:.0f} % of its training done.")
    evaluation = _held_out(run, name, notes)
    if evaluation is None:
        notes.append(f"{name}: not evaluated.")
    elif evaluation.shortfall:
        notes.append(f"{name}: {evaluation.shortfall}.")
    return SweepRun(variant, seed, run, progress, share, evaluation)


class _Ended(BaseModel):
    """Trials that ended in an update, and their mean return."""

    count: float
    mean: float | None = Field(alias="return")


class _Row(BaseModel):
    """What the report reads of a line of progress.jsonl."""

    steps: float
    seconds: float
    trials: _Ended | None = None
    learner: dict[str, float | None] = {}


def read_progress(path: Path, notes: list[str], name: str) -> Progress | None:
    """The progress file of a run; None without an update. A malformed one is told in `notes`."""
    rows: list[tuple[float, float, float, float]] = []
    last: dict[str, float | None] = {}
    try:
        for line in read_json_lines(path, _Row.model_validate):
            ended, last = line.trials, line.learner
            mean = None if ended is None else ended.mean
            count = 0.0 if ended is None else ended.count
            rows.append((line.steps, line.seconds, count, np.nan if mean is None else mean))
    except UserError as error:
        notes.append(f"{name}: {error}.")
    if not rows:
        return None
    memory = {k: v for k, v in last.items() if k.startswith("memory_") and v is not None}
    steps, seconds, trials, returns = np.array(rows).T
    return Progress(steps, seconds, trials, returns, len(rows), memory)


def _share_done(path: Path, progress: Progress) -> float:
    """Part of the configured training that is done; 1 where the config does not say."""
    try:
        # OmegaConf's own loader takes a second for a few runs.
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        baselines = yaml.load(path.read_bytes(), loader)["habitat_baselines"]
        return share_done(baselines, float(progress.steps[-1]), progress.updates)
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError):
        return 1.0


def _held_out(run: Path, name: str, notes: list[str]) -> Evaluation | None:
    """The final evaluation; where there is none, that of the latest checkpoint."""
    folders = evaluation_folders(run)
    if (final := run / EVAL_FOLDER / FINAL) in folders:
        return _evaluation(final, name, notes)
    metas = [(EvaluationMeta.read(path), path) for path in folders]
    trained = [(meta.step or 0, path) for meta, path in metas if meta.agent == "checkpoint"]
    return _evaluation(max(trained)[1], name, notes) if trained else None


def _evaluation(folder: Path, name: str, notes: list[str]) -> Evaluation | None:
    if not (folder / RECORDS_FILE).exists():
        return None
    try:
        return load_evaluation(folder, name)
    except UserError as error:
        notes.append(f"{name}: {error}.")
        return None


def _differences(sweep: Sweep) -> list[str]:
    """Runs evaluated on other layouts than the oracle, or on fewer trials than another run."""
    evaluated = [
        (f"{run.variant}, seed {run.seed}", run.evaluation)
        for run in sweep.runs
        if run.evaluation is not None
    ]
    every = frozenset[str]().union(*(evaluation.trials for _, evaluation in evaluated))
    other = [
        f"{name}: evaluated on other layouts than the oracle, so that there is no ratio."
        for name, evaluation in evaluated
        if "oracle" in sweep.references and np.isnan(sweep.reference_return("oracle", evaluation))
    ]
    fewer = [
        f"{name}: evaluated on {len(evaluation.trials)} of the {len(every)} trials that runs were "
        "evaluated on, so that its return is a mean over other layouts than theirs."
        for name, evaluation in evaluated
        if evaluation.trials != every
    ]
    return [*other, *fewer]
