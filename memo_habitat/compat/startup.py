"""What a process of ours does as it starts: a quiet terminal, and workers that know our classes."""

from __future__ import annotations

import contextlib
import gc
import logging
import multiprocessing
import os
import sys
from collections.abc import Iterator
from importlib.abc import Loader
from importlib.machinery import ModuleSpec, PathFinder
from multiprocessing import forkserver
from pathlib import Path
from types import ModuleType
from typing import Any

PRELOAD = "memo_habitat.register"
_LEVEL = "HABITAT_LAB_LOG"
# Beside it where it is ours: a training in a process that we start writes its log all the same.
_IS_OURS = "MEMO_HABITAT_LAB_LOG"


def silence_gym_notice() -> None:
    """Keep gym, which Habitat pins, from printing that it is unmaintained; before its import."""
    with contextlib.suppress(ImportError):
        from gym_notices import notices

        notices.notices.clear()


def silence_habitat_sim() -> None:
    """Let Habitat-Sim, in this process and its workers, say errors alone unless told otherwise.

    Magnum lists plugins and driver workarounds at every start. Before the import of either.
    """
    for name in ("MAGNUM_LOG", "HABITAT_SIM_LOG"):
        os.environ.setdefault(name, "quiet")


class _Deferred(ModuleType):
    """A module that is executed at the first use of what is in it.

    Not when somebody looks through all modules for the one of a file, as torch does for every
    operator that it registers: in the middle of its own imports, which then failed. That is why
    importlib's LazyLoader does not serve.
    """

    _LOOKED_AT = frozenset({"__class__", "__dict__", "__file__", "__name__", "__spec__"})

    def __getattribute__(self, name: str) -> Any:
        if name not in _Deferred._LOOKED_AT:
            self.__class__ = ModuleType  # type: ignore[assignment]
            self.__spec__.loader.exec_module(self)  # type: ignore[union-attr]
        return ModuleType.__getattribute__(self, name)


class _DeferredLoader(Loader):
    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__.loader = module.__loader__ = self._loader  # type: ignore[union-attr]
        module.__class__ = _Deferred


class _DeferredFinder:
    """Finds some submodules of torchvision as modules that are executed at their first use."""

    # torchvision imports them all by itself; Habitat-Baselines uses its transforms alone.
    NAMES = frozenset(f"torchvision.{part}" for part in ("datasets", "io", "models", "ops"))

    @classmethod
    def find_spec(cls, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path) if name in cls.NAMES else None
        if spec is not None and spec.loader is not None:
            spec.loader = _DeferredLoader(spec.loader)
        return spec


def defer_torchvision() -> None:
    """Leave out of a start what Habitat-Baselines does not use of torchvision; idempotent.

    torchvision.ops imports torch.compile with SymPy and Triton: a third of the time and 150 MB of
    every process of ours.
    """
    if _DeferredFinder not in sys.meta_path:
        sys.meta_path.insert(0, _DeferredFinder)


@contextlib.contextmanager
def importing(module: str) -> Iterator[None]:
    """Within, `module` is imported for the first time, and the collector of cycles stands still.

    A million objects come to stay. To look through them while they come, at the process's end and
    now and then between takes a quarter of the CPU time of a start.
    """
    if module in sys.modules or not gc.isenabled():
        yield
        return
    gc.collect()  # what a program has left behind before is not kept with them
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def log_to_files_only() -> None:
    """Let Habitat's logger show warnings on the terminal; files get every line as before.

    Progress bars show what the lines say. HABITAT_LAB_LOG, if set, decides as it does upstream.
    """
    if _LEVEL in os.environ and _IS_OURS not in os.environ:
        return
    from habitat import logger

    logger.setLevel(logging.INFO)
    for handler in logger.handlers:
        if not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.WARNING)
    # Environment workers have loggers of their own.
    os.environ[_LEVEL], os.environ[_IS_OURS] = str(logging.WARNING), "yes"


def prepare_forkserver() -> None:
    """Let the forkserver import our environments once, before the first worker is forked.

    A worker unpickles Habitat's own target first and must have the stubs by then. Modules that the
    application wants preloaded are kept. No effect once the forkserver runs.
    """
    server = getattr(forkserver, "_forkserver", None)
    wanted = list(getattr(server, "_preload_modules", ["__main__"]))
    if PRELOAD not in wanted:
        multiprocessing.set_forkserver_preload([*wanted, PRELOAD])


#: Packages whose commands start trainings, and the names of those commands.
_PACKAGES = ("memo_habitat", "habitat_baselines")
_COMMANDS = ("memo-habitat", "habitat-baselines")


@contextlib.contextmanager
def command_left_out() -> Iterator[None]:
    """Within, processes that are started do not import the command again that runs here.

    Python lets every worker import the main module of its parent. Of a user's own script that may
    be needed; of a command it brings nothing but Habitat-Baselines, torchvision and Triton.
    """
    main = sys.modules["__main__"]
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    is_command = (
        spec.name.partition(".")[0] in _PACKAGES if spec else Path(file or "").name in _COMMANDS
    )
    if not is_command:
        yield
        return
    main.__spec__, main.__file__ = None, None
    try:
        yield
    finally:
        main.__spec__, main.__file__ = spec, file
