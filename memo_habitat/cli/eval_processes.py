"""The shards of evaluations as processes of this machine.

    python -m memo_habitat.cli.eval_processes RUN LOG OPTIONS COMMAND...

is one of them: OPTIONS is a JSON list of its evaluations, COMMAND what was typed.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from memo_habitat.errors import UserError, WorkerError, check_at_least_one
from memo_habitat.utils.processes import (
    INTERRUPTED,
    LocalProcess,
    describe_status,
    handling,
    interrupt_with_parent,
    last_line,
    stop_signals,
    write_into,
)

if TYPE_CHECKING:
    from memo_habitat.trainer.launch import EvalOptions
    from memo_habitat.trainer.run_dir import RunFolder

PROGRAM = "memo_habitat.cli.eval_processes"
_USER_ERROR, _FAILED = 2, 1
GOES_ON = "the same command goes on with the trials that are left"
_LOOKS = 0.1  # between two looks at the processes (s)


def evaluate_in_processes(
    run: RunFolder, several: Sequence[EvalOptions], shards: int
) -> list[Path]:
    """Do evaluations one after the other, each in so many shards at once, which are then merged.

    An agent acts in one environment at a time, on one core: more processes use more cores. Records
    are the same bytes for any number.

    Returns:
        the folders with the records; of all checkpoints, one each.

    Raises:
        UserError: before any process is started, for what the evaluations themselves refuse, or
            where a shard was refused, in its words: the same command would be refused again.
        WorkerError: a shard failed; names its log. The others are finished by then, and the same
            command goes on.
        KeyboardInterrupt: somebody asked to stop. The first time processes end after their step,
            the second time at once.
    """
    from memo_habitat.trainer import launch
    from memo_habitat.utils.files import file_name

    check_at_least_one("--shards", shards)
    if shards == 1:
        return [launch.evaluate(run, options) for options in several]
    prepared = [
        each
        for options in several
        for each in launch.prepare_evaluations(run, replace(options, shard=f"1/{shards}"))
    ]
    settled = [each.options for each in prepared]
    run.workers_dir.mkdir(exist_ok=True)
    # Of several evaluations the first names the logs, into which a shard writes of them all.
    stem = f"{file_name(str(settled[0].name))}-shard"
    logs = [run.workers_dir / f"{stem}-{k}-of-{shards}.log" for k in range(1, shards + 1)]
    arguments = []
    for number, log in enumerate(logs, start=1):
        own = [asdict(replace(options, shard=f"{number}/{shards}")) for options in settled]
        arguments.append((str(run.path), str(log), json.dumps(own), *sys.argv))
    statuses, interrupted = _run(arguments)
    if interrupted and any(statuses):
        raise KeyboardInterrupt
    for number, (status, log) in enumerate(zip(statuses, logs, strict=True), start=1):
        said = last_line(log) or "it said nothing"
        if status == _USER_ERROR:
            raise UserError(f"shard {number}/{shards}: {said}")
        if status:
            raise WorkerError(
                f"shard {number}/{shards} ended ({describe_status(status)}): {said}; its log is "
                f"{log}; {GOES_ON}"
            )
    return [each.folder for each in prepared]


def _run(arguments: Sequence[Sequence[str]]) -> tuple[list[int], bool]:
    """Run the processes; how they have ended, and whether somebody asked to stop."""
    stops: list[int] = []

    def on_stop(signum: int, frame: FrameType | None) -> None:
        stops.append(signum)

    with handling(stop_signals(), on_stop):
        processes = [LocalProcess(PROGRAM, *words) for words in arguments]
        while True:
            statuses = [process.status() for process in processes]
            ended = [status for status in statuses if status is not None]
            if len(ended) == len(processes):
                return ended, bool(stops)
            for process in processes if stops else ():
                process.stop()
            for process in processes if len(stops) > 1 else ():
                process.kill()
            time.sleep(_LOOKS)


def work(run: str, log: Path, evaluations: Sequence[dict[str, object]]) -> int:
    """Be one of the processes; returns the exit status."""
    from memo_habitat.compat import startup

    # The first has the terminal for its bar, which stands for all: shards are equally long.
    first = str(evaluations[0]["shard"]).startswith("1/")
    write_into(log, (1,) if first else (1, 2))
    startup.silence_gym_notice()
    startup.silence_habitat_sim()
    try:
        from memo_habitat.trainer import launch
        from memo_habitat.trainer.run_dir import open_run

        for options in evaluations:
            launch.evaluate(open_run(run), launch.EvalOptions(**options))  # type: ignore[arg-type]
    except KeyboardInterrupt:
        return INTERRUPTED
    except UserError as error:
        print(" ".join(str(error).split()), flush=True)  # on one line: the command tells the last
        return _USER_ERROR
    except Exception:  # noqa: BLE001 whatever its kind: the command tells of it by the log
        traceback.print_exc(file=sys.stdout)
        return _FAILED
    return 0


if __name__ == "__main__":
    interrupt_with_parent()
    _, own_run, own_log, own_evaluations, *sys.argv = sys.argv
    sys.exit(work(own_run, Path(own_log), json.loads(own_evaluations)))
