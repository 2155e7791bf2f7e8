"""ExtObjNav: data set, trials, task, actions and measures; importing registers them."""

from memo_habitat.discovery.stand_ins import install

# Habitat's core is imported below, whether Habitat-Sim is installed or not.
install()

from memo_habitat.task import actions, dataset, measures, task  # noqa: E402

__all__ = ["actions", "dataset", "measures", "task"]
