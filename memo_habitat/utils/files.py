"""Files that are written whole or not at all, and JSON, one object a file or one a line.

What cannot be read or written is a UserError that names the file and the remedy.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, overload

from memo_habitat.errors import UserError

T = TypeVar("T")
Json = dict[str, Any]


def cache_folder() -> Path:
    """Where what can be computed again is kept: `memo-habitat` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "memo-habitat"


def file_name(text: str) -> str:
    """`text` with everything replaced that a file name may not hold."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a path to write to instead, which replaces `path` at the end if nothing was raised.

    Readers see the old file or the new one, never a part. The path is a hidden file in the same
    folder, which is made. Its name has no suffix of its own, so libraries that choose a format by
    the suffix must be told the format.
    """
    # Not ending in .json or .safetensors: a file that a kill leaves must not count as one of them.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    with _as_user_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            with temporary.open("rb") as written:
                # Without it the rename may reach the disk before the content does.
                os.fsync(written.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Remove from `folder` what processes that were killed have left of files of `atomic_path`.

    For a process that holds the lock of whoever writes there: others' are not told from these.
    """
    for path in folder.glob(".*"):
        if re.fullmatch(r"\..+\.[0-9a-f]{8}", path.name):
            path.unlink(missing_ok=True)


def atomic_write(path: Path, content: str | bytes) -> None:
    """Write `content`, text as UTF-8, to `path`, which has all of it or what it had before."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def file_digest(path: Path, algorithm: str = "sha256", before: bytes = b"") -> str:
    """The digest, in hexadecimal, of `before` and the content of a file, read in blocks."""
    digest = hashlib.new(algorithm, before, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write one JSON object, indented, atomically."""
    atomic_write(path, json.dumps(values, indent=2) + "\n")


@overload
def read_json(path: Path) -> Json: ...
@overload
def read_json(path: Path, parse: Callable[[Json], T]) -> T: ...
def read_json(path: Path, parse: Callable[[Json], Any] = dict) -> Any:
    """Return the JSON object in `path` as `parse` makes it, e.g. a pydantic `model_validate`.

    Raises:
        UserError: the file is missing or holds no JSON object, or `parse` refused it (ValueError).
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    return _parse(content, str(path), parse)


def append_json_line(path: Path, values: Mapping[str, Any]) -> None:
    """Append one JSON object as a line, whole or not at all."""
    line = json.dumps(values).encode() + b"\n"
    with _as_user_error(path), path.open("ab", buffering=0) as file:
        end = file.tell()
        try:
            if file.write(line) < len(line):  # the disk is full now
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            file.truncate(end)
            raise


def write_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON objects, one a line, atomically."""
    atomic_write(path, "".join(json.dumps(row) + "\n" for row in rows))


@overload
def read_json_lines(path: Path) -> Iterator[Json]: ...
@overload
def read_json_lines(path: Path, parse: Callable[[Json], T]) -> Iterator[T]: ...
def read_json_lines(path: Path, parse: Callable[[Json], Any] = dict) -> Iterator[Any]:
    """Yield the JSON objects of a file with one a line, each as `parse` makes it.

    Nothing is yielded where there is no such file. A last line without a line break is left out:
    it is being written, or a kill cut it off.

    Raises:
        UserError: a line is no JSON object, or `parse` refused it (ValueError); names the line.
    """
    if not path.exists():
        return
    with _as_user_error(path, "read"), path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.endswith(b"\n"):
                yield _parse(line, f"{path}, line {number}", parse)


def _parse(content: bytes, where: str, parse: Callable[[Json], Any]) -> Any:
    try:
        values = json.loads(content)
        if not isinstance(values, dict):
            raise ValueError(f"expected a JSON object, found {type(values).__name__}")
        return parse(values)
    except (ValueError, RecursionError) as error:  # the latter for what is nested too deep
        raise UserError(
            f"{where} is malformed ({describe_error(error)}); repair or remove it"
        ) from error


def describe_error(error: Exception) -> str:
    """On one line; pydantic's, which takes several, as the fields and what is wrong with each."""
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return str(error)
    return "; ".join(
        f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()
    )


@contextlib.contextmanager
def _as_user_error(path: Path, verb: str = "write") -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot {verb} {path} ({error.strerror or error}); check space and permissions"
        ) from error
