"""A job whose commands take no time; its process, its lock and its signals are the real ones.

Overrides of its trainings: pretend.hold=FILE waits for the file before the last update,
pretend.refused=VARIANT fails at the start of that variant, pretend.saving=FILE waits for the file
before an interrupted training has saved. A second interrupt ends it unsaved, as the trainer.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from memo_habitat.cli import sweep_job
from memo_habitat.trainer.integrity import NO_DIGEST, write_tensors
from memo_habitat.trainer.progress import ProgressFile, read_progress
from memo_habitat.trainer.run_dir import RunFolder
from memo_habitat.utils.files import write_json
from memo_habitat.utils.processes import interrupt_with_parent

STEPS, PER_UPDATE = 40, 10


def main(command: list[str]) -> int:
    try:
        return evaluate(command[1:]) if command[0] == "eval" else train(command[1:])
    except KeyboardInterrupt:
        return 130


def train(arguments: list[str]) -> int:
    where = arguments.index("--resume" if "--resume" in arguments else "--out")
    run = RunFolder(Path(arguments[where + 1]))
    if "--out" in arguments:
        begin(run, arguments)
    options = json.loads((run.path / "pretend.json").read_text())
    if options.get("pretend.refused") == options["memory"]:
        sys.stderr.write("memo-habitat train: pretended to be refused\n")
        return 2
    done = [row["steps"] for row in read_progress(run.progress_file)]
    steps = max(done, default=0)
    try:
        learn(run, options, steps)
    except KeyboardInterrupt:
        (run.path / "saving").touch()
        saving = options.get("pretend.saving")
        while saving and not Path(saving).exists():
            time.sleep(0.02)
        (run.path / "saved").touch()
        return 130
    return 0


def learn(run: RunFolder, options: dict[str, str], steps: int) -> None:
    with (run.path / "began_at.txt").open("a") as file:
        file.write(f"{steps}\n")
    progress = ProgressFile(str(run.progress_file), steps)
    while steps < STEPS:
        hold = options.get("pretend.hold")
        while steps + PER_UPDATE == STEPS and hold and not Path(hold).exists():
            time.sleep(0.02)
        steps += PER_UPDATE
        row = {"steps": steps, "updates": steps // PER_UPDATE, "seconds": steps / 10}
        progress.append({**row, "metrics": {"reward": 0.5}})
        extra = {"extra_state": json.dumps({"step": steps})}
        content = save({"weight": np.zeros(1)}, metadata={**extra, "digest": NO_DIGEST})
        write_tensors(run.latest_checkpoint, content)
        run.resume_state.touch()


def begin(run: RunFolder, arguments: list[str]) -> None:
    options = dict(item.split("=", 1) for item in arguments if "=" in item)
    run.checkpoint_dir.mkdir(parents=True)
    options["cores"] = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    options["threads"] = os.environ["OMP_NUM_THREADS"]
    options["slurm"] = sorted(name for name in os.environ if name.startswith("SLURM_"))
    (run.path / "pretend.json").write_text(json.dumps(options))
    baselines = {"total_num_steps": STEPS, "num_updates": -1, "evaluator": {"trials_per_house": 2}}
    run.config_path.write_text(json.dumps({"habitat_baselines": baselines}))


def evaluate(arguments: list[str]) -> int:
    run, trials, step = RunFolder(Path(arguments[0])), 2, None
    options = dict(zip(arguments[1::2], arguments[2::2], strict=True))
    if "--agent" not in options:
        step = read_progress(run.progress_file)[-1]["steps"]
    folder = run.eval_dir(options.get("--name") or options["--agent"])
    meta = {"trials_per_house": int(options.get("--trials", trials)), "step": step}
    write_json(folder / "meta.json", {**meta, "finished": "now"})
    (folder / "records.jsonl").write_text("{}\n")
    return 0


class SlurmTask(sweep_job.SlurmTask):
    """The one that submitit starts, whose process is not this module's."""

    def __call__(self) -> int:
        sweep_job.main = main
        return super().__call__()


if __name__ == "__main__":
    sweep_job.main = main
    sweep_job.PATIENCE = float(os.environ.get("PRETEND_PATIENCE", "60"))
    interrupt_with_parent()
    sys.exit(sweep_job.work(Path(sys.argv[1]), sys.argv[2]))
