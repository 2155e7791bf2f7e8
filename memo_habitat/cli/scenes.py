"""`memo-habitat scenes`: makes homes and draws them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from memo_habitat.cli.common import Subparsers, add_command
from memo_habitat.errors import UserError

EXAMPLES = """
memo-habitat scenes generate --out data/more --houses 20 --seed 7 --kind apartment
memo-habitat scenes show data/apartments --house 0 --out house.png
"""
GENERATE_EXAMPLES = """
memo-habitat scenes generate --out data/more --houses 20 --seed 7
memo-habitat scenes generate --out data/flats --houses 12 --kind apartment --split-sizes 8,2,2
"""
SHOW_EXAMPLES = """
memo-habitat scenes show data/studios --house 3 --out house.png
"""


def add(commands: Subparsers) -> None:
    """Declare the command and its two actions."""
    scenes = add_command(commands, "scenes", generate, "make homes, and draw them", EXAMPLES)
    actions = scenes.add_subparsers(dest="action", metavar="ACTION", required=True)
    _add_generate(actions)
    _add_show(actions)


def _add_generate(actions: Subparsers) -> None:
    parser = add_command(
        actions, "generate", generate, "write homes as a Habitat scene data set", GENERATE_EXAMPLES
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--houses", type=int, metavar="N", help="houses in all splits (8)")
    parser.add_argument("--seed", type=int, metavar="S", help="determines every byte (0)")
    parser.add_argument("--kind", help="studio (one room) or apartment (4-8 rooms) (studio)")
    parser.add_argument(
        "--split-sizes", metavar="A,B,C", help="houses for train, val, test (about 70/10/20 %%)"
    )
    parser.add_argument("--arrangements", type=int, metavar="N", help="of objects, per house (4)")
    parser.add_argument("--instances", type=int, metavar="N", help="objects per arrangement")
    parser.add_argument("--categories", type=int, metavar="N", help="kinds of objects in it")
    parser.add_argument("--name", help="of the data set (the kind's plural)")
    parser.add_argument("--overwrite", action="store_true", help="replace a generated set")


def _add_show(actions: Subparsers) -> None:
    parser = add_command(actions, "show", show, "draw a house: plan, objects, views", SHOW_EXAMPLES)
    parser.add_argument("dataset_dir", type=Path, metavar="DIR", help="folder of a data set")
    parser.add_argument("--house", required=True, help="number from 0, or name")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="picture, FILE.png")
    parser.add_argument("--arrangement", type=int, metavar="N", help="of the objects (0)")
    parser.add_argument("--views", type=int, metavar="N", help="first-person views (4)")
    parser.add_argument("--view-size", type=int, metavar="PX", help="of a view (128)")


def generate(arguments: argparse.Namespace) -> int:
    """Generate a data set; prints its folder."""
    from memo_habitat.scenes.generate import generate as run
    from memo_habitat.scenes.options import GenerateOptions

    given = _given(arguments)
    if "split_sizes" in given:
        given["split_sizes"] = _split_sizes(str(given["split_sizes"]))
    run(GenerateOptions(**given))
    print(arguments.out)
    return 0


def show(arguments: argparse.Namespace) -> int:
    """Draw a house; prints the picture's path."""
    from memo_habitat.scenes.views import ShowOptions
    from memo_habitat.scenes.views import show as run

    if arguments.out.suffix.lower() != ".png":
        raise UserError(f"--out {arguments.out}: give a file name that ends in .png")
    given = _given(arguments)
    house = str(given["house"])
    given["house"] = int(house) if house.isdigit() else house
    run(ShowOptions(**given))
    print(arguments.out)
    return 0


def _given(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what the user gave: the defaults are those of the options themselves."""
    not_options = {"command", "action", "run", "parser", "debug"}
    return {k: v for k, v in vars(arguments).items() if k not in not_options and v is not None}


def _split_sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UserError(
            f"--split-sizes {text}: give three numbers for train, val and test, for example 6,1,1"
        ) from error
