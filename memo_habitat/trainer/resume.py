"""Going on with a run: what changes then is told in its run.json, and undone if it is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from memo_habitat.errors import UserError
from memo_habitat.trainer.checkpoint import atomically, read_resume_state, replace_resume_config
from memo_habitat.trainer.run_dir import RunFolder, now, typed_command
from memo_habitat.trainer.validation import check_resumed_model
from memo_habitat.utils.processes import is_first_process

# The list in run.json with an entry for every time that the run went on.
RESUMED = "resumed"


def check_state(run: RunFolder, config: DictConfig) -> None:
    """Refuse another model than that of the state to resume from."""
    state = _state(run, config)
    if state is not None:
        check_resumed_model(config, state["config"])


def go_on_with(
    run: RunFolder, config: DictConfig, overrides: Sequence[str], workers: int
) -> Callable[[], None]:
    """Let `run` train and be evaluated with `config` from now on; returns what undoes that.

    It gets into config.yaml, and into the state to resume from: Habitat-Baselines goes on with the
    config of the state and ignores any other. Of what config.yaml said before, nothing is lost: an
    entry in run.json has the former values.

    Raises:
        UserError: run.json cannot be read, or something not be written.
    """
    state = _state(run, config)
    steps = _steps(state)
    if is_first_process():
        facts, changed = _read_facts(run), changes(run.config(), config)
        entry = {
            "command": typed_command(),
            "time": now(),
            "overrides": list(overrides),
            "changed": changed,
            "workers": workers,
            "steps": steps if _is_ours(config) else None,
        }
        before = {path: _bytes(path) for path in (run.facts_path, run.config_path)}
        told = {**facts, RESUMED: [*facts.get(RESUMED, []), entry]}
        # First, so that what is replaced is told whenever we are killed.
        _write(run.facts_path, f"{json.dumps(told, indent=2)}\n".encode())
        if changed:
            _write(run.config_path, OmegaConf.to_yaml(config).encode())
    else:
        before = {}
    if state is not None:
        _keep_with_state(run, config)

    def undo() -> None:
        """Unless it has learned since: then it is what the run trains with."""
        if _steps(_state(run, config)) != steps:
            return
        if state is not None:
            _keep_with_state(run, state["config"])
        for path, content in before.items():
            if content is None:
                path.unlink()
            else:
                _write(path, content)

    return undo


def note_on_trials(run: RunFolder, config: DictConfig, workers: int) -> str | None:
    """What to tell where an update will learn from another number of trials than before, else None.

    To be asked before `go_on_with`: config.yaml and run.json have what was before.
    """
    facts = _read_facts(run)
    before = [facts, *facts.get(RESUMED, [])][-1].get("workers")
    if before is None or not _is_ours(config):  # a run from before workers were told of
        return None
    environments = run.config().habitat_baselines.num_environments
    present = config.habitat_baselines.num_environments
    had, has = before * environments, workers * present
    if had == has:
        return None
    note = (
        f"an update now learns from {has} trials (workers × environments: {workers} × {present}), "
        f"was {had} ({before} × {environments})"
    )
    if had % workers == 0:
        note += f"; habitat_baselines.num_environments={had // workers} keeps it"
    return note


def changes(before: DictConfig, after: DictConfig) -> dict[str, list[Any]]:
    """Key -> [value before, value after] where they differ; None where there is no such key.

    Where the run lies is no part of what it is.
    """
    was, now_is = dict(_values(before)), dict(_values(after))
    return {
        key: [was.get(key), now_is.get(key)]
        for key in dict.fromkeys((*was, *now_is))
        if key != "run_dir" and was.get(key) != now_is.get(key)
    }


def _values(config: DictConfig) -> Iterator[tuple[str, Any]]:
    """Every value by its whole key, as written: references to other keys stay references."""

    def visit(node: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any]]:
        for key, value in node.items():
            if isinstance(value, Mapping) and value:
                yield from visit(value, f"{path}{key}.")
            else:
                yield f"{path}{key}", value

    container: Any = OmegaConf.to_container(config, resolve=False)
    return visit(container, "")


def _state(run: RunFolder, config: DictConfig) -> dict[str, Any] | None:
    """The state to resume from, which trainers of Habitat's own keep in another form."""
    return read_resume_state(run.checkpoint_dir) if _is_ours(config) else None


def _is_ours(config: DictConfig) -> bool:
    return bool(config.habitat_baselines.trainer_name == "memo")


def _steps(state: Mapping[str, Any] | None) -> int:
    return 0 if state is None else int(state["counts"]["num_steps_done"])


def _keep_with_state(run: RunFolder, config: DictConfig) -> None:
    from habitat.config.default import patch_config

    replace_resume_config(run.checkpoint_dir, patch_config(config.copy()))


def _read_facts(run: RunFolder) -> dict[str, Any]:
    if not run.facts_path.exists():
        return {}
    try:
        facts = json.loads(run.facts_path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {run.facts_path} ({error}); restore or delete it") from error
    if not isinstance(facts, dict):
        raise UserError(f"{run.facts_path} holds no JSON object; restore or delete it")
    return facts


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _write(path: Path, content: bytes) -> None:
    atomically(path, lambda temporary: Path(temporary).write_bytes(content))
