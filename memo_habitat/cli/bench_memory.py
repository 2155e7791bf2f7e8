"""`memo-habitat bench memory`: how fast the memory variants train and act here."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from memo_habitat.cli import bench_memory_rows as figures
from memo_habitat.cli.common import Subparsers, add_command
from memo_habitat.config.memory import MemoryConfig
from memo_habitat.errors import UserError

EXAMPLES = """
memo-habitat bench memory
memo-habitat bench memory --json > memory.jsonl
memo-habitat bench memory --variants memo,rmt --steps 4096 --act-steps none --repeats 5
"""
VARIANTS = ",".join(figures.VARIANTS)
OUTPUT = Path("runs/bench")
NONE = "none"
_SIZES = MemoryConfig()
ABOUT = f"""
Measured is the memory alone, on random tokens: width D={_SIZES.width}, L={_SIZES.layers} layers, \
H={_SIZES.heads} heads, segments of
S={_SIZES.segment_length} steps, summaries of M={_SIZES.summary_length} tokens; depth dropout 0, \
segment jitter 0, episodes of 500 steps.
Variants take turns within every repeat. Columns "/ fct":
{figures.RATIOS}.
With all defaults it takes about 12 minutes on two cores, and 8 GB of memory.
"""


def add(subjects: Subparsers) -> None:
    """Declare `bench memory`."""
    parser = add_command(
        subjects, "memory", run, "training pass and acting of every memory variant", EXAMPLES
    )
    parser.description = f"{parser.description}\n{ABOUT}"
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    parser.add_argument(
        "--variants",
        default=VARIANTS,
        metavar="NAME,NAME",
        help=f"of {VARIANTS} (all); fct, the reference of all ratios, is always measured too",
    )
    parser.add_argument(
        "--steps",
        default="4096,16384",
        metavar="T,T",
        help="lengths of the training passes, or none (4096,16384)",
    )
    parser.add_argument(
        "--batch",
        default=NONE,
        metavar="B,B",
        help="trials in each training pass (as many as make 8192 steps, but 1 to 16)",
    )
    parser.add_argument(
        "--act-steps",
        default="1024,8192,32768",
        metavar="T,T",
        help="steps of the trial after which acting is measured, or none (1024,8192,32768)",
    )
    parser.add_argument("--act-batch", type=int, default=16, metavar="N", help="environments (16)")
    parser.add_argument(
        "--precision", default="float32", metavar="P,P", help="of float32,bfloat16 (float32)"
    )
    parser.add_argument("--repeats", type=int, default=3, metavar="R", help="rounds (3)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    parser.add_argument(
        "--output",
        metavar="FOLDER",
        help="for memory_bench.jsonl, the same as tables in memory_bench.md, and memory_bench.png "
        f"({OUTPUT}; with --json they are written only where this is given)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Measure, print a line for each row, and write plot and rows."""
    # The profiler that counts bytes would tell on stderr when it starts and stops.
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    from memo_habitat.memory.bench import BenchOptions, bench_memory

    options = BenchOptions(
        variants=_names(arguments.variants),
        steps=_numbers("--steps", arguments.steps),
        batch=_numbers("--batch", arguments.batch),
        act_steps=_numbers("--act-steps", arguments.act_steps),
        act_batch=arguments.act_batch,
        precisions=_names(arguments.precision),
        repeats=arguments.repeats,
        device=arguments.device,
    )
    try:
        options.check()
    except UserError as error:
        # It names fields ("act_batch 0: ..."): here by their options.
        field, _, rest = str(error).partition(" ")
        option = {"precisions": "precision"}.get(field, field).replace("_", "-")
        raise UserError(f"--{option} {rest}") from error
    if not options.steps and not options.act_steps:
        raise UserError("--steps none --act-steps none: give steps for one of them")
    output = arguments.output or (None if arguments.json else OUTPUT)
    folder = Path(output) if output else None
    where = machine(options.device)
    print(where, file=sys.stderr)
    rows = []
    with _rows_file(folder) as write:
        if not arguments.json:
            print(figures.heading())
        for row in bench_memory(options):
            rows.append(row)
            line = json.dumps(row)
            print(line if arguments.json else figures.table_line(row), flush=True)
            write(line)
    if not arguments.json:
        print(f"/ fct: {figures.RATIOS}")
    if folder:
        tables = figures.markdown(rows)
        (folder / "memory_bench.md").write_text(f"{where}\n\n{tables}", encoding="utf-8")
        figures.draw(rows, folder / "memory_bench.png")
        print(folder, file=sys.stderr)
    return 0


def machine(device: str) -> str:
    """What the numbers depend on besides the code: threads, processor, PyTorch."""
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines() if _has_cpuinfo() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = models[0] if models else platform.processor() or platform.machine()
    gpu = f", {torch.cuda.get_device_name(device)}" if device.startswith("cuda") else ""
    count = torch.get_num_threads()
    threads = f"{count} thread{'' if count == 1 else 's'}"
    return f"{threads}, {processor}{gpu}, torch {torch.__version__}"


@contextmanager
def _rows_file(folder: Path | None) -> Iterator[Callable[[str], None]]:
    """Writes each row as soon as it is measured; an unusable folder is found before the first.

    A measurement that ends without a row leaves nothing, and the rows of an earlier one alone.
    """
    if folder is None:
        yield lambda line: None
        return
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    file: TextIO | None = None

    def write(line: str) -> None:
        nonlocal file
        file = file or (folder / "memory_bench.jsonl").open("w", encoding="utf-8")
        print(line, file=file, flush=True)

    try:
        yield write
    finally:
        if file is not None:
            file.close()
        for path in made:
            with suppress(OSError):  # it holds something
                path.rmdir()


def _has_cpuinfo() -> bool:
    return Path("/proc/cpuinfo").is_file()


def _names(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(",") if part)


def _numbers(option: str, text: str) -> tuple[int, ...]:
    if text == NONE:
        return ()
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"{option} {text}: give whole numbers, for example 1024,8192") from None
