"""Trains and evaluates in a run folder: what the command line and the Python API have in common."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from memo_habitat.config.compose import (
    compose_config,
    import_habitat,
    known_configs,
    override_key,
    own_file,
    update_config,
)
from memo_habitat.errors import UserError, check_at_least_one, command
from memo_habitat.trainer import rendezvous
from memo_habitat.trainer.distributed import run_workers
from memo_habitat.trainer.run_dir import (
    TRAIN_LOCK,
    RunFolder,
    create_run,
    discard_run,
    open_run,
    plan_run,
)
from memo_habitat.trainer.scheduler import names_if_restarted
from memo_habitat.utils.lock import hold
from memo_habitat.utils.processes import ranks

if TYPE_CHECKING:
    import habitat
    from omegaconf import DictConfig

# Simulators over Habitat-Sim, which cannot run on the stubs.
_HABITAT_SIM_TYPES = ("ExtObjNavSim-v0", "Sim-v0", "RearrangeSim-v0")


@dataclass(frozen=True)
class Training:
    """A run folder and what is to be trained in it."""

    run: RunFolder
    config: DictConfig
    # DD-PPO processes, each with the config's number of environments; 1 is this process.
    workers: int = 1
    # The overrides with which it is resumed; None where it is new.
    resumed_with: Sequence[str] | None = None


@dataclass(frozen=True)
class EvalOptions:
    """What an evaluation may change of the run's config; None keeps it."""

    # A file, or a name in the checkpoint folder; ALL: one after the other; None: the latest.
    checkpoint: str | None = None
    trials: int | None = None  # in every house
    steps: int | None = None  # of each trial
    agent: str = "checkpoint"  # one of `evaluation.records.AGENTS`
    deterministic: bool = False  # the likeliest action instead of a sampled one
    split: str | None = None  # of the data set
    name: str | None = None  # of its folder; None is the agent, or the checkpoint's name
    overrides: Sequence[str] = ()  # further "key=value"
    inspect_memory: bool = False  # record where the agent's memory attends
    forget: bool = False  # empty the agent's memory at the start of every episode
    shard: str | None = None  # such as "3/16"; None: all, or the rank's among torchrun's or srun's


# As a checkpoint's name: every one of the run.
ALL = "all"


class PreparedEvaluation(NamedTuple):
    """One evaluation: its options with file and name settled, its config, where records go."""

    options: EvalOptions
    config: DictConfig
    folder: Path


def make_env(name: str, overrides: Sequence[str] = ()) -> habitat.Env:
    """The environment of the config `name` as Habitat's own class.

    UserError where config or key is unknown, or Habitat has no environment for the task.
    """
    config = compose_config(name, overrides)
    if config.habitat.task.type == "DarkKeyToDoor-v0":
        raise UserError(
            f"{name} is no task in a simulator: use gymnasium.make('memo_habitat/DarkKeyToDoor-v0')"
        )
    from habitat import Env
    from habitat.config.default import patch_config

    from memo_habitat.register import import_plugins

    import_plugins(config)
    return Env(patch_config(config))


def start_training(
    name: str,
    overrides: Sequence[str] = (),
    root: str | Path = "runs",
    out: str | Path | None = None,
    workers: int = 1,
) -> Training:
    """Compose the config `name`, check it, and make its run folder; nothing is left if that fails.

    In a job that SLURM or torchrun has started again it is the training that the job had begun.

    Args:
        name: for example "extobjnav/studio", or the path of a YAML file of one's own.
        overrides: "key=value".
        root: the folder that holds runs.
        out: this very run folder instead, new or empty.
        workers: DD-PPO processes.

    UserError where config or key is unknown, the config cannot train, or the folder be used.
    """
    name_of_run, config = _composed(name, overrides)
    if names_if_restarted():
        from memo_habitat.trainer.resume import find_restarted

        if (begun := find_restarted(config, root, out)) is not None:
            return resume_training(begun, (), workers)
    training = _planned(name_of_run, config, root, out, workers)
    # The folder is made last: a config that is refused leaves nothing behind.
    create_run(training.run, name, config, workers)
    return training


def plan_training(
    name: str,
    overrides: Sequence[str] = (),
    root: str | Path = "runs",
    out: str | Path | None = None,
    workers: int = 1,
) -> Training:
    """What `start_training` would make, and its errors; nothing is written."""
    return _planned(*_composed(name, overrides), root, out, workers)


def _composed(name: str, overrides: Sequence[str]) -> tuple[str, DictConfig]:
    """What the runs of a config are called, and the config."""
    refuse_keys(overrides, {"run_dir": "use --out DIR, or --root"})
    config = compose_config(name, overrides)
    own = own_file(name)
    if own is None and name.removesuffix(".yaml") not in known_configs():
        raise UserError(
            f"config {name!r} is a part of others, not an experiment: {', '.join(known_configs())}"
        )
    return own.stem if own else name, config


def _planned(
    name: str, config: DictConfig, root: str | Path, out: str | Path | None, workers: int
) -> Training:
    run = plan_run(name, root, out)
    run.locate(config)
    check(config)
    return Training(run, config, workers)


def resume_training(path: str | Path, overrides: Sequence[str] = (), workers: int = 1) -> Training:
    """The training to resume in the run at `path`; nothing is written yet.

    UserError where no run is there, a key is unknown, or the overrides make another model.
    """
    from memo_habitat.trainer.resume import check_state

    refuse_keys(overrides, {"run_dir": f"the run stays in {path}, which may be moved as a whole"})
    run = open_run(path)
    import_habitat()
    config = run.config()
    update_config(config, overrides)
    run.locate(config)
    check(config)
    check_state(run, config)
    return Training(run, config, workers, tuple(overrides))


def train(training: Training) -> bool:
    """Train to the end or until asked to stop; returns whether the end was reached.

    HeldError where another process trains there, UserError for what the trainer refuses: if nothing
    was learned by then the folder is as before, and a new one is gone. WorkerError where one of
    several workers died.
    """
    run, config, workers = training.run, training.config, training.workers
    command_lock, trainer_lock = run.locks
    with hold(command_lock):
        with hold(trainer_lock):
            pass  # no other trainer is at work; ours takes it
        with _undone_if_refused(training):
            if workers > 1 and ranks().size == 1:
                run_workers(work_at_training, config, workers, run.workers_dir)
            else:
                if line := rendezvous.waits_for_others():
                    sys.stderr.write(f"{line}\n")
                rendezvous.announce(run.path)
                work_at_training(config)
    return run.is_finished(config)


def work_at_training(config: DictConfig) -> None:
    """Train in this process: alone, or as the worker that the environment variables say."""
    import_habitat()
    rendezvous.install()
    _execute(config, "train")


def join_training() -> None:
    """As any but the first of the processes that torchrun or srun started: train with the first.

    That makes the run folder, or finds it, and writes to it; returns at once where it does not.
    """
    if line := rendezvous.waits_for_others():
        sys.stderr.write(f"{line}\n")
    if folder := rendezvous.follow():
        run = open_run(folder)
        config = run.config()
        run.locate(config)
        work_at_training(config)


def evaluate(run: RunFolder, options: EvalOptions) -> Path:
    """Evaluate an agent in the task of `run`; returns the folder with the records.

    Of several checkpoints that is the last one's. Shards lie in its folder `shards`; the one that
    ends last merges them all.

    UserError where checkpoint or agent is unknown, and for what the evaluation itself refuses.
    """
    prepared = prepare_evaluations(run, options)
    for each in prepared:
        _execute(each.config, "eval")
    return prepared[-1].folder


def prepare_evaluations(run: RunFolder, options: EvalOptions) -> list[PreparedEvaluation]:
    """What `evaluate` would do, and its errors; one evaluation for each checkpoint."""
    from memo_habitat.config.evaluation import OPTIONS_OF_KEYS

    stays = {"run_dir": f"evaluations of a run are written to {run.path}"}
    refuse_keys(options.overrides, {**OPTIONS_OF_KEYS, **stays})
    import_habitat()
    if options.agent != "checkpoint" or options.checkpoint != ALL:
        return [_prepare_evaluation(run, options)]
    if options.name is not None:
        raise UserError(
            f"--name {options.name} with all checkpoints: each has the folder of its own name"
        )
    every = run.checkpoints() or [run.find_checkpoint(None)]
    return [_prepare_evaluation(run, replace(options, checkpoint=str(path))) for path in every]


def _prepare_evaluation(run: RunFolder, options: EvalOptions) -> PreparedEvaluation:
    """Of one checkpoint, or another agent."""
    from memo_habitat.config.evaluation import Shard, evaluation_name
    from memo_habitat.trainer.class_names import is_memo_trainer

    trained = run.config()
    if not is_memo_trainer(trained):
        raise UserError(
            f"{run.path} was trained by Habitat's own trainer "
            f"{trained.habitat_baselines.trainer_name}, which is evaluated by Habitat's own "
            f"command: {evaluation_command(run)}"
        )
    config = trained.copy()
    dataset = config.habitat.get("dataset")
    if dataset is not None and "content_scenes" in dataset:
        # All of the split, whichever a training has chosen; an override chooses again.
        dataset.content_scenes = ["*"]
    update_config(config, options.overrides)
    run.locate(config)
    baselines, evaluator = config.habitat_baselines, config.habitat_baselines.evaluator
    name = options.name or options.agent
    forget = evaluator.forget or options.forget
    if options.agent == "checkpoint":
        from memo_habitat.trainer.validation import check_evaluated_model

        check_evaluated_model(config, trained)
        checkpoint = run.find_checkpoint(options.checkpoint)
        options = replace(options, checkpoint=str(checkpoint))
        name = options.name or evaluation_name(checkpoint.stem, forget)
        baselines.eval_ckpt_path_dir = str(checkpoint)
    elif options.checkpoint or options.deterministic:
        raise UserError(f"--agent {options.agent} has no weights: no --checkpoint, --deterministic")
    # Where a run keeps its evaluations is decided here, by the one who knows the run's folder.
    baselines.evaluate = True
    baselines.eval.should_load_ckpt = options.agent == "checkpoint"
    if options.split is not None:
        baselines.eval.split = options.split
    evaluator.agent = options.agent
    evaluator.name = name
    evaluator.output_dir = str(run.eval_dir(name).parent)
    evaluator.deterministic = evaluator.deterministic or options.deterministic
    evaluator.inspect_memory = evaluator.inspect_memory or options.inspect_memory
    evaluator.forget = forget
    shard = Shard.parse(options.shard or rendezvous.own_shard())
    if options.shard and rendezvous.own_shard():
        raise UserError(
            f"--shard {shard} within torchrun or srun, whose ranks take shards: omit it"
        )
    evaluator.shard = str(shard) if shard.total > 1 else ""
    for option, key in (("trials", "trials_per_house"), ("steps", "steps_per_trial")):
        if (count := getattr(options, option)) is not None:
            check_at_least_one(f"--{option}", count)
            evaluator[key] = count
    config.habitat.task.trial_steps = evaluator.steps_per_trial
    _check_simulator(config)
    return PreparedEvaluation(replace(options, name=name), config, run.eval_dir(name))


def evaluation_command(run: RunFolder) -> str:
    """What to type to evaluate a run; those of Habitat's own trainers have Habitat's command."""
    from memo_habitat.trainer.class_names import is_memo_trainer

    if is_memo_trainer(run.config()):
        return command("eval", run.path)
    words = (f"--config-path={run.path.resolve()}", "--config-name=config.yaml")
    keys = ("evaluate=True", f"eval_ckpt_path_dir={run.checkpoint_dir / 'latest.pth'}")
    return shlex.join(["habitat-baselines", *words, *(f"habitat_baselines.{k}" for k in keys)])


def refuse_keys(overrides: Sequence[str], remedies: Mapping[str, str]) -> None:
    """UserError where one of these keys is overridden, with what to do instead."""
    for override in overrides:
        if remedy := remedies.get(override_key(override)):
            raise UserError(f"{override}: {remedy}")


def check(config: DictConfig) -> None:
    """Refuse what can be known to be wrong before anything is written or launched.

    In `config`, the file of a frozen encoder's weights is noted.
    """
    from memo_habitat.register import import_plugins
    from memo_habitat.trainer.class_names import check_names, is_memo_trainer
    from memo_habitat.trainer.validation import check_and_pin_weights

    import_plugins(config)
    _check_simulator(config)
    if is_memo_trainer(config):
        folder = config.habitat_baselines.checkpoint_folder
        if Path(folder) != RunFolder(config.run_dir).checkpoint_dir:
            raise UserError(
                f"habitat_baselines.checkpoint_folder={folder}: a run keeps its checkpoints in its "
                "own folder, where resumes and evaluations look for them: leave it, and use --out"
            )
        check_and_pin_weights(config)
    else:
        check_names(config)


@contextlib.contextmanager
def _undone_if_refused(training: Training) -> Iterator[None]:
    """Within, it trains; after a UserError the folder is as before if nothing was learned."""
    run = training.run
    if training.resumed_with is not None:
        from memo_habitat.trainer.resume import apply_overrides

        with apply_overrides(run, training.config, training.resumed_with, training.workers):
            yield
        return
    try:
        yield
    except UserError:
        kept = (path for path in run.checkpoint_dir.glob("*") if path.name != TRAIN_LOCK)
        if not run.progress_file.exists() and not any(kept):
            discard_run(run)
        raise


def _execute(config: DictConfig, run_type: str) -> None:
    from habitat.config.default import patch_config
    from habitat_baselines.run import execute_exp

    try:
        execute_exp(patch_config(config), run_type)
    except KeyboardInterrupt:
        # Habitat's own trainers leave their environments to the interpreter's end, where closing
        # them fails once more: the same Ctrl-C has ended the workers.
        sys.unraisablehook = lambda unraisable: None
        raise


def _check_simulator(config: DictConfig) -> None:
    from memo_habitat.compat import habitat_sim_stub

    kind = config.habitat.simulator.type
    if kind in _HABITAT_SIM_TYPES:
        habitat_sim_stub.require_habitat_sim(f"habitat.simulator.type={kind}")
