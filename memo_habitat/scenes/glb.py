"""Writing GLB files and their PNG textures so that equal input gives equal bytes everywhere.

The exporters at hand write their own version into the file and compress textures with whatever
zlib is installed; both would break the promise that one seed gives one data set.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from memo_habitat.scenes.mesh import Mesh

FLOAT, UNSIGNED_SHORT = 5126, 5123
ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER = 34962, 34963
NEAREST, LINEAR_MIPMAP_LINEAR, REPEAT = 9728, 9987, 10497


def stored_deflate(data: bytes) -> bytes:
    """The data as a raw deflate stream of stored (uncompressed) blocks."""
    blocks = [data[i : i + 65535] for i in range(0, len(data), 65535)] or [b""]
    out = bytearray()
    for i, block in enumerate(blocks):
        last = i == len(blocks) - 1
        out += struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF) + block
    return bytes(out)


def gzip_bytes(data: bytes) -> bytes:
    """A gzip file without compression, time or name: the same bytes with every zlib."""
    header = b"\x1f\x8b\x08\x00" + b"\x00" * 4 + b"\x00\xff"
    return header + stored_deflate(data) + struct.pack("<II", zlib.crc32(data), len(data))


def png_bytes(pixels: np.ndarray) -> bytes:
    """A PNG file of an image [H, W, 3] uint8."""
    height, width, _ = pixels.shape

    def chunk(kind: bytes, body: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    rows = b"".join(b"\x00" + pixels[y].tobytes() for y in range(height))
    stream = b"\x78\x01" + stored_deflate(rows) + struct.pack(">I", zlib.adler32(rows))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", stream) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@dataclass(frozen=True)
class Part:
    """One primitive: a mesh with its texture.

    Attributes:
        uv: [V, 2] texture coordinates, repeating, v downwards.
        texture: [H, W, 3] uint8.
    """

    mesh: Mesh
    uv: Sequence[tuple[float, float]]
    texture: np.ndarray


def coloured(mesh: Mesh) -> Part:
    """The mesh in its own colours: a texture with one square for each of them.

    Readers differ in what they make of vertex colours beside a material, and a mesh without a
    material is polished metal to some renderers; a texture means one thing to all.
    """
    palette = sorted(set(mesh.colours))
    row = np.repeat(np.asarray(palette, dtype=np.uint8), 4, axis=0)
    middles = {colour: (i + 0.5) / len(palette) for i, colour in enumerate(palette)}
    return Part(mesh, [(middles[c], 0.5) for c in mesh.colours], np.repeat(row[None], 4, axis=0))


class _Buffer:
    """The binary chunk of a GLB file and the accessors into it."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []

    def view(self, raw: bytes, target: int | None = None) -> int:
        self.data += b"\x00" * (-len(self.data) % 4)
        entry: dict[str, Any] = {
            "buffer": 0,
            "byteOffset": len(self.data),
            "byteLength": len(raw),
        }
        if target is not None:
            entry["target"] = target
        self.views.append(entry)
        self.data += raw
        return len(self.views) - 1

    def accessor(self, array: np.ndarray, component: int, shape: str, **extra: Any) -> int:
        target = ELEMENT_ARRAY_BUFFER if shape == "SCALAR" else ARRAY_BUFFER
        little = array.astype(array.dtype.newbyteorder("<"))
        view = self.view(little.tobytes(), target)
        entry = {"bufferView": view, "componentType": component, "count": len(array), "type": shape}
        self.accessors.append({**entry, **extra})
        return len(self.accessors) - 1


def _primitive(buffer: _Buffer, part: Part) -> dict[str, Any]:
    positions = np.asarray(part.mesh.positions, dtype=np.float32)
    low, high = positions.min(axis=0).tolist(), positions.max(axis=0).tolist()
    attributes = {
        "POSITION": buffer.accessor(positions, FLOAT, "VEC3", min=low, max=high),
        "NORMAL": buffer.accessor(part.mesh.normals(), FLOAT, "VEC3"),
        "TEXCOORD_0": buffer.accessor(np.asarray(part.uv, dtype=np.float32), FLOAT, "VEC2"),
    }
    indices = np.asarray(part.mesh.triangles, dtype=np.uint16).reshape(-1)
    index = buffer.accessor(indices, UNSIGNED_SHORT, "SCALAR")
    return {"attributes": attributes, "indices": index}


def glb_bytes(parts: Sequence[Part]) -> bytes:
    """A binary glTF 2.0 file with one mesh made of the parts."""
    buffer = _Buffer()
    materials: list[dict[str, Any]] = []
    images: list[dict[str, Any]] = []
    primitives: list[dict[str, Any]] = []
    for number, part in enumerate(parts):
        view = buffer.view(png_bytes(part.texture))
        images.append({"bufferView": view, "mimeType": "image/png"})
        surface = {"baseColorTexture": {"index": number}, "metallicFactor": 0.0}
        materials.append({"pbrMetallicRoughness": {**surface, "roughnessFactor": 1.0}})
        primitives.append({**_primitive(buffer, part), "material": number})
    sampler = {"magFilter": NEAREST, "minFilter": LINEAR_MIPMAP_LINEAR}
    document: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "memo-habitat scenes"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": "root"}],
        "meshes": [{"primitives": primitives}],
        "materials": materials,
        "samplers": [{**sampler, "wrapS": REPEAT, "wrapT": REPEAT}],
        "textures": [{"sampler": 0, "source": i} for i in range(len(images))],
        "images": images,
        "accessors": buffer.accessors,
        "bufferViews": buffer.views,
        "buffers": [{"byteLength": len(buffer.data)}],
    }
    text = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    binary = bytes(buffer.data) + b"\x00" * (-len(buffer.data) % 4)
    chunks = struct.pack("<II", len(text), 0x4E4F534A) + text
    chunks += struct.pack("<II", len(binary), 0x004E4942) + binary
    return struct.pack("<III", 0x46546C67, 2, 12 + len(chunks)) + chunks
