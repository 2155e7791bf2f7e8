"""Ray casting against a triangle soup: the embree scene and what the shader asks per triangle."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene

from memo_habitat.simulator.embree.assets import TriangleSoup, join
from memo_habitat.simulator.embree.shading import TextureTable, build_table


@dataclass(frozen=True)
class Hits:
    """What R rays met first."""

    triangle: np.ndarray  # [R] int32, -1 = nothing
    u: np.ndarray  # [R] float32, weight of the triangle's second corner
    v: np.ndarray  # [R] float32, weight of its third corner
    distance: np.ndarray  # [R] float32, in lengths of the ray's direction


@dataclass(frozen=True)
class Surface:
    """Everything about T triangles that rendering needs."""

    colour: np.ndarray  # [T, 3, 3] float32 in 0..255: corner colours with the light folded in
    uv: np.ndarray  # [T, 3, 2] float32
    texture: np.ndarray  # [T] int32, -1 = none
    density: np.ndarray  # [T] float32: texture repeats per metre (for the choice of level)
    instance: np.ndarray  # [T] int32: panoptic id
    table: TextureTable


class Geometry:
    """A fixed set of parts, each a soup with one panoptic id, ready for rays."""

    def __init__(self, soups: list[TriangleSoup], ids: list[int]) -> None:
        soup = join(soups)
        self.soup = soup
        lengths = [len(part) for part in soups]
        ends = np.cumsum([0, *lengths])
        #: Panoptic id -> range of its triangles.
        self.ranges = {
            identity: (int(ends[index]), int(ends[index + 1])) for index, identity in enumerate(ids)
        }
        self._instance = np.repeat(np.asarray(ids, dtype=np.int32), lengths)
        self._bounds = dict(zip(ids, (part.bounds for part in soups), strict=True))
        # Robust: rays cannot slip through the edge that two triangles share.
        self._scene = EmbreeScene(robust=True)
        if len(soup):
            TriangleMesh(self._scene, soup.corners)

    @cached_property
    def surface(self) -> Surface:
        """Made when first asked for: counting pixels needs none of it."""
        return _surface(self.soup, self._instance)

    def bounds_of(self, ids: Iterable[int]) -> np.ndarray:
        """[I, 2, 3] m: bounding boxes of the parts with these panoptic ids."""
        return np.array([self._bounds[int(identity)] for identity in ids]).reshape(-1, 2, 3)

    def cast(self, origins: np.ndarray, directions: np.ndarray) -> Hits:
        """First hits of rays: origins and directions [R, 3] float32 C-contiguous, m."""
        found = self._scene.run(origins, directions, output=True)
        return Hits(found["primID"], found["u"], found["v"], found["tfar"])


def _surface(soup: TriangleSoup, instance: np.ndarray) -> Surface:
    edge1 = soup.corners[:, 1] - soup.corners[:, 0]
    edge2 = soup.corners[:, 2] - soup.corners[:, 0]
    cross = np.cross(edge1, edge2)
    area = np.linalg.norm(cross, axis=1)
    normal = cross / np.maximum(area, 1e-12)[:, None]
    uv1 = soup.uv[:, 1] - soup.uv[:, 0]
    uv2 = soup.uv[:, 2] - soup.uv[:, 0]
    uv_area = np.abs(uv1[:, 0] * uv2[:, 1] - uv1[:, 1] * uv2[:, 0])
    density = np.sqrt(uv_area / np.maximum(area, 1e-12))
    colour = soup.colours * (255.0 * light(normal))[:, None, None]
    return Surface(
        np.ascontiguousarray(colour, dtype=np.float32),
        soup.uv,
        soup.texture,
        density.astype(np.float32),
        instance.astype(np.int32),
        build_table(soup.textures),
    )


def light(normal: np.ndarray) -> np.ndarray:
    """Brightness in [0.5, 1] of faces with unit normals [T, 3]: light from above and from one
    side, so that the faces of a box differ."""
    above = 0.5 + 0.5 * normal[:, 1]
    side = np.abs(normal[:, 0] * 0.8 + normal[:, 2] * 0.6)
    return (0.5 + 0.3 * above + 0.2 * side).astype(np.float32)
