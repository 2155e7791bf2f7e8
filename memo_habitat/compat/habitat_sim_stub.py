"""Inert modules in the place of habitat_sim, magnum and corrade where Habitat-Sim is missing.

Habitat needs these packages merely to define classes, defaults and annotations. A stand-in gives
inert classes for whatever is asked of it, which is enough to import Habitat; calling one of them
(building a simulator, a vector, ...) raises `MissingHabitatSim`.
"""

from __future__ import annotations

import sys
from abc import ABCMeta
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NoReturn

from memo_habitat.compat import stub_finder
from memo_habitat.errors import UserError

_HOW_TO_GET_IT = (
    "install Habitat-Sim (conda install habitat-sim headless withbullet -c conda-forge"
    " -c aihabitat, or from source: https://github.com/facebookresearch/habitat-sim), or choose"
    " habitat.simulator.type=EmbreeSim-v0, which needs neither"
)


# Habitat does without these by itself, and calls them if they import.
_LEFT_OUT = frozenset({"habitat_sim.utils.profiling_utils"})


class MissingHabitatSim(UserError, ImportError):
    """Something of Habitat-Sim was used where Habitat-Sim is not installed."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} needs the package habitat_sim, which is missing: {_HOW_TO_GET_IT}"
        )


def install() -> None:
    """Let Habitat import without Habitat-Sim from now on; idempotent, and no effect with it."""
    stub_finder.install()


def habitat_sim_is_missing() -> bool:
    """Return whether no real Habitat-Sim can be imported."""
    return _real_spec("habitat_sim") is None


def require_habitat_sim(what: str) -> None:
    """Raise `MissingHabitatSim`, saying that `what` needs it, unless Habitat-Sim is installed."""
    if habitat_sim_is_missing():
        raise MissingHabitatSim(what)


def spec_for(fullname: str) -> ModuleSpec | None:
    """Return the spec of a stand-in module, or None where it would hide a real package."""
    root, _, submodule = fullname.partition(".")
    if fullname in _LEFT_OUT:
        is_ours = False
    elif submodule:
        is_ours = isinstance(sys.modules.get(root), StandInModule)
    else:
        # magnum and corrade come with Habitat-Sim: beside a real one their absence is an error.
        is_ours = habitat_sim_is_missing()
    return ModuleSpec(fullname, _LOADER, is_package=True) if is_ours else None


def _real_spec(name: str) -> object | None:
    module = sys.modules.get(name)
    if module is not None and not isinstance(module, StandInModule):
        return module
    for finder in sys.meta_path:
        if isinstance(finder, stub_finder.StandInFinder):
            continue
        find = getattr(finder, "find_spec", None)
        spec = find(name, None) if find is not None else None
        # A folder of that name on the path (a checkout, say) is a namespace, not the package.
        if spec is not None and spec.loader is not None and spec.origin is not None:
            return spec
    return None


class _Loader:
    """Create stand-in modules; there is nothing to execute in them."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return StandInModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        module.__doc__ = "Stand-in: Habitat-Sim is not installed."


# It has what the import system asks for; the abstract base would cost an import at every start.
_LOADER: Any = _Loader()


class StandInModule(ModuleType):
    """A module that has whatever is asked for: an inert class of that name."""

    def __getattr__(self, name: str) -> type:
        if _is_dunder(name) or f"{self.__name__}.{name}" in _LEFT_OUT:
            raise AttributeError(f"stand-in module {self.__name__!r} has no attribute {name!r}")
        inert = _inert_class(self.__name__, name)
        setattr(self, name, inert)
        return inert


class InertMeta(ABCMeta):
    """The class of inert classes: attributes are inert in turn, calls raise."""

    def __getattr__(cls, name: str) -> Any:
        if _is_dunder(name) or name.startswith("_abc_"):
            raise AttributeError(f"{cls.__qualname__} has no attribute {name!r}")
        # Attributes of a class defined on top of an inert one are inert too: it may inherit them.
        owner = _inert_base(cls)
        if cls is not owner:
            return getattr(owner, name)
        inert = _inert_class(cls.__module__, f"{cls.__qualname__}.{name}")
        type.__setattr__(cls, name, inert)
        return inert

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        """Raise, unless Habitat is being imported and makes a default or a decorator."""
        if not _habitat_is_being_imported():
            raise MissingHabitatSim(f"{cls.__module__}.{cls.__qualname__}")
        return InertValue()

    def __iter__(cls) -> Iterator[Any]:
        raise MissingHabitatSim(f"{cls.__module__}.{cls.__qualname__}")


class InertValue:
    """What calling an inert class gives while Habitat is being imported: a default, a decorator."""

    def __getattr__(self, name: str) -> InertValue:
        if _is_dunder(name):
            raise AttributeError(name)
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Give back what is decorated, while Habitat is being imported."""
        if not _habitat_is_being_imported():
            _refuse()
        is_decorated = len(args) == 1 and not kwargs and callable(args[0])
        return args[0] if is_decorated else self

    def _calculate(self, *others: object) -> InertValue:
        if not _habitat_is_being_imported():
            _refuse()
        return self

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _calculate
    __truediv__ = __matmul__ = __neg__ = __getitem__ = _calculate

    def __iter__(self) -> Iterator[Any]:
        _refuse()

    def __array__(self, *args: object, **kwargs: object) -> NoReturn:
        _refuse()


def _refuse() -> NoReturn:
    raise MissingHabitatSim("A value that magnum would have made")


def _inert_class(module: str, qualname: str) -> type:
    namespace = {"__module__": module, "__qualname__": qualname, "_is_stand_in": True}
    # What stands in an `except` clause must be an exception, even if it is never raised.
    bases = (Exception,) if qualname.endswith("Error") else ()
    return InertMeta(qualname.rpartition(".")[2], bases, namespace)


def _inert_base(cls: type) -> type:
    return next(base for base in cls.__mro__ if "_is_stand_in" in vars(base))


def _is_dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _habitat_is_being_imported() -> bool:
    """Return whether the body of a module of Habitat is on the stack."""
    frame = sys._getframe(1)
    while frame is not None:
        package = frame.f_globals.get("__name__", "").partition(".")[0]
        if frame.f_code.co_name == "<module>" and package in stub_finder.SERVED:
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False
