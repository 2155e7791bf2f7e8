"""What the commands share: recurring options, and examples below a command's help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from memo_habitat.errors import UserError


def examples(*lines: str) -> str:
    """The end of a command's help."""
    # \b keeps Typer from joining the lines to a paragraph.
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


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


def option(help: str, metavar: str | None = "N", shown: str | bool = True, **more: Any) -> Any:
    """An option with a value; `shown` is said to be its default where that is not in the code."""
    return typer.Option(help=help, metavar=metavar, show_default=shown, **more)


def flag(name: str, help: str) -> Any:
    """An option without a value."""
    return typer.Option(name, help=help)


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
# Where new runs and sweeps are made.
ROOT = "runs"
Root = Annotated[str, option("Folder of run folders.", "DIR")]
Resume = Annotated[Path | None, option("Resume the run in this folder.", "RUN")]
Out = Annotated[Path | None, option("This very run folder; new or empty.", "DIR")]
Seed = Annotated[str | None, typer.Option(hidden=True, callback=_refuse_seed)]
Debug = Annotated[bool, flag("--debug", "Show the traceback of an error.")]


def run_and_overrides(run: str, overrides: list[str] | None) -> tuple[str, list[str]]:
    """Tell the run folder from overrides that were typed before it."""
    words = [run, *(overrides or [])]
    folder = next((word for word in words if "=" not in word or Path(word).is_dir()), run)
    words.remove(folder)
    return folder, words


def check_place(resume: Path | None, root: str, out: Path | None) -> None:
    """Refuse folders that would have no effect.

    Raises:
        UserError: names the option.
    """
    if out is not None and resume is not None:
        raise UserError(f"--out {out} goes with --config-name, not with --resume")
    if out is not None and root != ROOT:
        raise UserError(f"--root {root} has no effect beside --out {out}; give one of them")
