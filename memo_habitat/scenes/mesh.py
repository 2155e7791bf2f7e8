"""Writing GLB files and their PNG textures so that equal input gives equal bytes everywhere.

The exporters at hand write their own version into the file and compress textures with whatever
zlib is installed; both would break the promise that one seed gives one data set.
"""

from __future__ import annotations

import itertools
import json
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Point = tuple[float, float, float]
Colour = tuple[int, int, int]
Band = tuple[float, float, Colour]
"""A profile's radius and height (m), and the colour of the band that begins there."""

QUANTUM = 4
"""Decimals kept of every coordinate (0.1 mm): rounding hides how a machine rounds its sines."""


def circle(sides: int, offset: float = 0.0) -> list[tuple[float, float]]:
    """Points of the unit circle; rounded, so that they are the same on every machine."""
    angles = [2 * math.pi * (i + offset) / sides for i in range(sides)]
    return [(round(math.cos(a), 9), round(math.sin(a), 9)) for a in angles]


@dataclass
class Mesh:
    """Triangles in metres, Y up, counter-clockwise seen from outside; vertices are not shared."""

    positions: list[Point] = field(default_factory=list)
    colours: list[Colour] = field(default_factory=list)
    triangles: list[tuple[int, int, int]] = field(default_factory=list)

    def polygon(self, corners: Sequence[Point], colour: Colour) -> None:
        """Add a convex polygon with corners in counter-clockwise order."""
        first = len(self.positions)
        self.positions += [tuple(round(c, QUANTUM) for c in p) for p in corners]  # type: ignore[misc]
        self.colours += [colour] * len(corners)
        self.triangles += [(first, first + i, first + i + 1) for i in range(1, len(corners) - 1)]

    def box(self, low: Point, high: Point, colour: Colour) -> None:
        """Add an axis-aligned box."""
        (x0, y0, z0), (x1, y1, z1) = low, high
        faces = (
            ((x0, y0, z1), (x1, y0, z1), (x1, y1, z1), (x0, y1, z1)),
            ((x1, y0, z0), (x0, y0, z0), (x0, y1, z0), (x1, y1, z0)),
            ((x1, y0, z1), (x1, y0, z0), (x1, y1, z0), (x1, y1, z1)),
            ((x0, y0, z0), (x0, y0, z1), (x0, y1, z1), (x0, y1, z0)),
            ((x0, y1, z1), (x1, y1, z1), (x1, y1, z0), (x0, y1, z0)),
            ((x0, y0, z0), (x1, y0, z0), (x1, y0, z1), (x0, y0, z1)),
        )
        for corners in faces:
            self.polygon(corners, colour)

    def revolve(
        self, profile: Sequence[Band], centre: tuple[float, float] = (0.0, 0.0), sides: int = 10
    ) -> None:
        """Add a solid of revolution about the vertical line through ``centre`` (x, z).

        The profile's bands come bottom first; its ends are closed with discs.
        """
        ring = circle(sides, 0.5)
        cx, cz = centre

        def at(radius: float, y: float) -> list[Point]:
            return [(cx + radius * c, y, cz - radius * s) for c, s in ring]

        for (r0, y0, colour), (r1, y1, _) in itertools.pairwise(profile):
            low, high = at(r0, y0), at(r1, y1)
            for i in range(sides):
                j = (i + 1) % sides
                corners = [low[i]] + ([low[j]] if r0 > 0 else [])
                corners += [high[j]] + ([high[i]] if r1 > 0 else [])
                if len(corners) > 2:
                    self.polygon(corners, colour)
        (bottom_r, bottom_y, bottom_c), (top_r, top_y, top_c) = profile[0], profile[-1]
        if bottom_r > 0:
            self.polygon(at(bottom_r, bottom_y)[::-1], bottom_c)
        if top_r > 0:
            self.polygon(at(top_r, top_y), top_c)

    def sphere(self, centre: Point, radius: float, colour: Colour, sides: int = 10) -> None:
        """Add a ball made of four bands."""
        x, y, z = centre
        rows = [(0.0, -1.0), (0.71, -0.71), (1.0, 0.0), (0.71, 0.71), (0.0, 1.0)]
        self.revolve([(r * radius, y + h * radius, colour) for r, h in rows], (x, z), sides)

    def bounds(self) -> tuple[Point, Point]:
        """Lowest and highest corner of the bounding box, m."""
        columns = list(zip(*self.positions, strict=True))
        low, high = tuple(map(min, columns)), tuple(map(max, columns))
        return low, high  # type: ignore[return-value]

    def centred(self) -> tuple[Mesh, Point]:
        """A copy with the middle of its bounding box at the origin, and where that middle was."""
        low, high = self.bounds()
        x, y, z = (round((a + b) / 2, QUANTUM) for a, b in zip(low, high, strict=True))
        positions = [
            (round(a - x, QUANTUM), round(b - y, QUANTUM), round(c - z, QUANTUM))
            for a, b, c in self.positions
        ]
        return Mesh(positions, self.colours, self.triangles), (x, y, z)

    def normals(self) -> np.ndarray:
        """Unit normal of each vertex's face, [V, 3] float32."""
        corners = np.asarray(self.positions, dtype=np.float64)[self.triangles]
        faces = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        length = np.sqrt(np.sum(faces * faces, axis=1, keepdims=True))
        solid = length[:, 0] > 0  # a triangle without area keeps its neighbours' normals
        normals = np.zeros((len(self.positions), 3))
        unit = np.round(faces[solid] / length[solid], QUANTUM)
        normals[np.asarray(self.triangles)[solid]] = unit[:, None]
        return normals.astype(np.float32)


FLOAT, UNSIGNED_SHORT = 5126, 5123
ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER = 34962, 34963
NEAREST, LINEAR_MIPMAP_LINEAR, REPEAT = 9728, 9987, 10497


def _stored_deflate(data: bytes) -> bytes:
    """A raw deflate stream of stored (uncompressed) blocks, of which the last bears a mark."""
    out = b""
    for first in range(0, max(len(data), 1), 65535):
        block = data[first : first + 65535]
        is_last = first + 65535 >= len(data)
        out += struct.pack("<BHH", is_last, len(block), len(block) ^ 0xFFFF) + block
    return out


def gzip_bytes(data: bytes) -> bytes:
    """A gzip file without compression, time or name: the same bytes with every zlib."""
    header = b"\x1f\x8b\x08\x00" + b"\x00" * 4 + b"\x00\xff"
    return header + _stored_deflate(data) + struct.pack("<II", zlib.crc32(data), len(data))


def png_bytes(pixels: np.ndarray) -> bytes:
    """A PNG file of an image [H, W, 3] uint8."""
    height, width, _ = pixels.shape

    def chunk(kind: bytes, body: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    rows = b"".join(b"\x00" + row.tobytes() for row in pixels)
    stream = b"\x78\x01" + _stored_deflate(rows) + struct.pack(">I", zlib.adler32(rows))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", stream) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@dataclass(frozen=True)
class TexturedMesh:
    """One primitive: a mesh with its texture.

    Attributes:
        uv: [V, 2] texture coordinates, repeating, v downwards.
        texture: [H, W, 3] uint8.
    """

    mesh: Mesh
    uv: list[tuple[float, float]]
    texture: np.ndarray


def palette_textured(mesh: Mesh) -> TexturedMesh:
    """The mesh in its own colours: a texture with one square for each of them.

    Readers differ in what they make of vertex colours beside a material, and a mesh without a
    material is polished metal to some renderers; a texture means one thing to all.
    """
    palette = sorted(set(mesh.colours))
    row = np.repeat(np.asarray(palette, dtype=np.uint8), 4, axis=0)
    middles = {colour: (i + 0.5) / len(palette) for i, colour in enumerate(palette)}
    uv = [(middles[colour], 0.5) for colour in mesh.colours]
    return TexturedMesh(mesh, uv, np.repeat(row[None], 4, axis=0))


def glb_bytes(parts: Sequence[TexturedMesh]) -> bytes:
    """A binary glTF 2.0 file with one mesh made of the parts."""
    binary = bytearray()
    views: list[dict[str, Any]] = []
    accessors: list[dict[str, Any]] = []
    images, materials, primitives = [], [], []

    def view(raw: bytes, **target: int) -> int:
        binary.extend(b"\x00" * (-len(binary) % 4))  # glTF wants every view aligned
        views.append({"buffer": 0, "byteOffset": len(binary), "byteLength": len(raw), **target})
        binary.extend(raw)
        return len(views) - 1

    def accessor(array: np.ndarray, component: int, shape: str, **extra: Any) -> int:
        target = ELEMENT_ARRAY_BUFFER if shape == "SCALAR" else ARRAY_BUFFER
        raw = array.astype(array.dtype.newbyteorder("<")).tobytes()
        place = {"bufferView": view(raw, target=target), "componentType": component}
        accessors.append({**place, "count": len(array), "type": shape, **extra})
        return len(accessors) - 1

    for number, part in enumerate(parts):
        images.append({"bufferView": view(png_bytes(part.texture)), "mimeType": "image/png"})
        surface = {"baseColorTexture": {"index": number}, "metallicFactor": 0.0}
        materials.append({"pbrMetallicRoughness": {**surface, "roughnessFactor": 1.0}})
        positions = np.asarray(part.mesh.positions, dtype=np.float32)
        low, high = positions.min(axis=0).tolist(), positions.max(axis=0).tolist()
        attributes = {
            "POSITION": accessor(positions, FLOAT, "VEC3", min=low, max=high),
            "NORMAL": accessor(part.mesh.normals(), FLOAT, "VEC3"),
            "TEXCOORD_0": accessor(np.asarray(part.uv, dtype=np.float32), FLOAT, "VEC2"),
        }
        triangles = np.asarray(part.mesh.triangles, dtype=np.uint16).reshape(-1)
        indices = accessor(triangles, UNSIGNED_SHORT, "SCALAR")
        primitives.append({"attributes": attributes, "indices": indices, "material": number})
    filters = {"magFilter": NEAREST, "minFilter": LINEAR_MIPMAP_LINEAR}
    document: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "memo-habitat scenes"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": "root"}],
        "meshes": [{"primitives": primitives}],
        "materials": materials,
        "samplers": [{**filters, "wrapS": REPEAT, "wrapT": REPEAT}],
        "textures": [{"sampler": 0, "source": i} for i in range(len(images))],
        "images": images,
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(binary)}],
    }
    text = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    binary.extend(b"\x00" * (-len(binary) % 4))
    chunks = struct.pack("<II", len(text), 0x4E4F534A) + text
    chunks += struct.pack("<II", len(binary), 0x004E4942) + binary
    return struct.pack("<III", 0x46546C67, 2, 12 + len(chunks)) + chunks
