"""Stubs in the place of habitat_sim, magnum and corrade where Habitat-Sim is missing.

Habitat needs these packages merely to define classes, defaults and annotations. A stub module has
an empty class for whatever name is asked of it, which is enough to import Habitat; calling one of
them (building a simulator, a vector, ...) raises `MissingHabitatSim`.

`memo_habitat_stub.pth`, installed beside the package, calls `install` at every start of the
interpreter, so that the untouched `habitat-baselines` command and Habitat's forkserver workers
import, too. This module therefore imports next to nothing.
"""

from __future__ import annotations

import sys
from abc import ABCMeta
from importlib.machinery import ModuleSpec

from memo_habitat.errors import UserError

TYPE_CHECKING = False  # typing's own would cost its import at every start
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType
    from typing import Any, NoReturn
else:
    ModuleType = type(sys)

STUBBED = frozenset({"habitat_sim", "magnum", "corrade"})
# Whose imports of them are served.
SERVED = frozenset({"habitat", "habitat_baselines", "memo_habitat"})
# Habitat does without these by itself, and calls them if they import.
_LEFT_OUT = frozenset({"habitat_sim.utils.profiling_utils"})
_IMPORT_SYSTEM = frozenset({"importlib", "_frozen_importlib", "_frozen_importlib_external"})
_HOW_TO_GET_IT = (
    "install Habitat-Sim (conda install habitat-sim headless withbullet -c conda-forge"
    " -c aihabitat, or from source: https://github.com/facebookresearch/habitat-sim), or do"
    " without: simulator=embree (habitat.simulator.type=EmbreeSim-v0), and no sensor, action or"
    " measure that is Habitat-Sim's own, such as velocity_control"
)


class MissingHabitatSim(UserError, ImportError):
    """Something of Habitat-Sim was used where Habitat-Sim is not installed."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} needs the package habitat_sim, which is missing: {_HOW_TO_GET_IT}"
        )


class StubFinder:
    """The last resort of the import system for three names, for imports made by Habitat.

    It stands at the end of `sys.meta_path`, so that a package that is installed always wins, and it
    answers only where the import statement is in Habitat or in this package: elsewhere
    `import habitat_sim` fails as it does without us.
    """

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Return the spec of a stub module, or None where this finder has no say."""
        root, _, submodule = fullname.partition(".")
        if root not in STUBBED or fullname in _LEFT_OUT:
            return None
        if submodule:
            is_ours = isinstance(sys.modules.get(root), StubModule)
        else:
            # magnum and corrade come with Habitat-Sim: beside a real one their absence is an error.
            is_ours = _imported_by() in SERVED and habitat_sim_is_missing()
        return ModuleSpec(fullname, _LOADER, is_package=True) if is_ours else None


def install() -> None:
    """Let Habitat import without Habitat-Sim from now on; idempotent, and no effect with it."""
    if not any(isinstance(finder, StubFinder) for finder in sys.meta_path):
        sys.meta_path.append(StubFinder())


def habitat_sim_is_missing() -> bool:
    """Return whether no real Habitat-Sim can be imported."""
    return _real_spec("habitat_sim") is None


def require_habitat_sim(what: str) -> None:
    """Raise `MissingHabitatSim`, saying that `what` needs it, unless Habitat-Sim is installed."""
    if habitat_sim_is_missing():
        raise MissingHabitatSim(what)


def _imported_by() -> str:
    """Return the top-level package whose code made the import that is under way."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        root = name.partition(".")[0]
        if root not in _IMPORT_SYSTEM and name != __name__:
            return str(root)
        frame = frame.f_back  # type: ignore[assignment]
    return ""


def _real_spec(name: str) -> object | None:
    module = sys.modules.get(name)
    if module is not None and not isinstance(module, StubModule):
        return module
    for finder in sys.meta_path:
        if isinstance(finder, StubFinder):
            continue
        find = getattr(finder, "find_spec", None)
        spec = find(name, None) if find is not None else None
        # A folder of that name on the path (a checkout, say) is a namespace, not the package.
        if spec is not None and spec.loader is not None and spec.origin is not None:
            return spec
    return None


class _Loader:
    """Create stub modules; there is nothing to execute in them."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return StubModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        module.__doc__ = "A stub: Habitat-Sim is not installed."


# It has what the import system asks for; the abstract base would cost an import at every start.
_LOADER: Any = _Loader()


class StubModule(ModuleType):
    """A module that has whatever is asked for: a stub class of that name."""

    def __getattr__(self, name: str) -> type:
        if _is_dunder(name) or f"{self.__name__}.{name}" in _LEFT_OUT:
            raise AttributeError(f"stub module {self.__name__!r} has no attribute {name!r}")
        stub = _stub_class(self.__name__, name)
        setattr(self, name, stub)
        return stub


class StubType(ABCMeta):
    """The class of stub classes: attributes are stubs in turn, calls raise."""

    def __getattr__(cls, name: str) -> Any:
        if _is_dunder(name) or name.startswith("_abc_"):
            raise AttributeError(f"{cls.__qualname__} has no attribute {name!r}")
        # Attributes of a class defined on top of a stub are stubs too: it may inherit them.
        owner = _stub_base(cls)
        if cls is not owner:
            return getattr(owner, name)
        stub = _stub_class(cls.__module__, f"{cls.__qualname__}.{name}")
        type.__setattr__(cls, name, stub)
        return stub

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        """Raise, unless Habitat is being imported and makes a default or a decorator."""
        if not _habitat_is_being_imported():
            raise MissingHabitatSim(f"{cls.__module__}.{cls.__qualname__}")
        return StubValue()

    def __iter__(cls) -> Iterator[Any]:
        raise MissingHabitatSim(f"{cls.__module__}.{cls.__qualname__}")


class StubValue:
    """What calling a stub class gives while Habitat is being imported: a default, a decorator."""

    def __getattr__(self, name: str) -> StubValue:
        if _is_dunder(name):
            raise AttributeError(name)
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Give back what is decorated, while Habitat is being imported."""
        if not _habitat_is_being_imported():
            _refuse()
        is_decorated = len(args) == 1 and not kwargs and callable(args[0])
        return args[0] if is_decorated else self

    def _calculate(self, *others: object) -> StubValue:
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


def _stub_class(module: str, qualname: str) -> type:
    namespace = {"__module__": module, "__qualname__": qualname, "_is_stub": True}
    # What is named in an `except` clause must be an exception, even if it is never raised.
    bases = (Exception,) if qualname.endswith("Error") else ()
    return StubType(qualname.rpartition(".")[2], bases, namespace)


def _stub_base(cls: type) -> type:
    return next(base for base in cls.__mro__ if "_is_stub" in vars(base))


def _is_dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _habitat_is_being_imported() -> bool:
    """Return whether the body of a module of Habitat is on the stack."""
    frame = sys._getframe(1)
    while frame is not None:
        package = frame.f_globals.get("__name__", "").partition(".")[0]
        if frame.f_code.co_name == "<module>" and package in SERVED:
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False
