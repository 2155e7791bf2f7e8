"""The PPO updater: gradients accumulated over groups of environments, averaged over workers."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from habitat_baselines.common.baseline_registry import baseline_registry
from habitat_baselines.rl.ppo.updater import Updater
from habitat_baselines.utils.timing import g_timer
from torch import Tensor, distributed, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from memo_habitat.errors import NonFiniteError
from memo_habitat.memory.variants import check_recorded_training
from memo_habitat.policy.policy import MemoPolicy
from memo_habitat.policy.recall import with_drawn_targets
from memo_habitat.ppo.losses import policy_loss, value_loss
from memo_habitat.ppo.optimiser import build_optimiser
from memo_habitat.rollout.batch import TrialBatch
from memo_habitat.rollout.storage import TrialStorage

# Also logged of the passes before an update's first step alone, as initial_...: how far the policy
# that learns is from the one that acted, where it should be the same.
_OFF_POLICY = ("clip_fraction", "approx_kl")
_OLD = ("log_probs", "values")


@baseline_registry.register_updater(name="MemoPPO")
class MemoPPO(Updater):
    """`ppo_epoch` passes over all environments; minibatches bound memory, not the step size.

    With `accumulate_gradients` each epoch makes one optimiser step from the gradients of all its
    minibatches; without it every minibatch makes a step of its own.

    Attributes:
        after_pass: called when a minibatch was learned from; nothing unless it is set.
    """

    def __init__(self, policy: MemoPolicy, config: Any) -> None:
        self.policy = policy
        self.config = config
        check_recorded_training(policy.network.memory.config, next(policy.parameters()).device)
        self.optimizer = build_optimiser(policy, config.optimizer, config.lr, config.eps)
        self.entropy_coef = float(config.entropy_coef)
        # No teacher before the first `anneal`: the rehearsal of a plan observes none.
        self.surrogate_coef, self.imitation_coef = 1.0, 0.0
        self._distributed = False
        self.after_pass: Callable[[], None] = lambda: None

    @classmethod
    def from_config(cls, actor_critic: MemoPolicy, config: Any) -> MemoPPO:
        """Build the updater from `habitat_baselines.rl.ppo`, as Habitat calls it."""
        return cls(actor_critic, config)

    def parameters(self) -> Iterator[nn.Parameter]:
        """All parameters of the policy."""
        return self.policy.parameters()

    def train(self) -> None:
        """Put the policy into training mode."""
        self.policy.train()

    def init_distributed(self, find_unused_params: bool = False) -> None:
        """Begin from rank 0's weights and average gradients from here on."""
        # Not by DistributedDataParallel, which averages in the backward pass of every minibatch and
        # follows `forward` alone, which no pass of this policy goes through.
        self._distributed = True
        for tensor in self.policy.state_dict().values():
            distributed.broadcast(tensor, src=0)

    def set_learning_rate(self, learning_rate: float) -> None:
        """Learning rate of the optimiser steps that follow."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate

    def anneal(self, share: float) -> None:
        """Set the coefficients for the updates that follow `share` of the training."""
        first, last = self.config.entropy_coef, self.config.entropy_coef_final
        if last is not None:
            self.entropy_coef = first + (last - first) * min(share, 1.0)
        # At first the policy imitates, in steps that the teacher takes less and less of. What the
        # teacher did is no sample of the policy: rewards are learned from once it has gone.
        left = max(0.0, 1.0 - share / self.config.teacher_until)
        is_taught = bool(left and self.config.imitation_coef)
        self.surrogate_coef = 0.0 if is_taught else 1.0
        self.imitation_coef = self.config.imitation_coef if is_taught else 0.0
        self.policy.learn_from(
            self.config.teacher if is_taught else None, left * self.config.teacher_share
        )

    def update(self, rollouts: TrialStorage) -> dict[str, float]:
        """One partial or full update from the steps in storage; returns means for the log."""
        sums: defaultdict[str, float] = defaultdict(float)
        passes = first_passes = 0
        count = min(self.config.num_mini_batch, len(rollouts.actions))
        live = int(rollouts.live.sum())
        drawn = live * -(-count // live)  # `minibatches` repeats what is less than `count`
        length = None  # of segments: another one in every pass
        with g_timer.avg_time("trainer.ppo"):
            memory = self.policy.network.memory
            if memory.config.segment_jitter_in == "update_with_recomputed_ratios":
                length = memory.draw_segment_length()
                rollouts = self._recomputed(rollouts, length, count)
            for _ in range(self.config.ppo_epoch):
                # One minibatch at a time exists: together they are a copy of the rollout.
                for i, batch in enumerate(rollouts.minibatches(count)):
                    accumulate = self.config.accumulate_gradients
                    share = len(batch.actions) / drawn if accumulate else 1.0
                    found = self.backward(batch, share, length)
                    for name, value in found.items():
                        sums[name] += value
                    passes += 1
                    if "grad_norm" not in sums:  # no weight has changed yet
                        first_passes += 1
                        for name in _OFF_POLICY:
                            sums[f"initial_{name}"] += found[name]
                    if not accumulate or i + 1 == count:
                        sums["grad_norm"] += self.optimiser_step()
                    if not accumulate:  # the same number of steps on every worker
                        for _ in range(self.config.hindsight_passes):
                            self._hindsight(batch)
                    self.after_pass()
        # Losses are means over passes, the gradient's norm over the steps that were made of them.
        steps = passes / count if self.config.accumulate_gradients else passes
        counts = {"grad_norm": steps} | {f"initial_{name}": first_passes for name in _OFF_POLICY}
        means = {name: total / counts.get(name, passes) for name, total in sums.items()}
        means["entropy_coef"] = self.entropy_coef
        means["learning_rate"] = float(self.optimizer.param_groups[0]["lr"])
        return means

    @torch.no_grad()
    def _recomputed(self, rollouts: TrialStorage, length: int, count: int) -> TrialStorage:
        """The rollout with what the weights of now make of it in segments of `length` steps.

        Acting had segments of S steps: its log-probabilities are of a somewhat different policy,
        and PPO would hold this one near to that. Recomputed in `count` parts, as the passes are.
        """
        was_training = self.policy.training
        self.policy.eval()  # acting drops no layers
        everyone = torch.arange(len(rollouts.actions))
        parts = [
            self.policy.evaluate_trials(rollouts.batch(rows), length, False)
            for rows in everyone.tensor_split(count)
        ]
        self.policy.train(was_training)
        log_probs, values = (torch.cat([getattr(p, name) for p in parts]) for name in _OLD)
        return rollouts.with_old_policy(log_probs, values)

    def backward(
        self, batch: TrialBatch, share: float, segment_length: int | None = None
    ) -> dict[str, float]:
        """Add `share` of this minibatch's gradient, in segments of their own length if given."""
        cfg = self.config
        if segment_length is None:
            segment_length = self.policy.learning_segment_length()
        out = self.policy.evaluate_trials(batch, segment_length, cfg.context_encoder_gradients)
        advantages = batch.in_loss(batch.advantages)
        # Over the minibatch, as PPO implementations do; with few environments this is noise.
        if cfg.use_normalized_advantage:
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-5)
        surrogate = policy_loss(
            out.log_probs, batch.in_loss(batch.log_probs), advantages, cfg.clip_param
        )
        returns = batch.in_loss(batch.returns)
        value_error = value_loss(
            out.values,
            batch.in_loss(batch.values),
            returns,
            cfg.clip_param if cfg.use_clipped_value_loss else None,
        )
        entropy = out.entropy.mean()
        loss = (
            self.surrogate_coef * surrogate.loss
            + cfg.value_loss_coef * value_error
            - self.entropy_coef * entropy
        )
        # What the policy has no part for, and what is annealed away, counts and is logged as 0.
        auxiliary = memory_loss = imitation = torch.zeros_like(entropy)
        if out.auxiliary_logits is not None:
            uuid = self.policy.network.auxiliary_sensor
            truth = batch.in_loss(batch.observations[uuid]).flatten(2).float()
            auxiliary = binary_cross_entropy_with_logits(out.auxiliary_logits, truth)
            loss = loss + cfg.auxiliary_coef * auxiliary
        if out.memory_loss is not None:
            memory_loss = out.memory_loss
            loss = loss + self.policy.network.memory.config.memory_loss_coef * memory_loss
        if out.teacher_log_probs is not None:
            imitation = -out.teacher_log_probs.mean()
            loss = loss + self.imitation_coef * imitation
        if out.recall_loss is not None:
            loss = loss + cfg.recall_coef * out.recall_loss
        # Shares add up to 1: what accumulates is the gradient of all environments at once.
        (share * loss).backward()  # type: ignore[no-untyped-call]
        found = {
            "value_loss": value_error.item(),
            "action_loss": surrogate.loss.item(),
            "auxiliary_loss": auxiliary.item(),
            "memory_loss": memory_loss.item(),
            "dist_entropy": entropy.item(),
            "clip_fraction": surrogate.clip_fraction.item(),
            "approx_kl": surrogate.approx_kl.item(),
            "explained_variance": _explained_variance(out.values.detach(), returns),
            "segment_length": float(segment_length),
            "imitation_loss": imitation.item(),
            **out.recall_parts,
        }
        self._check_loss(loss, found)
        return found

    def _check_loss(self, loss: Tensor, found: dict[str, float]) -> None:
        if math.isfinite(loss.item()):
            return
        losses = [name for name, value in found.items() if not math.isfinite(value)]
        raise NonFiniteError("loss", losses + self._not_finite(lambda weights: weights))

    def _hindsight(self, batch: TrialBatch) -> None:
        """One optimiser step of what the same trials would be asked, had they sought other things.

        Of the losses only those that need no acting have an answer there: recall and the memory's.
        """
        observations = with_drawn_targets(batch.observations, self.policy.reach)
        length = self.policy.learning_segment_length()
        # With gradients of all steps: kept features are of the target that there was.
        out = self.policy.evaluate_trials(replace(batch, observations=observations), length, True)
        if out.recall_loss is None:  # `trainer.validation` says so before anything is launched
            raise ValueError("hindsight_passes needs a policy with a recall loss")
        loss = self.config.recall_coef * out.recall_loss
        if out.memory_loss is not None:
            loss = loss + self.policy.network.memory.config.memory_loss_coef * out.memory_loss
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser_step()

    def optimiser_step(self) -> float:
        """Average over workers, clip, step; returns the gradient's norm before clipping."""
        if self._distributed:
            with g_timer.avg_time("trainer.average_gradients"):
                self._average_gradients()
        # After averaging: all workers clip alike and keep the same weights.
        try:
            norm = nn.utils.clip_grad_norm_(
                self.policy.parameters(), self.config.max_grad_norm, error_if_nonfinite=True
            )
        except RuntimeError as error:
            if "non-finite" not in str(error):
                raise
            names = self._not_finite(lambda weights: weights.grad) or ["their norm"]
            raise NonFiniteError("gradient", names) from error
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(norm)

    def _not_finite(self, part: Callable[[nn.Parameter], Tensor | None]) -> list[str]:
        """Names of the weights of which this part has infinities, or what is not a number."""
        named = ((name, part(weights)) for name, weights in self.policy.named_parameters())
        return [name for name, x in named if x is not None and not bool(x.isfinite().all())]

    def _average_gradients(self) -> None:
        """One all-reduce of all gradients: a call for each parameter would wait for each."""
        parameters = list(self.policy.parameters())
        used = torch.tensor([float(p.grad is not None) for p in parameters])
        for parameter in parameters:
            if parameter.grad is None:  # unused on this worker, perhaps used on another
                parameter.grad = torch.zeros_like(parameter)
        grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
        # `parameters_to_vector` takes views, which those of convolutions laid out channels last
        # have none of.
        flat = torch.cat([*(grad.reshape(-1) for grad in grads), used.to(grads[0].device)])
        distributed.all_reduce(flat)
        flat /= distributed.get_world_size()
        *pieces, used = flat.split([*(grad.numel() for grad in grads), len(grads)])
        for grad, piece in zip(grads, pieces, strict=True):
            grad.copy_(piece.view_as(grad))
        # What no worker used, as the actor in a pass in hindsight, stays as it is: from zeros an
        # optimiser would step on by its momentum, which it does not in a single process.
        for parameter, share in zip(parameters, used.tolist(), strict=True):
            if share == 0.0:
                parameter.grad = None

    def get_resume_state(self) -> dict[str, Any]:
        """The optimiser's state."""
        return {"optim_state": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the optimiser's state."""
        self.optimizer.load_state_dict(state["optim_state"])


def _explained_variance(values: Tensor, returns: Tensor) -> float:
    """Share of the returns' variance that the values explain; 0 where the returns do not vary."""
    variance = returns.var()
    if float(variance) == 0.0:
        return 0.0
    return float(1.0 - (returns - values).var() / variance)
