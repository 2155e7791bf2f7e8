"""Make the folder of an agent that ships from a run: config, record and weights, 3 MB.

python tools/ship_agent.py runs/recall_memo data/agents/recall

What a run knows of the machine it ran on stays behind.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from memo_habitat.config.compose import update_config
from memo_habitat.trainer.checkpoint import read_checkpoint, write_checkpoint
from memo_habitat.trainer.run_dir import open_run


def ship(source: Path, target: Path, overrides: Sequence[str] = ()) -> None:
    """Write the agent in the run folder `source` to `target`, with keys of its config changed."""
    run = open_run(source)
    found = read_checkpoint(run.find_checkpoint(None))
    config = run.config()
    for each in (config, found["config"]):
        each.run_dir = f"runs/{target.name}"
        update_config(each, overrides)
    (target / "checkpoints").mkdir(parents=True, exist_ok=True)
    (target / "config.yaml").write_text(OmegaConf.to_yaml(config))
    latest = target / "checkpoints" / run.latest_checkpoint.name
    write_checkpoint(
        latest, found["state_dict"], found["config"], found["extra_state"], found["origin"]
    )
    latest.chmod(0o644)
    record = json.loads(run.record_path.read_text())
    kept = ("started", "git_revision", "versions", "config", "seed", "workers")
    command = [word for word in record["command"] if not word.startswith("/") and word != "--out"]
    record = {"command": command, **{key: record[key] for key in kept}}
    (target / "run.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("folder", type=Path, help="to write")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of its config")
    arguments = parser.parse_args()
    ship(arguments.run, arguments.folder, arguments.overrides)
