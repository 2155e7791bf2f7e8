"""What is not finite ends a training before it is learned from; a file says what was known."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from torch import Tensor

from memo_habitat.errors import NonFiniteError
from memo_habitat.rollout.batch import STEP_FIELDS
from memo_habitat.rollout.storage import TrialStorage
from memo_habitat.utils.files import write_json
from memo_habitat.utils.processes import ranks


@contextlib.contextmanager
def dumped_if_not_finite(trainer: Any) -> Iterator[None]:
    """Within, a trainer learns; a small file in the run folder says more of a NonFiniteError."""
    try:
        yield
    except NonFiniteError as error:
        baselines, update = trainer.config.habitat_baselines, trainer.num_updates_done
        # A reward may be so on one of several processes, a loss on each: none replaces another's.
        whose = f"-rank{ranks().rank}" if ranks().size > 1 else ""
        path = Path(baselines.checkpoint_folder).parent / f"nonfinite-{update}{whose}.json"
        dump = {
            "what": error.what,
            "non_finite": error.names,
            "update": update,
            "steps": trainer.num_steps_done,
            "rollout": rollout_summary(trainer._agent.rollouts),
            "config": OmegaConf.to_container(trainer.config, resolve=True),
        }
        write_json(path, dump)
        remedy = "correct the measure that gives the task's reward"
        if error.what != "reward":
            remedy = (
                f"go on from the last checkpoint with less than habitat_baselines.rl.ppo.lr="
                f"{baselines.rl.ppo.lr} or rl.ppo.max_grad_norm={baselines.rl.ppo.max_grad_norm}"
            )
            if baselines.rl.precision != "float32":
                remedy += f", or rl.precision=float32 in the place of {baselines.rl.precision}"
        line = f"{error}, in update {update} at {trainer.num_steps_done} steps ({path}); {remedy}"
        raise NonFiniteError(error.what, error.names, line) from error


def rollout_summary(storage: TrialStorage) -> dict[str, dict[str, Any]]:
    """Of each tensor of the steps so far: shape, what is not finite, and the range of the rest."""
    named = {name: getattr(storage, name) for name in (*STEP_FIELDS, "rewards", "features")}
    tensors = {**named, **storage.observations}
    return {name: _summary(tensor[:, : storage.steps]) for name, tensor in tensors.items()}


def _summary(tensor: Tensor) -> dict[str, Any]:
    finite = tensor.isfinite()
    kept = tensor[finite].double()
    return {
        "shape": list(tensor.shape),
        "non_finite": int((~finite).sum()),
        "environments": (~finite).flatten(1).any(1).nonzero().flatten().tolist(),
        **({"min": float(kept.min()), "max": float(kept.max())} if len(kept) else {}),
    }
