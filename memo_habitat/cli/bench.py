"""`memo-habitat bench`: how fast simulator, memory, trainer and Dark-Key-To-Door are here."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from memo_habitat.cli import bench_dark_key, bench_train
from memo_habitat.cli.common import Subparsers, add_command
from memo_habitat.errors import UserError

EXAMPLES = """
memo-habitat bench sim
memo-habitat bench sim --json --sizes 64,256 --seconds 2
"""
_ALL_EXAMPLES = f"{EXAMPLES}memo-habitat bench train\nmemo-habitat bench dark-key"
_SENSORS = "rgb,panoptic"


def add(commands: Subparsers) -> None:
    """Declare the command and what it measures."""
    bench = add_command(commands, "bench", sim, "measure how fast things run here", _ALL_EXAMPLES)
    subjects = bench.add_subparsers(dest="subject", metavar="WHAT", required=True)
    parser = add_command(
        subjects, "sim", sim, "frames and environment steps per second, on one core", EXAMPLES
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    parser.add_argument("--sizes", default="64,128,256", metavar="PX,PX", help="image sides")
    parser.add_argument("--sensors", default=_SENSORS, help="of rgb,depth,panoptic (rgb,panoptic)")
    parser.add_argument("--seconds", type=float, default=5.0, help="per number (5)")
    parser.add_argument("--scene-dataset", metavar="FILE", help="default: the bundled apartments")
    bench_train.add(subjects)
    bench_dark_key.add(subjects)


def sim(arguments: argparse.Namespace) -> int:
    """Measure the simulator; one line per image size."""
    sizes = _numbers(arguments.sizes)
    sensors = tuple(arguments.sensors.split(","))
    unknown = set(sensors) - {"rgb", "depth", "panoptic"}
    if unknown:
        raise UserError(f"--sensors {arguments.sensors}: use some of rgb,depth,panoptic")
    if arguments.seconds <= 0.0:
        raise UserError(f"--seconds {arguments.seconds}: give more than 0")
    from memo_habitat.compat import habitat_sim_stub

    habitat_sim_stub.install()
    from memo_habitat.simulator.embree.bench import bench_sim

    if not arguments.json:
        print(
            f"{'image':>10}{'frames/s':>12}{'steps/s':>12}{'load ms':>12}{'triangles':>12}  scene"
        )
    for row in bench_sim(arguments.scene_dataset, sizes, arguments.seconds, sensors):
        if arguments.json:
            print(json.dumps(row), flush=True)
            continue
        size = f"{row['sensor_size']}x{row['sensor_size']}"
        print(
            f"{size:>10}{row['frames_per_second']:>12}{row['env_steps_per_second']:>12}"
            f"{row['scene_load_ms']:>12}{row['triangles']:>12}  {Path(row['scene']).name}",
            flush=True,
        )
    return 0


def _numbers(text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(part) for part in text.split(","))
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise UserError(f"--sizes {text}: give pixels, for example 64,128,256")
    return sizes
