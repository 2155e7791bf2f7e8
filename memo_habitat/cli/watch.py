"""`memo-habitat watch`: a video of an agent in one house."""

from __future__ import annotations

import shutil
import time
from typing import Annotated, Any

import typer

from memo_habitat.cli.common import Debug, Overrides, examples, flag, option, run_and_overrides
from memo_habitat.errors import UserError

EXAMPLES = examples(
    "memo-habitat watch runs/recall",
    "memo-habitat watch RUN --house loft_0_test_003 --steps 2048 --forget",
    "memo-habitat watch RUN habitat_baselines.video_fps=30",
)
# Of the evaluation that is filmed, a name that nobody gives one of their own: it is removed again,
# or reports would show it beside others.
_NAME = ".watch"


def watch(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run folder.")],
    overrides: Overrides = None,
    house: Annotated[str | None, option("Of the split.", "NAME", "the first")] = None,
    steps: Annotated[int | None, option("Steps of the trial.", shown="the config's")] = None,
    checkpoint: Annotated[
        str | None, option("File, or name in the run's checkpoints.", "FILE", "the latest")
    ] = None,
    forget: Annotated[
        bool, flag("--forget", "Empty the memory at the start of every episode.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Film one trial: what the agent sees, the map, its memory; prints the video's path."""
    from memo_habitat.config.compose import update_config
    from memo_habitat.trainer import launch
    from memo_habitat.trainer.run_dir import open_run

    folder, keys = run_and_overrides(run, overrides)
    opened = open_run(folder)
    config = opened.config()
    update_config(config, keys)
    videos = opened.path / "videos"
    filmed = videos / _NAME.lstrip(".")
    added = [
        "habitat_baselines.eval.video_option=[disk]",
        f"+habitat_baselines.video_dir='{videos}'",
        f"habitat.dataset.content_scenes=['{house or first_house(config)}']",
    ]
    if config.habitat.simulator.get("render_images") is False:
        added.append("habitat.simulator.render_images=true")
    options = launch.EvalOptions(
        checkpoint=checkpoint,
        trials=1,
        steps=steps,
        name=_NAME,
        forget=forget,
        overrides=[*added, *keys],
    )
    begun = time.time()
    try:
        shutil.rmtree(opened.eval_dir(_NAME), ignore_errors=True)
        launch.evaluate(opened, options)
    finally:
        shutil.rmtree(opened.eval_dir(_NAME), ignore_errors=True)
    made = [path for path in filmed.glob("*.mp4") if path.stat().st_mtime >= begun - 1]
    if not made:
        raise UserError(f"no video in {filmed}: habitat_baselines.evaluator.video_trials is 0")
    print(max(made, key=lambda path: path.stat().st_mtime))


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
