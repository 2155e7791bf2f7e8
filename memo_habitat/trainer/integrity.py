"""Files of a training that carry a digest of all their bytes, so that no damage is read unnoticed.

A disk that fills up, a copy that is cut off or a bit that flips leaves a file that often can still
be read, with other weights. The digest lies in the file itself: a second file would belong to
another version of the first after a kill between the two.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from pathlib import Path
from typing import NamedTuple

from memo_habitat.errors import UserError
from memo_habitat.utils.files import file_digest

# What a checkpoint's header says under "format". The first has no digest.
FORMATS = ("memo-habitat-1", "memo-habitat-2")
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
    """A safetensors file whose digest was right, or that is of a time without digests."""

    content: bytes
    header: dict[str, str]


def seal_tensors(path: Path) -> None:
    """Put the digest of a safetensors file into its header, where `NO_DIGEST` is.

    The file is changed in place; it is still a temporary one.
    """
    with path.open("r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        field = _FIELD.search(file.read(length))
        if field is None:
            raise ValueError(f"{path} has no field for its digest")
        digest = file_digest(path)
        file.seek(8 + field.start(1))
        file.write(digest.encode())


def read_tensors(path: Path) -> SealedTensors:
    """The content of a checkpoint and its header's text fields; DamagedError where it is damaged.

    Without torch: sweeps ask all their runs.
    """
    content = _content(path)
    header_bytes = content[8 : 8 + int.from_bytes(content[:8], "little")]
    field = _FIELD.search(header_bytes)
    if field is not None:
        start = 8 + field.start(1)
        digest = hashlib.sha256(content[:start])
        digest.update(NO_DIGEST.encode())
        digest.update(memoryview(content)[start + len(NO_DIGEST) :])
        if digest.hexdigest() != field[1].decode():
            raise _damaged(path)
    try:
        tensors = json.loads(header_bytes)
        header = tensors.pop("__metadata__", {})
        end = 8 + len(header_bytes) + max(t["data_offsets"][1] for t in tensors.values())
    except (ValueError, AttributeError, LookupError, TypeError) as error:
        raise _damaged(path) from error
    # Of a damaged header the field may be what is missing; one without may be cut off.
    if field is None and (header.get("format") == FORMATS[1] or end != len(content)):
        raise _damaged(path)
    return SealedTensors(content, header)


def append_seal(path: Path) -> None:
    """Put the digest of a whole file behind it."""
    digest = file_digest(path)
    with path.open("ab") as file:
        file.write(f"\nmemo-habitat sha256 {digest}\n".encode())


def read_sealed(path: Path) -> tuple[bytes, bool]:
    """The bytes before the seal, and whether there is one; DamagedError where it is wrong."""
    content = _content(path)
    seal = _SEAL.search(content[-_SEAL_BYTES:])
    if seal is None:
        return content, False
    body = content[:-_SEAL_BYTES]
    if hashlib.sha256(body).hexdigest() != seal[1].decode():
        raise _damaged(path)
    return body, True


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror or error})") from error


def _damaged(path: Path) -> DamagedError:
    return DamagedError(
        f"{path} is damaged: it was cut off or changed since it was written; take another, or "
        "remove it"
    )
