"""Files of a training that carry a digest of all their bytes, so that no damage is read unnoticed.

A disk that fills up, a copy that is cut off or a bit that flips leaves a file that often can still
be read, with other weights. The digest lies in the file itself: a second file would belong to
another version of the first after a kill between the two.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import NamedTuple

from memo_habitat.errors import UserError
from memo_habitat.utils.files import atomic_path, file_digest

# In place of the digest while it is computed; it cannot cover itself.
NO_DIGEST = "0" * 64
# In the JSON of a safetensors header. Quotes within its strings are escaped: a config that says
# the same matches nowhere.
_FIELD = re.compile(rb'"digest":"([0-9a-f]{64})"')
# Behind a file that has no header of ours; torch reads past it.
_SEAL = re.compile(rb"\nmemo-habitat sha256 ([0-9a-f]{64})\n\Z")
_SEAL_BYTES = len(b"\nmemo-habitat sha256 \n") + 64


class DamagedError(UserError):
    """A file is not what was written: cut off, or changed."""


class SealedTensors(NamedTuple):
    """A safetensors file whose digest was right."""

    content: bytes
    header: dict[str, str]


def write_tensors(path: Path, content: bytes) -> None:
    """Write the content of a safetensors file, with its digest in the place of `NO_DIGEST`."""
    found = _digest_in(content)
    if found is None:
        raise ValueError("the header has no field for the digest")
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(content)  # whole, since joining its parts would take their size once more
        file.seek(found[0])
        file.write(hashlib.sha256(content).hexdigest().encode())


def read_tensors(path: Path) -> SealedTensors:
    """The content of a checkpoint and its header's text fields; DamagedError where it is damaged.

    Without torch: sweeps ask all their runs.
    """
    content = _content(path)
    found = _digest_in(content)
    if found is None:
        raise _damaged(path)
    start, written = found
    digest = hashlib.sha256(content[:start])
    digest.update(NO_DIGEST.encode())
    digest.update(memoryview(content)[start + len(NO_DIGEST) :])
    if digest.hexdigest() != written:
        raise _damaged(path)
    return SealedTensors(content, json.loads(_header(content))["__metadata__"])


def append_seal(path: Path) -> None:
    """Put the digest of a whole file behind it."""
    digest = file_digest(path)
    with path.open("ab") as file:
        file.write(f"\nmemo-habitat sha256 {digest}\n".encode())


def read_sealed(path: Path) -> bytes:
    """The bytes before the seal; DamagedError where it is wrong or missing."""
    content = _content(path)
    seal = _SEAL.search(content[-_SEAL_BYTES:])
    body = content[:-_SEAL_BYTES]
    if seal is None or hashlib.sha256(body).hexdigest() != seal[1].decode():
        raise _damaged(path)
    return body


def _header(content: bytes) -> bytes:
    return content[8 : 8 + int.from_bytes(content[:8], "little")]


def _digest_in(content: bytes) -> tuple[int, str] | None:
    """Where the digest of a safetensors file begins, and what it is; None where there is none."""
    field = _FIELD.search(_header(content))
    return None if field is None else (8 + field.start(1), field[1].decode())


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror or error})") from error


def _damaged(path: Path) -> DamagedError:
    return DamagedError(
        f"{path} is damaged: it was cut off or changed since it was written, or not by "
        "memo-habitat; take another, or remove it"
    )
