"""`memo-habitat export`: an agent as a folder to publish or to act with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from memo_habitat.cli.common import (
    Debug,
    Overrides,
    examples,
    flag,
    option,
    run_and_overrides,
)

EXAMPLES = examples(
    "memo-habitat export runs/recall --out agents/recall",
    "memo-habitat export RUN --out DIR --checkpoint ckpt.3 --records",
    "memo-habitat export RUN --out DIR habitat_baselines.rl.memory.token_budget=400",
    "memo-habitat export RUN --out DIR --onnx",
    "hf upload ME/recall agents/recall",
)


def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run folder.")],
    out: Annotated[Path, option("The folder to write; new or empty.", "DIR")],
    overrides: Overrides = None,
    checkpoint: Annotated[
        str | None, option("File, or name in the run's checkpoints.", "FILE", "the latest")
    ] = None,
    records: Annotated[
        bool, flag("--records", "The records of its evaluations, too, for `memo-habitat report`.")
    ] = False,
    licence: Annotated[str, option("Of the weights, as the Hugging Face Hub names it.", "ID")] = (
        "mit"
    ),
    onnx: Annotated[
        bool, flag("--onnx", "One acting step as ONNX graphs, and their driver.")
    ] = False,
    onnx_steps: Annotated[
        int | None, option("Most steps of a trial with these.", shown="as in training")
    ] = None,
    debug: Debug = False,
) -> None:
    """Write weights, config and a model card with the run's evaluations; prints the folder."""
    import memo_habitat as mh

    folder, keys = run_and_overrides(run, overrides)
    options = mh.ExportOptions(
        checkpoint=checkpoint,
        records=records,
        licence=licence,
        overrides=tuple(keys),
        onnx=onnx,
        onnx_steps=onnx_steps,
    )
    print(mh.export_agent(folder, out, options))
