"""The Hydra plugin that makes our configs, Habitat's own and all registrations known.

Hydra imports every plugin in every Hydra application, so this module imports nothing of weight and
does nothing unless the application is Habitat's. That is so when `habitat` has been imported by the
time Hydra puts the search path together: `habitat_baselines.run`, Habitat's own scripts and our
command line all import it first.
"""

from __future__ import annotations

import sys

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

CONFIG_PATHS = ("pkg://habitat_configs", "pkg://habitat/config")


class MemoHabitatSearchPath(SearchPathPlugin):
    """Add the folders of YAML; register configs and classes; prepare the workers."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Do nothing outside Habitat; otherwise everything that a config of ours can name."""
        if "habitat" not in sys.modules:
            return
        known = {element.path.rstrip("/") for element in search_path.get_path() if element.path}
        for path in CONFIG_PATHS:
            if path not in known:
                search_path.append(provider="memo_habitat", path=path)
        from memo_habitat import register
        from memo_habitat.compat import startup

        # Habitat-Baselines takes seconds to import: only where the application wants it anyway.
        if "habitat_baselines" in sys.modules:
            register.register_all()
        startup.prepare_forkserver()
