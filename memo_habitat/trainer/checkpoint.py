"""Checkpoints on disk: weights as safetensors, beside them the state to resume from."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
from collections.abc import Mapping
from functools import cache, lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from memo_habitat.errors import UserError
from memo_habitat.trainer.integrity import (
    NO_DIGEST,
    DamagedError,
    append_seal,
    read_sealed,
    read_tensors,
    write_tensors,
)
from memo_habitat.trainer.run_dir import PREVIOUS_STATE, RESUME_STATE
from memo_habitat.utils.data_paths import resolve
from memo_habitat.utils.files import atomic_path, file_digest
from memo_habitat.utils.provenance import git_revision, package_versions

# Names of the weights that predict the auxiliary sensor, and nothing else, begin with this.
_AUXILIARY = "network.auxiliary."
_FORMAT = "memo-habitat-2"


def write_checkpoint(
    path: Path,
    weights: dict[str, Tensor],
    config: DictConfig,
    extra: dict[str, Any],
    origin: Mapping[str, Any] | None = None,
) -> None:
    """Weights; in the file's header the composed config, `extra` (JSON), origin and digest.

    Safetensors run no code when they are read, which a pickled checkpoint of Habitat's may.

    Args:
        path: to be replaced.
        weights, config: of the agent.
        extra: among it `step`, the environment steps that it has learned from.
        origin: git revision, versions and digest of the data; None: those of this process.
    """
    tensors = {k: v.detach().cpu().contiguous() for k, v in weights.items()}
    header = {
        "format": _FORMAT,
        "config": OmegaConf.to_yaml(config),
        "extra_state": json.dumps(extra),
        "origin": json.dumps(_origin(config) if origin is None else origin),
        "digest": NO_DIGEST,
    }
    write_tensors(path, save(tensors, metadata=header))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """`state_dict`, `config`, `extra_state` and `origin`, on the CPU.

    UserError where it is none of ours, DamagedError where it is not what was written.
    """
    if not path.is_file():
        raise UserError(f"no checkpoint at {path}; `memo-habitat train` writes ckpt.N.safetensors")
    content, header = read_tensors(path)
    try:
        weights = load(content)
    except SafetensorError as error:
        raise DamagedError(f"{path} is not a readable safetensors checkpoint: {error}") from error
    return {
        "state_dict": weights,
        "config": OmegaConf.create(header["config"]),
        "extra_state": json.loads(header["extra_state"]),
        "origin": json.loads(header["origin"]),
    }


def _origin(config: DictConfig) -> dict[str, Any]:
    return {**_program(), "data": _data_digest(config)}


@cache
def _program() -> dict[str, Any]:
    """Once a process: asking git takes longer than a checkpoint of a small agent."""
    return {"git_revision": git_revision(), "versions": package_versions()}


def _data_digest(config: DictConfig) -> str | None:
    """Of the file of episodes that `config` trains with; None where there is not one such file."""
    dataset = OmegaConf.select(config, "habitat.dataset")
    with contextlib.suppress(UserError, KeyError, TypeError, ValueError, AttributeError):
        path = resolve(dataset.data_path.format(split=dataset.split))
        return _digest_of(path, path.stat().st_mtime_ns) if path.is_file() else None
    return None


@lru_cache(maxsize=4)
def _digest_of(path: Path, changed_ns: int) -> str:
    return file_digest(path)


def acting_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those that acting needs: what only a loss predicts is left out."""
    return {name: x for name, x in weights.items() if not name.startswith(_AUXILIARY)}


def load_weights(module: nn.Module, weights: dict[str, Tensor]) -> None:
    """Load `weights` exactly; UserError with the keys that differ for another architecture."""
    own = {k: tuple(v.shape) for k, v in module.state_dict().items()}
    given = {k: tuple(v.shape) for k, v in weights.items()}
    if own != given:
        differing = [
            f"{k} (checkpoint {given.get(k, 'lacks it')}, model {own.get(k, 'lacks it')})"
            for k in sorted(own.keys() | given.keys())
            if own.get(k) != given.get(k)
        ]
        shown = "; ".join(differing[:4]) + (f"; … {len(differing)} in all" if differing[4:] else "")
        raise UserError(
            f"the checkpoint is of another architecture: {shown}; "
            "use the config it was trained with"
        )
    module.load_state_dict(weights)


def write_resume_state(folder: Path, state: dict[str, Any], config: DictConfig | str) -> None:
    """Everything to go on from: `state` holds tensors and plain containers only; config or YAML.

    Without a `random` of its own it gets the random states of now. The state before stays there,
    for where this one gets damaged.
    """
    text = config if isinstance(config, str) else OmegaConf.to_yaml(config)
    path, previous = folder / RESUME_STATE, folder / PREVIOUS_STATE
    try:
        with atomic_path(path) as temporary:
            torch.save({"random": random_state(), **state, "config": text}, temporary)
            append_seal(temporary)
            if path.is_file():
                _keep(path, previous)
    except RuntimeError as error:  # torch's, which speaks of positions in the file
        raise UserError(
            f"cannot write {path} (no space left, or a limit on the size of files); check space "
            "and permissions"
        ) from error


def read_resume_state(folder: Path) -> dict[str, Any] | None:
    """The newest state that is as it was written, with the config composed; None without any.

    Its `instead` says so where that is not the newest of all. DamagedError where none is good.
    """
    places = [path for path in (folder / RESUME_STATE, folder / PREVIOUS_STATE) if path.is_file()]
    problems: list[UserError] = []
    for path in places:
        try:
            state = _read_state(path)
        except UserError as error:
            problems.append(error)
            continue
        if problems:
            state["instead"] = f"{problems[0]}; training goes on from {path.name}, the one before"
        return state
    if problems:
        raise problems[0]
    return None


def _read_state(path: Path) -> dict[str, Any]:
    content = BytesIO(read_sealed(path))
    try:
        # Weights only: what is read here may come from somebody else, and must run no code.
        state: dict[str, Any] = torch.load(content, map_location="cpu", weights_only=True)
    except Exception as error:
        raise DamagedError(
            f"{path} cannot be read ({type(error).__name__}: {error}); remove it to go on from the "
            "state before it, or train in another folder"
        ) from error
    return {**state, "config": OmegaConf.create(state["config"])}


def _keep(path: Path, previous: Path) -> None:
    """Let `previous` be what `path` is, which stays there: a kill now finds the two equal."""
    link = previous.with_name(f"{previous.name}.new")
    link.unlink(missing_ok=True)
    try:
        os.link(path, link)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, link)
    link.replace(previous)


def restore_random_state(state: dict[str, Any]) -> None:
    """Set Python's, numpy's and torch's generators as they were."""
    saved = state["random"]
    # Lists, where the generators want tuples and arrays: `weights_only` reads no others.
    version, internal, gauss = saved["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, *rest = saved["numpy"]
    state_of_numpy = (name, np.array(keys, dtype=np.uint32), *rest)
    np.random.set_state(state_of_numpy)  # noqa: NPY002 - Habitat draws from it
    torch.set_rng_state(saved["torch"])
    if saved.get("cuda") is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(saved["cuda"])


def random_state() -> dict[str, Any]:
    """That of Python's, numpy's and torch's generators, for `restore_random_state`."""
    version, internal, gauss = random.getstate()
    numpy_state: Any = np.random.get_state(legacy=True)  # noqa: NPY002 - Habitat draws from it
    name, keys, position, has_gauss, cached = numpy_state
    return {
        "python": [version, list(internal), gauss],
        "numpy": [name, keys.tolist(), int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        # Of the device in use: on a GPU, actions are drawn there.
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }
