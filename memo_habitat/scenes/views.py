"""Pictures of a house: its floor plan with furniture and small objects, and first-person views."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.markers import MarkerStyle
from matplotlib.patches import Rectangle

from memo_habitat.errors import UserError
from memo_habitat.scenes.files import SPLITS
from memo_habitat.scenes.floor_plan import RandomStream
from memo_habitat.simulator.embree.camera_rig import Camera, CameraSpec
from memo_habitat.simulator.embree.geometry import TriangleSoup
from memo_habitat.simulator.embree.navgrid import AgentShape, NavGrid
from memo_habitat.simulator.embree.queries import TaskQueries
from memo_habitat.simulator.embree.scene import Arrangement, Scene, load_scene, place_objects
from memo_habitat.simulator.interface import Instance
from memo_habitat.utils.data_paths import data_set_folder, resolve

AGENT = AgentShape(radius=0.2)
"""The widest agent that homes are made for."""
EYE = 1.2
"""Height of the camera, m."""
FLOOR_TOLERANCE = 0.1
"""Heights up to this are the floor, m."""
FIRST_ID = 1000
"""Panoptic id of the first small object: furniture has the numbers below."""


@dataclass(frozen=True)
class Picture:
    """A first-person view: rgb [H, W, 3] uint8 and panoptic ids [H, W]."""

    rgb: np.ndarray
    ids: np.ndarray


def face_colours(soup: TriangleSoup) -> np.ndarray:
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
        self.scene: Scene = load_scene(str(scene), str(scene_dataset), agent, 1, 4)
        self._folders = [str(scene_dataset.parent / "objects")]

    @property
    def grid(self) -> NavGrid:
        """Where an agent can be."""
        return self.scene.grid

    def arranged(self, rigid_objs: Sequence[Any]) -> ArrangedHouse:
        """The house with small objects in it, given as episodes list them."""
        return ArrangedHouse(
            self.scene, place_objects(self.scene, rigid_objs, self._folders, FIRST_ID)
        )

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

    def __init__(self, scene: Scene, arrangement: Arrangement) -> None:
        self.scene, self.arrangement = scene, arrangement
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
            spec = CameraSpec(size, size, math.pi / 2, (0.0, EYE, 0.0), (0.0, 0.0, 0.0))
            self._cameras[size] = Camera(spec)
        camera = self._cameras[size]
        camera.cast(self._geometry, position, heading, tilt)
        return Picture(camera.rgb(), camera.panoptic())


CANDIDATES = 80
"""Random poses from which the views are chosen."""

MOST_NAMES = 12
"""Small objects up to which the plan names them."""


def show(options: ShowOptions) -> None:
    """Write a picture of one arrangement of a house.

    Raises:
        UserError: no data set, no such house or arrangement, or a picture that cannot be written.
    """
    entry = _episode(options)
    file = options.dataset_dir / "episodes"
    scene = resolve(entry["scene_id"], beside=file)
    dataset = resolve(entry["scene_dataset_config"], beside=file)
    house = SimulatedHouse(scene, dataset)
    arranged = house.arranged(entry["rigid_objs"])
    columns = max(1, math.ceil(options.views / 2))
    figure = Figure(figsize=(4.2 + 2.1 * columns, 4.2), layout="constrained")
    grid = figure.add_gridspec(2, 2 + columns)
    name = scene.name.split(".")[0]
    _draw_plan(figure.add_subplot(grid[:, :2]), house, arranged, f"{name}, {options.arrangement}")
    for i, (position, heading) in enumerate(best_views(arranged, name, options.views)):
        axes = figure.add_subplot(grid[i % 2, 2 + i // 2])
        axes.imshow(
            arranged.view(position, heading, options.view_size).rgb, interpolation="nearest"
        )
        axes.set_axis_off()
    try:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(options.out, dpi=100, metadata={"Software": None})
    except (OSError, ValueError) as error:
        raise UserError(f"cannot write picture {options.out}: {error}") from error


def _episode(options: ShowOptions) -> dict[str, Any]:
    """The episode that holds the wanted arrangement."""
    folder = options.dataset_dir
    if not folder.is_dir() or data_set_folder(folder) != folder.resolve():
        raise UserError(f"{folder} is no scene data set: give a folder that `scenes generate` made")
    houses: dict[str, list[dict[str, Any]]] = {}
    for split in SPLITS:
        file = folder / "episodes" / f"{split}.json.gz"
        if not file.exists():
            continue
        try:
            episodes = json.loads(gzip.decompress(file.read_bytes()))["episodes"]
        except (OSError, EOFError, ValueError, KeyError) as error:
            raise UserError(
                f"{file} is not an episode file ({error}): generate it again"
            ) from error
        for episode in episodes:
            houses.setdefault(Path(episode["scene_id"]).name.split(".")[0], []).append(episode)
    names = list(houses)
    wanted = str(options.house)
    if wanted.isdigit() and int(wanted) < len(names):
        wanted = names[int(wanted)]
    if wanted not in houses:
        raise UserError(
            f"{folder} has no house {options.house}: give 0 to {len(names) - 1} or a name such as "
            f"{names[0] if names else '(none: the set is empty)'}"
        )
    arrangements = houses[wanted]
    if not 0 <= options.arrangement < len(arrangements):
        raise UserError(
            f"house {wanted} has no arrangement {options.arrangement}: give 0 to "
            f"{len(arrangements) - 1}"
        )
    return arrangements[options.arrangement]


def best_views(arranged: ArrangedHouse, key: str, count: int) -> list[tuple[np.ndarray, float]]:
    """Poses (floor point [3], heading rad) that together show many small objects."""
    rng = RandomStream("views", key)
    rows, columns = np.nonzero(arranged.scene.grid.islands == 1)
    poses, seen = [], []
    for _ in range(CANDIDATES):
        i = rng.integer(0, len(rows) - 1)
        position = arranged.scene.grid.world(np.array([[rows[i] + 0.5, columns[i] + 0.5]]))[0]
        heading = rng.integer(0, 11) * math.pi / 6
        ids, pixels = np.unique(arranged.view(position, heading, 64).ids, return_counts=True)
        poses.append((position, heading))
        seen.append({int(k) for k, n in zip(ids, pixels, strict=True) if k >= FIRST_ID and n >= 10})
    chosen: list[tuple[np.ndarray, float]] = []
    shown: set[int] = set()
    for _ in range(count):
        best = max(
            range(CANDIDATES),
            key=lambda i: _worth(seen[i], shown, _apart(poses[i], chosen)),
        )
        chosen.append(poses[best])
        shown |= seen[best]
        seen[best] = set()
    return chosen


def _worth(seen: set[int], shown: set[int], apart: float) -> tuple[float, ...]:
    """Order of views: new objects first, then views unlike the others, then many objects."""
    return len(seen - shown), apart >= 1.0, len(seen), apart


def _apart(pose: tuple[np.ndarray, float], others: list[tuple[np.ndarray, float]]) -> float:
    """Distance of a pose to the nearest of others, m; a turn by 90 degrees counts as 1 m."""
    gaps = [
        math.dist(pose[0], position) + 1 - math.cos(pose[1] - heading)
        for position, heading in others
    ]
    return min(gaps, default=math.inf)


def _draw_plan(axes: Axes, house: SimulatedHouse, arranged: ArrangedHouse, title: str) -> None:
    """The house seen from above: free floor, furniture, small objects by colour and name."""
    grid = house.grid
    rows, columns = np.nonzero(np.isfinite(grid.floor))
    image = np.full((*grid.islands.shape, 3), 255, dtype=np.uint8)
    image[np.isfinite(grid.floor)] = (214, 208, 200)
    image[grid.islands > 0] = (238, 234, 228)
    x0, z0 = grid.origin
    height, width = grid.islands.shape
    extent = (x0, x0 + width * grid.cell, z0 + height * grid.cell, z0)
    axes.imshow(image, extent=extent, interpolation="nearest")
    for part in house.scene.parts[1:]:
        low, high = part.bounds[0], part.bounds[1]
        shade = face_colours(part).mean(axis=0)
        size = high[0] - low[0], high[2] - low[2]
        axes.add_patch(Rectangle((low[0], low[2]), *size, facecolor=shade, edgecolor="0.3", lw=0.5))
    for instance, (low, high) in zip(arranged.instances, arranged.end_colours(), strict=True):
        x, _, z = instance.position
        style = MarkerStyle("o", fillstyle="top")
        axes.plot(
            x,
            z,
            marker=style,
            markerfacecolor=high,
            markerfacecoloralt=low,
            markersize=7,
            markeredgecolor="black",
            markeredgewidth=0.6,
        )
        if len(arranged.instances) <= MOST_NAMES:
            label = instance.category.replace("_", " ")
            axes.annotate(label, (x, z), (5, 5), textcoords="offset points", fontsize=5)
    pad = 0.3
    axes.set_xlim(x0 + columns.min() * grid.cell - pad, x0 + columns.max() * grid.cell + pad)
    axes.set_ylim(z0 + rows.max() * grid.cell + pad, z0 + rows.min() * grid.cell - pad)
    axes.set_title(title, fontsize=8)
    axes.tick_params(labelsize=6)


@dataclass(frozen=True)
class ShowOptions:
    """What `memo-habitat scenes show` is told.

    Attributes:
        dataset_dir: folder of a data set.
        house: number of the house in the set's order, or its name.
        out: picture to write (PNG).
        arrangement: which of the house's arrangements to rng.
        views: first-person views to draw beside the plan.
        view_size: pixels along each side of a view.
    """

    dataset_dir: Path
    house: int | str
    out: Path
    arrangement: int = 0
    views: int = 4
    view_size: int = 128
