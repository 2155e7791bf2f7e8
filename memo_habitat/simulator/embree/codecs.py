"""Pictures and compressed meshes inside of model files, as arrays."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

REMEDY = "pip install 'memo-habitat[gltf]'"
MAX_TEXELS = 8192 * 8192
_CLAMPED, _MIRRORED = 33071, 33648  # what a sampler does beside its picture; else it repeats
_BORDER = 1e-4


class GltfError(ValueError):
    """What is wrong with a file, in a few words that its reader puts into a line."""


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
