"""Triangle soups, and ray casting against them: the embree scene and what shading needs."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene


@dataclass(frozen=True)
class TriangleSoup:
    """T triangles that share no vertices; the arrays are never written to."""

    corners: np.ndarray  # [T, 3, 3] float32, m
    colours: np.ndarray  # [T, 3, 3] float32 in [0, 1], per corner; multiplies the texture
    uv: np.ndarray  # [T, 3, 2] float32, texture coordinates, v upwards
    texture: np.ndarray  # [T] int32, index into textures, -1 = none
    textures: list[np.ndarray] = field(default_factory=list)  # [h, w, 3] uint8 each
    files: frozenset[Path] = frozenset()  # what it was read from

    def __len__(self) -> int:
        return len(self.corners)

    @property
    def bounds(self) -> np.ndarray:
        """[2, 3] m: lowest and highest corner of the bounding box."""
        if not len(self):
            return np.zeros((2, 3))
        points = self.corners.reshape(-1, 3)
        return np.stack([points.min(axis=0), points.max(axis=0)]).astype(np.float64)

    def transformed(self, transform: np.ndarray) -> TriangleSoup:
        """The soup under a 4x4 transform; a mirroring one turns the triangles round again."""
        matrix = np.asarray(transform, dtype=np.float64)
        corners = self.corners.astype(np.float64) @ matrix[:3, :3].T + matrix[:3, 3]
        order = [0, 2, 1] if np.linalg.det(matrix[:3, :3]) < 0 else [0, 1, 2]
        corners, colours, uv = (
            np.ascontiguousarray(values[:, order])
            for values in (corners.astype(np.float32), self.colours, self.uv)
        )
        return replace(self, corners=corners, colours=colours, uv=uv)


def rotation_matrix(wxyz: np.ndarray) -> np.ndarray:
    """[3, 3] of a quaternion [w, x, y, z], normalised first."""
    w, x, y, z = np.asarray(wxyz, dtype=np.float64) / np.linalg.norm(wxyz)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def join(soups: list[TriangleSoup]) -> TriangleSoup:
    """One soup of several; a texture that several share (the same array) is kept once."""
    soups = soups or [_NOTHING]
    textures: list[np.ndarray] = []
    index_of: dict[int, int] = {}
    indices = []
    for soup in soups:
        table = np.full(len(soup.textures) + 1, -1, dtype=np.int32)  # [-1] stays -1: none
        for local, image in enumerate(soup.textures):
            if id(image) not in index_of:
                index_of[id(image)] = len(textures)
                textures.append(image)
            table[local] = index_of[id(image)]
        indices.append(table[soup.texture])
    return TriangleSoup(
        np.concatenate([soup.corners for soup in soups]),
        np.concatenate([soup.colours for soup in soups]),
        np.concatenate([soup.uv for soup in soups]),
        np.concatenate(indices),
        textures,
        frozenset().union(*(soup.files for soup in soups)),
    )


_NOTHING = TriangleSoup(
    np.zeros((0, 3, 3), np.float32),
    np.zeros((0, 3, 3), np.float32),
    np.zeros((0, 3, 2), np.float32),
    np.zeros(0, np.int32),
)


def pyramid(image: np.ndarray) -> list[np.ndarray]:
    """The image and its halvings down to one texel (means of 2x2; odd borders are dropped)."""
    pictures = [image]
    while max(pictures[-1].shape[:2]) > 1:
        last: np.ndarray = pictures[-1].astype(np.uint16)
        height, width = last.shape[:2]
        if height > 1:
            last = (last[0 : height // 2 * 2 : 2] + last[1 : height // 2 * 2 : 2] + 1) // 2
        if width > 1:
            last = (last[:, 0 : width // 2 * 2 : 2] + last[:, 1 : width // 2 * 2 : 2] + 1) // 2
        pictures.append(last.astype(np.uint8))
    return pictures


class Hits(NamedTuple):
    """What R rays met first."""

    triangle: np.ndarray  # [R] int32, -1 = nothing
    u: np.ndarray  # [R] float32, weight of the triangle's second corner
    v: np.ndarray  # [R] float32, weight of its third corner
    distance: np.ndarray  # [R] float32, in lengths of the ray's direction


class Surface(NamedTuple):
    """Everything about T triangles that shading needs; all levels of all textures lie in one array
    of texels."""

    colour: np.ndarray  # [T, 3, 3] float32 in 0..255: corner colours, lit in `surface`
    uv: np.ndarray  # [T, 3, 2] float32
    texture: np.ndarray  # [T] int32, -1 = none
    density: np.ndarray  # [T] float32: texture repeats per metre (for the choice of level)
    texels: np.ndarray  # [P, 3] uint8
    first_level: np.ndarray  # [X + 1] int32: levels of texture x are first[x] .. first[x + 1] - 1
    level: np.ndarray  # [L, 3] int32: offset into texels, height, width


class Geometry:
    """A fixed set of parts, each a soup with one panoptic id, ready for rays.

    Attributes:
        soup: all of them.
        ranges: panoptic id -> first and one past the last of its triangles.
        instance: [T + 1] int32, panoptic id of each triangle; the last is for rays that hit
            nothing: 0.
    """

    def __init__(self, soups: list[TriangleSoup], ids: list[int]) -> None:
        self.soup = join(soups)
        lengths = [len(part) for part in soups]
        ends = np.cumsum([0, *lengths]).tolist()
        self.ranges = dict(zip(ids, itertools.pairwise(ends), strict=True))
        self.instance = np.append(np.repeat(np.array(ids, dtype=np.int32), lengths), np.int32(0))
        self._bounds = {identity: part.bounds for identity, part in zip(ids, soups, strict=True)}
        # Robust: rays cannot slip through the edge that two triangles share.
        self._scene = EmbreeScene(robust=True)
        if len(self.soup):
            TriangleMesh(self._scene, self.soup.corners)

    def bounds_of(self, ids: Iterable[int]) -> np.ndarray:
        """[I, 2, 3] m: bounding boxes of the parts with these panoptic ids."""
        return np.array([self._bounds[int(identity)] for identity in ids]).reshape(-1, 2, 3)

    def ranges_of(self, ids: Iterable[int]) -> np.ndarray:
        """[I, 2] int64: `ranges` of the parts with these panoptic ids."""
        found = [self.ranges[int(identity)] for identity in ids]
        return np.array(found, dtype=np.int64).reshape(-1, 2)

    def cast(self, origins: np.ndarray, directions: np.ndarray) -> Hits:
        """First hits of rays: origins and directions [R, 3] float32 C-contiguous, m."""
        found = self._scene.run(origins, directions, output=True)
        return Hits(found["primID"], found["u"], found["v"], found["tfar"])

    @cached_property
    def surface(self) -> Surface:
        """Lit from above and from one side, so that the faces of a box differ."""
        flat, normal = self.flat_surface, _normals(self.soup.corners)[1]
        side = np.abs(normal[:, 0] * 0.8 + normal[:, 2] * 0.6)  # in 0..1
        light = (0.5 + 0.3 * (0.5 + 0.5 * normal[:, 1]) + 0.2 * side).astype(np.float32)
        return flat._replace(colour=flat.colour * light[:, None, None])

    @cached_property
    def flat_surface(self) -> Surface:
        """Colours as they are, without light, as Habitat-Sim draws flat-shaded assets.

        Made when first asked for: counting pixels needs none of it.
        """
        soup = self.soup
        uv_edges = soup.uv[:, 1:] - soup.uv[:, :1]
        (a, b), (c, d) = uv_edges.transpose(1, 2, 0)
        first, levels, texels, offset = [0], [], [], 0
        for image in soup.textures:
            for picture in pyramid(image):
                levels.append((offset, *picture.shape[:2]))
                texels.append(picture.reshape(-1, 3))
                offset += len(texels[-1])
            first.append(len(levels))
        return Surface(
            np.ascontiguousarray(soup.colours * 255.0, dtype=np.float32),
            soup.uv,
            soup.texture,
            np.sqrt(np.abs(a * d - b * c) / _normals(soup.corners)[0]).astype(np.float32),
            np.concatenate(texels) if texels else np.zeros((1, 3), np.uint8),
            np.asarray(first, dtype=np.int32),
            np.asarray(levels or [(0, 1, 1)], dtype=np.int32),
        )


def _normals(corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Twice the area of each triangle [T] m2 and its unit normal [T, 3]; corners [T, 3, 3] m."""
    edges = corners[:, 1:] - corners[:, :1]
    cross = np.cross(edges[:, 0], edges[:, 1])
    area = np.maximum(np.linalg.norm(cross, axis=1), 1e-12)
    return area, cross / area[:, None]
