"""`memo-habitat plan`: what a training will hold in memory and how fast it will be, beforehand."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

from memo_habitat.cli.common import ConfigName, Overrides, flag, option
from memo_habitat.errors import check_at_least_one

EXAMPLES = (
    "memo-habitat plan --config-name=extobjnav/studio",
    "memo-habitat plan --config-name=extobjnav/apartments --gpus 8 --gpu-memory 80GB",
    "memo-habitat plan --config-name=extobjnav/apartments habitat.task.trial_steps=16384",
    "memo-habitat plan --config-name=extobjnav/studio --measure",
    "memo-habitat plan --config-name=extobjnav/studio --gpus 8 "
    "--rates runs/extobjnav-studio-20260101-120000",
)


def plan(
    config_name: Annotated[str, ConfigName],
    overrides: Overrides = None,
    gpus: Annotated[int, option("Workers, one a GPU.")] = 1,
    gpu_memory: Annotated[
        str | None,
        option("Of each GPU.", "80GB", "what is free here, of the GPU or else of the RAM"),
    ] = None,
    as_json: Annotated[bool, flag("--json", "Print one JSON object.")] = False,
    measure: Annotated[
        bool, flag("--measure", "Run one update here, on random data, and compare.")
    ] = False,
    rates: Annotated[
        str | None,
        option("A run to scale what each station takes from, one on such a machine.", "RUN"),
    ] = None,
) -> None:
    """Say what a training will hold in memory and what fits, and which station bounds its speed."""
    check_at_least_one("--gpus", gpus)
    from memo_habitat.config.compose import compose_config

    config = compose_config(config_name, overrides or ())
    from memo_habitat.trainer import throughput
    from memo_habitat.trainer.memory_estimate import (
        available_memory,
        estimate_memory,
        measure_memory,
        parse_memory,
        table,
    )
    from memo_habitat.trainer.run_dir import open_run

    run = None if rates is None else open_run(rates)
    memory = available_memory(gpus) if gpu_memory is None else parse_memory(gpu_memory)
    estimate = estimate_memory(config, memory, gpus)
    if not as_json:
        print(table(config_name, estimate), flush=True)
    speed = None if run is None else throughput.predict(run, config, gpus)
    if not as_json:
        print(
            "throughput: not known without rates; train a few trials of it or of one like it, then "
            "give --rates RUN"
            if speed is None
            else throughput.table(str(rates), speed),
            flush=True,
        )
    measured = measure_memory(config, estimate.minibatch) if measure else None
    if as_json:
        found = {"config": config_name, **asdict(estimate), "measured": measured}
        found["throughput"] = None if speed is None else speed.summary()
        print(json.dumps(found))
    elif measured is not None:
        print(f"measured here: {json.dumps(measured)}")
