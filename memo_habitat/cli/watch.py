"""One trial of an agent in one house, to look at.

`memo-habitat watch` films it; `memo-habitat inspect` draws on the plan which memories were used.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from memo_habitat.cli.common import (
    Checkpoint,
    Forget,
    Overrides,
    Run,
    option,
    run_and_overrides,
)
from memo_habitat.errors import UserError

if TYPE_CHECKING:
    from memo_habitat.trainer.run_dir import RunFolder

EXAMPLES = (
    "memo-habitat watch runs/recall",
    "memo-habitat watch RUN --house loft_0_test_003 --steps 2048 --forget",
    "memo-habitat watch RUN habitat_baselines.video_fps=30",
)
INSPECT_EXAMPLES = (
    "memo-habitat inspect runs/recall",
    "memo-habitat inspect RUN --house loft_0_test_003 --moments found",
    "memo-habitat inspect RUN --moments 700,701,702 --out turning.html",
)


@dataclass(frozen=True)
class Trial:
    """Which trial to play."""

    house: Annotated[str | None, option("Of the split.", "NAME", "the first")] = None
    steps: Annotated[int | None, option("Steps of the trial.", shown="the config's")] = None
    checkpoint: Checkpoint = None


def watch(run: Run, trial: Trial, overrides: Overrides = None, forget: Forget = False) -> None:
    """Film one trial: what the agent sees, the map, its memory; prints the video's path."""
    opened, config, keys = _opened(run, overrides)
    has_houses = _has_houses(config)
    if trial.house and not has_houses:
        raise UserError(
            f"--house {trial.house}: {config.habitat.task.type} is not played in houses; "
            "leave it out"
        )
    # Two may be watched at the same time.
    name = f".watch-{os.getpid()}"
    filmed = str(opened.eval_dir(name)).replace("'", r"\'")
    changes = [
        *([_in_house(trial.house or first_house(config))] if has_houses else ()),
        "habitat_baselines.eval.video_option=[disk]",
        f"+habitat_baselines.video_dir='{filmed}'",
    ]
    if config.habitat.simulator.get("render_images") is False:
        changes.append("habitat.simulator.render_images=true")
    with _played(opened, trial, name, [*changes, *keys], forget) as played:
        made = sorted(played.rglob("*.mp4"), key=lambda path: path.stat().st_mtime)
        if not made:
            raise UserError(
                "no video was made: habitat_baselines.evaluator.video_trials is 0, or "
                "video_failures is set and no episode failed"
            )
        videos = opened.path / "videos" / "watch"
        videos.mkdir(parents=True, exist_ok=True)
        for video in made:
            video.replace(videos / video.name)
    print(videos / made[-1].name)


def inspect(
    run: Run,
    trial: Trial,
    overrides: Overrides = None,
    moments: Annotated[
        str, option("Of asked, nearing, found, or steps of the trial.", "WHICH,...")
    ] = "asked,nearing,found",
    out: Annotated[
        Path | None, option("Where to write the page.", "FILE", "RUN/inspect/HOUSE.html")
    ] = None,
) -> None:
    """Play one trial and show which segments' memory was attended to, and needed; prints the page.

    The numbers lie beside the page, in a file of its name that ends in .json.
    """
    from memo_habitat.evaluation.inspection import INSPECTION_FILE, parse_moments
    from memo_habitat.report.inspection import write_inspection

    parse_moments(moments)
    if out is not None and out.suffix == ".json":
        raise UserError(f"--out {out}: the numbers go there; name a page, such as {out.stem}.html")
    opened, config, keys = _opened(run, overrides)
    if not _has_houses(config):
        raise UserError(
            f"{config.habitat.task.type} is not played in houses, on whose maps the page shows "
            "moments; `memo-habitat watch` films a trial"
        )
    house = trial.house or first_house(config)
    page = out or opened.path / "inspect" / f"{house}.html"
    changes = [
        _in_house(house),
        f"+habitat_baselines.evaluator.inspect_moments='{moments}'",
        "habitat_baselines.num_environments=1",
        "habitat_baselines.eval.video_option=[]",
    ]

    # Two homes may be inspected at the same time.
    with _played(opened, trial, f".inspect-{os.getpid()}", [*changes, *keys]) as played:
        page.parent.mkdir(parents=True, exist_ok=True)
        write_inspection(opened, played, page)
        shutil.copyfile(played / INSPECTION_FILE, page.with_suffix(".json"))
    print(page)


def _opened(run: str, overrides: list[str] | None) -> tuple[RunFolder, Any, list[str]]:
    """The run folder, its config with the overrides, and these."""
    from memo_habitat.config.compose import update_config
    from memo_habitat.trainer.run_dir import open_run

    folder, keys = run_and_overrides(run, overrides)
    opened = open_run(folder)
    config = opened.config()
    update_config(config, keys)
    return opened, config, keys


@contextmanager
def _played(
    run: RunFolder, trial: Trial, name: str, changes: list[str], forget: bool = False
) -> Iterator[Path]:
    """The folder of an evaluation of this trial alone, which is removed: reports would show it.

    Its `name` is one that nobody gives an evaluation of their own.
    """
    from memo_habitat.trainer import launch

    options = launch.EvalOptions(
        checkpoint=trial.checkpoint,
        trials=1,
        steps=trial.steps,
        name=name,
        forget=forget,
        overrides=changes,
    )
    played = run.eval_dir(name)
    try:
        shutil.rmtree(played, ignore_errors=True)
        launch.evaluate(run, options)
        yield played
    finally:
        shutil.rmtree(played, ignore_errors=True)


def _has_houses(config: Any) -> bool:
    """Whether it is played in Habitat's environments; others have no actions in the config."""
    from memo_habitat.config.task import action_names

    return bool(action_names(config))


def first_house(config: Any) -> str:
    """Of the split that is evaluated."""
    from memo_habitat.config.compose import import_habitat

    import_habitat()
    from habitat import make_dataset
    from habitat.config import read_write

    dataset = config.habitat.dataset.copy()
    with read_write(dataset):
        dataset.split = config.habitat_baselines.eval.split
    houses = make_dataset(dataset.type).get_scenes_to_load(dataset)
    if not houses:
        raise UserError(f"{dataset.data_path} has no house in the split {dataset.split}")
    return str(min(houses))


def _in_house(house: str) -> str:
    return f"habitat.dataset.content_scenes=['{house}']"
