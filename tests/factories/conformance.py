"""The simulators that the conformance suite is run for, and how exact each has to be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest


@dataclass(frozen=True)
class Tolerances:
    """How far a simulator may be from the geometry.

    Attributes:
        length: of places and moves, m.
        edge: of the floor's edge beyond the agent's radius, m.
        border: from the walls to the outermost points of the floor's grid, m.
        spl: at least of the oracle, which begins mostly at a viewpoint or a step from one: what it
            loses is the rounding of ways to whole steps and turns. In trials of 800 steps with
            three seeds it has 0.839 ± 0.016 (standard error) in EmbreeSim, 183 episodes, and 0.824
            ± 0.019 in Habitat-Sim, 170: no difference. The suite's trial has some 20 episodes,
            whose mean lies anywhere from 0.74 to 0.92.
    """

    length: float
    edge: float
    border: float
    spl: float


#: Every simulator by its registered name.
SIMULATORS = {
    "EmbreeSim-v0": Tolerances(length=1e-4, edge=0.1, border=0.16, spl=0.8),
    "ExtObjNavSim-v0": Tolerances(length=1e-4, edge=0.1, border=0.0999, spl=0.7),
}
#: The marker of those that need an extra package, and what is set for them beside the type.
MARKED: dict[str, Any] = {"ExtObjNavSim-v0": pytest.mark.habitat_sim}
SETTINGS: dict[str, dict[str, Any]] = {
    # Or each takes 10 s of CPU to make.
    "ExtObjNavSim-v0": {"image_based_lighting": False},
}
