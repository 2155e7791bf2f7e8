"""ExtObjNav: data set, trials, task, actions, sensors and measures; importing registers them."""

from memo_habitat.compat.habitat_sim_stub import install

# Habitat's core is imported below, whether Habitat-Sim is installed or not.
install()

from memo_habitat.tasks.extobjnav import dataset, measures, sensors, task  # noqa: E402

__all__ = ["dataset", "measures", "sensors", "task"]
