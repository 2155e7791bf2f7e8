"""`memo-habitat scenes`: makes homes and draws them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from memo_habitat.cli.common import Debug, examples
from memo_habitat.errors import UserError

app = typer.Typer(help="Make homes, and draw them.", no_args_is_help=True)


def _number(help: str, default: str, metavar: str = "N") -> Any:
    """An option whose default is that of the options' own class, here named for the help."""
    return typer.Option(metavar=metavar, help=help, show_default=default)


@app.command(
    epilog=examples(
        "memo-habitat scenes generate --out data/more --houses 20 --seed 7",
        "memo-habitat scenes generate --out data/flats --kind apartment --split-sizes 8,2,2",
    )
)
def generate(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write.")],
    houses: Annotated[int | None, _number("Houses in all splits.", "8")] = None,
    seed: Annotated[int | None, _number("Determines every byte.", "0")] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            help="studio (one room), apartment (4-8), house (10-20) or labyrinth.",
            show_default="studio",
        ),
    ] = None,
    split_sizes: Annotated[
        str | None, _number("Houses for train, val and test.", "about 70/10/20 %", "A,B,C")
    ] = None,
    arrangements: Annotated[int | None, _number("Of objects, for each house.", "4")] = None,
    instances: Annotated[int | None, _number("Objects in an arrangement.", "by kind")] = None,
    categories: Annotated[int | None, _number("Categories of them.", "by kind")] = None,
    name: Annotated[
        str | None, typer.Option(help="Of the data set.", show_default="the kind's plural")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a generated set.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Write homes as a Habitat scene data set; prints its folder."""
    given = {key: value for key, value in locals().items() if value is not None}
    from memo_habitat.scenes.generate import GenerateOptions
    from memo_habitat.scenes.generate import generate as write_homes

    del given["debug"]
    if split_sizes is not None:
        given["split_sizes"] = _split_sizes(split_sizes)
    write_homes(GenerateOptions(**given))
    print(out)


@app.command(epilog=examples("memo-habitat scenes show data/studios --house 3 --out house.png"))
def show(
    dataset_dir: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a data set.")],
    house: Annotated[str, typer.Option(help="Number from 0, or name.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Picture to write, FILE.png.")],
    arrangement: Annotated[int | None, _number("Of the objects.", "0")] = None,
    views: Annotated[int | None, _number("First-person views.", "4")] = None,
    view_size: Annotated[int | None, _number("Of a view.", "128", "PX")] = None,
    debug: Debug = False,
) -> None:
    """Draw a house: plan, objects, views; prints the picture's path."""
    given = {key: value for key, value in locals().items() if value is not None}
    from memo_habitat.scenes.views import ShowOptions
    from memo_habitat.scenes.views import show as draw

    del given["debug"]
    if out.suffix.lower() != ".png":
        raise UserError(f"--out {out}: give a file name that ends in .png")
    draw(ShowOptions(**{**given, "house": int(house) if house.isdigit() else house}))
    print(out)


def _split_sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UserError(
            f"--split-sizes {text}: give three numbers for train, val and test, for example 6,1,1"
        ) from error
