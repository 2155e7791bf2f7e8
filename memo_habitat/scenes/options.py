"""What a data set of homes is made of, and the folder it may be written to."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memo_habitat.errors import UserError
from memo_habitat.scenes.objects import SMALL_OBJECTS
from memo_habitat.utils.data_paths import SET_CONFIG_SUFFIX

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class KindOptions:
    """What a kind of home holds unless told otherwise.

    Attributes:
        instances, categories: small objects in an arrangement, and how many kinds of them.
        reachable: least number of categories that must have a viewpoint.
    """

    instances: int
    categories: int
    reachable: int


KINDS = {"studio": KindOptions(8, 6, 5), "apartment": KindOptions(24, 14, 12)}


@dataclass(frozen=True)
class GenerateOptions:
    """What `memo-habitat scenes generate` is told.

    Attributes:
        out: folder to write; must not exist, or be a set of the same kind and name with
            ``overwrite``.
        houses: number of houses over all splits.
        seed: 0 or more; together with kind, split and number it determines each house.
        kind: ``studio`` or ``apartment``.
        split_sizes: houses for train, val and test; None shares them out by about 70/10/20.
        arrangements: arrangements of small objects per house.
        instances, categories: small objects per arrangement and kinds of them; None as usual for
            the kind of home.
        name: name of the data set; None takes the kind's plural. Episode files name their files as
            ``data/NAME/...``, so the set's bytes do not depend on where it is written.
        overwrite: replace a generated set that is there already.
    """

    out: Path
    houses: int = 8
    seed: int = 0
    kind: str = "studio"
    split_sizes: tuple[int, int, int] | None = None
    arrangements: int = 4
    instances: int | None = None
    categories: int | None = None
    name: str | None = None
    overwrite: bool = False

    @property
    def set_name(self) -> str:
        """Name of the data set."""
        return self.name or f"{self.kind}s"

    @property
    def counts(self) -> tuple[int, int]:
        """Instances and categories of an arrangement."""
        usual = KINDS[self.kind]
        instances = usual.instances if self.instances is None else self.instances
        categories = usual.categories if self.categories is None else self.categories
        return instances, categories

    @property
    def reachable(self) -> int:
        """Least number of reachable categories."""
        usual = KINDS[self.kind]
        return max(1, self.counts[1] - (usual.categories - usual.reachable))

    def sizes(self) -> dict[str, int]:
        """Houses per split.

        Raises:
            UserError: the sizes do not add up to the number of houses.
        """
        if self.split_sizes is not None:
            sizes = tuple(self.split_sizes)
            if len(sizes) != 3 or min(sizes) < 0 or sum(sizes) != self.houses:
                raise UserError(
                    f"split sizes {','.join(map(str, sizes))} do not fit {self.houses} houses: "
                    f"give three numbers (train,val,test) from 0 that add up to {self.houses}"
                )
            return dict(zip(SPLITS, sizes, strict=True))
        val = int(0.1 * self.houses + 0.5)
        test = int(0.2 * self.houses + 0.5)
        return {"train": self.houses - val - test, "val": val, "test": test}

    def check(self) -> None:
        """Refuse what cannot be generated.

        Raises:
            UserError: naming the value and what would be valid.
        """
        if self.kind not in KINDS:
            raise UserError(f"kind {self.kind!r} is unknown: use one of {', '.join(KINDS)}")
        for label in ("houses", "arrangements"):
            value = getattr(self, label)
            if value < 1:
                raise UserError(f"{label} is {value}: give 1 or more")
        if self.houses > 1000:
            raise UserError(f"houses is {self.houses}: give at most 1000, and further sets by seed")
        if self.seed < 0:
            raise UserError(f"seed is {self.seed}: give 0 or more")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", self.set_name):
            raise UserError(f"name {self.set_name!r}: use letters, digits, - and _ only")
        instances, categories = self.counts
        if not 1 <= categories <= len(SMALL_OBJECTS):
            raise UserError(f"categories is {categories}: give 1 to {len(SMALL_OBJECTS)}")
        if not categories <= instances <= 3 * categories:
            raise UserError(
                f"instances is {instances}: for {categories} categories give {categories} to "
                f"{3 * categories} (each category once to three times)"
            )
        self.sizes()


MANIFEST = "generated.json"
"""File that tells how a set was made, and marks its folder as one that may be replaced."""


OWN_FOLDERS = {"stages", "furniture", "objects", "scenes", "episodes", "pointnav"}


def manifest(options: GenerateOptions) -> dict[str, Any]:
    """What determines the bytes of a set."""
    instances, categories = options.counts
    return {
        "generator": "memo-habitat scenes generate",
        "name": options.set_name,
        "kind": options.kind,
        "seed": options.seed,
        "houses": options.houses,
        "split_sizes": options.sizes(),
        "arrangements": options.arrangements,
        "instances": instances,
        "categories": categories,
    }


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """How the set in a folder was made; None where no generated set lies there."""
    try:
        found = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def check_target(options: GenerateOptions) -> None:
    """Refuse a folder that holds something else, or cannot be written.

    Raises:
        UserError: naming the folder and the remedy.
    """
    out = options.out
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: give a folder that does not exist yet")
    if out.is_dir() and any(out.iterdir()):
        _check_replaceable(options)
    parent = out.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise UserError(f"cannot write in {parent}: give another folder than {out}, or its rights")


def _check_replaceable(options: GenerateOptions) -> None:
    out, found = options.out, read_manifest(options.out)
    mine = (options.set_name, options.kind)
    if found is None or (found.get("name"), found.get("kind")) != mine:
        raise UserError(
            f"{out} holds other files than a generated set {mine[0]!r} of kind {mine[1]!r}: "
            "give a folder that does not exist yet"
        )
    if not options.overwrite:
        raise UserError(f"{out} holds a generated set already: add --overwrite to replace it")
    known = OWN_FOLDERS | {MANIFEST, f"{options.set_name}{SET_CONFIG_SUFFIX}"}
    foreign = sorted(path.name for path in out.iterdir() if path.name not in known)
    if foreign:
        raise UserError(
            f"{out} holds {foreign[0]}, which was not generated: move it away before overwriting"
        )
