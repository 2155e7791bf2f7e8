"""The agent in either simulator: its actions, cameras and the objects it may be asked about."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
from habitat.core.simulator import Sensor, SensorTypes
from habitat.sims.habitat_simulator.actions import HabitatSimActions

from memo_habitat.config.simulator import options_of
from memo_habitat.errors import UserError
from memo_habitat.simulator.interface import ActionSizes, Instance

ACTIONS = ("stop", "move_forward", "turn_left", "turn_right", "look_up", "look_down")
_INDICES = tuple(HabitatSimActions[name] for name in ACTIONS)
#: A turn must be worth this many metres, so that equal ways do not alternate.
_TURN_COST = 1e-3


def action_sizes(config: Any) -> ActionSizes:
    """How far the actions of a `habitat.simulator` node go."""
    options = options_of(config)
    angles = (config.turn_angle, options.tilt_angle, options.tilt_limit)
    return ActionSizes(float(config.forward_step_size), *(math.radians(a) for a in angles))


def action_index(action: Any, simulator: str) -> int | None:
    """An action of `HabitatSimActions`, given by its index or name; None for none.

    Raises:
        UserError: the simulator has no such action.
    """
    if isinstance(action, str) and HabitatSimActions.has_action(action):
        action = HabitatSimActions[action]
    if action is None or action in _INDICES:
        index: int | None = action
        return index
    raise UserError(
        f"{simulator} has no action {action!r}: it has {', '.join(ACTIONS[:-1])} and {ACTIONS[-1]}"
    )


def possible_turns(turn: float) -> np.ndarray:
    """[K] how often to turn left (right where negative) before a step, the fewest first.

    turn: rad of one of them.
    """
    most = int(math.pi / turn)
    return np.array(sorted(range(-most, most + 1), key=abs))


def first_action(
    turns: np.ndarray, ahead: np.ndarray, left: float, step: float, tolerance: float = 0.0
) -> str | None:
    """The first action of the best sequence "turn k times one way, then step".

    Args:
        turns: [K], of `possible_turns`.
        ahead: [K] m left to the goal after each and a step.
        left: m to the goal now.
        step: m of a step.
        tolerance: m by which distances are uncertain; of equal ways that with fewer turns is taken.

    Returns:
        None where the goal is within a step and no step comes nearer, or where none leads to it.
    """
    cost = ahead + _TURN_COST * np.abs(turns)
    best = int(np.argmax(cost <= cost.min() + tolerance))
    if not math.isfinite(ahead[best]) or (left <= step and ahead[best] >= left - _TURN_COST):
        return None
    if turns[best] == 0:
        return "move_forward"
    return "turn_left" if turns[best] > 0 else "turn_right"


def check_camera(uuid: str, cameras: Collection[str]) -> None:
    """UserError unless the simulator has a camera with that uuid."""
    if uuid not in cameras:
        raise UserError(
            f"the simulator has no camera {uuid!r}: it has {sorted(cameras)}; add it "
            "to habitat.simulator.agents.*.sim_sensors"
        )


def camera_to_render(mode: str, cameras: Mapping[str, Sensor]) -> str:
    """The uuid that `Simulator.render(mode)` means: of the camera that is called so; for "rgb" and
    "rgb_array", where none is, of the first colour camera.

    Raises:
        UserError: there is no such camera.
    """
    if mode in ("rgb", "rgb_array") and mode not in cameras:
        colour = [uuid for uuid, s in cameras.items() if s.sensor_type == SensorTypes.COLOR]
        mode = colour[0] if colour else mode
    check_camera(mode, cameras)
    return mode


def instance_with(instance_id: int, instances: Iterable[Instance]) -> Instance:
    """The instance with a panoptic id.

    Raises:
        UserError: there is none.
    """
    known = {instance.id: instance for instance in instances}
    if instance_id not in known:
        raise UserError(f"no instance has the id {instance_id}: the arrangement has {list(known)}")
    return known[instance_id]
