"""The check that every house and arrangement passes before it is kept."""

from __future__ import annotations

from pathlib import Path

from memo_habitat.scenes import formats
from memo_habitat.scenes.house import Arrangement, House
from memo_habitat.scenes.options import GenerateOptions
from memo_habitat.scenes.paths import SET_CONFIG_SUFFIX
from memo_habitat.scenes.views import SimulatedHouse

ISLAND_SHARE = 0.95
"""Least share of the free floor that hangs together."""
LEAST_FLOOR = {"studio": 5.0, "apartment": 20.0}
"""Least area on which an agent's middle can be, m2."""
LEAST_VIEWPOINTS = 10
"""Viewpoints that make a category count as reachable; the task itself asks for one."""


class HouseCheck:
    """Judges a house from its written files, with the simulator's own navigability and rays."""

    def __init__(self, options: GenerateOptions, folder: Path, house: House) -> None:
        self._options = options
        self._seen = SimulatedHouse(
            folder / "scenes" / f"{house.name}.scene_instance.json",
            folder / f"{options.set_name}{SET_CONFIG_SUFFIX}",
        )

    def floor_connected(self) -> bool:
        """Whether one island holds nearly all of the floor, and is not too small."""
        grid = self._seen.grid
        area = float((grid.islands == 1).sum()) * grid.cell**2
        large = area >= LEAST_FLOOR[self._options.kind]
        return large and self._seen.main_island_share() >= ISLAND_SHARE

    def passes(self, arrangement: Arrangement) -> bool:
        """Whether enough categories are reachable."""
        arranged = self._seen.arranged(formats.rigid_objects(arrangement))
        return len(arranged.reachable(LEAST_VIEWPOINTS)) >= self._options.reachable
