"""Supervised recall: how fast does a memory learn to say where things were seen?

Random walks in homes of the training split, no rewards: only the losses that ask what was detected
(docs/results/recall.md). Prints a JSON line per evaluation, over walks in the test split.

    python tools/bench/recall.py memory=memo
    python tools/bench/recall.py memory=fct --updates 2000 habitat_baselines.rl.ppo.lr=5e-4
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from omegaconf import DictConfig

from memo_habitat.config.compose import compose_config
from memo_habitat.policy.policy import MemoPolicy
from memo_habitat.ppo.optimiser import build_optimiser
from memo_habitat.rollout.batch import TrialBatch
from memo_habitat.rollout.storage import TrialStorage
from memo_habitat.tasks.vector_env import InProcessVectorEnv

# Of each step, and of a turn's continuing: walks go far, and a wall turns them.
_FORWARD, _KEEP_TURNING = 0.8, 0.6
_EPISODE_STEPS = 40.0  # mean; then the walk goes on elsewhere with another target


class Walkers:
    """Environments that walk at random; each call of `trials` fills the storage with new ones."""

    def __init__(self, config: DictConfig, split: str, seed: int) -> None:
        config = config.copy()
        config.habitat.dataset.split, config.habitat.seed = split, seed
        factory = hydra.utils.instantiate(config.habitat_baselines.vector_env_factory)
        self.envs: InProcessVectorEnv = factory.construct_envs(
            config, workers_ignore_signals=False, enforce_scenes_greater_eq_environments=False
        )
        self._names = list(config.habitat.task.actions)
        self._random = np.random.default_rng(seed)
        self.space, self.actions = self.envs.observation_spaces[0], self.envs.action_spaces[0]
        self.storage = TrialStorage(
            self.envs.num_envs, config.habitat.task.trial_steps, self.space, feature_width=0
        )
        self._action = np.zeros(self.envs.num_envs, dtype=np.int64)
        self._stored(self.envs.reset_batch(), first=True)

    def trials(self) -> TrialStorage:
        """One trial of every environment, to the end."""
        storage, count = self.storage, self.envs.num_envs
        if storage.trial_complete:
            storage.after_update()
        while not storage.trial_complete:
            taken = torch.from_numpy(self._walk())[:, None]
            zeros = torch.zeros(count, 1)
            storage.insert(actions=taken, action_log_probs=zeros, value_preds=zeros)
            step = self.envs.step_batch(taken[:, 0].numpy())
            self._stored(step.observations, first=False, ends=step.episode_ends)
            storage.advance_rollout()
        return storage

    def _stored(self, observed: Any, first: bool, ends: Any = None) -> None:
        batch = {uuid: torch.from_numpy(np.array(value)) for uuid, value in observed.items()}
        if first:
            self.storage.insert_first_observations(batch)
            return
        self.storage.insert(
            next_observations=batch,
            rewards=torch.zeros(len(ends), 1),
            next_masks=torch.from_numpy(~ends)[:, None],
        )

    def _walk(self) -> np.ndarray:
        names, draw, count = self._names, self._random.random, len(self._action)
        turns = [names.index("turn_left"), names.index("turn_right")]
        other = [index for index, name in enumerate(names) if name.startswith("look")] or turns
        going_on = np.isin(self._action, turns) & (draw(count) < _KEEP_TURNING)
        new = np.where(
            draw(count) < 0.75, self._random.choice(turns, count), self._random.choice(other, count)
        )
        forward = names.index("move_forward")
        action = np.where(draw(count) < _FORWARD, forward, new)
        action = np.where(going_on, self._action, action)
        action = np.where(draw(count) < 1 / _EPISODE_STEPS, names.index("stop"), action)
        self._action = action
        return action


def losses(policy: MemoPolicy, batch: TrialBatch, segment: int) -> dict[str, torch.Tensor]:
    """The recall loss with its parts, and the memory loss, of one batch."""
    found = policy.evaluate_trials(batch, segment, context_encoder_gradients=True)
    if found.recall_loss is None:
        raise SystemExit("nothing is asked: set habitat_baselines.rl.encoder.recall=target")
    memory = found.memory_loss
    return {
        "recall": found.recall_loss,
        "memory_loss": torch.zeros(()) if memory is None else memory,
        **{name: torch.tensor(value) for name, value in found.recall_parts.items()},
    }


def minibatches(walkers: Walkers, count: int, generator: torch.Generator) -> Iterator[TrialBatch]:
    """Endless minibatches of fresh trials."""
    while True:
        yield from walkers.trials().minibatches(count, generator)


def train(config: DictConfig, updates: int, every: int, out: Any) -> None:
    """Learn for so many optimiser steps and write what the held-out homes say."""
    ppo, coef = config.habitat_baselines.rl.ppo, config.habitat_baselines.rl.memory.memory_loss_coef
    torch.manual_seed(config.habitat.seed)
    walkers = Walkers(config, "train", config.habitat.seed)
    held_out = Walkers(config, "test", config.habitat.seed + 1).trials()
    policy = MemoPolicy.from_config(config, walkers.space, walkers.actions)
    optimiser = build_optimiser(policy, ppo.optimizer, ppo.lr, ppo.eps)
    generator = torch.Generator().manual_seed(config.habitat.seed)
    batches = minibatches(walkers, ppo.num_mini_batch, generator)
    began, sums = time.process_time(), dict[str, float]()
    for update in range(updates + 1):
        if update % every == 0:
            policy.eval()
            with torch.no_grad():
                (batch,) = held_out.minibatches(1)
                found = losses(policy, batch, config.habitat_baselines.rl.memory.segment_length)
            policy.train()
            line = {"updates": update, "cpu_minutes": (time.process_time() - began) / 60}
            line |= {name: round(value.item(), 4) for name, value in found.items()}
            line |= {f"train_{name}": round(value / every, 4) for name, value in sums.items()}
            out.write(json.dumps(line) + "\n")
            out.flush()
            sums = {}
        warm = min(1.0, (update + 1) / 50)
        for group in optimiser.param_groups:
            group["lr"] = ppo.lr * warm
        found = losses(policy, next(batches), policy.network.memory.draw_segment_length())
        optimiser.zero_grad()
        (found["recall"] + (coef / max(ppo.recall_coef, 1e-9)) * found["memory_loss"]).backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimiser.step()
        for name, value in found.items():
            sums[name] = sums.get(name, 0.0) + value.item()


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*", help="Hydra overrides")
    parser.add_argument("--config-name", default="extobjnav/apartments")
    parser.add_argument("--updates", type=int, default=1000, help="optimiser steps")
    parser.add_argument("--every", type=int, default=100, help="steps between evaluations")
    parser.add_argument("--json", default="-", help="file to append lines to; -: standard output")
    args = parser.parse_args()
    import memo_habitat.register  # noqa: F401

    config = compose_config(args.config_name, ["encoder=detections", *args.overrides])
    torch.set_num_threads(1)
    with Path(args.json).open("a") if args.json != "-" else sys.stdout as out:
        train(config, args.updates, args.every, out)


if __name__ == "__main__":
    main()
