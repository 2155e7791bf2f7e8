"""Whether the resident memory of a training's processes stays flat: one row for each of them.

python tools/bench/resident.py
python tools/bench/resident.py --environments 8 --steps 50000 --json --config-name=dark_key_to_door

From /proc, so on Linux alone. The first fifth of the steps is left out: caches are warm then.
Floors are the least that a process held in the first and the last quarter of the other looks,
which leaves out what an update takes for a moment. Growth is the slope of a line through all.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from common import family, print_rows

from memo_habitat.utils.processes import last_line

WARM = 0.2


def resident(pid: int) -> float:
    """MiB in RAM of a process, what it shares with others included; 0 where it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    sizes = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(sizes[0].split()[1]) / 1024 if sizes else 0.0


def steps_done(progress: Path) -> int:
    """Steps of all environments so far."""
    line = last_line(progress)
    try:
        return int(json.loads(line)["steps"]) if line else 0
    except ValueError:  # half of it is there
        return 0


def watch(command: list[str], progress: Path, every: float) -> dict[int, list[tuple[int, float]]]:
    """Process -> (steps, MiB) as they were every few seconds of a training."""
    found: dict[int, list[tuple[int, float]]] = defaultdict(list)
    training = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        while training.poll() is None:
            steps = steps_done(progress)
            for pid in family(training.pid):
                if size := resident(pid):
                    found[pid].append((steps, size))
            time.sleep(every)
    finally:
        training.terminate()
    if training.wait():
        raise SystemExit(f"the training ended with {training.returncode}")
    return found


def summary(pid: int, samples: list[tuple[int, float]], total: int) -> dict[str, Any] | None:
    """How one process grew; None where it was gone before the end or came after the beginning."""
    warm = [(steps, size) for steps, size in samples if steps >= WARM * total]
    if len(warm) < 3 or samples[0][0] > WARM * total:
        return None
    steps, sizes = np.array(warm).T
    quarter = max(1, len(sizes) // 4)
    slope = np.polyfit(steps, sizes, 1)[0] if np.ptp(steps) else 0.0
    return {
        "process": pid,
        "first_mib": round(sizes[0], 1),
        "last_mib": round(sizes[-1], 1),
        "early_floor_mib": round(sizes[:quarter].min(), 1),
        "late_floor_mib": round(sizes[-quarter:].min(), 1),
        "peak_mib": round(sizes.max(), 1),
        "growth_mib": round(slope * np.ptp(steps), 1),
        "samples": len(warm),
        "from_step": int(steps[0]),
        "to_step": int(steps[-1]),
    }


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description="Resident memory of a training's processes.")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="keys of the config")
    parser.add_argument("--config-name", default="extobjnav/studio", metavar="NAME")
    parser.add_argument("--environments", type=int, default=8)
    parser.add_argument("--steps", type=int, default=50_000, help="of each environment")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two looks")
    parser.add_argument("--json", action="store_true", help="one JSON object a row")
    given = parser.parse_args()
    total = given.environments * given.steps
    with TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [
            *(sys.executable, "-m", "memo_habitat.cli.main", "train", "--out", str(run)),
            *(f"--config-name={given.config_name}", *given.overrides),
            f"habitat_baselines.num_environments={given.environments}",
            *(f"habitat_baselines.total_num_steps={total}", "habitat_baselines.num_updates=-1"),
        ]
        found = watch(command, run / "progress.jsonl", given.every)
    rows = (summary(pid, samples, total) for pid, samples in found.items())
    print_rows((row for row in rows if row is not None), given.json)


if __name__ == "__main__":
    main()
