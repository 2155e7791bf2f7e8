"""Whether two trainings came out the same: what a stop and a resume must not have changed."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from memo_habitat.trainer.progress import read_progress
from memo_habitat.trainer.run_dir import RunFolder

# Of progress rows and of TensorBoard's tags: what the clock says, never twice the same.
_CLOCK_FIELDS = ("seconds", "timers")
_CLOCK_TAGS = "perf/"


def differences(first: RunFolder, second: RunFolder) -> list[str]:
    """What differs between two runs, one line each; nothing where they are equal to the last bit.

    Compared are the weights of the latest checkpoints, the rows of progress without the clock's
    fields, and every TensorBoard scalar but those of `perf/`.
    """
    found = []
    ours, theirs = _weights(first), _weights(second)
    if names := _unequal(ours, theirs):
        found.append(f"{len(names)} of {len(ours)} weights differ, the first is {names[0]}")
    rows = [_rows(run.progress_file) for run in (first, second)]
    if len(rows[0]) != len(rows[1]):
        found.append(f"{len(rows[0])} lines of progress, and {len(rows[1])}")
    for number, (ours, theirs) in enumerate(zip(*rows, strict=False), start=1):
        if names := _unequal(ours, theirs):
            found.append(f"line {number} of progress differs in {', '.join(names)}")
            break
    ours, theirs = scalars(first.tensorboard_dir), scalars(second.tensorboard_dir)
    if names := _unequal(ours, theirs):
        found.append(f"{len(names)} TensorBoard curves differ, the first is {names[0]}")
    return found


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of each TensorBoard scalar by tag, but for those of the clock."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with TemporaryDirectory() as ordered:
        # TensorBoard reads files in the order of their names, which for those that were begun
        # within one second is not the order in which they were written.
        written = sorted(folder.glob("*tfevents*"), key=lambda file: file.stat().st_mtime_ns)
        for number, file in enumerate(written):
            Path(ordered, f"{number:06d}.{file.name}").symlink_to(file.resolve())
        events = EventAccumulator(ordered, size_guidance={"scalars": 0})
        events.Reload()
    tags = (tag for tag in events.Tags()["scalars"] if not tag.startswith(_CLOCK_TAGS))
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def flip_byte(path: Path, share: float = 0.5) -> None:
    """Damage a file at `share` of its length, as a bad disk would: one byte is another."""
    content = bytearray(path.read_bytes())
    content[min(int(share * len(content)), len(content) - 1)] ^= 0xFF
    path.write_bytes(content)


def _weights(run: RunFolder) -> dict[str, Any]:
    from memo_habitat.trainer.checkpoint import read_checkpoint

    weights = read_checkpoint(run.latest_checkpoint)["state_dict"]
    # As bytes: equal numbers of different bits, as 0 and -0, lead to different trainings.
    return {name: tensor.numpy().tobytes() for name, tensor in weights.items()}


def _rows(path: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in _CLOCK_FIELDS} for row in read_progress(path)]


def _unequal(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    return sorted(k for k in first.keys() | second.keys() if first.get(k) != second.get(k))
