"""Mutates small GLB and JSON files and reads each as a scene: a house, or one line that says why.

    python tools/fuzz_scenes.py --files 10000 --seed 0

A traceback, more than 5 s of the processor for one file, or 2 GB of memory is a failure; the file
is kept in --out.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import random
import resource
import struct
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from habitat.core.logging import logger

from memo_habitat.errors import UserError
from memo_habitat.simulator.embree.navgrid import AgentShape
from memo_habitat.simulator.embree.scene import clear_caches, load_scene, place_objects

SECONDS, BYTES = 5.0, 2 * 2**30
#: A stage takes the place of any value in the JSON of a file.
VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 2**31, 2**63, 1e30, -1e308, 0.5, "", "x", "data:,", "../../x", [], {}),
    *([0] * 3, [1e20] * 3, ["a", "b", "c"], [[]], {"a": 1}, "cubeSolid", float("nan"), [0] * 16),
)


def mutate_json(document: Any, rng: random.Random) -> Any:
    """The document with one value changed, left out, doubled or moved."""
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in list(items):
            places.append((value, key))
            if isinstance(inner, (dict, list)):
                walk(inner)

    walk(document)
    holder, key = rng.choice(places)
    kind = rng.randrange(6)
    if kind == 0:
        del holder[key]
    elif kind == 1:
        other, name = rng.choice(places)
        if name in other if isinstance(other, dict) else name < len(other):
            holder[key] = json.loads(json.dumps(other[name]))
    elif kind == 2 and isinstance(holder[key], (int, float)):
        holder[key] = holder[key] * rng.choice((-1, 2, 1000, 1e6)) + rng.choice((0, 1, -1))
    elif kind == 3 and isinstance(holder[key], list) and holder[key]:
        holder[key] = copy.deepcopy(holder[key] * rng.choice((2, 50)))
    else:
        holder[key] = copy.deepcopy(rng.choice(VALUES))
    return document


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """The data with a few bytes changed, cut, or cut out."""
    changed = bytearray(data)
    kind = rng.randrange(4)
    if kind == 0:
        return bytes(changed[: rng.randrange(len(changed))])
    if kind == 1:
        start = rng.randrange(len(changed))
        del changed[start : start + rng.randrange(1, 40)]
    else:
        for _ in range(rng.randrange(1, 8)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def mutate_file(name: str, data: bytes, rng: random.Random) -> bytes:
    """A mutation of a file: of its bytes, or of the JSON in it."""
    if rng.random() < 0.3:
        return mutate_bytes(data, rng)
    start, end = 0, len(data)
    if name.endswith(".glb"):
        start, end = 20, 20 + struct.unpack_from("<I", data, 12)[0]
    document = json.loads(data[start:end])
    for _ in range(rng.choice((1, 1, 2, 4))):
        if document:
            document = mutate_json(document, rng)
    text = json.dumps(document).encode()
    if start == 0:
        return text
    text += b" " * (-len(text) % 4)
    total = 20 + len(text) + len(data) - end
    return struct.pack("<4sIIII", b"glTF", 2, total, len(text), 0x4E4F534A) + text + data[end:]


def attempt(root: Path, dataset: Path, scene: str) -> str:
    """Reads the scene; "scene", or the line that refuses it."""
    try:
        house = load_scene(scene, str(dataset), AgentShape(cell=0.1), 1, 1)
        place_objects(house, [], [str(root)], 100).geometry.surface  # noqa: B018
    except UserError as error:
        line = str(error)
        if "\n" in line or not line:
            raise AssertionError(f"not one line: {line!r}") from error
        return line
    return "scene"


def fuzz(
    make: Callable[[Path], tuple[Path, str]], files: int, seed: int, out: Path | None = None
) -> tuple[Counter[str], list[str]]:
    """Mutates files of the set that `make` writes, one at a time.

    Args:
        make: writes a small data set into a folder; returns its config and a scene's name.
        files: how many to try.
        seed: of the mutations.
        out: where files that fail are kept.

    Returns:
        How often each answer was given, and the failures.
    """
    rng, answers, failures = random.Random(seed), Counter[str](), []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        dataset, scene = make(root)
        usual = {
            path: path.read_bytes()
            for path in sorted(root.rglob("*"))
            if path.name.endswith((".glb", ".json"))
        }
        answer = attempt(root, dataset, scene)  # and Numba compiles before the clock runs
        if answer != "scene":
            failures.append(f"the set itself: {answer}")
        for number in range(files):
            path = rng.choice(list(usual))
            mutated = mutate_file(path.name, usual[path], rng)
            path.write_bytes(mutated)
            clear_caches()
            start = time.process_time()
            try:
                answer = attempt(root, dataset, scene)
                answers["scene" if answer == "scene" else "refused"] += 1
                problem = ""
            except Exception:  # noqa: BLE001  (anything else is what this looks for)
                problem = traceback.format_exc(limit=-3)
            took = time.process_time() - start
            if took > SECONDS:
                problem += f"took {took:.1f} s"
            if problem:
                failures.append(f"{number} {path.name}: {problem}")
                if out is not None:
                    out.mkdir(parents=True, exist_ok=True)
                    (out / f"{number}_{path.name}").write_bytes(mutated)
            path.write_bytes(usual[path])
    return answers, failures


def main() -> None:
    """Runs the fuzzer over a set with all kinds of files and prints what happened."""
    from tests.factories.scene_sets import write_small_set

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("fuzz_failures"))
    options = parser.parse_args()
    logger.setLevel(logging.ERROR)
    # A count that is believed ends in a MemoryError here, and not in the death of the machine.
    resource.setrlimit(resource.RLIMIT_DATA, (2 * BYTES, 2 * BYTES))
    answers, failures = fuzz(write_small_set, options.files, options.seed, options.out)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if peak > BYTES:
        failures.append(f"{peak / 2**30:.1f} GiB of memory")
    for failure in failures:
        print(failure)
    print(f"{dict(answers)}, {len(failures)} failures, {peak / 2**20:.0f} MiB")
    raise SystemExit(bool(failures))


if __name__ == "__main__":
    main()
