"""Structured config of the embedded simulator: Habitat's own, and a few options."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from habitat.config.default_structured_configs import SimulatorConfig
from hydra.core.config_store import ConfigStore


@dataclass
class EmbreeOptions:
    """The options beyond Habitat's own; they hold where a config does not name them.

    Attributes:
        tilt_angle: degrees per look_up or look_down, as Habitat's turn_angle.
        tilt_limit: degrees, farthest from level.
        navigation_cell: edge of a cell of the navigability grid, m.
        min_island_area: smaller navigable islands are dropped, m2.
        cached_houses: houses kept per process.
        cached_fields: distance fields kept per house.
        render_images: observe what the cameras see; False: they only say how many pixels show an
            instance (detections, success), and no image is drawn.
    """

    tilt_angle: int = 30
    tilt_limit: int = 60
    navigation_cell: float = 0.05
    min_island_area: float = 0.25
    cached_houses: int = 8
    cached_fields: int = 32
    render_images: bool = True


@dataclass
class EmbreeSimConfig(EmbreeOptions, SimulatorConfig):
    """Habitat's simulator config with `EmbreeOptions` added."""

    type: str = "EmbreeSim-v0"


def options_of(config: Any) -> EmbreeOptions:
    """The options of a `habitat.simulator` node of any type; defaults where it has none."""
    named = [item.name for item in fields(EmbreeOptions)]
    return EmbreeOptions(**{name: config[name] for name in named if name in config})


def register_configs() -> None:
    """Store `EmbreeSimConfig` as habitat/simulator=embree_sim_base."""
    ConfigStore.instance().store(
        group="habitat/simulator", name="embree_sim_base", node=EmbreeSimConfig
    )
