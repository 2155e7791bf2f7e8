"""Trains and evaluates in a run folder: what the command line and the quickstart have in common."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from memo_habitat.errors import UserError, check_at_least_one
from memo_habitat.trainer.distributed import run_workers, waits_for_others
from memo_habitat.trainer.progress import read_progress, share_done
from memo_habitat.trainer.run_dir import (
    TRAIN_LOCK,
    RunFolder,
    create_run,
    discard_run,
    open_run,
    plan_run,
)
from memo_habitat.utils.lock import hold

if TYPE_CHECKING:
    from omegaconf import DictConfig

# Simulators of Habitat-Sim's own, which cannot run on the stand-ins.
_HABITAT_SIM_TYPES = ("Sim-v0", "RearrangeSim-v0")


@dataclass(frozen=True)
class EvalOptions:
    """What an evaluation may change of the run's config; None keeps it.

    checkpoint: a file, or a name in the run's checkpoint folder; None is the latest.
    trials: trials in every house.
    steps: environment steps of each trial.
    agent: one of `report.meta.AGENTS`.
    deterministic: the likeliest action instead of a sampled one.
    split: of the data set.
    name: of the evaluation's folder; None is the agent, or the checkpoint's name.
    overrides: further "key=value".
    inspect_memory: write down where the agent's memory attends.
    """

    checkpoint: str | None = None
    trials: int | None = None
    steps: int | None = None
    agent: str = "checkpoint"
    deterministic: bool = False
    split: str | None = None
    name: str | None = None
    overrides: Sequence[str] = field(default_factory=tuple)
    inspect_memory: bool = False


def start_training(
    name: str,
    overrides: Sequence[str] = (),
    root: str | Path = "runs",
    out: str | Path | None = None,
    workers: int = 1,
) -> tuple[RunFolder, DictConfig]:
    """Compose the config `name`, check it, and make its run folder; nothing is left if that fails.

    Raises:
        UserError: unknown config or key, a config that cannot train, an unusable folder.
    """
    from memo_habitat.config.compose import compose_config, known_configs

    refuse_run_dir(overrides, "use --out DIR, or --root")
    config = compose_config(name, overrides)
    if name.removesuffix(".yaml") not in known_configs():
        raise UserError(
            f"config {name!r} is a part of others, not an experiment: {', '.join(known_configs())}"
        )
    run = plan_run(name, root, out)
    point_into(config, run)
    check(config)
    create_run(run, name, config, workers)
    return run, config


def train(
    run: RunFolder,
    config: DictConfig,
    workers: int = 1,
    resumed_with: Sequence[str] | None = None,
) -> bool:
    """Train in `run`, or go on there; returns whether the training has reached its end.

    If the user's input was at fault and nothing was learned with it, the folder is as before: a new
    one is removed again.

    Args:
        run: the folder.
        config: its config.
        workers: DD-PPO processes, each with the config's number of environments; 1: this process.
        resumed_with: the overrides with which it goes on; None: it is new.

    Raises:
        HeldError: another process trains there.
        UserError: what the trainer refuses.
        WorkerError: one of several workers died.
    """
    with _alone_in(run):
        undo = _begin(run, config, workers, resumed_with)
        try:
            if workers == 1:
                if line := waits_for_others():
                    sys.stderr.write(f"{line}\n")
                work_at_training(config)
            else:
                run_workers(work_at_training, config, workers, run.workers_dir)
        except UserError:
            undo()
            raise
    return is_finished(run, config)


def work_at_training(config: DictConfig) -> None:
    """Train in this process: alone, or as the worker that the environment variables say."""
    from memo_habitat.config.compose import import_habitat

    import_habitat()
    _execute(config, "train")


def resume(path: str | Path, overrides: Sequence[str] = ()) -> tuple[RunFolder, DictConfig]:
    """Return the run at `path` and its config with `overrides` applied; nothing is written yet.

    Raises:
        UserError: no run there, no such key, another model.
    """
    from memo_habitat.config.compose import apply_overrides, import_habitat
    from memo_habitat.trainer.resume import check_state

    refuse_run_dir(overrides, f"the run stays in {path}, which may be moved as a whole")
    run = open_run(path)
    import_habitat()
    config = run.config()
    apply_overrides(config, overrides)
    point_into(config, run)
    check(config)
    check_state(run, config)
    return run, config


def evaluate(run: RunFolder, options: EvalOptions) -> Path:
    """Evaluate an agent in the task of `run`; returns the folder with the records.

    Raises:
        UserError: an unknown checkpoint or agent, or what the evaluation itself refuses.
    """
    from omegaconf import open_dict

    from memo_habitat.config.compose import apply_overrides, import_habitat

    refuse_run_dir(options.overrides, f"evaluations of a run are written to {run.path}")
    import_habitat()
    trained = run.config()
    config = trained.copy()
    apply_overrides(config, options.overrides)
    point_into(config, run)
    name = options.name or options.agent
    if options.agent == "checkpoint":
        if config.habitat_baselines.trainer_name == "memo":
            from memo_habitat.trainer.validation import check_evaluated_model

            check_evaluated_model(config, trained)
        checkpoint = find_checkpoint(run, options.checkpoint)
        name = options.name or checkpoint.stem
        config.habitat_baselines.eval_ckpt_path_dir = str(checkpoint)
    baselines = config.habitat_baselines
    baselines.evaluate = True
    baselines.eval.should_load_ckpt = options.agent == "checkpoint"
    if options.split is not None:
        baselines.eval.split = options.split
    evaluator = baselines.evaluator
    evaluator.agent = options.agent
    evaluator.name = name
    evaluator.output_dir = str(run.eval_dir(name).parent)
    evaluator.deterministic = options.deterministic
    if options.inspect_memory:
        with open_dict(evaluator):  # runs from before there was this option have no such key
            evaluator.inspect_memory = True
    if options.trials is not None:
        check_at_least_one("--trials", options.trials)
        evaluator.trials_per_house = options.trials
    if options.steps is not None:
        check_at_least_one("--steps", options.steps)
        evaluator.steps_per_trial = options.steps
    config.habitat.task.trial_steps = evaluator.steps_per_trial
    _check_simulator(config)
    _execute(config, "eval")
    return run.eval_dir(name)


def point_into(config: DictConfig, run: RunFolder) -> None:
    """Set the one key from which every path of a run derives."""
    from omegaconf import open_dict

    with open_dict(config):
        config.run_dir = str(run.path)


def refuse_run_dir(overrides: Sequence[str], remedy: str) -> None:
    """Refuse an override of the one key that `point_into` sets.

    Raises:
        UserError: names the override and the remedy.
    """
    for override in overrides:
        if override_key(override) == "run_dir":
            raise UserError(f"{override}: {remedy}")


def override_key(override: str) -> str:
    """The key that a "key=value", "+key=value" or "~key" is about."""
    return override.partition("=")[0].strip().lstrip("+~")


def check(config: DictConfig) -> None:
    """Refuse what can be known to be wrong before anything is written or launched."""
    _check_simulator(config)
    if config.habitat_baselines.trainer_name == "memo":
        from memo_habitat.trainer.validation import check_training_config

        check_training_config(config)


def find_checkpoint(run: RunFolder, wanted: str | None) -> Path:
    """Return the checkpoint file that `wanted` names; None is the latest.

    Raises:
        UserError: there is none of that name; says which there are.
    """
    folder = run.checkpoint_dir
    places = (
        [run.latest_checkpoint]
        if wanted is None
        else [Path(wanted), folder / wanted, folder / f"{wanted}.safetensors"]
    )
    for place in places:
        if place.is_file():
            return place
    there = sorted(path.name for path in folder.glob("*.safetensors"))
    known = f"there are {', '.join(there)}" if there else f"{folder} holds none: train first"
    raise UserError(f"no checkpoint {wanted or 'latest'!r} in {run.path}; {known}")


def is_finished(run: RunFolder, config: DictConfig) -> bool:
    """Return whether the last line of the progress file is at the configured end."""
    if not run.progress_file.is_file():
        return True  # a trainer of Habitat's own: it keeps none and returns when it is done
    rows = read_progress(run.progress_file)
    last = rows[-1] if rows else {"steps": 0, "updates": 0}
    return share_done(config.habitat_baselines, last["steps"], last["updates"]) >= 1.0


def is_trained(run: RunFolder, config: DictConfig | None = None) -> bool:
    """Whether training and weights have reached the end that `config` sets; None: the run's own.

    Imports no torch.

    Raises:
        UserError: config, or weights at the end, cannot be read.
    """
    if not (run.progress_file.is_file() and run.latest_checkpoint.is_file()):
        return False
    if not is_finished(run, run.config() if config is None else config):
        return False
    # The last line of progress is written before the weights.
    return checkpoint_step(run.latest_checkpoint) >= read_progress(run.progress_file)[-1]["steps"]


def checkpoint_step(path: Path) -> int:
    """The environment steps after which a checkpoint was written; imports no torch.

    Raises:
        UserError: no readable checkpoint.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return int(json.loads(file.metadata()["extra_state"])["step"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"cannot read the checkpoint {path} ({error}); remove it") from error


def end_reached(run: RunFolder, config: DictConfig) -> str | None:
    """What to tell of a training at the end that `config` sets; None: there is more to do."""
    if not is_trained(run, config):
        return None
    baselines = config.habitat_baselines
    key, unit = ("total_num_steps", "steps")
    if baselines.total_num_steps == -1:
        key, unit = ("num_updates", "updates")
    done = read_progress(run.progress_file)[-1][unit]
    return (
        f"already at {int(done):,} of {int(baselines[key]):,} {unit}; to go on: "
        f"memo-habitat train --resume {run.path} habitat_baselines.{key}=..."
    )


@contextlib.contextmanager
def _alone_in(run: RunFolder) -> Iterator[None]:
    """Within: no other command trains in `run`, and no trainer was at work there at the start."""
    command, trainer = run.locks
    with hold(command):
        with hold(trainer):
            pass  # the one that we start takes it
        yield


def _begin(
    run: RunFolder, config: DictConfig, workers: int, resumed_with: Sequence[str] | None
) -> Callable[[], None]:
    """Write down what a resume changes; returns what undoes it, or a new run, if none learned."""
    if resumed_with is None:
        return lambda: _discard_unlearned(run)
    from memo_habitat.trainer.resume import go_on_with

    return go_on_with(run, config, resumed_with, workers)


def _discard_unlearned(run: RunFolder) -> None:
    kept = (path for path in run.checkpoint_dir.glob("*") if path.name != TRAIN_LOCK)
    if not run.progress_file.exists() and not any(kept):
        discard_run(run)


def _execute(config: DictConfig, run_type: str) -> None:
    from habitat.config.default import patch_config
    from habitat_baselines.run import execute_exp

    execute_exp(patch_config(config), run_type)


def _check_simulator(config: DictConfig) -> None:
    from memo_habitat.compat import habitat_sim_stub

    kind = config.habitat.simulator.type
    if kind in _HABITAT_SIM_TYPES:
        habitat_sim_stub.require_habitat_sim(f"habitat.simulator.type={kind}")
