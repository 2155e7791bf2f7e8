"""What a glTF 2.0 file holds: its JSON, buffers, accessors and textures, checked when read.

A reader of our own, since no kept library gives what real houses use (docs/dependencies.md).
Counts, offsets and references are checked against what the file has; what else is wrong in it ends
in any exception, which `meshes` turns into one line.
"""

from __future__ import annotations

import base64
import io
import json
import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from PIL import Image

REMEDY = "pip install 'memo-habitat[gltf]'"
MAX_TEXELS = 8192 * 8192
_CLAMPED, _MIRRORED = 33071, 33648  # what a sampler does beside its picture; else it repeats
_BORDER = 1e-4
#: More elements in one accessor are taken for a broken count; 20 million corners are 240 MB.
MAX_COUNT = 20_000_000
REPEATED = 10497  # the usual of a texture beside its picture
_COMPONENTS = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}


class GltfError(ValueError):
    """What is wrong with a file, in a few words that its reader puts into a line."""


class GltfFile:
    """An open file. `files` are those it was read from: itself, buffers and images beside it."""

    def __init__(self, path: Path) -> None:
        """Reads the JSON; buffers and images are read when asked for."""
        self.path, self.files, self._binary = path, {path}, b""
        text = path.read_bytes()
        if text[:4] == b"glTF":
            text, self._binary = _chunks(text)
        self.document: dict[str, Any] = json.loads(text)
        self._buffers: dict[int, np.ndarray] = {}
        self._textures: dict[int, np.ndarray | str] = {}

    def entry(self, kind: str, index: Any) -> dict[str, Any]:
        """Entry `index` of the list `kind` ("nodes", "meshes", ...)."""
        entries = self.document.get(kind, [])
        if type(index) is not int or not 0 <= index < len(entries):
            raise GltfError(f"it refers to {kind}[{str(index)[:40]}], of {len(entries)}")
        return dict(entries[index])

    def _uri(self, uri: str) -> bytes:
        """What a data URI or a file beside this one holds."""
        if uri.startswith("data:"):
            return base64.b64decode(uri.partition(",")[2])
        path = self.path.parent / unquote(uri)
        self.files.add(path)
        try:
            return path.read_bytes()
        except (OSError, ValueError) as error:
            raise GltfError(f"its file {uri[:80]!r} cannot be read") from error

    def view(self, index: Any) -> tuple[np.ndarray, int]:
        """The bytes [B] uint8 of a buffer view, and its stride (0: none)."""
        view = self.entry("bufferViews", index)
        number = view["buffer"]
        buffer = self.entry("buffers", number)
        if number not in self._buffers:
            if "uri" not in buffer and (number != 0 or not self._binary):
                # The buffer behind a compressed view may hold nothing.
                packed = ", ".join(view.get("extensions", {})) or "nothing"
                raise GltfError(f"buffers[{number}] has no data; bufferViews[{index}] has {packed}")
            data = self._uri(buffer["uri"]) if "uri" in buffer else self._binary
            self._buffers[number] = np.frombuffer(data, np.uint8)
        start, length = _natural(view, "byteOffset", 0), _natural(view, "byteLength")
        if start + length > len(self._buffers[number]):
            raise GltfError(f"bufferViews[{index}] ends after its buffer")
        return self._buffers[number][start : start + length], _natural(view, "byteStride", 0)

    def _elements(self, place: dict[str, Any], dtype: str, count: int, width: int) -> np.ndarray:
        """[count, width] elements of a buffer view, not copied."""
        data, stride = self.view(place["bufferView"])
        offset, size = _natural(place, "byteOffset", 0), np.dtype(dtype).itemsize
        stride = stride or size * width
        if offset + stride * (count - 1) + size * width > len(data):
            raise GltfError(f"{count} elements do not fit bufferViews[{place['bufferView']}]")
        return np.ndarray((count, width), dtype, data.data, offset, (stride, size))

    def accessor(self, index: Any) -> np.ndarray:
        """[count, width] of an accessor: sparse ones filled in, normalised integers as float32."""
        entry = self.entry("accessors", index)
        dtype, width = _COMPONENTS[entry["componentType"]], _WIDTHS[entry["type"]]
        count = _natural(entry, "count")
        if not 0 < count <= MAX_COUNT:
            raise GltfError(f"accessors[{index}].count is {count}")
        if "bufferView" in entry:
            values = self._elements(entry, dtype, count, width)
        else:
            values = np.zeros((count, width), dtype)
        if sparse := entry.get("sparse"):
            values, many = values.copy(), _natural(sparse, "count")
            kind = _COMPONENTS[sparse["indices"]["componentType"]]
            where = self._elements(sparse["indices"], kind, many, 1)[:, 0]
            values[where] = self._elements(sparse["values"], dtype, many, width)
        return as_float(values) if entry.get("normalized") is True else values

    def texture(self, index: Any) -> np.ndarray | str:
        """[h, w, 3] uint8 of a texture, or why there is none; the same array each time."""
        if index not in self._textures:
            texture = self.entry("textures", index)
            others = texture.get("extensions", {})
            found: np.ndarray | str = f"no picture is named, but {', '.join(others) or 'none'}"
            # The plain source is what all can read; an extension names a better one.
            for place in (texture, *others.values()):
                if "source" not in place or isinstance(found, np.ndarray):
                    continue
                image = self.entry("images", place["source"])
                try:
                    if "bufferView" in image:
                        found = decode_picture(self.view(image["bufferView"])[0].tobytes())
                    else:
                        found = decode_picture(self._uri(image["uri"]))
                except GltfError as error:
                    found = str(error)
            self._textures[index] = found
        return self._textures[index]

    def wraps(self, index: Any) -> tuple[int, int]:
        """What a texture does beside its picture along u and v, in glTF's numbers."""
        texture = self.entry("textures", index)
        sampler = self.entry("samplers", texture["sampler"]) if "sampler" in texture else {}
        return sampler.get("wrapS", REPEATED), sampler.get("wrapT", REPEATED)


def _chunks(data: bytes) -> tuple[bytes, bytes]:
    """The JSON and the binary chunk of a binary file."""
    version, _, length = struct.unpack_from("<3I", data, 4)
    if version != 2 or data[16:20] != b"JSON" or len(data) < 20 + length:
        raise GltfError("it is no glTF 2.0 file, or ends early")
    if len(data) < 28 + length:
        return data[20 : 20 + length], b""
    (size,) = struct.unpack_from("<I", data, 20 + length)
    return data[20 : 20 + length], data[28 + length : 28 + length + size]


def as_float(values: np.ndarray) -> np.ndarray:
    """Normalised integers as the float32 in [0, 1] or [-1, 1] that they stand for."""
    if values.dtype.kind == "f":
        return values
    scaled = values.astype(np.float32) / np.float32(np.iinfo(values.dtype).max)
    return np.maximum(scaled, np.float32(-1.0))


def _natural(entry: dict[str, Any], key: str, default: int | None = None) -> int:
    value = entry.get(key, default)
    if type(value) is not int or value < 0:
        raise GltfError(f"{key} is {str(value)[:40]}: a whole number is needed")
    return value


# Pictures and compressed meshes -----------------------------------------------------------------


def decode_picture(data: bytes) -> np.ndarray:
    """[h, w, 3] uint8 of a picture of any format that Pillow knows, or of Basis Universal."""
    if data[:8] == b"\xabKTX 20\xbb" or data[:2] == b"sB":
        return _decode_basis(data)
    try:
        with Image.open(io.BytesIO(data)) as opened:
            image: Image.Image = opened
            if image.width * image.height > MAX_TEXELS:
                raise GltfError(f"a picture of {image.width}x{image.height} is too large")
            if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would cut off at 255
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            return np.ascontiguousarray(image.convert("RGB"), dtype=np.uint8)
    except GltfError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything for broken files
        raise GltfError(f"a picture cannot be decoded ({type(error).__name__})") from error


def wrap_spans(uv: np.ndarray, wraps: tuple[int, int]) -> list[tuple[int, int, str]]:
    """What `spread` makes of a picture along u and v (downwards) for coordinates uv [N, 2].

    First and one past the last picture, and how `np.pad` fills what lies beside the picture itself.
    """
    spans = []
    for values, wrap in zip(uv.T, wraps, strict=True):
        if wrap == _CLAMPED:
            low, high = math.floor(values.min() + 1e-3), math.ceil(values.max() - 1e-3)
            spans.append((min(low, 0), max(high, 1), "edge"))
        else:
            spans.append((0, 2 if wrap == _MIRRORED else 1, "symmetric"))
    return spans


def spread(image: np.ndarray, spans: Sequence[tuple[int, int, str]]) -> np.ndarray:
    """A picture [h, w, 3] that shows, repeated, what a clamped or mirrored one shows."""
    texels = math.prod(high - low for low, high, _ in spans) * image.shape[0] * image.shape[1]
    if texels > MAX_TEXELS:
        raise GltfError("one that is clamped far from its mesh's coordinates")
    for axis, (low, high, how) in ((1, spans[0]), (0, spans[1])):
        beside = [(0, 0)] * 3
        beside[axis] = (-low * image.shape[axis], (high - 1) * image.shape[axis])
        image = np.pad(image, beside, how)  # type: ignore[call-overload]
    return image


def spread_uv(uv: np.ndarray, spans: Sequence[tuple[int, int, str]]) -> np.ndarray:
    """Coordinates [N, 2] in the picture that `spread` makes."""
    out = uv.copy()
    for axis, (low, high, how) in enumerate(spans):
        if how == "edge":  # not onto the border itself, where the next repetition begins
            out[:, axis] = np.clip(out[:, axis], low + _BORDER, high - _BORDER)
        out[:, axis] = (out[:, axis] - low) / (high - low)
    return out


def _decode_basis(data: bytes) -> np.ndarray:
    try:
        import opengl_basisu
    except ImportError as error:
        raise GltfError(f"KTX2 and Basis textures need opengl_basisu: {REMEDY}") from error
    try:
        texture: Any = opengl_basisu.open(data)
        if texture.width * texture.height > MAX_TEXELS:
            raise GltfError(f"{texture.width}x{texture.height} texels are too many")
        image = texture.transcode(opengl_basisu.Target.RGBA8)
        return np.ascontiguousarray(image.data[..., :3], dtype=np.uint8)
    except Exception as error:  # other payloads of KTX2, broken files
        raise GltfError(f"a KTX2 or Basis texture cannot be decoded ({error})") from error


def decode_draco(data: bytes, ids: dict[str, int]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Corners of faces [3 F] and attributes [N, width] by name of a Draco mesh.

    Raises:
        GltfError: without DracoPy, or for data that it cannot decode.
    """
    try:
        import DracoPy
    except ImportError as error:
        raise GltfError(f"KHR_draco_mesh_compression needs DracoPy: {REMEDY}") from error
    try:
        mesh: Any = DracoPy.decode(data)
        by_id = {attribute["unique_id"]: attribute["data"] for attribute in mesh.attributes}
        attributes = {name: np.atleast_2d(by_id[number]) for name, number in ids.items()}
        return np.asarray(mesh.faces).reshape(-1), attributes
    except Exception as error:  # the binding raises what its C++ throws
        raise GltfError(f"KHR_draco_mesh_compression cannot be decoded ({error})") from error
