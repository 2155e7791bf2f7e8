"""Writing a data set into a folder so that a failure leaves what was there untouched."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from memo_habitat.errors import UserError
from memo_habitat.scenes.options import GenerateOptions
from memo_habitat.scenes.paths import SET_CONFIG_SUFFIX

MANIFEST = "generated.json"
"""File that tells how a set was made, and marks its folder as one that may be replaced."""
OWN_FOLDERS = {"stages", "furniture", "objects", "scenes", "episodes", "pointnav"}


def manifest(options: GenerateOptions) -> dict[str, Any]:
    """What determines the bytes of a set."""
    instances, categories = options.counts
    return {
        "generator": "memo-habitat scenes generate",
        "name": options.set_name,
        "kind": options.kind,
        "seed": options.seed,
        "houses": options.houses,
        "split_sizes": options.sizes(),
        "arrangements": options.arrangements,
        "instances": instances,
        "categories": categories,
    }


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """How the set in a folder was made; None where no generated set lies there."""
    try:
        found = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def check_target(options: GenerateOptions) -> None:
    """Refuse a folder that holds something else, or cannot be written.

    Raises:
        UserError: naming the folder and the remedy.
    """
    out = options.out
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: give a folder that does not exist yet")
    if out.is_dir() and any(out.iterdir()):
        _check_replaceable(options)
    parent = out.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise UserError(f"cannot write in {parent}: give another folder than {out}, or its rights")


def _check_replaceable(options: GenerateOptions) -> None:
    out, found = options.out, read_manifest(options.out)
    mine = (options.set_name, options.kind)
    if found is None or (found.get("name"), found.get("kind")) != mine:
        raise UserError(
            f"{out} holds other files than a generated set {mine[0]!r} of kind {mine[1]!r}: "
            "give a folder that does not exist yet"
        )
    if not options.overwrite:
        raise UserError(f"{out} holds a generated set already: add --overwrite to replace it")
    known = OWN_FOLDERS | {MANIFEST, f"{options.set_name}{SET_CONFIG_SUFFIX}"}
    foreign = sorted(path.name for path in out.iterdir() if path.name not in known)
    if foreign:
        raise UserError(
            f"{out} holds {foreign[0]}, which was not generated: move it away before overwriting"
        )


@contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """A fresh folder beside ``out`` that takes its place when the block ends without an error.

    Raises:
        UserError: the folder cannot be written.
    """
    out = out.absolute()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; give another folder") from error
    try:
        (fresh / "new").mkdir()
        yield fresh / "new"
        if out.exists():
            out.rename(fresh / "old")
        (fresh / "new").rename(out)
    except OSError as error:
        if (fresh / "old").exists() and not out.exists():
            (fresh / "old").rename(out)
        raise UserError(
            f"cannot write {out}: {error}; free space or give another folder"
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    """Write files given by their paths inside the folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
