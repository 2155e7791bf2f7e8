"""Structured configs of the simulators: Habitat's own, and a few options."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from habitat.config.default_structured_configs import SimulatorConfig
from hydra.core.config_store import ConfigStore


@dataclass
class SimulatorOptions:
    """What our simulators take beyond Habitat's own options, which hold where a config does not
    name them.

    Attributes:
        tilt_angle: degrees per look_up or look_down, as Habitat's turn_angle.
        tilt_limit: degrees, farthest from level.
        navigation_cell: edge of a cell from which the navigable floor is worked out, m.
        cached_houses: houses (in Habitat-Sim: their navigation meshes) kept per process.
        cached_fields: goal sets kept per house with what finds their distances fast.
        render_images: observe what the cameras see; False: they only say how many pixels show an
            instance (detections, success), and no image is drawn for the agent.
    """

    tilt_angle: int = 30
    tilt_limit: int = 60
    navigation_cell: float = 0.05
    cached_houses: int = 8
    cached_fields: int = 32
    render_images: bool = True


@dataclass
class EmbreeOptions(SimulatorOptions):
    """Those of the embedded simulator.

    Attributes:
        min_island_area: smaller navigable islands are dropped, m2.
        flat_shading: colours as they are, as Habitat-Sim draws flat-shaded assets, in the place of
            light from above and from one side: for what shall carry over to Habitat-Sim.
    """

    min_island_area: float = 0.25
    flat_shading: bool = False


@dataclass
class EmbreeSimConfig(EmbreeOptions, SimulatorConfig):
    """Habitat's simulator config with `EmbreeOptions` added."""

    type: str = "EmbreeSim-v0"


@dataclass
class ExtObjNavSimConfig(SimulatorOptions, SimulatorConfig):
    """Habitat-Sim behind ExtObjNav: Habitat's simulator config with `SimulatorOptions` added.

    `habitat_sim_v0.gpu_device_id` is a CUDA device; where there is no NVIDIA GPU, Mesa draws.

    Attributes:
        image_based_lighting: prepare Habitat-Sim's light for shiny materials (PBR), which takes
            10 s of CPU and more where Mesa draws; flat-shaded assets do without.
    """

    type: str = "ExtObjNavSim-v0"
    image_based_lighting: bool = True


def options_of(config: Any) -> EmbreeOptions:
    """The options of a `habitat.simulator` node of any type; defaults where it has none."""
    named = [item.name for item in fields(EmbreeOptions)]
    return EmbreeOptions(**{name: config[name] for name in named if name in config})


def register_configs() -> None:
    """Store both as habitat/simulator=embree_sim_base and =extobjnav_sim_base."""
    store = ConfigStore.instance().store
    store(group="habitat/simulator", name="embree_sim_base", node=EmbreeSimConfig)
    store(group="habitat/simulator", name="extobjnav_sim_base", node=ExtObjNavSimConfig)
