"""Looking up and down as actions of the simulator, for simulators without a scene graph of sensors.

Habitat's own look actions turn the sensor nodes of Habitat-Sim by hand; stop, move_forward,
turn_left and turn_right are Habitat's own.
"""

from __future__ import annotations

from typing import Any

from habitat.core.embodied_task import SimulatorTaskAction
from habitat.core.registry import registry
from habitat.sims.habitat_simulator.actions import HabitatSimActions


@registry.register_task_action(name="ExtObjNavLookUpAction")
class LookUpAction(SimulatorTaskAction):
    """Tilt the camera up by the simulator's tilt angle, as far as its limit allows."""

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """Take the action and return the simulator's observations."""
        return self._sim.step(HabitatSimActions.look_up)


@registry.register_task_action(name="ExtObjNavLookDownAction")
class LookDownAction(SimulatorTaskAction):
    """Tilt the camera down by the simulator's tilt angle, as far as its limit allows."""

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """Take the action and return the simulator's observations."""
        return self._sim.step(HabitatSimActions.look_down)
