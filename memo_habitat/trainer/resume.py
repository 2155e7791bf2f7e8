"""Resuming a run: what changes is recorded in its run.json, and undone if it is refused."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from memo_habitat.config.compose import flatten
from memo_habitat.errors import UserError, command
from memo_habitat.trainer.checkpoint import read_resume_state
from memo_habitat.trainer.class_names import is_memo_trainer
from memo_habitat.trainer.progress import read_progress
from memo_habitat.trainer.run_dir import ResumeRecord, RunFolder, RunRecord
from memo_habitat.trainer.scheduler import names_if_restarted
from memo_habitat.trainer.validation import check_resumed_model
from memo_habitat.utils.files import atomic_write, write_json
from memo_habitat.utils.processes import is_first_process

# Keys of the config that a training fills in.
_NOTED = {"habitat_baselines.rl.encoder.weights_digest"}


def check_state(run: RunFolder, config: DictConfig) -> None:
    """Refuse another model than that of the state to resume from."""
    state = _state(run, config)
    if state is not None:
        check_resumed_model(config, state["config"])


def end_reached(run: RunFolder, config: DictConfig) -> str | None:
    """What to say of a training at the end that `config` sets; None: there is more to do."""
    if not run.is_trained(config):
        return None
    baselines = config.habitat_baselines
    counts_updates = baselines.total_num_steps == -1
    key, unit = ("num_updates", "updates") if counts_updates else ("total_num_steps", "steps")
    done = read_progress(run.progress_file)[-1][unit]
    return (
        f"already at {int(done):,} of {int(baselines[key]):,} {unit}; to continue: "
        f"{command('train', '--resume', run.path)} habitat_baselines.{key}=..."
    )


def note_on_trials(run: RunFolder, config: DictConfig, workers: int) -> str | None:
    """What to say where an update will learn from another number of trials than before, else None.

    To be asked before `apply_overrides`, while config.yaml and run.json have what was before.
    """
    record = run.record()
    if record is None or not is_memo_trainer(config):
        return None
    before = record.resumed[-1].workers if record.resumed else record.workers
    if before is None:
        return None
    environments = run.config().habitat_baselines.num_environments
    present = config.habitat_baselines.num_environments
    had, has = before * environments, workers * present
    if had == has:
        return None
    note = (
        f"an update now learns from {has} trials (workers × environments: {workers} × {present}), "
        f"was {had} ({before} × {environments})"
    )
    if had % workers == 0:
        note += f"; habitat_baselines.num_environments={had // workers} keeps it"
    return note


def find_restarted(config: DictConfig, root: str | Path, out: str | Path | None) -> Path | None:
    """The unfinished run that this job began with the same config, before it was started again.

    SLURM and torchrun do that with the same command, which then goes on. The run is one in `root`,
    or `out`.
    """
    names = set(names_if_restarted())
    for path in sorted(Path(root).glob("*/run.json")) if out is None else [Path(out, "run.json")]:
        run = RunFolder(path.parent)
        with contextlib.suppress(UserError):  # what cannot be read is nobody's to go on with
            record = run.record()
            if record is None or names.isdisjoint(record.jobs):
                continue
            if changes(run.config(), config).keys() <= _NOTED and not run.is_trained():
                return run.path
    return None


@contextlib.contextmanager
def apply_overrides(
    run: RunFolder, config: DictConfig, overrides: Sequence[str], workers: int
) -> Iterator[None]:
    """Let `run` train and be evaluated with `config` from now on; within, it trains.

    The config gets into config.yaml, with which the trainer goes on; what that said before is kept
    in run.json. A UserError from within undoes both, unless something was learned by then.
    """
    state = _state(run, config)
    files = (run.record_path, run.config_path)
    before = {path: path.read_bytes() for path in files if path.exists()}
    if is_first_process():
        steps = _steps(state) if is_memo_trainer(config) else None
        changed = changes(run.config(), config)
        resume = ResumeRecord.of_this_process(
            workers, steps, overrides=list(overrides), changed=changed
        )
        record = run.record() or RunRecord.of_this_process()
        record.resumed.append(resume)
        # First, so that what is replaced is on record whenever we are killed.
        write_json(run.record_path, record.model_dump())
        if resume.changed:
            atomic_write(run.config_path, OmegaConf.to_yaml(config))
    try:
        yield
    except UserError:
        # What it has learned with is what the run trains with.
        if _steps(_state(run, config)) == _steps(state):
            for path in files if is_first_process() else ():
                if path in before:
                    atomic_write(path, before[path])
                else:
                    path.unlink()
        raise


def changes(before: DictConfig, after: DictConfig) -> dict[str, tuple[Any, Any]]:
    """Key -> (value before, value after) where they differ; None where there is no such key."""
    was, is_now = flatten(before), flatten(after)
    return {
        key: (was.get(key), is_now.get(key))
        for key in dict.fromkeys((*was, *is_now))
        if key != "run_dir"  # where the run lies is no part of what it is
        and was.get(key) != is_now.get(key)
        and not any(isinstance(side.get(key), dict) and side[key] for side in (was, is_now))
    }


def _state(run: RunFolder, config: DictConfig) -> dict[str, Any] | None:
    """The state to resume from, which trainers of Habitat's own keep in another form."""
    return read_resume_state(run.checkpoint_dir) if is_memo_trainer(config) else None


def _steps(state: Mapping[str, Any] | None) -> int:
    return 0 if state is None else int(state["counts"]["num_steps_done"])
