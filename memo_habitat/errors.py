"""The exceptions that the command line prints as one line, and common causes of them."""

from __future__ import annotations

TYPE_CHECKING = False  # typing's own would be imported at every start of the interpreter
if TYPE_CHECKING:
    from pathlib import Path


class UserError(Exception):
    """Bad input: one line that names the offending value and what would be valid.

    The command line prints it without a traceback and exits with status 2.
    """


class WorkerError(Exception):
    """A process at work for the command ended before its time; one line that says which and how.

    The command line prints it without a traceback and exits with status 1.
    """


class NonFiniteError(WorkerError):
    """A reward, loss or gradient of a training is infinite or not a number.

    Attributes:
        what: which of them.
        names: the steps, losses or weights in which it is.
    """

    def __init__(self, what: str, names: list[str], line: str = "") -> None:
        self.what, self.names = what, names
        more = f" and {len(names) - 3} more" if names[3:] else ""
        super().__init__(line or f"not finite: {what} ({', '.join(names[:3])}{more})")


def command(*words: object) -> str:
    """A command line of ours to type, quoted where a shell needs it."""
    import shlex  # not at every start of the interpreter

    return shlex.join(["memo-habitat", *map(str, words)])


def check_at_least_one(name: str, value: int) -> None:
    """Raise UserError for a count below 1 of the config key or command-line option `name`."""
    if value < 1:
        between = " " if name.startswith("--") else "="
        raise UserError(f"{name}{between}{value}: at least 1 is needed")


def check_choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise UserError unless the value of the config key `key` is one of `choices`."""
    if value not in choices:
        raise UserError(f"{key}={value!r}: choose one of {', '.join(choices)}")


def cannot_write(folder: Path, error: OSError) -> UserError:
    """What to say where the output folder of a command cannot be made or written to."""
    return UserError(
        f"cannot write to the output folder {folder}: {error.strerror or error}; "
        "choose another with --out or --root"
    )
