"""Mesh files of all kinds as triangle soups, kept per process while the files stay as they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from memo_habitat.errors import UserError
from memo_habitat.simulator.embree.geometry import TriangleSoup, join
from memo_habitat.simulator.embree.gltf import GltfError
from memo_habitat.simulator.embree.gltf_mesh import read_gltf
from memo_habitat.utils.file_cache import FileCache, is_file

# Imported where it is needed: glTF, of which most data sets are, is read without it.
if TYPE_CHECKING:
    import trimesh

MESH_SUFFIXES = (".glb", ".gltf", ".ply", ".obj", ".stl", ".dae")
#: Nothing is farther away or larger, m: products of such numbers are finite, too.
FAR = 1e9
_KEPT = 4096

_meshes: FileCache[TriangleSoup] = FileCache()

#: Empties the cache of meshes.
forget_meshes = _meshes.clear


def load_soup(path: Path) -> TriangleSoup:
    """The triangles of a mesh file: glTF, or what trimesh reads.

    Raises:
        UserError: when the file is missing, cannot be read or holds no triangle.
    """

    def read() -> tuple[TriangleSoup, frozenset[Path]]:
        soup = _read(path)
        return soup, soup.files

    return _meshes.get(path, read, _KEPT)


def _read(path: Path) -> TriangleSoup:
    if not is_file(path):
        raise UserError(
            f"3D model {path} is missing: restore the file or correct the config that names it"
        )
    # A corrupt file can raise nearly anything from inside the parsers, hence the wide net.
    try:
        is_gltf = path.suffix.lower() in (".glb", ".gltf")
        soup = read_gltf(path) if is_gltf else _read_by_trimesh(path)
    except UserError:
        raise
    except Exception as error:
        kind = "" if isinstance(error, GltfError) else f"{type(error).__name__}: "
        raise UserError(
            f"3D model {path} cannot be read ({kind}{' '.join(str(error).split())[:200]}): "
            "write or download the file again"
        ) from error
    if not len(soup):
        raise UserError(f"3D model {path} holds no triangle: export it with its meshes")
    if not (np.abs(soup.corners) < FAR).all():
        raise UserError(
            f"3D model {path} has coordinates that are not numbers, or beyond {FAR:g} m: "
            "export it again"
        )
    return soup


def _read_by_trimesh(path: Path) -> TriangleSoup:
    import trimesh

    scene: Any = trimesh.load(path, force="scene", process=False)
    soups = []
    for node in scene.graph.nodes_geometry:
        transform, name = scene.graph[node]
        mesh = scene.geometry[name]
        if isinstance(mesh, trimesh.Trimesh) and len(mesh.faces):
            soups.append(mesh_soup(mesh).transformed(transform))
    return replace(join(soups), files=frozenset({path}))


def mesh_soup(mesh: trimesh.Trimesh) -> TriangleSoup:
    """The triangles of a trimesh with its colours or texture."""
    faces = np.asarray(mesh.faces)
    corners = np.asarray(mesh.vertices, dtype=np.float32)[faces]
    colours = np.ones((len(faces), 3, 3), dtype=np.float32)
    uv = np.zeros((len(faces), 3, 2), dtype=np.float32)
    texture = np.full(len(faces), -1, dtype=np.int32)
    images: list[np.ndarray] = []
    visual: Any = mesh.visual
    if visual.kind == "texture":
        factor, image = _base_colour(visual.material)
        colours *= factor
        if image is not None and visual.uv is not None:
            uv = np.asarray(visual.uv, dtype=np.float32)[faces]
            texture[:] = 0
            images = [np.ascontiguousarray(image.convert("RGB"), dtype=np.uint8)]
    elif visual.kind == "vertex":
        colours = np.asarray(visual.vertex_colors)[faces][..., :3].astype(np.float32) / 255.0
    elif visual.kind == "face":
        rgb = np.asarray(visual.face_colors)[:, None, :3].astype(np.float32) / 255.0
        colours = np.repeat(rgb, 3, axis=1)
    else:
        colours *= 0.6
    return TriangleSoup(corners, np.ascontiguousarray(colours), uv, texture, images)


def _base_colour(material: Any) -> tuple[np.ndarray, Any]:
    """Constant base colour [3] float32 in [0, 1] and image (or None) of a trimesh material."""
    from trimesh.visual.material import PBRMaterial

    if isinstance(material, PBRMaterial):
        value, image = material.baseColorFactor, material.baseColorTexture
    else:
        image = material.image
        # Where there is an image, trimesh makes up the diffuse colour.
        value = material.diffuse if image is None else None
    factor = np.ones(3) if value is None else np.asarray(value)[:3]
    scale = 255.0 if factor.dtype.kind in "ui" else 1.0
    return (factor / scale).astype(np.float32), image
