"""The navigation mesh of a house: built once, kept, and asked for distances to sets of goals."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import habitat_sim
import numpy as np
from habitat.config.default import get_agent_config
from habitat.core.logging import logger

from memo_habitat.config.simulator import options_of
from memo_habitat.errors import UserError
from memo_habitat.simulator.embree.scene_dataset import SceneInstance
from memo_habitat.simulator.habitat_sim.floor import Floor
from memo_habitat.utils.files import atomic_path, cache_folder
from memo_habitat.utils.recent import Recent

#: Height of a voxel, m. The floor of a navigation mesh lies up to one of these above the real one,
#: and the cameras with it: Recast's usual 0.2 m would lift them out of place.
_CELL_HEIGHT = 0.01
#: An island under a roof is the floor of the house where it has at least this share of the area of
#: the largest island of all.
_INDOORS = 0.1
#: Places from which it is looked up, and how far, m.
_ROOF_SAMPLES, _SKY = 40, 100.0


def navmesh_settings(config: Any) -> habitat_sim.nav.NavMeshSettings:
    """How the mesh is built for the agent of a `habitat.simulator` node."""
    agent, options = get_agent_config(config, 0), options_of(config)
    settings = habitat_sim.nav.NavMeshSettings()
    settings.set_defaults()
    settings.cell_size = options.navigation_cell
    settings.cell_height = _CELL_HEIGHT
    settings.agent_radius = float(agent.radius)
    settings.agent_height = float(agent.height)
    settings.agent_max_climb = float(agent.max_climb)
    settings.agent_max_slope = float(agent.max_slope)
    settings.include_static_objects = True  # or the agent walks through furniture
    return settings


class NavMesh:
    """What is navigable in a house.

    Attributes:
        pathfinder: Habitat-Sim's own.
        floor: its largest island, or, where that is the roof or the garden of a house, the largest
            indoors.
    """

    def __init__(self, sim: Any, pathfinder: habitat_sim.PathFinder, goal_sets: int) -> None:
        """That of the house in which the simulator is."""
        self.pathfinder = pathfinder
        self.floor = _main_island(sim, pathfinder)
        self._paths: Recent[tuple[np.ndarray, Any]] = Recent(goal_sets)

    def distance(self, position: np.ndarray, goals: np.ndarray) -> float:
        """Geodesic distance in m from a point [3] to the nearest of goals [G, 3]; inf when none
        can be reached."""
        return float(self._searched(position, goals).geodesic_distance)

    def nearest(self, position: np.ndarray, goals: np.ndarray) -> tuple[float, np.ndarray]:
        """Geodesic distance in m to the nearest of goals [G, 3], and that goal [1, 3]."""
        path = self._searched(position, goals)
        index = path.closest_end_point_index
        return float(path.geodesic_distance), np.asarray(goals)[[max(index, 0)]]

    def _searched(self, position: np.ndarray, goals: np.ndarray) -> Any:
        path = self._path_to(goals)
        path.requested_start = np.asarray(position, dtype=np.float32)
        self.pathfinder.find_path(path)
        return path

    def _path_to(self, goals: np.ndarray) -> Any:
        """The search for these goals: it remembers where on the mesh they lie, and bounds of their
        distances, so that the next one from near by takes a fraction of the first's time."""
        # Read-only goals are those of an arrangement: told by the array itself, without its bytes.
        fixed = not goals.flags.writeable
        key = id(goals) if fixed else np.ascontiguousarray(goals, dtype=np.float64).tobytes()

        def begin() -> tuple[np.ndarray, Any]:
            path = habitat_sim.MultiGoalShortestPath()
            path.requested_ends = np.asarray(goals, dtype=np.float32).reshape(-1, 3)
            return goals, path  # with the array, so that its id stays its own

        return self._paths.get(key, begin)[1]


def _main_island(sim: Any, pathfinder: habitat_sim.PathFinder) -> Floor:
    # Their order says nothing about their size.
    areas = np.array([pathfinder.island_area(index) for index in range(pathfinder.num_islands)])
    floors = {}
    for index in np.argsort(-areas, kind="stable").tolist():
        if areas[index] < _INDOORS * areas.max():
            break  # a house without a ceiling may have one over a corner
        corners = np.array(pathfinder.build_navmesh_vertices(index), dtype=np.float64)
        floor = Floor(corners[np.array(pathfinder.build_navmesh_vertex_indices(index))])
        if _is_roofed(sim, floor):
            return floor
        floors[index] = floor
    return floors[int(np.argmax(areas))]


def _is_roofed(sim: Any, floor: Floor) -> bool:
    """Whether there is something above most of a floor."""
    rng, up = np.random.default_rng(0), np.array([0.0, 1.0, 0.0])
    hits = 0
    for _ in range(_ROOF_SAMPLES):
        ray = habitat_sim.geo.Ray(floor.sample(rng) + 0.1 * up, up)
        hits += sim.cast_ray(ray, max_distance=_SKY, buffer_distance=0.0).has_hits()
    return 2 * hits > _ROOF_SAMPLES


def load_navmesh(sim: Any, config: Any, house: SceneInstance) -> habitat_sim.PathFinder:
    """The mesh of the house that the simulator is in: from the cache on disk, or built.

    Raises:
        UserError: nothing is navigable.
    """
    settings, pathfinder = navmesh_settings(config), habitat_sim.PathFinder()
    file = cache_folder() / "navmeshes" / f"{_fingerprint(settings, house)}.navmesh"
    if file.is_file() and pathfinder.load_nav_mesh(str(file)) and pathfinder.is_loaded:
        return pathfinder
    if not sim.recompute_navmesh(pathfinder, settings) or pathfinder.num_islands == 0:
        raise UserError(
            f"nothing is navigable in {house.source} for an agent of radius"
            f" {settings.agent_radius:g} m and height {settings.agent_height:g} m: check the floor"
            " (Y up, metres) or set habitat.simulator.agents.*.radius and .height smaller"
        )
    _keep(pathfinder, file)
    return pathfinder


def _keep(pathfinder: habitat_sim.PathFinder, file: Path) -> None:
    try:
        with atomic_path(file) as part:
            if not pathfinder.save_nav_mesh(str(part)):
                raise OSError("Habitat-Sim cannot write there")
    except UserError as error:
        logger.warning(f"navigation meshes are not kept ({error}); set XDG_CACHE_HOME")


def _fingerprint(settings: habitat_sim.nav.NavMeshSettings, house: SceneInstance) -> str:
    """A hash of all that a mesh is built from: settings, and the files of stage and furniture."""
    names = [name for name in dir(settings) if not name.startswith("_")]
    values = {name: getattr(settings, name) for name in names}
    numbers = {name: value for name, value in values.items() if not callable(value)}
    known = hashlib.sha1(json.dumps(numbers, sort_keys=True, default=str).encode())
    templates = [house.stage, *(piece.template for piece in house.furniture)]
    for file in sorted(house.files.union(*(each.assets().values() for each in templates))):
        found = file.stat() if file.is_file() else None
        stamp = (found.st_size, found.st_mtime_ns) if found else None
        known.update(f"{file.absolute()} {stamp}\n".encode())
    return known.hexdigest()
