"""Where the files named in configs and episode files really lie on this machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import memo_habitat
from memo_habitat.errors import UserError
from memo_habitat.utils.hub import SOURCES

SET_CONFIG_SUFFIX = ".scene_dataset_config.json"
MANIFEST = "generated.json"
"""File that tells how a set was made, and marks its folder as one that may be replaced."""
#: Where below a data folder downloads lie, of which published files know other names.
_DOWNLOADS = ("scene_datasets", "objects")


def data_roots() -> tuple[Path, ...]:
    """Folders that may hold the ``data`` folder shipped with the package, best first."""
    package = Path(memo_habitat.__file__).resolve().parent
    return package.parent, package, Path(sys.prefix) / "share" / "memo-habitat"


def data_set_folder(file: str | Path) -> Path | None:
    """The nearest folder at or above ``file`` that is a data set: it has a configuration of scenes,
    or was made by this package for scenes elsewhere."""
    start = Path(file).resolve()
    for folder in (start, *start.parents):
        if folder.is_dir() and (
            any(folder.glob("*" + SET_CONFIG_SUFFIX)) or (folder / MANIFEST).is_file()
        ):
            return folder
    return None


def resolve(path: str | Path, beside: str | Path | None = None) -> Path:
    """The existing file or folder that ``path``, as written in a config or an episode file, means.

    Tried in order: the data set to which ``beside`` (an episode file) belongs, so that a set can
    be moved or copied as a folder; the working directory; the copy of ``data`` that was installed
    with the package; where `memo-habitat data get` puts scenes and objects, since published
    episodes name the folders of whoever made them.

    Raises:
        UserError: nothing of that name in any of these places.
    """
    wanted = Path(path)
    candidates = [wanted]
    if not wanted.is_absolute():
        candidates += [root / wanted for root in data_roots()]
        if beside is not None and (folder := data_set_folder(beside)) is not None:
            # "data/studios/objects/" names "objects/" of this set, whatever its folder is called.
            own = (folder.joinpath(*wanted.parts[i:]) for i in range(len(wanted.parts)))
            candidates = [*own, *candidates]
    for candidate in chain(candidates, _downloaded(wanted, beside)):
        if candidate.exists():
            return candidate
    where = "run from the folder that holds data/, or"
    if download := download_of(path):
        remedy = f"{where} get it by `memo-habitat data get {download}`"
    elif wanted.parts[:1] == ("data",):
        remedy = f"{where} make the set by `memo-habitat scenes generate`"
    else:
        remedy = "correct it, or give an absolute path"
    raise UserError(f"no such file or folder: {path} (working directory {Path.cwd()}); {remedy}")


def _downloaded(wanted: Path, beside: str | Path | None) -> Iterator[Path]:
    """Where downloads may have put it, below `data` here and beside an episode file."""
    roots = [Path("data"), *(Path(beside).resolve().parents if beside is not None else ())]
    # The file's own folder at least: a name alone could be anything's.
    tails = [Path(*wanted.parts[i:]) for i in range(len(wanted.parts) - 1)]
    yield from (root / folder / tail for root in roots for folder in _DOWNLOADS for tail in tails)


def download_of(path: str | Path) -> str | None:
    """What `memo-habitat data get` takes to fetch it; None for what is no download."""
    parts = Path(path).parts
    names = (name for name, source in SOURCES.items() if Path(source.folder).name in parts)
    return next(names, None)
