"""`memo-habitat export`: an agent as a folder to publish or to act with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from memo_habitat.cli.common import Checkpoint, Overrides, Run, flag, option, run_and_overrides

EXAMPLES = (
    "memo-habitat export runs/recall --out agents/recall",
    "memo-habitat export RUN --out DIR --checkpoint ckpt.3 --records",
    "memo-habitat export RUN --out DIR habitat_baselines.rl.memory.token_budget=400",
    "memo-habitat export RUN --out DIR --onnx",
    "hf upload ME/recall agents/recall",
)


@dataclass(frozen=True)
class Content:
    """What to export, by the names of `export.folder.ExportOptions`."""

    checkpoint: Checkpoint = None
    records: Annotated[
        bool, flag("--records", "The records of its evaluations, too, for `memo-habitat report`.")
    ] = False
    licence: Annotated[str, option("Of the weights, as the Hugging Face Hub names it.", "ID")] = (
        "mit"
    )
    onnx: Annotated[bool, flag("--onnx", "One acting step as ONNX graphs, and their driver.")] = (
        False
    )
    onnx_steps: Annotated[
        int | None, option("Most steps of a trial with these.", shown="as in training")
    ] = None


def export(
    run: Run,
    out: Annotated[Path, option("The folder to write; new or empty.", "DIR")],
    content: Content,
    overrides: Overrides = None,
) -> None:
    """Write weights, config and a model card with the run's evaluations; prints the folder."""
    import memo_habitat as mh

    folder, keys = run_and_overrides(run, overrides)
    options = mh.ExportOptions(**vars(content), overrides=tuple(keys))
    print(mh.export_agent(folder, out, options))
