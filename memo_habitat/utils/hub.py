"""Data sets and models from the Hugging Face Hub: which there are, at what revision, and fetching.

`huggingface-hub` does the transfer: it reads the user's token, resumes files that were cut off and
follows HF_ENDPOINT. What it leaves to its caller is here: one commit for a whole folder, space on
the disk before anything is written, sums afterwards, and one line for each way to fail.
"""

from __future__ import annotations

import errno
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from memo_habitat.errors import UserError
from memo_habitat.utils.files import file_digest, read_json, write_json

RECORD = "downloaded.json"
"""File in a downloaded folder that tells what it holds."""
LOGIN = "log in by `hf auth login`, or set HF_TOKEN"


@dataclass(frozen=True)
class Source:
    """A repository on the hub.

    Attributes:
        repository: its id, OWNER/NAME.
        kind: "dataset" or "model".
        folder: where it goes below the data folder; Habitat's own downloader uses the same places.
        licence: one line, with what one must do to be let in.
        revision: commit that is fetched; None: the newest at the first download, and the same one
            again from then on (it stands in `RECORD`).
    """

    repository: str
    kind: str
    folder: str
    licence: str
    revision: str | None = None


SOURCES = {
    "hssd": Source(
        "hssd/hssd-hab",
        "dataset",
        "scene_datasets/hssd-hab",
        "CC BY-NC 4.0, gated: accept it once on the repository's page with your account, then "
        + LOGIN,
        "34b5f48c343cd7eb65d46e45402c85a004d77c92",
    ),
    "extobjnav": Source(
        "aielawady/ExtObjNav",
        "dataset",
        "datasets/ExtObjNav",
        "as on the repository's page; the episodes stand in the homes of hssd, with objects of ycb",
    ),
    "ycb": Source("ai-habitat/ycb", "dataset", "objects/ycb", "CC BY 4.0"),
    "vc1": Source("facebook/vc1-base", "model", "models/vc1-base", "CC BY-NC 4.0"),
}


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository.

    Attributes:
        path: inside the repository.
        size: bytes.
        sums: sha256 of the content where the hub stores it apart, else git's sha1 of it.
    """

    path: str
    size: int
    sums: str

    def is_in(self, folder: Path) -> bool:
        """Whether a file of that size is there."""
        here = folder / self.path
        return here.is_file() and here.stat().st_size == self.size

    def is_intact_in(self, folder: Path) -> bool:
        """Whether the file there has the sum that the hub gives."""
        file = folder / self.path
        if len(self.sums) == 64:  # hexadecimal digits of a sha256
            return file_digest(file) == self.sums
        return file_digest(file, "sha1", f"blob {self.size}\0".encode()) == self.sums


@dataclass(frozen=True)
class Download:
    """What is to be fetched, and where to.

    Attributes:
        source: the repository.
        commit: of it, in full.
        target: folder.
        files: all of its files.
    """

    source: Source
    commit: str
    target: Path
    files: Sequence[RemoteFile]

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(file.size for file in self.files)

    @property
    def missing(self) -> int:
        """Bytes of the files that are not in the target yet."""
        return sum(file.size for file in self.files if not file.is_in(self.target))


def bytes_of(count: int) -> str:
    """12345678 as 12.3MB."""
    return str(tqdm.format_sizeof(count, "B"))


def look_up(name: str, root: Path, revision: str | None = None) -> Download:
    """Ask the hub what one of `SOURCES` holds; nothing is written.

    Args:
        name: key of `SOURCES`.
        root: the data folder.
        revision: branch, tag or commit in the place of the usual one.

    Raises:
        UserError: unknown name, no client, no connection, no access.
    """
    if name not in SOURCES:
        raise UserError(f"unknown data {name!r}: there are {', '.join(SOURCES)}")
    source, api = SOURCES[name], _client().HfApi()
    target = root / source.folder
    wanted = revision or source.revision or _recorded(target, source) or "main"
    with _one_line(source, target):
        where: dict[str, Any] = {"repo_id": source.repository, "repo_type": source.kind}
        commit = api.repo_info(revision=wanted, **where).sha
        tree = api.list_repo_tree(recursive=True, revision=commit, **where)
        # Folders have no size.
        entries = [entry for entry in tree if hasattr(entry, "size")]
    files = [RemoteFile(e.path, e.size, e.lfs.sha256 if e.lfs else e.blob_id) for e in entries]
    return Download(source, commit, target, files)


def fetch(download: Download) -> None:
    """Download what is missing, then check the sums of all files.

    A download that was cut off goes on where it ended when it is asked for again.

    Raises:
        UserError: no space, no connection, no access, or files that came damaged.
    """
    source, target = download.source, download.target
    existing = next(folder for folder in (target, *target.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if download.missing > free:
        raise UserError(
            f"{source.repository} needs {bytes_of(download.missing)} in {target}, where "
            f"{bytes_of(free)} are free: free some, or name another folder by --to"
        )
    before = {"repository": source.repository, "revision": download.commit}
    write_json(target / RECORD, {**before, "files": len(download.files), "bytes": download.size})
    with _one_line(source, target):
        _client().snapshot_download(
            source.repository,
            repo_type=source.kind,
            revision=download.commit,
            local_dir=target,
        )
    _check_sums(download)


def _check_sums(download: Download) -> None:
    target, damaged = download.target, []
    for file in tqdm(download.files, "checking", unit="file", disable=not sys.stderr.isatty()):
        if not file.is_in(target) or not file.is_intact_in(target):
            # Else the client would take it for complete.
            (target / file.path).unlink(missing_ok=True)
            damaged.append(file.path)
    if damaged:
        raise UserError(
            f"{target}: {len(damaged)} of {len(download.files)} files came damaged or not at all, "
            f"the first is {damaged[0]}; run the same command again, which fetches just these"
        )


def _recorded(target: Path, source: Source) -> str | None:
    """The commit that lies in the folder already, so that two are never mixed."""
    path = target / RECORD
    record = read_json(path) if path.is_file() else {}
    return record.get("revision") if record.get("repository") == source.repository else None


def _client() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError(
            "downloads need the package huggingface-hub: pip install 'memo-habitat[hub]'"
        ) from error
    return huggingface_hub


@contextmanager
def _one_line(source: Source, target: Path) -> Iterator[None]:
    """The client's errors, each as one line with its remedy."""
    from huggingface_hub import errors

    name = source.repository
    try:
        yield
    except errors.GatedRepoError as error:
        raise UserError(
            f"{name} is gated: accept its licence on its page with your account, {LOGIN}, then run "
            "this again"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UserError(f"{name} has no such revision: leave out --revision") from error
    except errors.RepositoryNotFoundError as error:
        # The hub says the same of what is not there and of what is hidden from strangers.
        raise UserError(f"{name} is not there, or not for strangers: {LOGIN}") from error
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError) as error:
        raise UserError(
            f"cannot reach the hub for {name}: check the connection, and that HF_HUB_OFFLINE is "
            "not set; what is here already is kept, and the same command goes on with it"
        ) from error
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", "an error")
        remedy = LOGIN if status in (401, 403) else "try again later"
        raise UserError(f"the hub answered {status} for {name}: {remedy}") from error
    # Of whichever HTTP library the client is built on; not all of its errors are OSErrors.
    except (errors.HTTPError, OSError) as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"no space is left in {target}: free some and run the same command again, which "
                "goes on where this ended"
            ) from error
        raise UserError(
            f"the download of {name} broke off ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:120]}); run the same command again, which goes on "
            "where this ended"
        ) from error
