"""Structured config of the embedded simulator."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class EmbreeOptions:
    """The options beyond Habitat's own; they hold where the config does not name them."""

    tilt_angle: int = 30  # degrees per look_up or look_down, as Habitat's turn_angle
    tilt_limit: int = 60  # degrees, farthest from level
    navigation_cell: float = 0.05  # m, edge of a cell of the navigability grid
    min_island_area: float = 0.25  # m2, smaller navigable islands are dropped
    cached_houses: int = 8  # per process
    cached_fields: int = 32  # distance fields per house


def options_of(config: Any) -> EmbreeOptions:
    """The options of a `habitat.simulator` node of any type; defaults where it has none."""
    named = {item.name for item in fields(EmbreeOptions)}
    present = {name: config[name] for name in named if name in config}
    return EmbreeOptions(**present)


def register_configs() -> None:
    """Store `EmbreeSimConfig` as habitat/simulator=embree_sim_base."""
    from habitat.config.default_structured_configs import SimulatorConfig
    from hydra.core.config_store import ConfigStore

    defaults = EmbreeOptions()

    @dataclass
    class EmbreeSimConfig(SimulatorConfig):
        """Habitat's simulator config with `EmbreeOptions` added."""

        type: str = "EmbreeSim-v0"
        tilt_angle: int = defaults.tilt_angle
        tilt_limit: int = defaults.tilt_limit
        navigation_cell: float = defaults.navigation_cell
        min_island_area: float = defaults.min_island_area
        cached_houses: int = defaults.cached_houses
        cached_fields: int = defaults.cached_fields

    # "from __future__ import annotations" hides the field types from OmegaConf otherwise.
    ConfigStore.instance().store(
        group="habitat/simulator", name="embree_sim_base", node=EmbreeSimConfig
    )
