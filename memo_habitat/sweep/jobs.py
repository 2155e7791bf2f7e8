"""What is left to do in a folder of a sweep, decided from what lies there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from memo_habitat.errors import UserError, cannot_write
from memo_habitat.evaluation.records import LOCK_FILE, META_FILE, RECORDS_FILE
from memo_habitat.report import FINAL, REFERENCE_AGENTS, SEARCHER
from memo_habitat.sweep.spec import Sweep, SweepRun, habitat_seed, variant_override
from memo_habitat.trainer.progress import read_progress
from memo_habitat.trainer.run_dir import RunFolder, checkpoint_step, newest_checkpoint
from memo_habitat.utils.files import atomic_write, read_json
from memo_habitat.utils.lock import hold


class PendingJob(NamedTuple):
    """What is left to do in one folder."""

    commands: tuple[tuple[str, ...], ...]  # arguments of `memo-habitat`, to be run in turn
    says: str  # how the sweep calls that
    starts: bool = False  # whether what lies in the folder is of no use and has to go first


@dataclass(frozen=True)
class SweepJob:
    """What one process does in a folder of its own: train and evaluate one run.

    Without a run: evaluate the agents that need no training.
    """

    sweep: Sweep
    run: SweepRun | None

    @property
    def name(self) -> str:
        """As the sweep calls it."""
        return "references" if self.run is None else self.run.name

    @property
    def path(self) -> Path:
        """The run folder; that of the references is one without a training."""
        return self.sweep.reference if self.run is None else self.run.path

    def pending(self) -> PendingJob | None:
        """What is left to do; None: it is finished.

        Raises:
            UserError: weights without a state to resume from, or a file that cannot be read.
        """
        folder, trials = RunFolder(self.path), self.sweep.trials
        if self.run is None:
            known = _reference_agents(folder)
            agents = [a for a in known if not _is_evaluated(folder, a, trials, None)]
            left = tuple(_evaluation(folder, trials, "--agent", agent) for agent in agents)
            return PendingJob(left, "evaluates") if left else None
        evaluate = _evaluation(folder, trials, "--name", FINAL)
        # Told by what lies there alone, whatever ended the last attempt, on whichever machine.
        if folder.is_trained():
            step = checkpoint_step(newest_checkpoint(folder.checkpoint_dir))
            # At this very step: the run may have been trained further since it was evaluated.
            done = _is_evaluated(folder, FINAL, trials, step)
            return None if done else PendingJob((evaluate,), "evaluates")
        if folder.resume_state.is_file():
            rows = read_progress(folder.progress_file)
            steps = int(rows[-1]["steps"]) if rows else 0
            resume = ("train", "--resume", str(folder.path))
            return PendingJob((resume, evaluate), f"goes on at {steps:,} steps")
        if weights := sorted(folder.checkpoint_dir.glob("*.safetensors")):
            raise UserError(
                f"{folder.path} holds {weights[0].name} of an unfinished training, but no state to "
                "go on from; remove the folder to begin again"
            )
        made = (f"--config-name={self.sweep.config}", "--out", str(folder.path))
        own = (variant_override(self.run.variant), f"habitat.seed={habitat_seed(self.run.seed)}")
        begin = ("train", *made, *self.sweep.overrides, *own)
        return PendingJob((begin, evaluate), "starts", starts=True)

    def set_aside(self) -> None:
        """Rename an evaluation of the run before it was trained further; reports show it as well.

        Where it lies the newest weights are to be evaluated. UserError if it cannot be renamed.
        """
        if self.run is None:
            return
        folder = RunFolder(self.path)
        evaluated = folder.eval_dir(FINAL)
        if not (evaluated / META_FILE).is_file():
            return
        before = read_json(evaluated / META_FILE).get("step")
        if before != checkpoint_step(newest_checkpoint(folder.checkpoint_dir)):
            try:
                with hold(evaluated / LOCK_FILE):
                    evaluated.rename(folder.eval_dir(f"{FINAL}-{before}"))
            except OSError as error:
                raise cannot_write(evaluated, error) from error


def copy_reference_config(sweep: Sweep) -> bool:
    """Give the references the config of the first run that is trained; False: there is none yet."""
    config = RunFolder(sweep.reference).config_path
    for run in sweep.runs():
        trained = RunFolder(run.path)
        if not config.is_file() and _is_readably_trained(trained):
            atomic_write(config, trained.config_path.read_bytes())
    return config.is_file()


def has_records(sweep: Sweep) -> bool:
    """Whether any trained agent of the sweep was evaluated, if only in part."""
    records = (RunFolder(run.path).eval_dir(FINAL) / RECORDS_FILE for run in sweep.runs())
    return any(path.is_file() and path.stat().st_size > 0 for path in records)


def _is_readably_trained(run: RunFolder) -> bool:
    try:
        return run.is_trained()
    except UserError:  # the job of that run tells of it
        return False


def _evaluation(run: RunFolder, trials: int | None, *options: str) -> tuple[str, ...]:
    size = () if trials is None else ("--trials", str(trials))
    return ("eval", str(run.path), *options, *size)


def _reference_agents(run: RunFolder) -> tuple[str, ...]:
    """Who is evaluated without training: one more where the task is ExtObjNav."""
    if run.config_path.is_file():
        settings = run.config().get("habitat") or {}
        if str((settings.get("task") or {}).get("type")).startswith("ExtObjNav"):
            return (*REFERENCE_AGENTS, SEARCHER)
    return REFERENCE_AGENTS


def _is_evaluated(run: RunFolder, name: str, trials: int | None, step: int | None) -> bool:
    """Whether the evaluation `name` was finished, on as many trials and at that step."""
    folder = run.eval_dir(name)
    if not ((folder / RECORDS_FILE).is_file() and (folder / META_FILE).is_file()):
        return False
    meta = read_json(folder / META_FILE)
    wanted = trials or int(run.config().habitat_baselines.evaluator.trials_per_house)
    enough = int(meta.get("trials_per_house") or 0) >= wanted
    return bool(meta.get("finished")) and enough and meta.get("step") == step
