"""`memo-habitat bench memory`: how fast the memory variants train and act here."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from memo_habitat.cli_common import Subparsers, add_command
from memo_habitat.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

EXAMPLES = """
memo-habitat bench memory
memo-habitat bench memory --json > memory.jsonl
memo-habitat bench memory --variants memo,rmt --steps 4096 --act-steps none --repeats 5
"""
VARIANTS = "memo,memo_kv,fct,rmt,ac,no_iea,lstm"
OUTPUT = Path("runs/bench")
NONE = "none"
Row = dict[str, Any]
#: Heading, field, width and format of the table's columns.
_COLUMNS = (
    ("variant", "variant", 9, "s"),
    ("steps", "steps", 7, "d"),
    ("batch", "batch", 6, "d"),
    ("precision", "precision", 10, "s"),
    ("train s", "train_seconds", 9, ".3f"),
    ("/ fct", "train_ratio_to_fct", 7, ".3f"),
    ("peak MiB", "peak_train_bytes", 9, "MiB"),
    ("act ms", "act_ms", 8, ".2f"),
    ("/ fct", "act_ratio_to_fct", 7, ".3f"),
    ("refresh s", "refresh_seconds", 10, ".3f"),
    ("cache MiB", "cache_bytes", 10, "MiB"),
    ("/ fct", "cache_ratio_to_fct", 7, ".3f"),
)


def add(subjects: Subparsers) -> None:
    """Declare `bench memory`."""
    parser = add_command(
        subjects, "memory", run, "training pass and acting of every memory variant", EXAMPLES
    )
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
        help="trials in each training pass (as many as make 8192 steps, at least one)",
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
        help=f"for memory_bench.png and memory_bench.jsonl ({OUTPUT}; with --json: not written)",
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
    options.check()
    if not options.steps and not options.act_steps:
        raise UserError("--steps none --act-steps none: give steps for one of them")
    output = arguments.output or (None if arguments.json else OUTPUT)
    folder = Path(output) if output else None
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    print(machine(options.device), file=sys.stderr)
    rows = []
    with _rows_file(folder) as file:
        if not arguments.json:
            print(heading())
        for row in bench_memory(options):
            rows.append(row)
            line = json.dumps(row)
            print(line if arguments.json else table_line(row), flush=True)
            if file:
                print(line, file=file, flush=True)
    if folder:
        draw(rows, folder / "memory_bench.png")
        print(folder, file=sys.stderr)
    return 0


def machine(device: str) -> str:
    """What the numbers depend on besides the code: threads, processor, PyTorch."""
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines() if _has_cpuinfo() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = models[0] if models else platform.processor() or platform.machine()
    gpu = f", {torch.cuda.get_device_name(device)}" if device.startswith("cuda") else ""
    return f"{torch.get_num_threads()} threads, {processor}{gpu}, torch {torch.__version__}"


def heading() -> str:
    """The line above the table."""
    return "  ".join(f"{name:>{width}}" for name, _, width, _ in _COLUMNS)


def table_line(row: Row) -> str:
    """A row of the table; what was not measured in it is a dash."""
    return "  ".join(f"{_cell(row[field], form):>{size}}" for _, field, size, form in _COLUMNS)


def _cell(value: Any, form: str) -> str:
    if value is None:
        return "-"
    return f"{value / 2**20:.1f}" if form == "MiB" else f"{value:{form}}"


def draw(rows: Sequence[Row], path: Path) -> None:
    """Write the plot: acting over the trial and training, two panels for each precision."""
    from matplotlib.figure import Figure

    precisions = list(dict.fromkeys(row["precision"] for row in rows))
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    figure = Figure(figsize=(10.5, 3.9 * len(precisions)), layout="constrained")
    panels = figure.subplots(len(precisions), 2, squeeze=False)
    for precision, (left, right) in zip(precisions, panels, strict=True):
        chosen = [row for row in rows if row["precision"] == precision]
        _draw_acting(left, [row for row in chosen if row["act_ms"] is not None], variants)
        _draw_training(right, [row for row in chosen if row["train_seconds"] is not None], variants)
        left.set_title(f"acting, {precision}")
        right.set_title(f"training, {precision}")
    lines = next(labelled for labelled in (left, right) if labelled.get_legend_handles_labels()[0])
    figure.legend(
        *lines.get_legend_handles_labels(), loc="outside upper center", ncols=len(variants)
    )
    figure.savefig(path, dpi=130, metadata={"Software": None})


def _draw_acting(axes: Axes, rows: Sequence[Row], variants: Sequence[str]) -> None:
    from matplotlib.ticker import LogFormatter

    axes.set_xlabel("steps of the trial")
    axes.set_ylabel("ms per step")
    if not rows:
        return
    for number, variant in enumerate(variants):
        own = [row for row in rows if row["variant"] == variant]
        axes.plot(
            [row["steps"] for row in own],
            [row["act_ms"] for row in own],
            color=f"C{number}",
            marker="o",
            markersize=4,
            label=variant,
        )
    steps = sorted({row["steps"] for row in rows})
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(steps, [str(value) for value in steps])
    axes.yaxis.set_major_formatter(LogFormatter())
    axes.yaxis.set_minor_formatter(LogFormatter())
    axes.grid(True, which="both", alpha=0.25)
    axes.set_ylabel(f"ms per step of {rows[0]['batch']} environments")


def _draw_training(axes: Axes, rows: Sequence[Row], variants: Sequence[str]) -> None:
    axes.set_ylabel("seconds, forward and backward")
    sizes = list(dict.fromkeys((row["steps"], row["batch"]) for row in rows))
    width = 0.8 / len(variants)
    for number, variant in enumerate(variants):
        own = [row for row in rows if row["variant"] == variant]
        places = [place + (number - (len(variants) - 1) / 2) * width for place in range(len(own))]
        bars = axes.bar(
            places, [row["train_seconds"] for row in own], width, color=f"C{number}", label=variant
        )
        ratios = [f"{row['train_ratio_to_fct']:.2f}" for row in own]
        axes.bar_label(bars, ratios, fontsize=7, padding=1)
    axes.set_xticks(range(len(sizes)), [f"T = {steps}, B = {batch}" for steps, batch in sizes])
    axes.set_xlabel("above the bars: ratio to fct")


@contextmanager
def _rows_file(folder: Path | None) -> Iterator[TextIO | None]:
    """The file that keeps the rows, each as soon as it is measured; None without a folder."""
    if folder is None:
        yield None
        return
    with (folder / "memory_bench.jsonl").open("w", encoding="utf-8") as file:
        yield file


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
