"""What one episode has come to so far: distances, path, success; the measures read it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Progress:
    """Running account of one episode, brought up to date once per step.

    Attributes:
        start_distance: geodesic distance (m) to the nearest viewpoint at the episode's start.
        start_position: `[3]` m.
        first_step: step of the trial at which the episode began.
        distance: the same distance now.
        previous_distance: the same distance one step ago.
        path_length: metres travelled.
        steps: steps taken.
        collisions: steps that ran into something.
        stopped: the agent called stop.
        success: it did so where that counts.
        path: (x, z) in m of the start and of each step's end.
    """

    start_distance: float
    start_position: np.ndarray
    first_step: int
    distance: float = field(init=False)
    previous_distance: float = field(init=False)
    path_length: float = 0.0
    steps: int = 0
    collisions: int = 0
    stopped: bool = False
    success: bool = False
    path: list[tuple[float, float]] = field(init=False)

    def __post_init__(self) -> None:
        """Begin at the start pose."""
        self.distance = self.previous_distance = self.start_distance
        self._position = np.asarray(self.start_position, dtype=np.float64)
        self.path = [(float(self._position[0]), float(self._position[2]))]

    def advance(self, position: np.ndarray, distance: float, collided: bool) -> None:
        """Account for one step.

        Args:
            position: `[3]` m, where the step ended.
            distance: geodesic distance (m) to the nearest viewpoint there.
            collided: whether the step ran into something.
        """
        moved = position - self._position
        self.path_length += float(np.sqrt(moved @ moved))
        self._position = np.array(position, dtype=np.float64)
        self.path.append((float(position[0]), float(position[2])))
        self.previous_distance, self.distance = self.distance, distance
        self.steps += 1
        self.collisions += int(collided)
