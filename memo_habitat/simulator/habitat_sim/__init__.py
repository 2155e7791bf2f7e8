"""`ExtObjNavSim-v0`: Habitat-Sim behind the task; imports, but does not run, without it."""

from memo_habitat.compat import habitat_sim_stub

# Whoever imports this first: Habitat must find stubs where Habitat-Sim is missing.
habitat_sim_stub.install()
