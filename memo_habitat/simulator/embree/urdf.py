"""Articulated objects: the links of a URDF as they stand when every joint is at rest."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import trimesh

from memo_habitat.errors import UserError
from memo_habitat.simulator.embree.geometry import TriangleSoup, join
from memo_habitat.simulator.embree.meshes import load_soup, mesh_soup

_PLAIN = (0.6, 0.6, 0.6)


def articulated_soup(path: Path, scale: float = 1.0) -> TriangleSoup:
    """The visual shapes of all links, m, in the frame that Habitat-Sim places: the root's inertia.

    Raises:
        UserError: for a missing or malformed file or mesh.
    """
    try:
        robot = ElementTree.fromstring(path.read_bytes())
    except OSError as error:
        raise UserError(f"URDF {path} cannot be read: {error.strerror}") from error
    except ElementTree.ParseError as error:
        raise UserError(f"URDF {path} is not valid XML ({error}): write it again") from error
    try:
        soups = _links(robot, path)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"URDF {path} is malformed ({error}): correct it") from error
    if not soups:
        raise UserError(f"URDF {path} has no visual shape: give a link a <visual>")
    soup = join(soups).transformed(np.diag([scale, scale, scale, 1.0]))
    return replace(soup, files=soup.files | {path})


def _links(robot: ElementTree.Element, path: Path) -> list[TriangleSoup]:
    links = {link.attrib["name"]: link for link in robot.findall("link")}
    parents = {
        _attribute(joint, "child", "link"): (_attribute(joint, "parent", "link"), _origin(joint))
        for joint in robot.findall("joint")
    }
    colours = {
        material.attrib.get("name"): material.find("color")
        for material in robot.findall("material")
    }

    def place(name: str, below: tuple[str, ...] = ()) -> np.ndarray:
        if name in below:
            raise ValueError(f"link {name!r} hangs on itself")
        if name not in parents:
            inertial = links[name].find("inertial")
            return np.eye(4) if inertial is None else np.linalg.inv(_origin(inertial))
        parent, origin = parents[name]
        return place(parent, (*below, name)) @ origin

    soups = []
    for name, link in links.items():
        for visual in link.findall("visual"):
            material = visual.find("material")
            colour = None if material is None else material.find("color")
            if material is not None and colour is None:
                colour = colours.get(material.attrib.get("name"))
            shape = _shape(visual, path, _floats(colour, "rgba", (*_PLAIN, 1.0))[:3])
            soups.append(shape.transformed(place(name) @ _origin(visual)))
    return soups


def _attribute(element: ElementTree.Element, child: str, key: str) -> str:
    found = element.find(child)
    if found is None:
        raise ValueError(f"a <{element.tag}> has no <{child}>")
    return found.attrib[key]


def _floats(
    element: ElementTree.Element | None, key: str, default: tuple[float, ...]
) -> np.ndarray:
    """As many numbers of an attribute as the default has; one stands for all."""
    text = None if element is None else element.attrib.get(key)
    values = np.array(
        default if text is None else [float(part) for part in text.replace(",", " ").split()]
    )
    values = np.broadcast_to(values, len(default)) if values.size == 1 else values
    if values.shape != (len(default),) or not np.isfinite(values).all():
        raise ValueError(f"{key}={text!r}, where {len(default)} numbers are needed")
    return values


def _origin(element: ElementTree.Element) -> np.ndarray:
    """[4, 4] of an element's <origin>: turned about x, then y, then z, and moved."""
    origin, matrix = element.find("origin"), np.eye(4)
    roll, pitch, yaw = _floats(origin, "rpy", (0.0, 0.0, 0.0))
    matrix[:3, :3] = trimesh.transformations.euler_matrix(roll, pitch, yaw, "sxyz")[:3, :3]
    matrix[:3, 3] = _floats(origin, "xyz", (0.0, 0.0, 0.0))
    return matrix


def _shape(visual: ElementTree.Element, path: Path, rgb: np.ndarray) -> TriangleSoup:
    geometry = visual.find("geometry")
    shape = None if geometry is None else next(iter(geometry), None)
    if shape is None:
        raise ValueError("a <visual> has no shape")
    if shape.tag == "mesh":
        name = shape.attrib["filename"].removeprefix("package://").removeprefix("file://")
        soup = load_soup(path.parent / name)
        is_plain = name.lower().endswith(".stl")  # a format without colours
        soup = soup.transformed(np.diag([*_floats(shape, "scale", (1.0, 1.0, 1.0)), 1.0]))
        return _coloured(soup, rgb) if is_plain else soup
    if shape.tag == "box":
        mesh = trimesh.creation.box(extents=_floats(shape, "size", (math.nan,) * 3))
    elif shape.tag in ("cylinder", "capsule"):
        make = trimesh.creation.cylinder if shape.tag == "cylinder" else trimesh.creation.capsule
        radius, length = (_floats(shape, key, (math.nan,))[0] for key in ("radius", "length"))
        mesh = make(radius=radius, height=length)
    elif shape.tag == "sphere":
        mesh = trimesh.creation.icosphere(2, radius=_floats(shape, "radius", (math.nan,))[0])
    else:
        raise ValueError(f"<{shape.tag}> is no shape of a URDF")
    return _coloured(mesh_soup(mesh), rgb)


def _coloured(soup: TriangleSoup, rgb: np.ndarray) -> TriangleSoup:
    colours = np.broadcast_to(np.clip(rgb, 0.0, 1.0).astype(np.float32), soup.colours.shape)
    return replace(soup, colours=colours.copy())
