"""The narrow interface between the task and whichever simulator runs.

A simulator is one class, registered with Habitat by name (`registry.register_simulator`) and chosen
by `habitat.simulator.type`. It implements Habitat's `Simulator` (`reconfigure`, `reset`, `step`,
`step_physics`, `seed`, `close`, `sensor_suite`, `action_space`) and `TaskSimulator` below, from
which it need not inherit. `tests/simulator/test_new_simulator.py` holds a whole one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from memo_habitat.errors import UserError


@dataclass(frozen=True)
class Instance:
    """A small object placed by the arrangement."""

    name: str  # of `instance_names`, in order of rigid_objs
    category: str  # object-config name without ".object_config.json"
    id: int  # its id in panoptic images: habitat.simulator.object_ids_start + index
    position: np.ndarray  # [3] m, world, centre of the bounding box


def instance_names(kinds: Iterable[str]) -> list[str]:
    """A name for each thing of these kinds: "<kind>_:NNNN", counted for each kind from 0 on."""
    counts: Counter[str] = Counter()
    names = []
    for kind in kinds:
        names.append(f"{kind}_:{counts[kind]:04d}")
        counts[kind] += 1
    return names


@dataclass(frozen=True)
class TopDownMap:
    """Where the agent can stand, seen from above."""

    free: np.ndarray  # [Z, X] bool: navigable and on the largest island
    origin: tuple[float, float]  # (x, z) m of the outer corner of cell [0, 0]
    resolution: float  # m per cell

    def cells(self, points: np.ndarray) -> np.ndarray:
        """Map coordinates of world points: [P, 3] m -> [P, 2] float (row, column)."""
        points = np.atleast_2d(points)
        column = (points[:, 0] - self.origin[0]) / self.resolution
        row = (points[:, 2] - self.origin[1]) / self.resolution
        return np.stack([row, column], axis=1)


@dataclass(frozen=True)
class ActionSizes:
    """How far each action goes."""

    step: float  # m, move_forward
    turn: float  # rad, turn_left and turn_right
    tilt: float  # rad, look_up and look_down
    tilt_limit: float  # rad, farthest from level that the cameras tilt


class TaskSimulator(Protocol):
    """What the task asks of a simulator; positions are [3] m, Y up, headings rad."""

    @property
    def action_sizes(self) -> ActionSizes:
        """As configured."""

    @property
    def previous_step_collided(self) -> bool:
        """Whether the last step was stopped or slowed by an obstacle."""

    @property
    def instances(self) -> tuple[Instance, ...]:
        """The small objects of the current arrangement, in order of `rigid_objs`."""

    def agent_pose(self) -> tuple[np.ndarray, float]:
        """Floor point [3] and heading about +Y: 0 looks along -Z, positive to the left."""

    def start_next_episode_at(self, position: np.ndarray, heading: float) -> None:
        """The following `Simulator.reset()` places the agent there, camera level."""

    def sample_floor_point(self, rng: np.random.Generator) -> np.ndarray:
        """[3], uniform on the largest island."""

    def floor_points_near(self, center: np.ndarray, radius: float, spacing: float) -> np.ndarray:
        """[P, 3] navigable points of the largest island within `radius` of `center`
        horizontally, taken from a fixed world grid (multiples of `spacing` in x and z)."""

    def sees_instance(self, eyes: np.ndarray, instance_id: int) -> np.ndarray:
        """[P] bool: whether the straight line from each eye point [P, 3] to the centre of the
        instance meets nothing before the instance itself."""

    def distance_to(self, position: np.ndarray, goals: np.ndarray) -> float:
        """Geodesic distance in m to the nearest of `goals` [G, 3]; inf when unreachable."""

    @property
    def camera_uuids(self) -> tuple[str, ...]:
        """The agent's cameras, whether their images are observed or not."""

    def image_size(self, sensor: str) -> tuple[int, int]:
        """Height and width in pixels of the camera with uuid `sensor`."""

    def visible_pixels(self, instance_ids: Sequence[int] | np.ndarray, sensor: str) -> np.ndarray:
        """[I] int64: pixels that show each instance in the image that the camera with uuid
        `sensor` would take now; equal to the panoptic image's counts, drawn or not."""

    def next_best_action(self, goals: np.ndarray) -> str | None:
        """ "move_forward", "turn_left" or "turn_right" towards the nearest of `goals` [G, 3];
        None when the agent stands at one (within half a step) or none can be reached."""

    def top_down_map(self, resolution: float) -> TopDownMap:
        """The largest island seen from above, `resolution` m per cell."""


def task_simulator(sim: Any) -> TaskSimulator:
    """A Habitat simulator as the task's interface.

    Raises:
        UserError: it does not offer everything the task asks.
    """
    # Of the class, since some properties of an instance can be read only once it has a house.
    asked = [name for name in vars(TaskSimulator) if not name.startswith("_")]
    missing = [name for name in asked if not hasattr(type(sim), name)]
    if missing:
        raise UserError(
            f"the task cannot use simulator {type(sim).__name__}, which lacks {', '.join(missing)}:"
            " choose simulator=embree (habitat.simulator.type=EmbreeSim-v0) or"
            " simulator=habitat_sim (ExtObjNavSim-v0), or implement"
            " memo_habitat.simulator.interface.TaskSimulator"
        )
    found: TaskSimulator = sim
    return found
