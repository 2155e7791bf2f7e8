"""`memo-habitat inspect`: which memories an agent used in one trial, on the floor plan."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Annotated

import typer

from memo_habitat.cli.common import Debug, Overrides, examples, option, run_and_overrides
from memo_habitat.cli.watch import first_house
from memo_habitat.errors import UserError

EXAMPLES = examples(
    "memo-habitat inspect runs/recall",
    "memo-habitat inspect RUN --house loft_0_test_003 --moments found",
    "memo-habitat inspect RUN --moments 700,701,702 --out turning.html",
)
# As the name of a film's evaluation: that of nobody's own, nor of another home's at the same time.
_NAME = f".inspect-{os.getpid()}"


def inspect(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run folder.")],
    overrides: Overrides = None,
    house: Annotated[str | None, option("Of the split.", "NAME", "the first")] = None,
    moments: Annotated[
        str, option("Of asked, nearing, found, or steps of the trial.", "WHICH,...")
    ] = "asked,nearing,found",
    steps: Annotated[int | None, option("Steps of the trial.", shown="the config's")] = None,
    checkpoint: Annotated[
        str | None, option("File, or name in the run's checkpoints.", "FILE", "the latest")
    ] = None,
    out: Annotated[
        Path | None, option("Where to write the page.", "FILE", "RUN/inspect/HOUSE.html")
    ] = None,
    debug: Debug = False,
) -> None:
    """Play one trial and show which segments' memory was attended to, and needed; prints the page.

    The numbers lie beside the page, in a file of its name that ends in .json.
    """
    from memo_habitat.config.compose import update_config
    from memo_habitat.evaluation.inspection import INSPECTION_FILE, parse_moments
    from memo_habitat.report.inspection import write_inspection
    from memo_habitat.trainer import launch
    from memo_habitat.trainer.run_dir import open_run

    parse_moments(moments)
    if out is not None and out.suffix == ".json":
        raise UserError(f"--out {out}: the numbers go there; name a page, such as {out.stem}.html")
    folder, keys = run_and_overrides(run, overrides)
    opened = open_run(folder)
    config = opened.config()
    update_config(config, keys)
    chosen = house or first_house(config)
    added = [
        f"+habitat_baselines.evaluator.inspect_moments='{moments}'",
        f"habitat.dataset.content_scenes=['{chosen}']",
        "habitat_baselines.num_environments=1",
        "habitat_baselines.eval.video_option=[]",
    ]
    options = launch.EvalOptions(
        checkpoint=checkpoint, trials=1, steps=steps, name=_NAME, overrides=[*added, *keys]
    )
    played = opened.eval_dir(_NAME)
    page = out or opened.path / "inspect" / f"{chosen}.html"
    try:
        shutil.rmtree(played, ignore_errors=True)
        launch.evaluate(opened, options)
        page.parent.mkdir(parents=True, exist_ok=True)
        write_inspection(opened, played, page)
        shutil.copyfile(played / INSPECTION_FILE, page.with_suffix(".json"))
    finally:
        shutil.rmtree(played, ignore_errors=True)
    print(page)
