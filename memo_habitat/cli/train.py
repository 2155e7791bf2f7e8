"""`memo-habitat train`: a new run, or an earlier one resumed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from memo_habitat.cli.common import Overrides, Seed, Work, flag, option
from memo_habitat.errors import UserError, WorkerError, command
from memo_habitat.trainer.distributed import check_workers
from memo_habitat.utils.processes import is_first_process, ranks

if TYPE_CHECKING:
    from memo_habitat.trainer.launch import Training
    from memo_habitat.trainer.run_dir import RunFolder

EXAMPLES = (
    "memo-habitat train --config-name=extobjnav/studio",
    "memo-habitat train --config-name=extobjnav/studio habitat.seed=1 --root /data/runs",
    "memo-habitat train --resume runs/extobjnav-studio-20260101-120000",
    "memo-habitat train --config-name=dark_key_to_door --workers 4",
    "memo-habitat train --list",
)


def train(
    work: Work,
    overrides: Overrides = None,
    list_configs: Annotated[bool, flag("--list", "List the configs that ship.")] = False,
    cfg: Annotated[bool, flag("--cfg", "Print the config and do nothing else.")] = False,
    workers: Annotated[
        int,
        option(
            "Processes that train together on this machine (DD-PPO), each with "
            "habitat_baselines.num_environments environments."
        ),
    ] = 1,
    seed: Seed = None,
) -> None:
    """Train an agent in a run folder, a new one or an earlier one."""
    from memo_habitat.trainer import launch, rendezvous

    keys, together = overrides or (), max(workers, ranks().size)
    if list_configs or cfg:  # nothing to meet for, if torchrun or srun has started several
        if is_first_process():
            check_workers(workers)
            print(_known_configs(work) if list_configs else _composed(work, keys))
        return
    if not is_first_process():
        launch.join_training()
        return
    with rendezvous.leading():
        work.check()
        check_workers(workers)
        if work.config_name is not None:
            _run(launch.start_training(work.config_name, keys, work.root, work.out, together))
        elif work.resume is not None:
            _refuse_sweep(work.resume)
            _run(launch.resume_training(str(work.resume), keys, together))


def _known_configs(work: Work) -> str:
    from memo_habitat.config.compose import known_configs

    if work.config_name is not None or work.resume is not None:
        raise UserError("give one of --config-name, --resume and --list")
    return "\n".join(known_configs())


def _composed(work: Work, keys: Sequence[str]) -> str:
    from omegaconf import OmegaConf

    from memo_habitat.config.compose import compose_config
    from memo_habitat.trainer.launch import resume_training

    work.check()
    if work.resume is None:
        return OmegaConf.to_yaml(compose_config(str(work.config_name), keys))
    _refuse_sweep(work.resume)
    return OmegaConf.to_yaml(resume_training(str(work.resume), keys).config)


def _refuse_sweep(resume: Path) -> None:
    from memo_habitat.report import SWEEP_FILE

    if (resume / SWEEP_FILE).exists():
        raise UserError(
            f"{resume} is a sweep, not a run; resume it: {command('sweep', '--resume', resume)}"
        )


def _run(training: Training) -> None:
    """Train; run folder and log are printed first and what comes next last."""
    from memo_habitat.trainer import launch

    run, config, workers = training.run, training.config, training.workers
    print(f"run folder: {run.path}", flush=True)
    if training.resumed_with is not None:
        from memo_habitat.trainer.resume import end_reached, note_on_trials

        if end := end_reached(run, config):
            print(end)
            return
        if note := note_on_trials(run, config, workers):
            print(note, flush=True)
    print(f"log: {config.habitat_baselines.log_file}", flush=True)
    remedy = f"resume with: {command('train', '--resume', run.path)}"
    if workers > 1 and ranks().size == 1:
        remedy += f" --workers {workers}"
    saved = _saved_at(run)
    try:
        finished = launch.train(training)
    except WorkerError as error:
        if not run.resume_state.exists():
            raise
        raise WorkerError(f"{error}; {remedy}") from error
    except UserError as error:
        if _saved_at(run) == saved:  # it was refused, or learned nothing
            raise
        raise UserError(f"{error}; when that is mended, {remedy}") from error
    if not finished:
        raise KeyboardInterrupt(f"stopped; {remedy}")
    print(f"trained; next: {launch.evaluation_command(run)}")


def _saved_at(run: RunFolder) -> int | None:
    """When the state was saved last, ns; None: not yet."""
    return run.resume_state.stat().st_mtime_ns if run.resume_state.exists() else None
