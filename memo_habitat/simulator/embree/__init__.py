"""A simulator on the CPU by ray casting."""

from memo_habitat.compat import habitat_sim_stub

# Habitat imports Habitat-Sim's names, whichever simulator runs.
habitat_sim_stub.install()
