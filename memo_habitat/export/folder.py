"""Writes the folder that is published of a run: weights, config, what is observed, a card.

DIR/
    README.md          the model card, with the front matter that the Hugging Face Hub reads
    model.safetensors  weights; config, step and origin in the header
    config.yaml        the experiment
    run.json           command, versions, seed
    spaces.json        what is observed and done (`export.agent.Spaces`)
    eval/              records of the evaluations, if wanted
    *.onnx, onnx.json, onnx_agent.py   one acting step as graphs, if wanted (`export.onnx_graphs`)

What a run knows of the machine it ran on stays behind. The folder is a run folder without a
training: `memo-habitat eval DIR` evaluates it.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from memo_habitat.config.compose import update_config
from memo_habitat.config.evaluation import evaluation_config, evaluation_settings
from memo_habitat.errors import UserError, cannot_write
from memo_habitat.evaluation.records import META_FILE, RECORDS_FILE
from memo_habitat.export.agent import Spaces, load_agent
from memo_habitat.export.card import CardFacts, model_card
from memo_habitat.report.load import (
    EVAL_FOLDER,
    Evaluation,
    evaluations_begun,
    load_evaluation,
)
from memo_habitat.trainer.checkpoint import read_checkpoint, write_checkpoint
from memo_habitat.trainer.run_dir import EXPORTED, RunFolder, open_run
from memo_habitat.trainer.validation import check_evaluated_model, check_model_config
from memo_habitat.utils.files import atomic_write, read_json, write_json
from memo_habitat.utils.provenance import without_options

CARD_FILE = "README.md"
# Of run.json what says how an agent came to be, and nothing of the machine.
_KEPT = ("started", "git_revision", "versions", "config", "seed", "workers")
_DATA_PATHS = (
    *("habitat.dataset.data_path", "habitat.dataset.scenes_dir"),
    *("habitat_baselines.rl.encoder.weights", "habitat_baselines.rl.encoder.category_vectors"),
)


@dataclass(frozen=True)
class ExportOptions:
    """What is written.

    Attributes:
        checkpoint: file, or name in the run's checkpoints; None: the latest.
        records: whether the records of the evaluations go along.
        licence: of the weights, by its name on the Hugging Face Hub.
        overrides: "key=value" of the config in the folder, such as a token budget.
        onnx: whether the graphs of an acting step go along.
        onnx_steps: most steps of a trial with these; None: those of a trial in training.
    """

    checkpoint: str | None = None
    records: bool = False
    licence: str = "mit"
    overrides: Sequence[str] = ()
    onnx: bool = False
    onnx_steps: int | None = None


def export_agent(
    source: str | Path, target: str | Path, options: ExportOptions = ExportOptions()
) -> Path:
    """Write the agent of the run folder `source` to the new folder `target`; returns its path.

    Raises:
        UserError: there is no agent of ours, the folder holds something, or cannot be written.
    """
    run, folder = open_run(source), Path(target)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--out {folder} holds something: name a new folder")
    if options.onnx_steps is not None and not options.onnx:
        raise UserError(f"--onnx-steps {options.onnx_steps} has no effect without --onnx")
    found = read_checkpoint(run.find_checkpoint(options.checkpoint))
    config, trained = run.config(), found["config"].copy()
    for each in (config, found["config"]):
        each.run_dir = f"runs/{folder.resolve().name}"
        update_config(each, options.overrides)
    acting = evaluation_config(config, found["config"])
    check_model_config(acting)
    check_evaluated_model(found["config"], trained)
    spaces = Spaces.read(run.path) or Spaces.of_envs(acting)
    step = int(found["extra_state"]["step"])
    evaluations = evaluations_of(run, step, evaluation_settings(acting, with_model=True))
    record = _portable(run)
    for each in (config, found["config"]):
        _forget_the_machine(each)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    weights = folder / EXPORTED
    write_checkpoint(weights, found["state_dict"], found["config"], {"step": step}, found["origin"])
    weights.chmod(0o644)
    atomic_write(folder / "config.yaml", OmegaConf.to_yaml(config))
    write_json(folder / "run.json", record)
    spaces.write(folder)
    if options.records:
        for evaluation in evaluations:
            _copy_records(evaluation, folder)
    facts = CardFacts(
        name=folder.resolve().name,
        config=config,
        record=record,
        spaces=spaces,
        step=step,
        parameters=sum(tensor.numel() for tensor in found["state_dict"].values()),
        evaluations=evaluations,
        licence=options.licence,
    )
    atomic_write(folder / CARD_FILE, model_card(facts))
    if options.onnx:
        from memo_habitat.export.onnx_graphs import export_onnx  # the extra `onnx`

        try:
            export_onnx(load_agent(folder), folder, options.onnx_steps)
        except UserError:  # it is told by the agent that was written, which nobody asked for alone
            shutil.rmtree(folder)
            raise
    return folder


def evaluations_of(run: RunFolder, step: int, settings: Mapping[str, Any]) -> list[Evaluation]:
    """The finished evaluations of a run that say something of the weights of `step`.

    Those of other checkpoints do not, nor of a model that was run otherwise than by `settings`
    (`evaluation_settings`), such as with another token budget; agents without weights are what to
    compare with.
    """
    found = [load_evaluation(folder, folder.name) for folder in evaluations_begun(run.path)]

    def is_run_so(evaluation: Evaluation) -> bool:
        known = evaluation.meta.settings.items()
        model = {key: value for key, value in known if key.startswith("habitat_baselines.rl.")}
        return all(value == settings.get(key, value) for key, value in model.items())

    own = [e for e in found if e.is_finished and e.meta.step in (None, step)]
    return [e for e in own if is_run_so(e)]


def _portable(run: RunFolder) -> dict[str, Any]:
    """run.json without what it says of a machine: its description, and folders in commands."""
    whole = read_json(run.record_path) if run.record_path.is_file() else {}
    record: dict[str, Any] = {key: whole.get(key) for key in _KEPT}
    record["resumed"] = whole.get("resumed", [])
    for resume in record["resumed"]:
        resume["command"] = _without_folders(resume["command"])
        resume["overrides"] = [_without_folder(word) for word in resume["overrides"]]
        resume["changed"] = {
            key: [_without_folder(value) if isinstance(value, str) else value for value in values]
            for key, values in resume["changed"].items()
        }
    return {**record, "command": _without_folders(whole.get("command", ())), "machine": {}}


def _forget_the_machine(config: Any) -> None:
    """Shorten the paths of a config to what others may have, in place."""
    for key in _DATA_PATHS:
        if (path := OmegaConf.select(config, key)) is not None:
            OmegaConf.update(config, key, _portable_path(str(path)))
    # What training began from is in the weights.
    ddppo = config.habitat_baselines.rl.ddppo
    ddppo.pretrained = ddppo.pretrained_encoder = False
    ddppo.pretrained_weights = _without_folder(str(ddppo.pretrained_weights))


def _portable_path(path: str) -> str:
    """A path of this machine from its last folder `data` on, where others may have the same.

    One without such a folder stays: a part of it would lie nowhere.
    """
    parts = Path(path).parts
    if not Path(path).is_absolute() or "data" not in parts:
        return path
    return str(Path(*parts[len(parts) - parts[::-1].index("data") - 1 :]))


def _without_folders(command: Sequence[str]) -> list[str]:
    """A command without the options that name folders of its own, and of other paths the end."""
    return [_without_folder(word) for word in without_options(command, "--out", "--root")]


def _without_folder(word: str) -> str:
    """A path, or the path in "key=path" or "--option=path", without the folders of a machine."""
    key, equals, path = word.rpartition("=")
    if not Path(path).is_absolute():
        return word
    portable = _portable_path(path)
    return f"{key}{equals}{Path(path).name if portable == path else portable}"


def _copy_records(evaluation: Evaluation, folder: Path) -> None:
    target = folder / EVAL_FOLDER / evaluation.folder.name
    target.mkdir(parents=True)
    meta = read_json(evaluation.folder / META_FILE)
    settings = {
        key: _portable_path(value) if key in _DATA_PATHS else value
        for key, value in meta.get("settings", {}).items()
    }
    command = _without_folders(meta.get("command", ()))
    meta.update(command=command, machine={}, settings=settings)
    write_json(target / META_FILE, meta)
    atomic_write(target / RECORDS_FILE, (evaluation.folder / RECORDS_FILE).read_bytes())
