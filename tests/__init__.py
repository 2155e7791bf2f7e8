"""What each process does that imports a part of the tests, before anything else."""

from memo_habitat.compat import habitat_sim_stub, startup

habitat_sim_stub.install()
startup.silence_gym_notice()
startup.defer_torchvision()
