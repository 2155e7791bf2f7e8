"""What the commands share: how they are declared, and recurring options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from memo_habitat.errors import UserError

# Where new runs and sweeps are made.
ROOT = "runs"


def option(help: str, metavar: str | None = "N", shown: str | bool = True, **more: Any) -> Any:
    """An option with a value; `shown` is said to be its default where that is not in the code."""
    return typer.Option(help=help, metavar=metavar, show_default=shown, **more)


def flag(name: str, help: str) -> Any:
    """An option without a value."""
    return typer.Option(name, help=help)


def command_of(
    app: typer.Typer, *examples: str, **more: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a function a command of `app`, with examples below its help.

    A parameter that is a dataclass becomes an option for each of its fields: options that belong
    together are declared once, and handed on as one value. Every command takes --debug, which
    `main` reads.
    """
    # \b keeps Typer from joining the lines to a paragraph.
    epilog = "\n".join(["\b", "Examples:", *(f"  {line}" for line in examples)])

    def register(command: Callable[..., None]) -> Callable[..., None]:
        app.command(epilog=epilog if examples else None, **more)(_expanded(command))
        return command

    return register


def _expanded(command: Callable[..., None]) -> Callable[..., None]:
    """The command as Typer takes it, with all options as parameters of their own."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    asked: dict[str, tuple[Any, Any]] = {}  # name -> annotation and default
    for name, parameter in signature(command).parameters.items():
        if name not in groups:
            asked[name] = hints[name], parameter.default
            continue
        own = get_type_hints(groups[name], include_extras=True)
        for field in fields(groups[name]):
            default = Parameter.empty if field.default is MISSING else field.default
            asked[field.name] = own[field.name], default
    asked["debug"] = Annotated[bool, flag("--debug", "Show the traceback of an error.")], False

    @wraps(command)
    def run(**given: Any) -> None:
        del given["debug"]
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        command(**given)

    run.__annotations__ = {name: annotation for name, (annotation, _) in asked.items()}
    run.__signature__ = Signature(  # type: ignore[attr-defined]
        [
            Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for name, (annotation, default) in asked.items()
        ]
    )
    return run


def config_names(incomplete: str) -> list[str]:
    """Completion of --config-name."""
    from memo_habitat.config.compose import known_configs

    return [name for name in known_configs() if name.startswith(incomplete)]


def _refuse_seed(context: typer.Context, value: str | None) -> None:
    """Point to the key that does what the option --seed of other programs does."""
    if value is not None and not context.resilient_parsing:
        key = (
            "habitat.seed"
            if context.info_name in ("train", "launch")
            else "habitat_baselines.evaluator.seed"
        )
        raise UserError(f"--seed {value}: keys of the config are changed as {key}={value}")


Run = Annotated[str, typer.Argument(metavar="RUN", help="Run folder.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]",
        help="Change keys of the config, e.g. habitat.seed=1; they may stand anywhere.",
        show_default=False,
    ),
]
ConfigName = typer.Option(
    help="One that `memo-habitat train --list` prints, or a YAML file of your own.",
    metavar="NAME",
    autocompletion=config_names,
)
Root = Annotated[str, option("Folder of the new folder.", "DIR")]
Checkpoint = Annotated[
    str | None, option("File, or name in the run's checkpoints.", "FILE", "the latest")
]
Forget = Annotated[bool, flag("--forget", "Empty the memory at the start of every episode.")]
Slurm = Annotated[
    list[str] | None,
    option(
        "Submit to SLURM with this option of sbatch, such as partition=gpu, time=720 (minutes) or "
        "gpus_per_node=1; may be repeated.",
        "KEY=VALUE",
    ),
]
Seed = Annotated[str | None, typer.Option(hidden=True, callback=_refuse_seed)]


@dataclass(frozen=True)
class Work:
    """What to train, and the folder for it: a new one, or one to go on in."""

    config_name: Annotated[str | None, ConfigName] = None
    resume: Annotated[Path | None, option("Resume what is in this folder.", "DIR")] = None
    root: Root = ROOT
    out: Annotated[Path | None, option("This very folder; new or empty.", "DIR")] = None

    def check(self) -> None:
        """Refuse folders that contradict each other or would have no effect.

        Raises:
            UserError: names the option.
        """
        if (self.config_name is None) == (self.resume is None):
            raise UserError("give one of --config-name and --resume")
        if self.out is not None and self.resume is not None:
            raise UserError(f"--out {self.out} goes with --config-name, not with --resume")
        if self.out is not None and self.root != ROOT:
            raise UserError(
                f"--root {self.root} has no effect beside --out {self.out}; give one of them"
            )


def run_and_overrides(run: str, overrides: list[str] | None) -> tuple[str, list[str]]:
    """Tell the run folder from overrides that were typed before it."""
    words = [run, *(overrides or [])]
    folder = next((word for word in words if "=" not in word or Path(word).is_dir()), run)
    words.remove(folder)
    return folder, words
