"""Weights & Biases in the place of TensorBoard: one run through all resumes and evaluations."""

from __future__ import annotations

import uuid
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from pydantic import BaseModel

from memo_habitat.errors import UserError, check_choice
from memo_habitat.utils.files import read_json, write_json

#: In the run folder: which run on the service it is.
RUN_FILE = "wandb.json"
WRITERS = ("tb", "wb")
# The x axis of every curve. The service's own counts calls and refuses to go back, as a training
# does that is resumed from before its last line.
_STEPS = "environment_steps"


def check_writer(baselines: DictConfig) -> None:
    """UserError where `habitat_baselines.writer_type` is unknown, or its package missing."""
    key, kind = "habitat_baselines.writer_type", baselines.writer_type
    check_choice(key, kind, WRITERS)
    if kind == "wb" and find_spec("wandb") is None:
        raise UserError(
            f"{key}=wb needs the package wandb: pip install 'memo-habitat[wandb]', or log to "
            f"TensorBoard by {key}=tb"
        )


class _Run(BaseModel):
    id: str


class WandbWriter:
    """What Habitat asks of a writer, sent to the run that the run folder names.

    Habitat's own begins a new run at every start. Project, entity, group and name are those of
    `habitat_baselines.wb`; WANDB_MODE=offline keeps it on this machine, in the run folder.
    """

    def __init__(self, config: DictConfig) -> None:
        import wandb  # an extra

        baselines = config.habitat_baselines
        folder = Path(str(baselines.checkpoint_folder)).parent
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / RUN_FILE
        if not path.is_file():
            write_json(path, {"id": uuid.uuid4().hex[:12]})
        names = {"project": "project_name", "name": "run_name", "entity": "entity"}
        given = {name: baselines.wb[key] for name, key in {**names, "group": "group"}.items()}
        self._run: Any = wandb.init(
            id=read_json(path, _Run.model_validate).id,
            resume="allow",
            dir=str(folder),
            config=OmegaConf.to_container(config),
            **{name: value for name, value in given.items() if value},
        )
        self._run.define_metric(_STEPS)
        self._run.define_metric("*", step_metric=_STEPS)

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        """One point of a curve."""
        self._run.log({tag: value, _STEPS: int(step)})

    def add_scalars(self, group: str, values: dict[str, float], step: int) -> None:
        """One point of several curves, as Habitat groups them."""
        points = {f"{group}/{name.replace(' ', '')}": value for name, value in values.items()}
        self._run.log({**points, _STEPS: int(step)})

    def get_run_id(self) -> str:
        """The run's on the service."""
        return str(self._run.id)

    def __enter__(self) -> WandbWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        # Ctrl-C and SIGTERM are stops, not failures: the run goes on when it is resumed.
        is_failure = kind is not None and issubclass(kind, Exception)
        self._run.finish(exit_code=int(is_failure))
