"""Pictures and compressed meshes inside of model files, as arrays."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

REMEDY = "pip install 'memo-habitat[gltf]'"
MAX_TEXELS = 8192 * 8192


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
