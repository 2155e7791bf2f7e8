"""Pictures of a house: its floor plan with furniture and small objects, and first-person views."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

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
from memo_habitat.simulator.embree.navgrid import AgentShape
from memo_habitat.simulator.embree.queries import TaskQueries
from memo_habitat.simulator.embree.scene import Arrangement, Scene, load_scene, place_objects
from memo_habitat.simulator.interface import TaskSimulator
from memo_habitat.tasks.extobjnav.dataset import read_split
from memo_habitat.tasks.extobjnav.episode import ExtObjNavEpisode, house_of
from memo_habitat.tasks.extobjnav.goals import GoalOptions, viewpoints_of
from memo_habitat.utils.data_paths import resolve

AGENT = AgentShape(radius=0.2)
"""The widest agent that homes are made for."""
EYE = 1.2
"""Height of the camera, m."""
GOALS = GoalOptions(radius=2.0, spacing=0.1, eye_height=EYE)
"""From where an object of a generated home counts as within reach."""
FLOOR_TOLERANCE = 0.1
"""Heights up to this are the floor, m."""
FIRST_ID = 1000
"""Panoptic id of the first small object: furniture has the numbers below."""
CANDIDATES = 80
"""Random poses from which the views are chosen."""
MAX_NAMES = 12
"""Small objects up to which the plan names them."""

Pose = tuple[np.ndarray, float]
"""Floor point [3] m and heading, rad."""


@dataclass(frozen=True)
class ShowOptions:
    """What `memo-habitat scenes show` is told.

    Attributes:
        dataset_dir: folder of a data set.
        house: number of the house in the set's order, or its name.
        out: picture to write (PNG).
        arrangement: which of the house's arrangements to draw.
        views: first-person views to draw beside the plan.
        view_size: pixels along each side of a view.
    """

    dataset_dir: Path
    house: int | str
    out: Path
    arrangement: int = 0
    views: int = 4
    view_size: int = 128


class SimulatedHouse:
    """A house as the simulator sees it, loaded from the data set's files."""

    def __init__(
        self, scene: Path, scene_dataset: Path, objects: Sequence[Path] | None = None
    ) -> None:
        """Load it; the small objects are the data set's own unless their folders are named."""
        self.scene = load_scene(str(scene), str(scene_dataset), AGENT, 1, 4)
        self.grid = self.scene.grid
        own = [scene_dataset.parent / "objects"]
        self._folders = [str(folder) for folder in (own if objects is None else objects)]

    def arranged(self, rigid_objs: Sequence[Any]) -> ArrangedHouse:
        """The house with small objects in it, given as episodes list them."""
        placed = place_objects(self.scene, rigid_objs, self._folders, FIRST_ID)
        return ArrangedHouse(self.scene, placed)

    def main_island_share(self) -> float:
        """Share of all free floor that belongs to the largest island."""
        # Tops of tables and beds are islands too, out of reach; they are no floor.
        low = self.grid.islands[np.abs(self.grid.floor) < FLOOR_TOLERANCE]
        return float((low == 1).sum() / max(1, (low > 0).sum()))


class ArrangedHouse(TaskQueries):
    """A house with its small objects, asked the way the task asks a running simulator."""

    def __init__(self, scene: Scene, arrangement: Arrangement) -> None:
        self.scene = scene
        self.arrangement = arrangement

    def reachable(self, least: int) -> set[str]:
        """Categories with an instance that has at least ``least`` viewpoints."""
        house = cast(TaskSimulator, self)  # no agent is in it, and none is asked for
        return {i.category for i in self.instances if len(viewpoints_of(house, i, GOALS)) >= least}

    def view(self, pose: Pose, size: int) -> Camera:
        """A camera that has cast what an agent sees from a pose, ``size`` pixels each side."""
        camera = Camera(CameraSpec(size, size, math.pi / 2, (0.0, EYE, 0.0), (0.0, 0.0, 0.0)))
        camera.cast(self.arrangement.geometry, (*pose, 0.0))
        return camera


def show(options: ShowOptions) -> None:
    """Write a picture of one arrangement of a house: floor plan and first-person views.

    Raises:
        UserError: no data set, no such house or arrangement, or a picture that cannot be written.
    """
    entry = _find_episode(options)
    file = options.dataset_dir / "episodes"
    scene = resolve(entry.scene_id, beside=file)
    objects = [resolve(path, beside=file) for path in entry.additional_obj_config_paths]
    house = SimulatedHouse(scene, resolve(entry.scene_dataset_config, beside=file), objects)
    arranged = house.arranged(entry.rigid_objs)
    columns = max(1, math.ceil(options.views / 2))
    figure = Figure(figsize=(4.2 + 2.1 * columns, 4.2), layout="constrained")
    grid = figure.add_gridspec(2, 2 + columns)
    name = house_of(entry.scene_id)
    axes = figure.add_subplot(grid[:, :2])
    axes.set_title(f"{name}, {options.arrangement}", fontsize=8)
    _draw_plan(axes, arranged)
    for i, pose in enumerate(best_views(arranged, name, options.views)):
        axes = figure.add_subplot(grid[i % 2, 2 + i // 2])
        axes.imshow(arranged.view(pose, options.view_size).rgb(), interpolation="nearest")
        axes.set_axis_off()
    try:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(options.out, dpi=100, metadata={"Software": None})
    except (OSError, ValueError) as error:
        raise UserError(f"cannot write picture {options.out}: {error}") from error


def _find_episode(options: ShowOptions) -> ExtObjNavEpisode:
    """The episode that holds the wanted arrangement."""
    folder = options.dataset_dir
    if not any((folder / "episodes").glob("*.json.gz")):
        raise UserError(
            f"{folder} holds no episodes: give a folder that `memo-habitat scenes generate` or "
            "`scenes episodes` made"
        )
    houses: dict[str, list[ExtObjNavEpisode]] = {}
    files = [folder / "episodes" / f"{split}.json.gz" for split in SPLITS]
    for _, episodes in (read_split(file) for file in files if file.exists()):
        for episode in episodes:
            houses.setdefault(house_of(episode.scene_id), []).append(episode)
    names, wanted = list(houses), str(options.house)
    if wanted.isdigit() and int(wanted) < len(names):
        wanted = names[int(wanted)]
    if wanted not in houses:
        raise UserError(
            f"{folder} has no house {options.house}: give 0 to {len(names) - 1} or a name such as "
            f"{names[0] if names else '(none: the set is empty)'}"
        )
    count = len(houses[wanted])
    if not 0 <= options.arrangement < count:
        raise UserError(
            f"house {wanted} has no arrangement {options.arrangement}: give 0 to {count - 1}"
        )
    return houses[wanted][options.arrangement]


def best_views(arranged: ArrangedHouse, key: str, count: int) -> list[Pose]:
    """Poses that together show many small objects, chosen greedily from random ones."""
    rng, grid = RandomStream("views", key), arranged.scene.grid
    rows, columns = np.nonzero(grid.islands == 1)
    poses: list[Pose] = []
    seen: list[set[int]] = []  # ids of the small objects that each pose shows well
    for _ in range(CANDIDATES):
        i = rng.integer(0, len(rows) - 1)
        position = grid.world(np.array([[rows[i] + 0.5, columns[i] + 0.5]]))[0]
        poses.append((position, rng.integer(0, 11) * math.pi / 6))
        ids, pixels = np.unique(arranged.view(poses[-1], 64).panoptic(), return_counts=True)
        seen.append({int(k) for k in ids[(ids >= FIRST_ID) & (pixels >= 10)]})
    chosen: list[Pose] = []
    shown: set[int] = set()

    def worth(i: int) -> tuple[float, ...]:
        # New objects first, then views unlike the others, then many objects. A turn by 90 degrees
        # makes as much of a difference as 1 m.
        position, heading = poses[i]
        gaps = [math.dist(position, p) + 1 - math.cos(heading - h) for p, h in chosen]
        apart = min(gaps, default=math.inf)
        return len(seen[i] - shown), apart >= 1.0, len(seen[i]), apart

    for _ in range(count):
        best = max(range(CANDIDATES), key=worth)
        chosen.append(poses[best])
        shown |= seen[best]
        seen[best] = set()
    return chosen


def _face_colours(soup: TriangleSoup) -> np.ndarray:
    """Colour [T, 3] in 0..1 of the middle of each triangle."""
    colours = soup.colours.mean(axis=1)
    for number, image in enumerate(soup.textures):
        mine = soup.texture == number
        u, v = soup.uv[mine].mean(axis=1).T % 1.0
        height, width = image.shape[:2]
        row, column = ((1.0 - v) * height).astype(int), (u * width).astype(int)
        colours[mine] *= image[row.clip(0, height - 1), column.clip(0, width - 1)] / 255.0
    return colours


def _draw_plan(axes: Axes, arranged: ArrangedHouse) -> None:
    """The house seen from above: free floor, furniture, small objects by colour and name."""
    grid, geometry = arranged.scene.grid, arranged.arrangement.geometry
    image = np.full((*grid.islands.shape, 3), 255, dtype=np.uint8)
    image[np.isfinite(grid.floor)] = (214, 208, 200)
    image[grid.islands > 0] = (238, 234, 228)
    x0, z0 = grid.origin
    height, width = grid.islands.shape
    extent = (x0, x0 + width * grid.cell, z0 + height * grid.cell, z0)
    axes.imshow(image, extent=extent, interpolation="nearest")
    for part in arranged.scene.parts[1:]:
        low, high = part.bounds
        shade = _face_colours(part).mean(axis=0)
        size = high[0] - low[0], high[2] - low[2]
        axes.add_patch(Rectangle((low[0], low[2]), *size, facecolor=shade, edgecolor="0.3", lw=0.5))
    colours, heights = _face_colours(geometry.soup), geometry.soup.corners[:, :, 1].mean(axis=1)
    for instance in arranged.instances:
        x, _, z = instance.position
        mine = slice(*geometry.ranges[instance.id])
        axes.plot(
            x,
            z,
            marker=MarkerStyle("o", fillstyle="top"),
            markerfacecolor=colours[mine][heights[mine].argmax()],
            markerfacecoloralt=colours[mine][heights[mine].argmin()],
            markersize=7,
            markeredgecolor="black",
            markeredgewidth=0.6,
        )
        if len(arranged.instances) <= MAX_NAMES:
            label = instance.category.replace("_", " ")
            axes.annotate(label, (x, z), (5, 5), textcoords="offset points", fontsize=5)
    rows, columns = np.nonzero(np.isfinite(grid.floor))
    pad = 0.3
    axes.set_xlim(x0 + columns.min() * grid.cell - pad, x0 + columns.max() * grid.cell + pad)
    axes.set_ylim(z0 + rows.max() * grid.cell + pad, z0 + rows.min() * grid.cell - pad)
    axes.tick_params(labelsize=6)
