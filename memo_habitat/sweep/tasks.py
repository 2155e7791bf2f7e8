"""What is left to do in a folder of a sweep, decided from what lies there and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from memo_habitat.errors import UserError
from memo_habitat.evaluation.records import META_FILE, RECORDS_FILE
from memo_habitat.report.sweep_folder import FINAL, REFERENCE_AGENTS
from memo_habitat.sweep.spec import Member, Sweep, habitat_seed
from memo_habitat.trainer.progress import read_progress
from memo_habitat.trainer.run_dir import RunFolder, checkpoint_step
from memo_habitat.utils.files import read_json


@dataclass(frozen=True)
class Todo:
    """What is left to do.

    Attributes:
        commands: arguments of `memo-habitat`, to be run in turn; nothing: all is done.
        says: how the sweep calls that.
        anew: whether what lies in the folder is of no use and has to go first.
    """

    commands: tuple[tuple[str, ...], ...] = ()
    says: str = "finished"
    anew: bool = False


class Task(Protocol):
    """Something that one process does in a folder of its own."""

    @property
    def name(self) -> str:
        """As the sweep calls it."""
        ...

    @property
    def path(self) -> Path:
        """The folder."""
        ...

    def todo(self) -> Todo:
        """What is left to do."""
        ...


@dataclass(frozen=True)
class RunTask:
    """Train one run to its end, then evaluate its latest checkpoint."""

    sweep: Sweep
    member: Member

    @property
    def name(self) -> str:
        """Variant and seed."""
        return self.member.name

    @property
    def path(self) -> Path:
        """The run folder."""
        return self.member.path

    def todo(self) -> Todo:
        """Begin, go on, or evaluate.

        Raises:
            UserError: what was learned could neither be gone on with nor be kept.
        """
        run, trials = RunFolder(self.path), self.sweep.trials
        evaluate = _evaluation(run, trials, "--name", FINAL)
        if run.is_trained():
            step = checkpoint_step(run.latest_checkpoint)
            done = _is_evaluated(run, FINAL, trials, step)
            return Todo() if done else Todo((evaluate,), "evaluates")
        if run.resume_state.is_file():
            rows = read_progress(run.progress_file)
            steps = int(rows[-1]["steps"]) if rows else 0
            resume = ("train", "--resume", str(run.path))
            return Todo((resume, evaluate), f"goes on at {steps:,} steps")
        if weights := sorted(run.checkpoint_dir.glob("*.safetensors")):
            raise UserError(
                f"{run.path} holds {weights[0].name} of an unfinished training, but no state to go "
                "on from; remove the folder to begin anew"
            )
        return Todo((self._begin(), evaluate), "starts", anew=True)

    def _begin(self) -> tuple[str, ...]:
        own = (f"memory={self.member.variant}", f"habitat.seed={habitat_seed(self.member.seed)}")
        config = f"--config-name={self.sweep.config}"
        return ("train", config, "--out", str(self.path), *self.sweep.overrides, *own)


@dataclass(frozen=True)
class ReferenceTask:
    """Evaluate the agents that need no training, with the config of the first run there is."""

    sweep: Sweep
    name: str = "references"

    @property
    def path(self) -> Path:
        """A run folder without a training."""
        return self.sweep.reference

    def todo(self) -> Todo:
        """Evaluate those that were not."""
        run = RunFolder(self.path)
        left = [
            _evaluation(run, self.sweep.trials, "--agent", agent)
            for agent in REFERENCE_AGENTS
            if not _is_evaluated(run, agent, self.sweep.trials, None)
        ]
        return Todo(tuple(left), "evaluates") if left else Todo()

    def prepare(self) -> bool:
        """Take over the config of the first run that is trained; False if there is none yet."""
        run = RunFolder(self.path)
        if run.config_path.is_file():
            return True
        for member in self.sweep.members():
            trained = RunFolder(member.path)
            if _is_readably_trained(trained):
                run.path.mkdir(exist_ok=True)
                partial = run.config_path.with_name(f"{run.config_path.name}.partial")
                partial.write_bytes(trained.config_path.read_bytes())
                partial.replace(run.config_path)
                return True
        return False


def _is_readably_trained(run: RunFolder) -> bool:
    try:
        return run.is_trained()
    except UserError:  # the task of that run tells of it
        return False


def has_records(sweep: Sweep) -> bool:
    """Whether any trained agent of the sweep was evaluated, if only in part."""
    return any(
        any(path.stat().st_size > 0 for path in _record_files(member)) for member in sweep.members()
    )


def _record_files(member: Member) -> Iterator[Path]:
    return member.path.glob(f"eval/{FINAL}/{RECORDS_FILE}")


def _evaluation(run: RunFolder, trials: int | None, *options: str) -> tuple[str, ...]:
    size = () if trials is None else ("--trials", str(trials))
    return ("eval", str(run.path), *options, *size)


def _is_evaluated(run: RunFolder, name: str, trials: int | None, step: int | None) -> bool:
    """Whether the evaluation `name` was finished, on as many trials and at that step."""
    folder = run.eval_dir(name)
    if not ((folder / RECORDS_FILE).is_file() and (folder / META_FILE).is_file()):
        return False
    meta: dict[str, Any] = read_json(folder / META_FILE)
    wanted = trials or int(run.config().habitat_baselines.evaluator.trials_per_house)
    enough = int(meta.get("trials_per_house") or 0) >= wanted
    return bool(meta.get("finished")) and enough and meta.get("step") == step
