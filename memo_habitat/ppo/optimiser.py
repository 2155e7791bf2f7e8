"""The optimiser of an update: Adam, or Muon for the memory's matrices with Adam for the rest."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from memo_habitat.errors import UserError, check_choice
from memo_habitat.policy.policy import MemoPolicy


@dataclass(frozen=True)
class LearningRate:
    """Linear warm-up from `peak * warmup_start` over `warmup_steps`, then cosine to `final`."""

    peak: float
    warmup_steps: float
    warmup_start: float
    final: float
    total_steps: float

    def at(self, steps: float) -> float:
        """Learning rate after `steps` environment steps, summed over all workers."""
        if steps < self.warmup_steps:
            share = self.warmup_start + (1.0 - self.warmup_start) * steps / self.warmup_steps
            return self.peak * share
        # A training may be shorter than its warm-up, and a resumed one longer than its total.
        span = max(self.total_steps - self.warmup_steps, 1.0)
        done = min((steps - self.warmup_steps) / span, 1.0)
        return self.final + (self.peak - self.final) * 0.5 * (1.0 + math.cos(math.pi * done))


OPTIMISERS = ("adam", "muon")
_MOMENTUM = 0.95


def build_optimiser(
    policy: MemoPolicy, name: str, lr: float, eps: float
) -> torch.optim.Optimizer | MuonAndAdam:
    """The optimiser that `rl.ppo.optimizer` names, over all parameters of the policy."""
    check_choice("habitat_baselines.rl.ppo.optimizer", name, OPTIMISERS)
    if name == "adam":
        return _eager(torch.optim.Adam)(policy.parameters(), lr=lr, eps=eps)
    if not hasattr(torch.optim, "Muon"):
        raise UserError(
            f"habitat_baselines.rl.ppo.optimizer=muon needs PyTorch 2.9 or newer, and this is "
            f"{torch.__version__}: pip install -U torch, or choose adam"
        )
    return MuonAndAdam(policy, lr, eps)


def _eager(kind: type[torch.optim.Optimizer]) -> type[Any]:
    """An optimiser of torch's that does not import torch.compile, for it is not compiled.

    The wrappers of its methods would: more than a second and 150 MB of every training.
    """
    names = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    methods: dict[str, Any] = {name: inspect.unwrap(getattr(kind, name)) for name in names}
    methods["step"] = torch.no_grad()(inspect.unwrap(kind.step))
    return type(kind.__name__, (kind,), methods)


class MuonAndAdam:
    """Muon (kellerjordan.github.io/posts/muon) for the matrices between hidden states.

    Its steps are scaled to the size of Adam's, so that one learning rate serves both. Vectors,
    embeddings, the projection to tokens and the heads are Adam's: what Muon makes of a matrix, a
    step of equal length in all directions, suits those whose two sides are hidden.

    Attributes:
        param_groups: of both optimisers.
    """

    def __init__(self, policy: MemoPolicy, lr: float, eps: float) -> None:
        hidden = hidden_matrices(policy)
        if not hidden:
            raise UserError(
                "habitat_baselines.rl.ppo.optimizer=muon: this memory has no weight matrices; "
                "choose adam"
            )
        own = {id(parameter) for parameter in hidden}
        others = [p for p in policy.parameters() if id(p) not in own]
        self._adam = _eager(torch.optim.Adam)(others, lr=lr, eps=eps)
        self._muon = _eager(torch.optim.Muon)(
            hidden, lr=lr, momentum=_MOMENTUM, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"
        )
        self.param_groups = [*self._adam.param_groups, *self._muon.param_groups]

    def step(self) -> None:
        """Step with the gradients at hand."""
        self._adam.step()
        self._muon.step()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self._adam.zero_grad()
        self._muon.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """What both have accumulated."""
        return {"adam": self._adam.state_dict(), "muon": self._muon.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with what both had accumulated."""
        self._adam.load_state_dict(state["adam"])
        self._muon.load_state_dict(state["muon"])
        # Loading replaces the groups.
        self.param_groups = [*self._adam.param_groups, *self._muon.param_groups]


def hidden_matrices(policy: MemoPolicy) -> list[nn.Parameter]:
    """Weights [out, in] within the policy's memory; the summary queries are embeddings."""
    return [
        parameter
        for name, parameter in policy.network.named_parameters()
        if name.startswith("memory.")
        and parameter.ndim == 2
        and name.rpartition(".")[2].startswith("weight")
    ]
