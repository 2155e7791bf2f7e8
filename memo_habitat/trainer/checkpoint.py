"""Checkpoints on disk: weights as safetensors, beside them the state to resume from."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from memo_habitat.errors import UserError
from memo_habitat.trainer.run_dir import LATEST, RESUME_STATE
from memo_habitat.utils.files import atomic_path


def write_checkpoint(
    path: Path, weights: dict[str, Tensor], config: DictConfig, extra: dict[str, Any]
) -> None:
    """Weights, with the composed config and `extra` (JSON) in the file's header.

    Safetensors run no code when they are read, which a pickled checkpoint of Habitat's may.
    """
    tensors = {k: v.detach().cpu().contiguous() for k, v in weights.items()}
    header = {
        "format": "memo-habitat-1",
        "config": OmegaConf.to_yaml(config),
        "extra_state": json.dumps(extra),
    }
    _save(path, lambda file: save_file(tensors, file, metadata=header))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """`state_dict`, `config` and `extra_state`, on the CPU; UserError where it is none of ours."""
    if not path.is_file():
        raise UserError(f"no checkpoint at {path}; `memo-habitat train` writes ckpt.N.safetensors")
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            header = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise UserError(f"{path} is not a readable safetensors checkpoint: {error}") from error
    if "config" not in header or "extra_state" not in header:
        raise UserError(f"{path} has no config in its header: it was not written by memo-habitat")
    return {
        "state_dict": weights,
        "config": OmegaConf.create(header["config"]),
        "extra_state": json.loads(header["extra_state"]),
    }


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


def write_resume_state(folder: Path, state: dict[str, Any], config: DictConfig) -> None:
    """Everything to go on from: `state` holds tensors and plain containers only."""
    whole = {**state, "config": OmegaConf.to_yaml(config), "random": _random_state()}
    _save(folder / RESUME_STATE, lambda file: torch.save(whole, file))


def read_resume_state(folder: Path) -> dict[str, Any] | None:
    """What `write_resume_state` wrote, with the config composed; None where there is nothing."""
    path = folder / RESUME_STATE
    if not path.is_file():
        return None
    try:
        # Weights only: what is read here may come from somebody else, and must run no code.
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        state["config"] = OmegaConf.create(state["config"])
    except Exception as error:
        raise UserError(
            f"{path} cannot be read ({type(error).__name__}: {error}); remove it to begin again"
        ) from error
    return state


def replace_resume_config(folder: Path, config: DictConfig) -> None:
    """Let the training in `folder` go on with `config`; nothing is written where it is the same."""
    path, text = folder / RESUME_STATE, OmegaConf.to_yaml(config)
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    if state["config"] != text:
        changed = {**state, "config": text}
        _save(path, lambda file: torch.save(changed, file))


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


def newest_checkpoint(path: Path) -> Path:
    """`path` itself if it is a file, in a folder the latest checkpoint; UserError if not there."""
    found = path / LATEST if path.is_dir() else path
    if not found.is_file():
        raise UserError(f"no checkpoint at {found}: train first, or name a checkpoint file")
    return found


def _random_state() -> dict[str, Any]:
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


def _save(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file that replaces `path` when it is whole."""
    try:
        with atomic_path(path) as temporary:
            write(temporary)
    # What torch and safetensors make of a full disk.
    except (RuntimeError, SafetensorError) as error:
        raise UserError(f"cannot write {path} ({error}); check space and permissions") from error
