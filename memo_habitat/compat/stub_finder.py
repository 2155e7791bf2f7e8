"""The import hook behind the stand-ins, small enough to be loaded at every interpreter start.

`memo_habitat_stand_ins.pth`, installed beside the package, calls `install` so that the untouched
`habitat-baselines` command and Habitat's forkserver workers import where Habitat-Sim is missing.
This module therefore imports nothing that the interpreter has not loaded anyway.
"""

from __future__ import annotations

import sys

STOOD_IN_FOR = frozenset({"habitat_sim", "magnum", "corrade"})
SERVED = frozenset({"habitat", "habitat_baselines", "memo_habitat"})

_IMPORT_SYSTEM = frozenset({"importlib", "_frozen_importlib", "_frozen_importlib_external"})


class StandInFinder:
    """The last resort of the import system for three names, for imports made by Habitat.

    It stands at the end of `sys.meta_path`, so that a package that is installed always wins, and it
    answers only where the import statement is in Habitat or in this package: elsewhere
    `import habitat_sim` fails as it does without us.
    """

    def find_spec(self, fullname, path=None, target=None):  # type: ignore[no-untyped-def]
        """Return the spec of an inert module, or None where this finder has no say."""
        root, _, submodule = fullname.partition(".")
        if root not in STOOD_IN_FOR:
            return None
        if not submodule and imported_by() not in SERVED:
            return None
        from memo_habitat.compat import habitat_sim_stub

        return habitat_sim_stub.spec_for(fullname)


def imported_by() -> str:
    """Return the top-level package whose code made the import that is under way."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        root = name.partition(".")[0]
        if root not in _IMPORT_SYSTEM and name != __name__:
            return root
        frame = frame.f_back  # type: ignore[assignment]
    return ""


def install() -> None:
    """Put the finder at the end of `sys.meta_path`, once however often it is called."""
    if not any(isinstance(finder, StandInFinder) for finder in sys.meta_path):
        sys.meta_path.append(StandInFinder())  # type: ignore[arg-type]
