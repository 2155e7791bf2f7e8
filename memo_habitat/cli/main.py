"""The command line `memo-habitat`: its commands, and errors as one line and an exit status.

Each command is a function in a module of its own. What is heavy to import is imported within it,
so that help and completion are immediate.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from memo_habitat import __version__
from memo_habitat.cli import (
    data,
    demo,
    doctor,
    drill,
    eval,
    export,
    launch,
    plan,
    report,
    scenes,
    sweep,
    train,
    watch,
)
from memo_habitat.cli.common import command_of, flag
from memo_habitat.compat import startup
from memo_habitat.errors import UserError, WorkerError
from memo_habitat.utils.processes import INTERRUPTED

WORKER_ERROR = 1
USER_ERROR = 2


class _Interruptible(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            # Typer itself would exit with 130 as well, but say nothing.
            print(str(stop) or "interrupted", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from stop


app = typer.Typer(
    cls=_Interruptible,
    help="Train, evaluate and report embodied agents with memory.",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"memo-habitat {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, flag("--debug", "Show the traceback of an error.")] = False,
) -> None:
    """Declare the options of `memo-habitat` itself."""


command_of(app, *demo.EXAMPLES)(demo.demo)
command_of(app, *demo.QUICKSTART_EXAMPLES)(demo.quickstart)
command_of(app, *plan.EXAMPLES)(plan.plan)
command_of(app, *train.EXAMPLES)(train.train)
command_of(app, *launch.EXAMPLES, cls=launch.OptionalValue)(launch.launch)
command_of(app, *eval.EXAMPLES, name="eval")(eval.evaluate)
command_of(app, *sweep.EXAMPLES)(sweep.sweep)
command_of(app, *watch.EXAMPLES)(watch.watch)
command_of(app, *watch.INSPECT_EXAMPLES)(watch.inspect)
command_of(app, *report.EXAMPLES)(report.report)
command_of(app, *export.EXAMPLES)(export.export)
app.add_typer(scenes.app, name="scenes")
app.add_typer(data.app, name="data")
command_of(app)(doctor.doctor)
command_of(app, *drill.EXAMPLES)(drill.drill)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    That is 0, 2 for bad input, 130 if interrupted, 1 if a worker died or something is missing.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    startup.silence_gym_notice()
    startup.silence_habitat_sim()
    try:
        # The status that a command has exited with; None at its normal end.
        return app(arguments, prog_name="memo-habitat", standalone_mode=False) or 0
    except (UserError, WorkerError, OSError, typer.TyperException) as error:
        # OSError: a file that Habitat itself wants and does not find, a full disk, ...
        if "--debug" in arguments:
            raise
        print(_one_line(error, arguments), file=sys.stderr)
        return WORKER_ERROR if isinstance(error, WorkerError) else USER_ERROR


def _one_line(error: Exception, arguments: Sequence[str]) -> str:
    command = " ".join(["memo-habitat", *[w for w in arguments if not w.startswith("-")][:1]])
    text = str(error)
    if isinstance(error, typer.TyperException):
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "memo-habitat"
        text = f"{error.format_message().rstrip('.')} (see {command} --help)"
    return f"{command}: {' '.join(text.split())}"


if __name__ == "__main__":
    sys.exit(main())
