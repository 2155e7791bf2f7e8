"""The embedded ray-casting simulator and the interface the task needs of any simulator.

Importing this package registers `EmbreeSim-v0` with Habitat.
"""

from memo_habitat.compat import habitat_sim_stub

# Habitat imports Habitat-Sim's names, whichever simulator runs.
habitat_sim_stub.install()

from memo_habitat.simulator.embree.sim import EmbreeSim  # noqa: E402

__all__ = ["EmbreeSim"]
