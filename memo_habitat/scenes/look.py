"""What the generator and its pictures ask of the simulator: floor, lines of sight and views."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from memo_habitat.simulator.assets import Soup
from memo_habitat.simulator.camera import Camera, Lens
from memo_habitat.simulator.house import Arrangement, House, arrange, load_house
from memo_habitat.simulator.interface import Instance
from memo_habitat.simulator.navgrid import AgentShape, NavGrid
from memo_habitat.simulator.queries import TaskQueries

AGENT = AgentShape(radius=0.2)
"""The widest agent that homes are made for."""
EYE = 1.2
"""Height of the camera, m."""
FLOOR_TOLERANCE = 0.1
"""Heights up to this are the floor, m."""
FIRST_ID = 100
"""Panoptic id of the first small object: furniture has the numbers below."""


@dataclass(frozen=True)
class Picture:
    """A first-person view: rgb [H, W, 3] uint8 and panoptic ids [H, W]."""

    rgb: np.ndarray
    ids: np.ndarray


def face_colours(soup: Soup) -> np.ndarray:
    """Colour [T, 3] in 0..1 of the middle of each triangle."""
    colours = soup.colours.mean(axis=1)
    for number, image in enumerate(soup.textures):
        mine = soup.texture == number
        u, v = soup.uv[mine].mean(axis=1).T % 1.0
        height, width = image.shape[:2]
        row, column = ((1.0 - v) * height).astype(int), (u * width).astype(int)
        colours[mine] *= image[row.clip(0, height - 1), column.clip(0, width - 1)] / 255.0
    return colours


class SimulatedHouse:
    """A house as the simulator sees it, loaded from the data set's files."""

    def __init__(self, scene: Path, scene_dataset: Path, agent: AgentShape = AGENT) -> None:
        self.house: House = load_house(str(scene), str(scene_dataset), agent, 1, 4)
        self._folders = [str(scene_dataset.parent / "objects")]

    @property
    def grid(self) -> NavGrid:
        """Where an agent can be."""
        return self.house.grid

    def arranged(self, rigid_objs: Sequence[Any]) -> ArrangedHouse:
        """The house with small objects in it, given as episodes list them."""
        return ArrangedHouse(self.house, arrange(self.house, rigid_objs, self._folders, FIRST_ID))

    def main_island_share(self) -> float:
        """Share of all free floor that belongs to the largest island.

        Tops of tables and beds are islands too, which nobody can reach; they are no floor.
        """
        islands = self.grid.islands
        with np.errstate(invalid="ignore"):
            low = np.abs(self.grid.floor) < FLOOR_TOLERANCE
        return float(((islands == 1) & low).sum() / max(1, ((islands > 0) & low).sum()))


class ArrangedHouse(TaskQueries):
    """A house with its small objects, asked the way the task asks a running simulator."""

    def __init__(self, house: House, arrangement: Arrangement) -> None:
        self.house, self.arrangement = house, arrangement
        self._geometry = arrangement.geometry
        self._cameras: dict[int, Camera] = {}

    def end_colours(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Colours [3] in 0..1 of each instance's lowest and highest face."""
        soup = self._geometry.soup
        colours, heights = face_colours(soup), soup.corners[:, :, 1].mean(axis=1)
        found = []
        for instance in self.instances:
            first, last = self._geometry.ranges[instance.id]
            span = heights[first:last]
            found.append((colours[first + span.argmin()], colours[first + span.argmax()]))
        return found

    def viewpoints(self, instance: Instance, radius: float = 2.0, spacing: float = 0.1) -> int:
        """Number of floor points from which the instance is seen from the camera's height."""
        points = self.floor_points_near(instance.position, radius, spacing)
        if not len(points):
            return 0
        return int(self.sees_instance(points + np.array([0.0, EYE, 0.0]), instance.id).sum())

    def reachable(self, least: int) -> set[str]:
        """Categories with an instance that has at least ``least`` viewpoints."""
        return {i.category for i in self.instances if self.viewpoints(i) >= least}

    def view(self, position: np.ndarray, heading: float, size: int, tilt: float = 0.0) -> Picture:
        """What an agent at a floor point [3] sees; heading and tilt in rad."""
        if size not in self._cameras:
            lens = Lens(size, size, math.pi / 2, (0.0, EYE, 0.0), (0.0, 0.0, 0.0))
            self._cameras[size] = Camera(lens)
        camera = self._cameras[size]
        camera.look(self._geometry, position, heading, tilt)
        return Picture(camera.rgb(), camera.panoptic())
