"""`memo-habitat scenes`: makes homes and draws them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from memo_habitat.cli.common import command_of, flag, option
from memo_habitat.errors import UserError

app = typer.Typer(help="Make homes, and draw them.", no_args_is_help=True)
Split = option("For train, val and test.", "A,B,C", "about 70/10/20 %")


@dataclass(frozen=True)
class Homes:
    """Homes to make; the defaults are those of `scenes.generate.GenerateOptions`."""

    out: Annotated[Path, option("Folder to write.", "DIR")]
    houses: Annotated[int | None, option("Houses in all splits.", shown="8")] = None
    seed: Annotated[int | None, option("Determines every byte.", shown="0")] = None
    kind: Annotated[
        str | None,
        option(
            "studio (one room), apartment (4-8), loft (nine open areas), house (10-20) or"
            " labyrinth.",
            None,
            "studio",
        ),
    ] = None
    split_sizes: Annotated[str | None, Split] = None
    arrangements: Annotated[int | None, option("Of objects, for each house.", shown="4")] = None
    instances: Annotated[int | None, option("Objects in an arrangement.", shown="by kind")] = None
    categories: Annotated[int | None, option("Categories of them.", shown="by kind")] = None
    name: Annotated[str | None, option("Of the data set.", None, "the kind's plural")] = None
    overwrite: Annotated[bool, flag("--overwrite", "Replace a generated set.")] = False


@command_of(
    app,
    "memo-habitat scenes generate --out data/more --houses 20 --seed 7",
    "memo-habitat scenes generate --out data/flats --kind apartment --split-sizes 8,2,2",
)
def generate(homes: Homes) -> None:
    """Write homes as a Habitat scene data set; prints its folder."""
    from memo_habitat.scenes.generate import GenerateOptions
    from memo_habitat.scenes.generate import generate as write_homes

    write_homes(GenerateOptions(**_given(homes)))
    print(homes.out)


@dataclass(frozen=True)
class Episodes:
    """Episodes to make; the defaults are those of `scenes.house_episodes.EpisodeOptions`."""

    scene_dataset: Annotated[
        Path,
        option("*.scene_dataset_config.json, GLB file, or folder of either.", "PATH"),
    ]
    objects: Annotated[
        list[Path], option("Folder of object configs or GLB files; may be repeated.", "DIR")
    ]
    out: Annotated[Path, option("Folder to write.", "DIR")]
    houses: Annotated[str | None, option("Names of houses to use.", "PATTERN", "*")] = None
    arrangements: Annotated[int | None, option("Of objects, for each house.", shown="4")] = None
    instances: Annotated[
        int | None, option("Objects in an arrangement.", shown="24, or what categories allow")
    ] = None
    categories: Annotated[int | None, option("Categories of them.", shown="14, or all")] = None
    split_by: Annotated[
        str | None,
        option("houses: none is in two splits; arrangements: each is in all.", None, "houses"),
    ] = None
    split_sizes: Annotated[str | None, Split] = None
    seed: Annotated[int | None, option("Determines every choice.", shown="0")] = None
    simulator: Annotated[str | None, option("Says what can be reached.", None, "embree")] = None
    up: Annotated[str | None, option("Axis of GLB files that points up, y or z.", None, "y")] = None
    name: Annotated[str | None, option("Of the data set.", None, "that of --out")] = None
    overwrite: Annotated[bool, flag("--overwrite", "Replace such a set.")] = False


@command_of(
    app,
    "memo-habitat scenes episodes --scene-dataset data/scene_datasets/hssd-hab/"
    "hssd-hab.scene_dataset_config.json --objects data/objects/ycb/configs --out data/hssd_ycb",
    "memo-habitat scenes episodes --scene-dataset scans/ --objects data/studios/objects "
    "--out data/my_home --split-by arrangements --arrangements 10",
)
def episodes(wanted: Episodes) -> None:
    """Place small objects in houses of any origin and write episodes; prints their folder."""
    import memo_habitat.register  # noqa: F401
    from memo_habitat.compat.startup import log_to_files_only
    from memo_habitat.scenes.house_episodes import EpisodeOptions, write_episodes

    log_to_files_only()
    written = write_episodes(EpisodeOptions(**_given(wanted)))
    for name, reason in (*written.objects_left_out.items(), *written.left_out.items()):
        print(f"left out {name}: {reason}", file=sys.stderr)
    print(wanted.out, *(f"{split} {count}" for split, count in written.episodes.items()))


@dataclass(frozen=True)
class Picture:
    """What to draw; the defaults are those of `scenes.views.ShowOptions`."""

    dataset_dir: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a data set.")]
    house: Annotated[str, option("Number from 0, or name.", None)]
    out: Annotated[Path, option("Picture to write, FILE.png.", "FILE")]
    arrangement: Annotated[int | None, option("Of the objects.", shown="0")] = None
    views: Annotated[int | None, option("First-person views.", shown="4")] = None
    view_size: Annotated[int | None, option("Of a view.", "PX", "128")] = None


@command_of(app, "memo-habitat scenes show data/studios --house 3 --out house.png")
def show(picture: Picture) -> None:
    """Draw a house: plan, objects, views; prints the picture's path."""
    from memo_habitat.scenes.views import ShowOptions
    from memo_habitat.scenes.views import show as draw

    if picture.out.suffix.lower() != ".png":
        raise UserError(f"--out {picture.out}: give a file name that ends in .png")
    draw(ShowOptions(**_given(picture)))
    print(picture.out)


def _given(options: Homes | Episodes | Picture) -> dict[str, Any]:
    """What was said, by name; the rest keeps its default."""
    given = {name: value for name, value in vars(options).items() if value is not None}
    if text := given.get("split_sizes"):
        try:
            given["split_sizes"] = tuple(int(part) for part in text.split(","))
        except ValueError as error:
            raise UserError(
                f"--split-sizes {text}: give three numbers for train, val and test, for example "
                "6,1,1"
            ) from error
    return given
