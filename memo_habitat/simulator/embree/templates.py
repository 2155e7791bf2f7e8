"""Templates of a scene data set: what their configs say, and the triangles that they stand for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from habitat.core.logging import logger

from memo_habitat.errors import UserError
from memo_habitat.simulator.embree.geometry import TriangleSoup
from memo_habitat.simulator.embree.meshes import FAR, MESH_SUFFIXES, load_soup
from memo_habitat.utils.data_paths import SET_CONFIG_SUFFIX
from memo_habitat.utils.file_cache import is_file
from memo_habitat.utils.files import read_json


class Kind(NamedTuple):
    """A kind of template."""

    section: str  # of the scene data set config
    suffix: str  # of the config files
    asset: str  # the key that names the mesh or URDF
    bare: tuple[str, ...]  # endings of files that need no config


STAGE = Kind("stages", ".stage_config.json", "render_asset", MESH_SUFFIXES)
OBJECT = Kind("objects", ".object_config.json", "render_asset", MESH_SUFFIXES)
ARTICULATED = Kind("articulated_objects", ".ao_config.json", "urdf_filepath", (".urdf",))
SCENE = Kind("scene_instances", ".scene_instance.json", "", ())
_ENDINGS = (
    *(kind.suffix for kind in (STAGE, OBJECT, ARTICULATED, SCENE)),
    *(SET_CONFIG_SUFFIX, ".urdf", *MESH_SUFFIXES),
)
_ASSETS = ("render_asset", "collision_asset", "urdf_filepath")
#: Stands for a template's own name in the default attributes of a data set.
_OWN_NAME = "%%CONFIG_NAME_AS_ASSET_FILENAME%%"
_PRIMITIVE = re.compile(r"(capsule3D|cone|cube|cylinder|icosphere|uvSphere)(Solid|Wireframe)")
#: Habitat-Sim's tolerance for directions at right angles.
_RIGHT_ANGLE = 1e-5


def stem(handle: str) -> str:
    """The template name in a handle: the file name without folder and known suffix."""
    name = str(handle).replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
    for suffix in _ENDINGS:
        if name.endswith(suffix):
            return name[: -len(suffix)]
    return name


@dataclass(frozen=True)
class Template:
    """A template: the attributes of its config over the defaults of the data set."""

    name: str
    source: Path  # a config, a mesh or URDF itself, or the data set config; named in errors
    folder: Path  # where the names of its assets start
    attributes: dict[str, Any]
    kind: Kind
    files: frozenset[Path] = frozenset()  # what it was read from

    def asset(self) -> Path:
        """The mesh or URDF that it names."""
        name = self.attributes.get(self.kind.asset)
        if name is None and self.kind is ARTICULATED:
            name = f"{self.name}.urdf"
        if not isinstance(name, str) or not name:
            raise UserError(f'{self.source}: "{self.kind.asset}" is missing: name the mesh file')
        if is_primitive(name):
            raise UserError(_no_primitives(f"{self.source}: {self.kind.asset}", name))
        return self.file(name)

    def assets(self) -> dict[str, Path]:
        """The meshes and URDFs that it names, to draw or to bump into, by key; primitives have
        none."""
        named = {key: self.attributes.get(key) for key in _ASSETS}
        return {
            key: self.file(name)
            for key, name in named.items()
            if isinstance(name, str) and name and not is_primitive(name)
        }

    def file(self, name: str) -> Path:
        """The file that a name in its attributes means."""
        return self.folder / name.replace(_OWN_NAME, self.name)

    def numbers(self, key: str, default: Any) -> np.ndarray:
        """The numbers of an attribute, as many as the default has."""
        return numbers(self.attributes, key, default, str(self.source))

    def frame(self) -> np.ndarray:
        """[3, 3]: turns `up` to +Y and `front` to -Z, then scales."""
        up, front = self.numbers("up", (0, 1, 0)), self.numbers("front", (0, 0, -1))
        if abs(up @ front) > _RIGHT_ANGLE:
            logger.warning(
                f"{self.source}: up {up.tolist()} and front {front.tolist()} are not at right "
                "angles: the usual up +Y, front -Z holds, as in Habitat-Sim"
            )
            up, front = np.array([0.0, 1.0, 0.0]), np.array([0.0, 0.0, -1.0])
        for key, direction in (("up", up), ("front", front)):
            if abs(np.linalg.norm(direction) - 1.0) > 1e-3:
                raise UserError(
                    f"{self.source}.{key} is {direction.tolist()}: give a direction of length 1"
                )
        turn = np.stack([np.cross(front, up), up, -front])
        return turn * self.numbers("scale", (1, 1, 1))[:, None]


def is_primitive(name: str) -> bool:
    """Whether a name is that of a shape which Habitat-Sim makes itself."""
    return _PRIMITIVE.match(name) is not None


def _no_primitives(where: str, name: str) -> str:
    return (
        f"{where} is {name!r}, a primitive of Habitat-Sim, which EmbreeSim-v0 does not offer: "
        "name a mesh file"
    )


def read_template(path: Path, kind: Kind, defaults: dict[str, Any] | None = None) -> Template:
    """The template in a config, or that a mesh or URDF without one stands for.

    Args:
        path: the config, mesh or URDF; a mesh with a config beside it has what that says.
        kind: what it is of.
        defaults: `default_attributes` of the data set; None where it has none.
    """
    name, files = stem(path.name), {path}
    if not path.name.endswith(kind.suffix):
        config = path.with_name(name + kind.suffix)
        files.add(config)
        if not is_file(config):
            own: dict[str, Any] = {kind.asset: path.name}
            # Habitat-Sim takes such stages for scans (Gibson, Matterport3D), whose z points up.
            if kind is STAGE and path.suffix == ".glb" and defaults is None:
                own.update(up=[0, 0, 1], front=[0, 1, 0])
            attributes = overlay(defaults or {}, own)
            return Template(name, path, path.parent, attributes, kind, frozenset(files))
        path = config
    attributes = overlay(defaults or {}, read_json(path))
    return Template(name, path, path.parent, attributes, kind, frozenset(files | {path}))


def overlay(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Attributes over others. As in Habitat-Sim, a COM counts only where it was written last."""
    return {**{key: value for key, value in below.items() if key != "COM"}, **above}


@dataclass(frozen=True)
class Library(Mapping[str, Template]):
    """The templates of one kind in a data set by name; a config is read when asked for."""

    kind: Kind
    sources: dict[str, Path | Template] = field(default_factory=dict)
    defaults: dict[str, Any] | None = None

    def __getitem__(self, name: str) -> Template:
        """The template called exactly so."""
        source = self.sources[name]
        if isinstance(source, Template):
            return source
        return read_template(source, self.kind, self.defaults)

    def __contains__(self, name: object) -> bool:
        """Whether there is one, without reading it."""
        return name in self.sources

    def __iter__(self) -> Iterator[str]:
        """Names."""
        return iter(self.sources)

    def __len__(self) -> int:
        """How many."""
        return len(self.sources)

    def find(self, handle: Any, where: str, beside: Path | None = None) -> Template:
        """The template that a handle means: a path, a name, or a part that only one name has.

        Args:
            handle: as written in a config or scene instance.
            where: to name in errors.
            beside: a file; what lies beside it and a folder higher is found too.
        """
        if not isinstance(handle, str) or not handle:
            raise UserError(f"{where} is {handle!r}: give the name of a template, in quotes")
        name = stem(handle)
        if name in self.sources:
            return self[name]
        for folder in () if beside is None else (beside.parent, beside.parent.parent):
            for candidate in (folder / f"{handle}{self.kind.suffix}", folder / handle):
                if is_file(candidate) and candidate.name.endswith(
                    (self.kind.suffix, *self.kind.bare)
                ):
                    return read_template(candidate, self.kind, self.defaults)
        parts = sorted(other for other in self.sources if name.lower() == other.lower())
        parts = parts or sorted(other for other in self.sources if name.lower() in other.lower())
        if len(parts) == 1:
            return self[parts[0]]
        if parts:
            raise UserError(
                f"{where}: {handle!r} is part of {len(parts)} templates, "
                f"{', '.join(parts[:5])}: write the whole name"
            )
        if is_primitive(name):
            raise UserError(_no_primitives(where, handle))
        raise UserError(
            f"{where}: template {handle!r} is not in the scene data set: add its "
            f"{self.kind.suffix.lstrip('.')} or correct the name"
        )


def stage_soup(stage: Template | Path) -> TriangleSoup:
    """The stage's triangles with its up and front turned to +Y and -Z and its scale applied.

    Its `origin` moves nothing, as in Habitat-Sim: episodes count on that.
    """
    template = read_template(stage, STAGE) if isinstance(stage, Path) else stage
    soup, matrix = load_soup(template.asset()), np.eye(4)
    matrix[:3, :3] = template.frame()
    return soup if np.array_equal(matrix, np.eye(4)) else soup.transformed(matrix)


def object_soup(thing: Template | Path) -> tuple[TriangleSoup, np.ndarray]:
    """An object template's triangles, turned and scaled, and its centre of mass there [3] m.

    As in Habitat-Sim, placements move the centre of mass: the config's `COM`, which is scaled
    like the mesh, else the centre of the bounding box. Articulated objects stand at rest.
    """
    template = read_template(thing, OBJECT) if isinstance(thing, Path) else thing
    if template.kind is ARTICULATED:
        return _articulated(template), np.zeros(3)
    soup, matrix = load_soup(template.asset()), np.eye(4)
    matrix[:3, :3] = template.frame()
    if not np.array_equal(matrix, np.eye(4)):
        soup = soup.transformed(matrix)
    if "COM" in template.attributes:
        return soup, template.numbers("COM", (0, 0, 0)) * template.numbers("scale", (1, 1, 1))
    return soup, soup.bounds.mean(axis=0)


def _articulated(template: Template) -> TriangleSoup:
    """The links of a URDF, or the skin that is drawn in their place."""
    scale = float(template.numbers("uniform_scale", 1.0))
    skin = template.attributes.get("render_asset")
    mode = template.attributes.get("render_mode", "default")
    if isinstance(skin, str) and skin and mode in ("default", "skin"):
        return load_soup(template.file(skin)).transformed(np.diag([scale, scale, scale, 1.0]))
    from memo_habitat.simulator.embree.urdf import articulated_soup  # imports trimesh

    return articulated_soup(template.asset(), scale)


def numbers(document: dict[str, Any], key: str, default: Any, where: str) -> np.ndarray:
    """Numbers of a document, as many as the default has."""
    value = document.get(key, default)
    try:
        found = np.asarray(value, dtype=np.float64)
        is_valid = found.shape == np.shape(default) and bool((np.abs(found) < FAR).all())
    except (TypeError, ValueError, OverflowError):
        is_valid = False
    if not is_valid:
        raise UserError(
            f"{where}.{key} is {str(value)[:80]}: give {np.size(default)} numbers below {FAR:g}"
        )
    return found
