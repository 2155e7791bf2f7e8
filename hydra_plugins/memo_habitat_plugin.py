"""Where Hydra's discovery finds this package; all there is to it is in memo_habitat.discovery."""

from memo_habitat.discovery.search_path import MemoHabitatSearchPath

__all__ = ["MemoHabitatSearchPath"]
