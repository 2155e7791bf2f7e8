"""`memo-habitat data`: downloads data sets and models, and checks what is on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from memo_habitat.cli.common import command_of, flag, option
from memo_habitat.errors import UserError

app = typer.Typer(help="Download data sets, and check them.", no_args_is_help=True)


@command_of(
    app,
    "memo-habitat data get hssd extobjnav ycb --dry-run",
    "memo-habitat data get vc1",
)
def get(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME...",
            help="hssd (homes), extobjnav (episodes in them), ycb (their small objects), vc1 "
            "(a vision encoder).",
        ),
    ],
    to: Annotated[Path, option("The data folder.", "DIR")] = Path("data"),
    revision: Annotated[
        str | None, option("Branch, tag or commit.", "REV", "the pinned one")
    ] = None,
    dry_run: Annotated[bool, flag("--dry-run", "Say what would be fetched.")] = False,
) -> None:
    """Download pinned revisions; goes on after a stop."""
    from memo_habitat.utils.hub import bytes_of, fetch, look_up

    if revision is not None and len(names) > 1:
        raise UserError(f"--revision {revision} is of one repository: give one NAME with it")
    downloads = [look_up(name, to, revision) for name in names]
    for name, download in zip(names, downloads, strict=True):
        source, missing = download.source, download.missing
        print(f"{name}: {source.repository} at {download.commit}")
        print(
            f"  {len(download.files)} files, {bytes_of(download.size)}, of which "
            f"{bytes_of(missing)} are still to fetch, into {download.target}"
        )
        print(f"  licence: {source.licence}")
    if dry_run:
        return
    for download in downloads:
        fetch(download)
        print(f"complete, sums checked: {download.target}")


@command_of(app, "memo-habitat data check data/studios", "memo-habitat data check data")
def check(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Of scenes, episodes or both.")],
) -> None:
    """Check that all that scenes and episodes name is there; exits with 2 at what is not."""
    from memo_habitat.scenes.check_data import check as check_files

    for count in check_files(folder):
        print(f"ok {count.file}: {count.houses} houses", end="")
        print(f", {count.episodes} episodes" if count.episodes else "", end="")
        print(f" with {count.objects.total()} objects" if count.objects else "")
        named = [f"{name} {number}" for name, number in sorted(count.objects.items())]
        if named:
            print(f"   {', '.join(named)}")
