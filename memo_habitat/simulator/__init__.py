"""The embedded ray-casting simulator and the interface the task needs of any simulator.

Importing this package registers `EmbreeSim-v0` with Habitat.
"""

from memo_habitat.discovery import stand_ins

# Habitat imports Habitat-Sim's names, whichever simulator runs.
stand_ins.install()

from memo_habitat.simulator.embree_sim import EmbreeSim  # noqa: E402

__all__ = ["EmbreeSim"]
