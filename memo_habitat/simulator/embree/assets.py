"""Reading GLB files into triangle soups with colours and textures, cached per process."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from PIL import Image

from memo_habitat.errors import UserError

_cache: dict[Path, tuple[int, TriangleSoup]] = {}


@dataclass(frozen=True)
class TriangleSoup:
    """T triangles that share no vertices; the arrays are never written to."""

    corners: np.ndarray  # [T, 3, 3] float32, m
    colours: np.ndarray  # [T, 3, 3] float32 in [0, 1], per corner; multiplies the texture
    uv: np.ndarray  # [T, 3, 2] float32, texture coordinates, v upwards
    texture: np.ndarray  # [T] int32, index into textures, -1 = none
    textures: list[np.ndarray] = field(default_factory=list)  # [h, w, 3] uint8 each

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
        corners = (self.corners.astype(np.float64) @ matrix[:3, :3].T + matrix[:3, 3]).astype(
            np.float32
        )
        order = [0, 2, 1] if np.linalg.det(matrix[:3, :3]) < 0 else [0, 1, 2]
        return TriangleSoup(
            np.ascontiguousarray(corners[:, order]),
            np.ascontiguousarray(self.colours[:, order]),
            np.ascontiguousarray(self.uv[:, order]),
            self.texture,
            self.textures,
        )


def join(soups: list[TriangleSoup]) -> TriangleSoup:
    """One soup of several; a texture that several share (the same array) is kept once."""
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
    if not soups:
        return TriangleSoup(
            np.zeros((0, 3, 3), np.float32),
            np.zeros((0, 3, 3), np.float32),
            np.zeros((0, 3, 2), np.float32),
            np.zeros(0, np.int32),
        )
    return TriangleSoup(
        np.concatenate([soup.corners for soup in soups]),
        np.concatenate([soup.colours for soup in soups]),
        np.concatenate([soup.uv for soup in soups]),
        np.concatenate(indices).astype(np.int32),
        textures,
    )


def clear_cache() -> None:
    """Empties the cache."""
    _cache.clear()


def load_soup(path: Path) -> TriangleSoup:
    """The triangles of a mesh file (GLB and whatever else trimesh reads), from the cache when
    the file has not changed.

    Raises:
        UserError: when the file is missing, cannot be read or holds no triangle.
    """
    try:
        stamp = path.stat().st_mtime_ns
    except OSError as error:
        raise UserError(
            f"3D model {path} is missing: restore the file or correct the config that names it"
        ) from error
    known = _cache.get(path)
    if known is not None and known[0] == stamp:
        return known[1]
    soup = _read(path)
    _cache[path] = (stamp, soup)
    return soup


def _read(path: Path) -> TriangleSoup:
    # A corrupt file can raise nearly anything from inside the parser, hence the wide net.
    try:
        scene: Any = trimesh.load(path, force="scene", process=False)
        soups = []
        for node in scene.graph.nodes_geometry:
            transform, name = scene.graph[node]
            mesh = scene.geometry[name]
            if isinstance(mesh, trimesh.Trimesh) and len(mesh.faces):
                soups.append(_mesh_soup(mesh).transformed(transform))
    except Exception as error:
        raise UserError(
            f"3D model {path} cannot be read ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:120]}): write or download the file again"
        ) from error
    if not soups:
        raise UserError(f"3D model {path} holds no triangle: export it with its meshes")
    soup = join(soups)
    if not np.isfinite(soup.corners).all():
        raise UserError(f"3D model {path} has coordinates that are not numbers: export it again")
    return soup


def _mesh_soup(mesh: trimesh.Trimesh) -> TriangleSoup:
    faces = np.asarray(mesh.faces)
    corners = np.asarray(mesh.vertices, dtype=np.float32)[faces]
    colours = np.ones((len(faces), 3, 3), dtype=np.float32)
    uv = np.zeros((len(faces), 3, 2), dtype=np.float32)
    texture = np.full(len(faces), -1, dtype=np.int32)
    images: list[np.ndarray] = []
    visual: Any = mesh.visual
    if visual.kind == "texture":
        colours *= _factor(visual.material)
        image = _base_colour_image(visual.material)
        if image is not None and visual.uv is not None:
            uv = np.asarray(visual.uv, dtype=np.float32)[faces]
            texture[:] = 0
            images = [image]
    elif visual.kind == "vertex":
        colours = np.asarray(visual.vertex_colors)[faces][..., :3].astype(np.float32) / 255.0
    elif visual.kind == "face":
        rgb = np.asarray(visual.face_colors)[:, None, :3].astype(np.float32) / 255.0
        colours = np.repeat(rgb, 3, axis=1)
    else:
        colours *= 0.6
    return TriangleSoup(corners, np.ascontiguousarray(colours), uv, texture, images)


def _factor(material: Any) -> np.ndarray:
    """[3] float32 in [0, 1]: the constant base colour."""
    value = getattr(material, "baseColorFactor", None)
    if value is None:
        value = getattr(material, "diffuse", None)
        image = getattr(material, "image", None)
        if value is None or image is not None:
            return np.ones(3, dtype=np.float32)
    factor = np.asarray(value)
    scale = 255.0 if factor.dtype.kind in "ui" else 1.0
    return (factor[:3] / scale).astype(np.float32)


def _base_colour_image(material: Any) -> np.ndarray | None:
    image = getattr(material, "baseColorTexture", None)
    if image is None:
        image = getattr(material, "image", None)
    if not isinstance(image, Image.Image):
        return None
    return np.ascontiguousarray(np.asarray(image.convert("RGB"), dtype=np.uint8))
