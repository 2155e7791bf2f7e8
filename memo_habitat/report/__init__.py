"""Reports on runs and sweeps, and how a sweep's folder is laid out.

<sweep>/
    sweep.json                   config, variants, seeds, overrides, command, versions
    <variant>/seed_<k>/          an ordinary run folder; its evaluation is eval/final; of a variant
                                 "module:Class" it is <Class>
    reference/eval/{oracle,random,perfect_memory}
    report.html
"""

from __future__ import annotations

from pathlib import Path

SWEEP_FILE = "sweep.json"
# The evaluation of a run's latest checkpoint.
FINAL = "final"
# The run folder without a training, and the agents that are evaluated in it.
REFERENCE = "reference"
REFERENCE_AGENTS = ("oracle", "random")
# One more, where the task has it: ExtObjNav.
SEARCHER = "perfect_memory"


def member_folder(sweep: Path, variant: str, seed: int) -> Path:
    """The run folder of a variant, a choice of `memory` or "module:Class", at a seed."""
    return sweep / variant.rpartition(":")[2] / f"seed_{seed}"
