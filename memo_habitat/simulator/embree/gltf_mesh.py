"""The triangles of a glTF file's scene, with their colours and textures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from habitat.core.logging import logger

from memo_habitat.errors import UserError
from memo_habitat.simulator.embree.geometry import TriangleSoup, join, rotation_matrix
from memo_habitat.simulator.embree.gltf import (
    GltfError,
    GltfFile,
    as_float,
    decode_draco,
    spread,
    spread_uv,
    wrap_spans,
)

_DRACO = "KHR_draco_mesh_compression"
_INSTANCING = "EXT_mesh_gpu_instancing"
_SPECULAR = "KHR_materials_pbrSpecularGlossiness"
#: A file may require these. Textures that cannot be decoded are said. Of other extensions of
#: materials ("KHR_materials_...") nothing shows: base colours are all that is drawn.
UNDERSTOOD = {
    *("KHR_mesh_quantization", "KHR_texture_transform", "KHR_lights_punctual", "KHR_xmp_json_ld"),
    *("EXT_texture_webp", "KHR_texture_basisu", "GOOGLE_texture_basis", "MSFT_texture_dds"),
    *(_INSTANCING, _DRACO),
}
#: More triangles in one file are taken for a broken one: they would need more than a gigabyte.
MAX_TRIANGLES = 10_000_000
#: Without a material or colours of its own a mesh is grey: white would hide its edges.
_PLAIN = np.float32(0.6)


def read_gltf(path: Path) -> TriangleSoup:
    """All triangles of the file's scene in its coordinates.

    What cannot be drawn (a missing texture, lines) is said in one warning.

    Raises:
        UserError: for an extension that is required but not understood.
        GltfError, or anything else: for a broken file.
    """
    file = GltfFile(path)
    required = [str(name) for name in file.document.get("extensionsRequired", [])]
    foreign = {name for name in required if not name.startswith("KHR_materials_")} - UNDERSTOOD
    if foreign:
        raise UserError(
            f"3D model {path} requires {', '.join(sorted(foreign))}, an extension of glTF that is "
            "not understood: export it without"
        )
    reader = _Reader(file)
    soups, total = [], 0
    for node, matrices in _placed_nodes(file):
        if "skin" in node:
            reader.left_out.add("skins")
        for soup in reader.mesh(node["mesh"]):
            total += len(soup) * len(matrices)
            if total > MAX_TRIANGLES:
                raise GltfError(f"it has more than {MAX_TRIANGLES} triangles")
            soups += [soup.transformed(matrix) for matrix in matrices]
    if reader.left_out:
        logger.warning(f"3D model {path} is drawn without: {'; '.join(sorted(reader.left_out))}")
    return replace(join(soups), files=frozenset(file.files))


def _placed_nodes(file: GltfFile) -> Iterator[tuple[dict[str, Any], list[np.ndarray]]]:
    """Nodes of the default scene that have a mesh, with the places [4, 4] it stands at."""
    nodes = file.document.get("nodes", [])
    if "scenes" in file.document:
        roots = file.entry("scenes", file.document.get("scene", 0)).get("nodes", [])
    else:  # a library of meshes: every node that is nobody's child
        children = {child for node in nodes for child in node.get("children", [])}
        roots = [index for index in range(len(nodes)) if index not in children]
    waiting = [(index, np.eye(4)) for index in reversed(roots)]
    seen = set()
    while waiting:
        index, matrix = waiting.pop()
        node = file.entry("nodes", index)
        if index in seen:
            raise GltfError(f"nodes[{index}] has two parents")
        seen.add(index)
        if "matrix" in node:
            matrix = matrix @ _numbers(node, "matrix", [0] * 16).reshape(4, 4).T
        else:
            matrix = matrix @ _trs(*(_numbers(node, key.lower(), _TRS[key]) for key in _TRS))
        if "mesh" in node:
            yield node, [matrix @ place for place in _instances(file, node)]
        waiting += [(child, matrix) for child in reversed(node.get("children", []))]


_TRS = {"TRANSLATION": (0, 0, 0), "ROTATION": (0, 0, 0, 1), "SCALE": (1, 1, 1)}


def _trs(translation: np.ndarray, xyzw: np.ndarray, scale: np.ndarray) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = rotation_matrix(np.roll(xyzw, 1)) * scale
    matrix[:3, 3] = translation
    return matrix


def _instances(file: GltfFile, node: dict[str, Any]) -> list[np.ndarray]:
    """Where EXT_mesh_gpu_instancing puts copies of a node's mesh; one place without it."""
    extension = node.get("extensions", {}).get(_INSTANCING)
    if extension is None:
        return [np.eye(4)]
    given = {key: as_float(file.accessor(i)) for key, i in extension["attributes"].items()}
    count = min(len(values) for values in given.values())
    rows = (given.get(key, np.tile(usual, (count, 1))) for key, usual in _TRS.items())
    return [_trs(*row) for row in zip(*rows, strict=False)]


def _numbers(entry: dict[str, Any], key: str, default: Sequence[float]) -> np.ndarray:
    values = np.asarray(entry.get(key, default), dtype=np.float64)
    if values.shape != (len(default),) or not np.isfinite(values).all():
        raise GltfError(f"{key} is {str(entry.get(key))[:60]}: {len(default)} numbers are needed")
    return values


class _Reader:
    """Meshes of one file; each is read once. `left_out`: what is not drawn, in words."""

    def __init__(self, file: GltfFile) -> None:
        self.left_out: set[str] = set()
        self._file = file
        self._meshes: dict[int, list[TriangleSoup]] = {}
        self._spread: dict[Any, np.ndarray] = {}

    def mesh(self, index: Any) -> list[TriangleSoup]:
        """The primitives of a mesh that have triangles, in its own coordinates."""
        mesh = self._file.entry("meshes", index)
        if index not in self._meshes:
            soups = [self._primitive(entry) for entry in mesh["primitives"]]
            self._meshes[index] = [soup for soup in soups if len(soup)]
        return self._meshes[index]

    def _primitive(self, entry: dict[str, Any]) -> TriangleSoup:
        if entry.get("targets"):
            self.left_out.add("morph targets")
        attributes, corners = self._attributes(entry)
        points = np.asarray(attributes["POSITION"], dtype=np.float32)
        faces = self._faces(entry.get("mode", 4), corners)
        material = self._file.entry("materials", entry["material"]) if "material" in entry else {}
        factor, info = _base_colour(material)
        colours = np.broadcast_to(factor, (len(faces), 3, 3)).copy()
        if "COLOR_0" in attributes:
            colours *= np.clip(as_float(attributes["COLOR_0"])[:, :3], 0.0, 1.0)[faces]
        elif "material" not in entry:
            colours *= _PLAIN
        look = self._textured(info, attributes, faces) if info is not None else None
        if look is None:
            look = np.zeros((len(faces), 3, 2), np.float32), np.full(len(faces), -1, np.int32), []
        return TriangleSoup(points[faces], colours, *look)

    def _textured(
        self, info: dict[str, Any], attributes: dict[str, np.ndarray], faces: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]] | None:
        """Coordinates, indices and images as in `TriangleSoup`; None without a texture."""
        image, uv = self._file.texture(info["index"]), _transformed_uv(info, attributes)
        if isinstance(image, str):
            self.left_out.add(f"a texture ({image})")
        elif uv is None:
            self.left_out.add("a texture, whose mesh has no coordinates for it")
        else:
            spans = wrap_spans(uv, self._file.wraps(info["index"]))
            key = info["index"], *spans
            try:
                if key not in self._spread:
                    self._spread[key] = spread(image, spans)
            except GltfError as error:
                self.left_out.add(f"a texture ({error})")
                return None
            uv = spread_uv(uv, spans)
            uv[:, 1] = 1.0 - uv[:, 1]
            # The same array each time: then it is kept once.
            return uv[faces], np.zeros(len(faces), np.int32), [self._spread[key]]
        return None

    def _attributes(self, entry: dict[str, Any]) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """What a primitive's vertices have, by name, and the vertices of its faces, in order."""
        named = {
            key: index
            for key, index in entry["attributes"].items()
            if key in ("POSITION", "COLOR_0") or key.startswith("TEXCOORD_")
        }
        packed = entry.get("extensions", {}).get(_DRACO)
        if packed and "bufferView" not in self._file.entry("accessors", named["POSITION"]):
            data = self._file.view(packed["bufferView"])[0].tobytes()
            corners, attributes = decode_draco(
                data, {key: packed["attributes"][key] for key in named}
            )
            for key, values in attributes.items():
                if self._file.entry("accessors", named[key]).get("normalized") is True:
                    attributes[key] = as_float(values)
            return attributes, corners
        attributes = {key: self._file.accessor(index) for key, index in named.items()}
        if "indices" not in entry:
            return attributes, np.arange(len(attributes["POSITION"]))
        corners = self._file.accessor(entry["indices"])[:, 0]
        if corners.dtype.kind != "u":
            raise GltfError("the indices of a mesh are no whole numbers")
        return attributes, corners

    def _faces(self, mode: Any, corners: np.ndarray) -> np.ndarray:
        """[F, 3] of a list, a strip or a fan of triangles."""
        if mode == 4:
            return corners[: len(corners) // 3 * 3].reshape(-1, 3)
        if mode not in (5, 6):
            self.left_out.add("points and lines")
            return np.zeros((0, 3), np.int64)
        first = np.arange(max(len(corners) - 2, 0))
        if mode == 6:
            return corners[np.stack([first + 1, first + 2, np.zeros_like(first)], axis=1)]
        # Every second triangle of a strip runs the other way round.
        odd = first % 2
        return corners[np.stack([first, first + 1 + odd, first + 2 - odd], axis=1)]


def _base_colour(material: dict[str, Any]) -> tuple[np.ndarray, dict[str, Any] | None]:
    """Constant colour [3] float32 in [0, 1] of a material, and its texture, if any."""
    place, base = material.get("extensions", {}).get(_SPECULAR), "diffuse"
    if place is None:
        place, base = material.get("pbrMetallicRoughness", {}), "baseColor"
    rgb = np.clip(_numbers(place, f"{base}Factor", (1, 1, 1, 1))[:3], 0.0, 1.0)
    return rgb.astype(np.float32), place.get(f"{base}Texture")


def _transformed_uv(info: dict[str, Any], attributes: dict[str, np.ndarray]) -> np.ndarray | None:
    """[N, 2] float32, v downwards, of the set of coordinates that a texture takes."""
    transform = info.get("extensions", {}).get("KHR_texture_transform", {})
    values = attributes.get(f"TEXCOORD_{transform.get('texCoord', info.get('texCoord', 0))}")
    if values is None:
        return None
    uv = values[:, :2].astype(np.float32)
    if transform:
        # As Habitat-Sim and the usual viewers turn: u towards -v, which points down in glTF.
        angle = float(transform.get("rotation", 0.0))
        turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        matrix = turn * _numbers(transform, "scale", (1, 1))
        uv = (uv @ matrix.T + _numbers(transform, "offset", (0, 0))).astype(np.float32)
    return uv
