"""Where Hydra's discovery finds this package; all there is to it is in memo_habitat.compat."""

from memo_habitat.compat.hydra_plugin import MemoHabitatSearchPath

__all__ = ["MemoHabitatSearchPath"]
