"""A house in Habitat-Sim: its scene and navigation mesh, kept while they are in use, and the small
objects in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import habitat_sim
import magnum as mn
import numpy as np
from habitat.config.default import get_agent_config

from memo_habitat.config.simulator import options_of
from memo_habitat.errors import UserError
from memo_habitat.simulator.agent import instance_with
from memo_habitat.simulator.arrangement import House, PlacedObject, placed_objects
from memo_habitat.simulator.embree.meshes import MESH_SUFFIXES
from memo_habitat.simulator.embree.scene_dataset import find_scene
from memo_habitat.simulator.habitat_sim.cameras import SightProbe
from memo_habitat.simulator.habitat_sim.navmesh import NavMesh, load_navmesh
from memo_habitat.simulator.interface import Instance
from memo_habitat.utils.file_cache import FileCache


class Furnished:
    """The house that a simulator is in, and what the episode has placed there.

    Attributes:
        navmesh: where the agent can stand.
        instances: the small objects, in the episode's order.
    """

    def __init__(self, sim: Any) -> None:
        """Nowhere yet: call `enter`."""
        self._sim = sim
        self._navmeshes: FileCache[NavMesh] = FileCache()
        self._probe: SightProbe | None = None
        self._house: House | None = None
        self._objects: dict[int, Any] = {}
        self.navmesh: NavMesh = None  # type: ignore[assignment]
        self.instances: tuple[Instance, ...] = ()

    def leave(self) -> None:
        """Free what the scene graph of a left house would keep."""
        if self._probe is not None:
            self._probe.close()
            self._probe = None
        self._objects.clear()
        self.instances = ()

    def enter(self, config: Any) -> None:
        """Number the furniture of the scene just loaded, and make its floor the simulator's.

        Raises:
            UserError: nothing is navigable.
        """
        dataset, scene = find_scene(str(config.scene), str(config.scene_dataset))
        furniture = _furniture(self._sim)
        for number, piece in enumerate(furniture, start=1):
            for node in piece.visual_scene_nodes:
                node.semantic_id = number
            # Of the navigation mesh is what stands still, whatever the scene says of it.
            piece.motion_type = habitat_sim.physics.MotionType.STATIC
        self._house = House(scene.source, dataset.source, dataset.objects, len(furniture))
        options = options_of(config)

        def build() -> tuple[NavMesh, frozenset[Path]]:
            pathfinder = load_navmesh(self._sim, config, scene)
            return NavMesh(self._sim, pathfinder, options.cached_fields), scene.files

        kept = max(options.cached_houses, 1)
        self.navmesh = self._navmeshes.get(house_key(config), build, kept)
        self._sim.pathfinder = self.navmesh.pathfinder

    def place(self, rigid_objs: Sequence[Any], folders: Sequence[str], first_id: int) -> None:
        """Put the small objects of an episode where those of the last one were.

        Raises:
            UserError: as `placed_objects`, and for a template that cannot be loaded.
        """
        if self._house is None:
            raise RuntimeError("the simulator is in no house: call reconfigure() first")
        wanted = placed_objects(self._house, rigid_objs, folders, first_id)
        manager = self._sim.get_rigid_object_manager()
        for old in self._objects.values():
            manager.remove_object_by_id(old.object_id)
        self._objects.clear()
        self.instances = ()
        instances = []
        for placed in wanted:
            made = self._add(placed)
            self._objects[placed.id] = made
            center = made.transformation.transform_point(made.aabb.center())
            position = np.array([float(value) for value in center])
            position.setflags(write=False)
            instances.append(Instance(placed.name, placed.category, placed.id, position))
        self.instances = tuple(instances)

    def _add(self, placed: PlacedObject) -> Any:
        manager = self._sim.get_rigid_object_manager()
        # Without the scene's light setup objects come out darker than what they stand on.
        light = self._sim.config.sim_cfg.scene_light_setup
        made = manager.add_object_by_template_handle(
            template_handle(self._sim, placed), light_setup_key=light
        )
        if made is None or not made.is_alive:
            raise UserError(
                f"Habitat-Sim cannot load {placed.template.source} for {placed.name}: its log says"
                " why (HABITAT_SIM_LOG=debug); restore the file or correct the config"
            )
        # Static ones would enter the next navigation mesh.
        made.motion_type = habitat_sim.physics.MotionType.KINEMATIC
        made.transformation = mn.Matrix4(placed.transform.T.tolist())  # its columns
        made.semantic_id = placed.id
        return made

    def sees(self, eyes: np.ndarray, instance_id: int) -> np.ndarray:
        """[P] bool: whether the line from each eye [P, 3] m to the instance's centre is free."""
        position = instance_with(instance_id, self.instances).position
        eyes = np.asarray(eyes, dtype=np.float64).reshape(-1, 3)
        if not len(eyes):
            return np.zeros(0, dtype=np.bool_)
        if self._probe is None:
            self._probe = SightProbe(self._sim)
        return self._probe.sees(eyes, self._objects[instance_id], position)


def template_handle(sim: Any, placed: PlacedObject) -> str:
    """The handle of an object's template, which is loaded where the data set has not done so.

    Handles are paths, and Habitat-Sim looks for them by parts of their names, by which it takes
    `cup_10` for `cup_1`: here a template is found by its whole path.
    """
    templates, path = sim.get_object_template_manager(), placed.template.source
    for handle in (str(path), placed.template.name):  # the latter of one in the data set's config
        if templates.get_library_has_handle(handle):
            return handle
    if path.suffix.lower() in MESH_SUFFIXES:
        templates.register_template(templates.create_new_template(str(path)), str(path))
        return str(path)
    found = templates.load_configs(str(path))
    if not found:
        raise UserError(
            f"Habitat-Sim cannot load {path} for {placed.name}: restore the file or correct it"
        )
    return str(templates.get_template_by_id(found[0]).handle)


def _furniture(sim: Any) -> list[Any]:
    """What stands in the scene, in the order in which its file names it: what has joints last."""
    found = []
    for manager in (sim.get_rigid_object_manager(), sim.get_articulated_object_manager()):
        made = manager.get_objects_by_handle_substring("").values()
        found += sorted(made, key=lambda item: int(item.object_id))
    return found


def house_key(config: Any) -> tuple[Any, ...]:
    """What a `habitat.simulator` node says of the house and of who walks in it."""
    agent, options = get_agent_config(config, 0), options_of(config)
    return (
        str(config.scene),
        str(config.get("scene_dataset", "default")),
        *(float(agent[name]) for name in ("radius", "height", "max_climb", "max_slope")),
        options.navigation_cell,
    )
