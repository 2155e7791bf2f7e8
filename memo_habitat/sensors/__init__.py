"""What the agent is told beside its images (target, pose, reward); importing registers them."""

from memo_habitat.discovery.stand_ins import install

# Habitat's core is imported below, whether Habitat-Sim is installed or not.
install()

from memo_habitat.sensors import goal, oracle, pose, reward  # noqa: E402

__all__ = ["goal", "oracle", "pose", "reward"]
