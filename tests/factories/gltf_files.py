"""glTF files for tests: a writer, files with random features, and a plain slow reader of them."""

from __future__ import annotations

import io
import json
import math
import random
import struct
from typing import Any

import numpy as np
from PIL import Image

_TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}
_CODES = {
    "int8": 5120,
    "uint8": 5121,
    "int16": 5122,
    "uint16": 5123,
    "uint32": 5125,
    "float32": 5126,
}
_FORMATS = {5120: "b", 5121: "B", 5122: "h", 5123: "H", 5125: "I", 5126: "f"}
_MOST = {5120: 127, 5121: 255, 5122: 32767, 5123: 65535}
Triangle = tuple[list[list[float]], list[list[float]], list[list[float]], bytes | None]


class Glb:
    """A binary glTF file in the making; its JSON is `document`."""

    def __init__(self) -> None:
        self.document: dict[str, Any] = {"asset": {"version": "2.0"}}
        self._data = bytearray()

    def add(self, kind: str, entry: dict[str, Any]) -> int:
        entries = self.document.setdefault(kind, [])
        entries.append(entry)
        return len(entries) - 1

    def view(self, data: bytes, stride: int | None = None) -> int:
        self._data += b"\0" * (-len(self._data) % 4)
        entry = {"buffer": 0, "byteOffset": len(self._data), "byteLength": len(data)}
        self._data += data
        return self.add("bufferViews", entry if stride is None else {**entry, "byteStride": stride})

    def accessor(self, values: np.ndarray, normalized: bool = False, pad: int = 0) -> int:
        """An accessor of values [N, width]; with `pad` bytes between its elements."""
        rows = [row.tobytes() + b"\xaa" * pad for row in values]
        stride = len(rows[0]) if pad else None
        return self._accessor(values, self.view(b"".join(rows), stride), normalized)

    def sparse(self, values: np.ndarray, replaced: list[int], base: bool, normalized: bool) -> int:
        """The same, written as wrong or missing values of which `replaced` are put right."""
        index = self._accessor(
            values, self.view(_wrong(values, replaced).tobytes()) if base else None, normalized
        )
        self.document["accessors"][index]["sparse"] = {
            "count": len(replaced),
            "indices": {
                "bufferView": self.view(np.array(replaced, np.uint16).tobytes()),
                "componentType": 5123,
            },
            "values": {"bufferView": self.view(values[replaced].tobytes())},
        }
        return index

    def _accessor(self, values: np.ndarray, view: int | None, normalized: bool) -> int:
        entry: dict[str, Any] = {
            "componentType": _CODES[values.dtype.name],
            "count": len(values),
            "type": _TYPES[values.shape[1]],
        }
        if view is not None:
            entry["bufferView"] = view
        return self.add("accessors", {**entry, "normalized": True} if normalized else entry)

    def texture(self, pixels: np.ndarray) -> int:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        image = self.add(
            "images", {"bufferView": self.view(file.getvalue()), "mimeType": "image/png"}
        )
        return self.add("textures", {"source": image})

    def bytes(self) -> bytes:
        binary = bytes(self._data) + b"\0" * (-len(self._data) % 4)
        self.document.setdefault("buffers", [{"byteLength": len(binary)}])
        text = json.dumps(self.document).encode()
        text += b" " * (-len(text) % 4)
        total = 28 + len(text) + len(binary)
        head = struct.pack("<4sIIII", b"glTF", 2, total, len(text), 0x4E4F534A)
        return head + text + struct.pack("<II", len(binary), 0x004E4942) + binary


def _wrong(values: np.ndarray, replaced: list[int]) -> np.ndarray:
    wrong = values.copy()
    wrong[replaced] = 7
    return wrong


def random_glb(seed: int) -> bytes:
    """A scene of a few nodes with the features that real files have, mixed at random."""
    rng, glb = random.Random(seed), Glb()
    meshes = [
        glb.add("meshes", {"primitives": [_primitive(glb, rng) for _ in range(rng.randint(1, 2))]})
        for _ in range(rng.randint(1, 3))
    ]
    roots = [_node(glb, rng, meshes, depth=0) for _ in range(rng.randint(1, 3))]
    if rng.random() < 0.8:
        other = glb.add("nodes", {"mesh": meshes[0]})
        glb.document["scenes"] = [{"nodes": roots}]
        if rng.random() < 0.5:
            glb.document["scenes"].insert(0, {"nodes": [other]})
            glb.document["scene"] = 1
    glb.document["extensionsRequired"] = ["KHR_mesh_quantization", "EXT_mesh_gpu_instancing"]
    return glb.bytes()


def _node(glb: Glb, rng: random.Random, meshes: list[int], depth: int) -> int:
    node: dict[str, Any] = {"mesh": rng.choice(meshes)} if rng.random() < 0.8 else {}
    if rng.random() < 0.3:
        node["matrix"] = [rng.uniform(-1, 1) if i % 5 else 1.5 for i in range(12)]
        node["matrix"] += [rng.uniform(-3, 3) for _ in range(3)] + [1]
        node["matrix"][3::4] = [0, 0, 0, 1]
    else:
        node["translation"] = [rng.uniform(-3, 3) for _ in range(3)]
        node["rotation"] = _unit(rng)
        node["scale"] = [rng.choice((-1, 1)) * rng.uniform(0.5, 2) for _ in range(3)]
    if rng.random() < 0.3 and "mesh" in node:
        count, given = rng.randint(1, 3), {}
        turns = np.array([_unit(rng) for _ in range(count)])
        if rng.random() < 0.7:
            moves = np.array([[rng.uniform(-2, 2)] * 3 for _ in range(count)], np.float32)
            given["TRANSLATION"] = glb.accessor(moves)
        if rng.random() < 0.7 or not given:
            as_bytes = rng.random() < 0.5
            values = np.rint(turns * 127).astype(np.int8) if as_bytes else turns.astype(np.float32)
            given["ROTATION"] = glb.accessor(values, normalized=as_bytes)
        if rng.random() < 0.5:
            given["SCALE"] = glb.accessor(np.full((count, 3), 0.5, np.float32))
        node["extensions"] = {"EXT_mesh_gpu_instancing": {"attributes": given}}
    if depth < 2:
        node["children"] = [
            _node(glb, rng, meshes, depth + 1) for _ in range(rng.choice((0, 0, 1, 2)))
        ]
    return glb.add("nodes", node)


def _unit(rng: random.Random) -> list[float]:
    values = np.array([rng.gauss(0, 1) for _ in range(4)])
    return (values / np.linalg.norm(values)).tolist()


def _primitive(glb: Glb, rng: random.Random) -> dict[str, Any]:
    count = rng.randint(4, 9)
    entry: dict[str, Any] = {
        "attributes": {"POSITION": _attribute(glb, rng, count, 3, positions=True)}
    }
    entry["mode"] = mode = rng.choice((4, 4, 5, 6))
    if rng.random() < 0.7:
        corners = [rng.randrange(count) for _ in range(rng.randint(1, 3) * 3 if mode == 4 else 6)]
        kind = rng.choice((np.uint8, np.uint16, np.uint32))
        entry["indices"] = glb.accessor(np.array(corners, kind)[:, None])
    if rng.random() < 0.5:
        entry["attributes"]["COLOR_0"] = _attribute(glb, rng, count, rng.choice((3, 4)))
    for number in range(2):
        entry["attributes"][f"TEXCOORD_{number}"] = _attribute(glb, rng, count, 2)
    if rng.random() < 0.8:
        entry["material"] = glb.add("materials", _material(glb, rng))
    return entry


def _attribute(
    glb: Glb, rng: random.Random, count: int, width: int, positions: bool = False
) -> int:
    values = np.array([[rng.random() for _ in range(width)] for _ in range(count)])
    kinds = (np.float32, np.uint8, np.uint16, *((np.int8, np.int16) if positions else ()))
    kind, normalized = np.dtype(rng.choice(kinds)), False
    if kind.kind != "f":
        normalized = not positions or rng.random() < 0.7
        values = values * np.iinfo(kind).max if normalized else values * 9
    values = values.astype(kind)
    if rng.random() < 0.25:
        base = rng.random() < 0.5
        replaced = sorted(rng.sample(range(count), rng.randint(1, count)))
        return glb.sparse(values, replaced if base else list(range(count)), base, normalized)
    return glb.accessor(values, normalized, pad=rng.choice((0, 0, 4)))


def _material(glb: Glb, rng: random.Random) -> dict[str, Any]:
    is_glossy = rng.random() < 0.3
    names = (
        ("diffuseFactor", "diffuseTexture")
        if is_glossy
        else ("baseColorFactor", "baseColorTexture")
    )
    colour: dict[str, Any] = {}
    if rng.random() < 0.5:
        colour[names[0]] = [rng.random() for _ in range(3)] + [1]
    if rng.random() < 0.6:
        pixels = np.array([rng.randrange(256) for _ in range(12)], np.uint8).reshape(2, 2, 3)
        colour[names[1]] = info = {"index": glb.texture(pixels), "texCoord": rng.choice((0, 1))}
        if rng.random() < 0.6:
            transform: dict[str, Any] = {"scale": [rng.uniform(-2, 2) for _ in range(2)]}
            transform.update(offset=[rng.random(), rng.random()], rotation=rng.uniform(-3, 3))
            if rng.random() < 0.3:
                transform["texCoord"] = rng.choice((0, 1))
            info["extensions"] = {"KHR_texture_transform": transform}
    if is_glossy:
        return {"extensions": {"KHR_materials_pbrSpecularGlossiness": colour}}
    return {"pbrMetallicRoughness": colour}


class SlowReader:
    """Reads such files value by value, as the specification puts it; knows nothing of NumPy."""

    def __init__(self, data: bytes) -> None:
        (length,) = struct.unpack_from("<I", data, 12)
        self.document = json.loads(data[20 : 20 + length])
        self._binary = data[28 + length :]

    def triangles(self) -> list[Triangle]:
        """Corners, colours, texture coordinates (v upwards) and texture of all triangles."""
        nodes = self.document["nodes"]
        if "scenes" in self.document:
            roots = self.document["scenes"][self.document.get("scene", 0)]["nodes"]
        else:
            below = {child for node in nodes for child in node.get("children", [])}
            roots = [index for index in range(len(nodes)) if index not in below]
        found: list[Triangle] = []
        for root in roots:
            self._walk(root, _IDENTITY, found)
        return found

    def _walk(self, index: int, above: list[list[float]], found: list[Triangle]) -> None:
        node = self.document["nodes"][index]
        if "matrix" in node:
            local = [[node["matrix"][4 * j + i] for j in range(4)] for i in range(4)]
        else:
            local = _trs(node["translation"], node["rotation"], node["scale"]) if node.get(
                "translation"
            ) else _IDENTITY  # fmt: skip
        matrix = _times(above, local)
        if "mesh" in node:
            for primitive in self.document["meshes"][node["mesh"]]["primitives"]:
                for place in self._places(node):
                    found += self._primitive(primitive, _times(matrix, place))
        for child in node.get("children", []):
            self._walk(child, matrix, found)

    def _places(self, node: dict[str, Any]) -> list[list[list[float]]]:
        given = node.get("extensions", {}).get("EXT_mesh_gpu_instancing", {}).get("attributes")
        if given is None:
            return [_IDENTITY]
        rows = {key: self._values(index) for key, index in given.items()}
        count = len(next(iter(rows.values())))
        moves = rows.get("TRANSLATION", [[0.0] * 3] * count)
        turns = rows.get("ROTATION", [[0.0, 0.0, 0.0, 1.0]] * count)
        scales = rows.get("SCALE", [[1.0] * 3] * count)
        return [_trs(*each) for each in zip(moves, turns, scales, strict=True)]

    def _values(self, index: int) -> list[list[float]]:
        accessor = self.document["accessors"][index]
        width = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}[accessor["type"]]
        count, code = accessor["count"], accessor["componentType"]
        if "bufferView" in accessor:
            rows = [self._row(accessor, code, width, i) for i in range(count)]
        else:
            rows = [[0.0] * width for _ in range(count)]
        sparse = accessor.get("sparse", {"count": 0})
        for i in range(sparse["count"]):
            (place,) = self._row(sparse["indices"], sparse["indices"]["componentType"], 1, i)
            rows[int(place)] = self._row(sparse["values"], code, width, i)
        if accessor.get("normalized"):
            rows = [[max(value / _MOST[code], -1.0) for value in row] for row in rows]
        return rows

    def _row(self, place: dict[str, Any], code: int, width: int, i: int) -> list[float]:
        view = self.document["bufferViews"][place["bufferView"]]
        form = f"<{width}{_FORMATS[code]}"
        stride = view.get("byteStride", struct.calcsize(form))
        offset = view["byteOffset"] + place.get("byteOffset", 0) + i * stride
        return list(struct.unpack_from(form, self._binary, offset))

    def _primitive(self, entry: dict[str, Any], matrix: list[list[float]]) -> list[Triangle]:
        attributes = {key: self._values(index) for key, index in entry["attributes"].items()}
        points, found = attributes["POSITION"], []
        corners = list(range(len(points)))
        if "indices" in entry:
            corners = [int(row[0]) for row in self._values(entry["indices"])]
        for face in _faces(entry["mode"], corners):
            if _determinant(matrix) < 0:
                face = [face[0], face[2], face[1]]
            factor, texture, uv = self._look(entry, attributes)
            found.append(
                (
                    [_apply(matrix, points[corner]) for corner in face],
                    [_tint(factor, attributes.get("COLOR_0"), corner) for corner in face],
                    [uv[corner] if texture is not None else [0.0, 0.0] for corner in face],
                    texture,
                )
            )
        return found

    def _look(
        self, entry: dict[str, Any], attributes: dict[str, list[list[float]]]
    ) -> tuple[list[float], bytes | None, list[list[float]]]:
        if "material" not in entry:
            return [1.0] * 3 if "COLOR_0" in attributes else [0.6] * 3, None, []
        material = self.document["materials"][entry["material"]]
        glossy = material.get("extensions", {}).get("KHR_materials_pbrSpecularGlossiness")
        colour = material["pbrMetallicRoughness"] if glossy is None else glossy
        base = "baseColor" if glossy is None else "diffuse"
        info = colour.get(f"{base}Texture")
        factor = colour.get(f"{base}Factor", [1.0] * 4)[:3]
        if info is None:
            return factor, None, []
        transform = info.get("extensions", {}).get("KHR_texture_transform", {})
        uv = attributes[f"TEXCOORD_{transform.get('texCoord', info['texCoord'])}"]
        texture = self.document["textures"][info["index"]]
        view = self.document["bufferViews"][
            self.document["images"][texture["source"]]["bufferView"]
        ]
        data = self._binary[view["byteOffset"] :][: view["byteLength"]]
        return (
            factor,
            Image.open(io.BytesIO(data)).tobytes(),
            [_moved(row, transform) for row in uv],
        )


def _faces(mode: int, corners: list[int]) -> list[list[int]]:
    if mode == 4:
        return [corners[i : i + 3] for i in range(0, len(corners) - 2, 3)]
    if mode == 6:
        return [[corners[i], corners[i + 1], corners[0]] for i in range(1, len(corners) - 1)]
    faces = [corners[i : i + 3] for i in range(len(corners) - 2)]
    return [[a, c, b] if i % 2 else [a, b, c] for i, (a, b, c) in enumerate(faces)]


def _tint(factor: list[float], colours: list[list[float]] | None, corner: int) -> list[float]:
    tint = [1.0] * 3 if colours is None else colours[corner]
    return [factor[i] * tint[i] for i in range(3)]


def _moved(uv: list[float], transform: dict[str, Any]) -> list[float]:
    """KHR_texture_transform: scaled, turned counter-clockwise as one looks at it (v points down)
    and moved; then v upwards."""
    (sx, sy), (ox, oy) = transform.get("scale", (1, 1)), transform.get("offset", (0, 0))
    angle = transform.get("rotation", 0.0)
    u, v = uv[0] * sx, uv[1] * sy
    return [
        u * math.cos(angle) + v * math.sin(angle) + ox,
        1.0 - (v * math.cos(angle) - u * math.sin(angle) + oy),
    ]


_IDENTITY = [[float(i == j) for j in range(4)] for i in range(4)]


def _times(a: list[list[float]], b: list[list[float]]) -> list[list[float]]:
    return [[sum(a[i][k] * b[k][j] for k in range(4)) for j in range(4)] for i in range(4)]


def _apply(matrix: list[list[float]], point: list[float]) -> list[float]:
    return [sum(matrix[i][k] * point[k] for k in range(3)) + matrix[i][3] for i in range(3)]


def _determinant(m: list[list[float]]) -> float:
    return sum(
        m[0][i] * (m[1][(i + 1) % 3] * m[2][(i + 2) % 3] - m[1][(i + 2) % 3] * m[2][(i + 1) % 3])
        for i in range(3)
    )


def _trs(move: list[float], turn: list[float], scale: list[float]) -> list[list[float]]:
    """Columns are the scaled axes, each turned by q v q*."""
    length = math.sqrt(sum(value * value for value in turn))
    x, y, z, w = (value / length for value in turn)
    columns = []
    for axis in range(3):
        v = [float(axis == i) * scale[axis] for i in range(3)]
        t = [2 * (y * v[2] - z * v[1]), 2 * (z * v[0] - x * v[2]), 2 * (x * v[1] - y * v[0])]
        columns.append(
            [
                v[0] + w * t[0] + y * t[2] - z * t[1],
                v[1] + w * t[1] + z * t[0] - x * t[2],
                v[2] + w * t[2] + x * t[1] - y * t[0],
            ]
        )
    rows = [[columns[j][i] for j in range(3)] + [move[i]] for i in range(3)]
    return [*rows, [0.0, 0.0, 0.0, 1.0]]
