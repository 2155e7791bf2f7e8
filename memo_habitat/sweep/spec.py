"""Which runs a sweep consists of: variants, seeds, and the file `sweep.json` that says so."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, Field

from memo_habitat.config.compose import own_file, unknown_config
from memo_habitat.errors import UserError, check_at_least_one, command
from memo_habitat.report import REFERENCE, SWEEP_FILE, member_folder
from memo_habitat.trainer.launch import refuse_keys
from memo_habitat.trainer.run_dir import CONFIG_FILE, plan_run
from memo_habitat.utils.files import read_json, write_json
from memo_habitat.utils.provenance import Provenance

# Below are the seeds of evaluations, `habitat_baselines.evaluator.seed`.
FIRST_TRAINING_SEED = 100
DEFAULT_VARIANT = "memo"
# Environment i of a run draws from habitat.seed + i, and after a resume at s steps from
# habitat.seed + s + i (Dark-Key-To-Door takes no i): further apart than trainings are long, and no
# multiple of anything.
SEED_STRIDE = 40_000_003
# NumPy's seeds end at 2^32; what is left over is for the steps of resumed runs.
LAST_SEED = 99
_GROUP, _KIND = "memory", "habitat_baselines.rl.memory.kind"
# What a sweep sets in each of its runs, and the option that says to what.
_OWN_KEYS = {"habitat.seed": "--seeds", _GROUP: "--variants", _KIND: "--variants"}
_HOW_TO_WRITE = f"write 0..4 or 0,2,5, with numbers from 0 to {LAST_SEED}"


class SweepRun(NamedTuple):
    """One run of a sweep: a variant at a seed, in a run folder."""

    variant: str
    seed: int
    path: Path

    @property
    def name(self) -> str:
        """As the sweep calls it."""
        return f"{self.variant} seed {self.seed}"


class Sweep(BaseModel, frozen=True):
    """What is trained and evaluated in `folder`: all variants at all seeds. `sweep.json` holds it.

    The file also has the facts of `write_sweep`, which are not read.
    """

    folder: Path = Field(exclude=True)
    config: str  # of all runs: its name, or the whole path of a YAML file of a user's own
    # What is compared: choices of the config's group `memory`, or classes as "module:Class".
    variants: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()  # their numbers; `habitat_seed` says what they stand for
    overrides: tuple[str, ...] = ()  # "key=value" of every run
    trials: int | None = None  # of each evaluation, in every house; None: as the config says

    def runs(self) -> list[SweepRun]:
        """All runs, seeds outermost, so that an interrupted sweep has as many of each variant."""
        return [
            SweepRun(variant, seed, member_folder(self.folder, variant, seed))
            for seed in self.seeds
            for variant in self.variants
        ]

    @property
    def is_begun(self) -> bool:
        """Whether any run was made."""
        return any((run.path / CONFIG_FILE).exists() for run in self.runs())

    @property
    def reference(self) -> Path:
        """The run folder in which the agents oracle and random are evaluated."""
        return self.folder / REFERENCE


@dataclass(frozen=True)
class Request:
    """What the command line asks for; None and nothing: as before, or the default."""

    config: str | None = None
    variants: tuple[str, ...] | None = None
    seeds: tuple[int, ...] | None = None
    overrides: tuple[str, ...] = ()
    trials: int | None = None


def variant_override(variant: str) -> str:
    """The "key=value" that makes a run of this variant."""
    return f"{_KIND if ':' in variant else _GROUP}={variant}"


def parse_slurm(options: Sequence[str]) -> dict[str, int | str]:
    """Options of sbatch by name, of "key=value" each; UserError for anything else."""
    found: dict[str, int | str] = {}
    for option in options:
        key, equals, value = (part.strip() for part in option.partition("="))
        if not (key.isidentifier() and equals and value):
            raise UserError(f"--slurm {option}: write KEY=VALUE, such as partition=gpu or time=720")
        # As it was typed: an account may be called 0123.
        found[key] = int(value) if value.isdecimal() and str(int(value)) == value else value
    return found


def slurm_executor(folder: Path, options: Sequence[str]) -> Any:
    """A submitit executor for jobs of a day, unless `options` of sbatch ("key=value") say other.

    They are queued again after each time limit, as often as they take; submitit's files lie in
    `folder`. UserError: no SLURM here, or an unknown key.
    """
    import submitit

    try:
        executor = submitit.SlurmExecutor(folder, 1000)
        executor.update_parameters(**{"time": 1440, **parse_slurm(options)})
    except (RuntimeError, ValueError, TypeError) as error:
        raise UserError(f"--slurm {shlex.join(options)}: {error}") from error
    return executor


def parse_seeds(text: str) -> tuple[int, ...]:
    """Return the numbers that "0..4", "0,2,5", "3" or "0..2,7" name, ascending, each once.

    Raises:
        UserError: not such a text, reversed, or a number out of range.
    """
    found: set[int] = set()
    for part in text.split(","):
        first, dots, last = part.partition("..")
        try:
            begin, end = int(first), int(last if dots else first)
        except ValueError as error:
            raise UserError(f"--seeds {text}: {part!r} is no number; {_HOW_TO_WRITE}") from error
        if min(begin, end) < 0 or max(begin, end) > LAST_SEED:
            raise UserError(f"--seeds {text}: {part!r} is out of range; {_HOW_TO_WRITE}")
        if begin > end:
            raise UserError(f"--seeds {text}: {part!r} is reversed; write {end}..{begin}")
        found.update(range(begin, end + 1))
    return tuple(sorted(found))


def habitat_seed(number: int) -> int:
    """Return `habitat.seed` of the runs at seed `number`.

    No two seeds, nor a seed and an evaluation (whose seeds are below `FIRST_TRAINING_SEED`), draw
    the same trials in the first `SEED_STRIDE` steps, however often the runs are resumed.
    """
    return FIRST_TRAINING_SEED + SEED_STRIDE * number


def plan_sweep(
    request: Request,
    folder: Path | None,
    root: Path,
    known: Sequence[str],
    memories: Sequence[str],
) -> Sweep:
    """Return the sweep that is asked for; nothing is written.

    Args:
        request: what to run; variants and seeds are added to those that `folder` has.
        folder: of the sweep; None: a new one in `root`.
        root: folder of new sweeps.
        known: names of the configs that there are.
        memories: names of the variants that there are.

    Raises:
        UserError: unknown variant, a folder with other contents, another config or overrides.
    """
    if request.trials is not None:
        check_at_least_one("--trials", request.trials)
    is_new = folder is None or not (folder / SWEEP_FILE).exists()
    before = None
    if folder is not None and not (is_new and request.config):
        before = read_sweep(folder)
    # What no run could be made with may be corrected in place.
    if before is None or (request.config and not before.is_begun):
        config = _known(request.config, known)
        if folder is None or is_new:
            name = Path(config).stem if own_file(config) else config
            folder = plan_run(f"sweep/{name}", root, folder).path
        before = Sweep(folder=folder, config=config, overrides=request.overrides)
    _check_same(request, before)
    for name in request.variants or ():
        if name not in memories and ":" not in name:
            _check_choice(before, name, memories)
    variants = (*before.variants, *(request.variants or ())) or (DEFAULT_VARIANT,)
    _check_folders(dict.fromkeys(variants))
    seeds = {*before.seeds, *(request.seeds or ())} or parse_seeds("0..2")
    changed = {"variants": tuple(dict.fromkeys(variants)), "seeds": tuple(sorted(seeds))}
    return before.model_copy(update={**changed, "trials": request.trials or before.trials})


def check_sweep(sweep: Sweep) -> None:
    """Refuse a sweep that no run could be made with; composes its config, which takes seconds.

    Raises:
        UserError: an unknown key or plugin, or a key, trainer or seed that a sweep cannot use.
    """
    from memo_habitat.config.compose import compose_config
    from memo_habitat.register import import_plugins

    own = {key: f"a sweep sets {key} itself, from {by}" for key, by in _OWN_KEYS.items()}
    own["run_dir"] = "a sweep has its runs in its own folder; use --out, or --root"
    refuse_keys(sweep.overrides, own)
    config = compose_config(sweep.config, sweep.overrides)
    import_plugins(config)
    if classes := [name for name in sweep.variants if ":" in name]:
        from memo_habitat.memory.variants import memory_class

        for name in classes:
            memory_class(name)
    baselines = config.habitat_baselines
    if baselines.trainer_name != "memo":
        raise UserError(
            f"{sweep.config} has habitat_baselines.trainer_name={baselines.trainer_name}; "
            "a sweep needs the trainer memo"
        )
    if not 0 <= baselines.evaluator.seed < FIRST_TRAINING_SEED:
        raise UserError(
            f"habitat_baselines.evaluator.seed={baselines.evaluator.seed} may be a training's; "
            f"give a number from 0 to {FIRST_TRAINING_SEED - 1}"
        )


def read_sweep(folder: Path) -> Sweep:
    """Return the sweep in `folder`.

    Raises:
        UserError: there is none, or its file cannot be read.
    """
    path = folder / SWEEP_FILE
    if (folder / CONFIG_FILE).is_file() and not path.exists():
        raise UserError(
            f"{folder} is a run, not a sweep; resume it: {command('train', '--resume', folder)}"
        )
    return read_json(path, lambda values: Sweep.model_validate({**values, "folder": folder}))


def write_sweep(sweep: Sweep) -> None:
    """Write `sweep.json`; how and when the first run was started stays."""
    path = sweep.folder / SWEEP_FILE
    facts = Provenance.of_this_process().model_dump()
    if sweep.is_begun:
        facts.update({key: read_json(path).get(key) for key in ("command", "started")})
    seeds = {"habitat_seeds": [habitat_seed(seed) for seed in sweep.seeds]}
    write_json(path, {**sweep.model_dump(mode="json"), **seeds, **facts})


def _check_choice(sweep: Sweep, name: str, memories: Sequence[str]) -> None:
    """Refuse a variant that `train` would not find either: on hydra.searchpath, beside a config."""
    from memo_habitat.config.compose import compose_config

    try:
        compose_config(sweep.config, (*sweep.overrides, f"{_GROUP}={name}"))
    except UserError as error:
        if f"{_GROUP}/{name}" not in str(error):  # another key is at fault
            raise
        raise UserError(
            f"unknown variant {name!r}; there are {', '.join(memories)}; a class of your own is "
            "written module:Class, a choice of your own is found on hydra.searchpath"
        ) from error


def _check_folders(variants: Iterable[str]) -> None:
    """Refuse variants that would train in the same folder."""
    owners: dict[Path, str] = {}
    for name in variants:
        folder = member_folder(Path(), name, 0)
        if folder in owners:
            raise UserError(
                f"variants {owners[folder]} and {name} would both be trained in "
                f"{folder.parent}; give one of the classes another name"
            )
        owners[folder] = name


def _known(config: str | None, known: Sequence[str]) -> str:
    if config is None:
        raise UserError("a new sweep needs --config-name")
    name = _full_name(config)
    if name in known or own_file(name):
        return name
    raise UserError(unknown_config(name))


def _full_name(config: str) -> str:
    """What means the same config from every working directory."""
    own = own_file(config)
    return str(own) if own else config.removesuffix(".yaml")


def _check_same(request: Request, before: Sweep) -> None:
    if request.config is not None and _full_name(request.config) != before.config:
        raise UserError(
            f"{before.folder} is a sweep of {before.config}, now it is {request.config}; "
            "choose another folder"
        )
    given = request.config is not None or request.overrides
    if given and sorted(set(request.overrides)) != sorted(set(before.overrides)):
        listed = [" ".join(own) or "no overrides" for own in (before.overrides, request.overrides)]
        raise UserError(
            f"{before.folder} is a sweep with {listed[0]}, now it is {listed[1]}; choose another "
            "folder, or leave them as they were"
        )
    if request.trials and before.trials and request.trials < before.trials:
        raise UserError(
            f"--trials {request.trials}: {before.folder} is evaluated on {before.trials}; "
            "give as many or more"
        )
