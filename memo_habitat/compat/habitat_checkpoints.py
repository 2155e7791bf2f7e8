"""Checkpoints and states of Habitat's own trainers: pickles that hold a config besides tensors.

From torch 2.6 on `torch.load` reads tensors and plain containers alone, and so refuses what
Habitat's trainers write. Allowed here is what a config is made of; a pickle that names anything
else is refused as before, and none of its code runs.
"""

from __future__ import annotations

import dataclasses
import enum
import typing
from collections import defaultdict, deque
from collections.abc import Iterable
from importlib import import_module
from typing import Any

import torch
from omegaconf import DictConfig, ListConfig, base, nodes

# Where the classes lie that nodes of a config name as their types.
_CONFIG_MODULES = (
    "habitat.config.default_structured_configs",
    "habitat_baselines.config.default_structured_configs",
    *(f"memo_habitat.config.{name}" for name in ("simulator", "task", "evaluation", "trainer")),
    *(f"memo_habitat.config.{name}" for name in ("memory", "policy")),
)
_OMEGACONF = (
    *(DictConfig, ListConfig, base.Metadata),
    *(nodes.AnyNode, nodes.BooleanNode, nodes.BytesNode, nodes.EnumNode, nodes.FloatNode),
    *(nodes.IntegerNode, nodes.PathNode, nodes.StringNode),
)
# Types of values.
_PLAIN = (bool, int, float, str, list, dict, tuple)
_GENERIC = ("Any", "Dict", "List", "Tuple", "Union", "Optional")


class Window(list[Any]):
    """A deque of a length: what running statistics are in. Torch appends to lists alone."""

    def __init__(self, values: Iterable[Any] = (), maxlen: int | None = None) -> None:
        super().__init__(values)
        self._maxlen = maxlen

    def append(self, value: Any) -> None:
        """Add a value; the oldest one leaves where there would be too many."""
        super().append(value)
        if self._maxlen is not None:
            del self[: max(0, len(self) - self._maxlen)]

    def extend(self, values: Iterable[Any]) -> None:
        """Add values in turn."""
        for value in values:
            self.append(value)

    def __reduce__(self) -> Any:
        return deque, (list(self), self._maxlen)  # saved again, it is what Habitat made of it


class _Metadata(base.ContainerMetadata):
    """Becomes OmegaConf's own with its cache: torch fills dicts alone, no defaultdict."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        cache = defaultdict(dict, state.pop("resolver_cache", {}))
        self.__dict__.update(state, resolver_cache=cache)
        self.__class__ = base.ContainerMetadata  # type: ignore[assignment]


def _plain_dict(factory: Any = None) -> dict[Any, Any]:
    return {}


_IN_PLACE = (
    (Window, "collections.deque"),
    (_Metadata, "omegaconf.base.ContainerMetadata"),
    (_plain_dict, "collections.defaultdict"),
)


def config_classes() -> list[Any]:
    """What a pickled config may name, as `torch.serialization.add_safe_globals` takes it."""
    found: list[Any] = [*_OMEGACONF, *_PLAIN, *_IN_PLACE]
    # These have no name of their own in every Python.
    found += [(getattr(typing, name), f"typing.{name}") for name in _GENERIC]
    for module in map(import_module, _CONFIG_MODULES):
        for value in vars(module).values():
            if isinstance(value, type) and (
                dataclasses.is_dataclass(value) or issubclass(value, enum.Enum)
            ):
                found.append(value)
    return found


def allow_configs() -> None:
    """Let `torch.load`, as Habitat's trainers call it, read their own checkpoints."""
    # Before 2.6 it read anything, and knew no stand-ins for a name.
    if tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 6):
        torch.serialization.add_safe_globals(config_classes())
