"""Collection without a loop over environments, against Habitat's own on the same environments."""

from __future__ import annotations

import sys
from textwrap import dedent
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from habitat.config import read_write
from habitat.config.default import patch_config

from memo_habitat.config.compose import compose_config
from memo_habitat.errors import UserError
from memo_habitat.memory.variants import kinds, unregister
from memo_habitat.tasks.vector_env import InProcessVectorEnv
from memo_habitat.trainer.collection import BatchedCollector
from memo_habitat.trainer.progress import read_progress
from memo_habitat.trainer.trainer import MemoTrainer
from memo_habitat.trainer.validation import check_model_config
from memo_habitat.trainer.worker_envs import WorkerVectorEnv

ENVS, TRIAL, EPISODE = 3, 12, 5
SIZES = (
    "habitat.task.size=3",
    f"habitat.task.trial_steps={TRIAL}",
    f"habitat.environment.max_episode_steps={EPISODE}",
    f"habitat_baselines.num_environments={ENVS}",
    "habitat_baselines.rl.ppo.updates_per_trial=3",
    "habitat_baselines.rl.ppo.ppo_epoch=1",
    "habitat_baselines.rl.memory.width=16",
    "habitat_baselines.rl.memory.layers=1",
    "habitat_baselines.rl.memory.heads=2",
    "habitat_baselines.rl.memory.hidden=16",
    "habitat_baselines.rl.memory.segment_length=5",
    "habitat_baselines.rl.memory.summary_length=2",
)
TRIALS = 4


@pytest.fixture(scope="module")
def composed():
    return patch_config(compose_config("dark_key_to_door", SIZES))


def trained(composed, folder):
    config = composed.copy()
    with read_write(config):
        config.run_dir = str(folder)
        config.habitat_baselines.total_num_steps = TRIALS * TRIAL * ENVS
    torch.manual_seed(0)
    trainer = MemoTrainer(config)
    trainer.train()
    return trainer


def told(folder):
    kept = ("steps", "updates", "episodes", "metrics", "learner", "trials")
    return [{k: row.get(k) for k in kept} for row in read_progress(folder / "progress.jsonl")]


@pytest.mark.slow
def test_a_training_is_the_same_as_with_habitats_collection(composed, tmp_path, monkeypatch):
    fast = trained(composed, tmp_path / "fast")
    assert isinstance(fast.envs, InProcessVectorEnv)
    # Taken for workers, they are stepped by Habitat, one by one.
    monkeypatch.setattr("memo_habitat.trainer.trainer.InProcessVectorEnv", WorkerVectorEnv)
    slow = trained(composed, tmp_path / "slow")
    assert len(told(tmp_path / "fast")) == 3 * TRIALS
    assert told(tmp_path / "fast") == told(tmp_path / "slow")
    for name, buffer in vars(slow._agent.rollouts).items():
        if isinstance(buffer, torch.Tensor):
            assert torch.equal(getattr(fast._agent.rollouts, name), buffer), name
    weights = fast._agent.actor_critic.state_dict()
    for name, weight in slow._agent.actor_critic.state_dict().items():
        assert torch.equal(weights[name], weight), name


def test_the_return_of_a_trial_is_told_where_one_ends(composed, tmp_path):
    trainer = trained(composed, tmp_path)
    rows = told(tmp_path)
    assert [row["trials"] is not None for row in rows] == [False, False, True] * TRIALS
    last = rows[-1]["trials"]
    assert last["count"] == ENVS
    assert last["return"] == pytest.approx(float(trainer._agent.rollouts.rewards.sum()) / ENVS)


@pytest.mark.parametrize("pieces", [(12,), (4, 4, 4), (1, 11), (5, 2, 5)])
def test_episodes_are_counted_as_one_by_one(pieces):
    drawn = np.random.default_rng(len(pieces))
    rewards = drawn.integers(0, 3, (ENVS, TRIAL)).astype(np.float32)
    ends = drawn.random((ENVS, TRIAL)) < 0.3
    ends[0] = False
    ends[:, -1] = True
    counted, collected = [0] * ENVS, [0.0] * ENVS
    running = [0.0] * ENVS
    for env in range(ENVS):
        for step in range(TRIAL):
            running[env] += rewards[env, step]
            if ends[env, step]:
                counted[env] += 1
                collected[env] += running[env]
                running[env] = 0.0
    starts = torch.ones(ENVS, TRIAL + 1, dtype=torch.bool)
    starts[:, 1:] = torch.from_numpy(ends)
    storage = SimpleNamespace(rewards=torch.from_numpy(rewards), episode_starts=starts, steps=0)
    collector = BatchedCollector(
        SimpleNamespace(num_envs=ENVS), SimpleNamespace(rollouts=storage), []
    )
    count, reward, before = torch.zeros(ENVS, 1), torch.zeros(ENVS, 1), torch.zeros(ENVS, 1)
    for piece in pieces:
        since, storage.steps = storage.steps, storage.steps + piece
        found = collector.take_statistics(since, before)
        count, reward = count + found["count"], reward + found["reward"]
    assert count.flatten().tolist() == counted
    assert reward.flatten().tolist() == collected
    assert before.flatten().tolist() == running


def test_plugins_are_imported_where_environments_share_the_trainers_process(
    composed, tmp_path, monkeypatch
):
    code = """
        from memo_habitat.memory import register
        from memo_habitat.memory.variants import FullContext

        class Mine(FullContext):
            pass

        register("of_a_plugin", Mine)
        """
    (tmp_path / "plugged_in.py").write_text(dedent(code))
    monkeypatch.syspath_prepend(tmp_path)
    config = composed.copy()
    with read_write(config):
        config.run_dir = str(tmp_path / "run")
        config.habitat_baselines.total_num_steps = TRIAL * ENVS
        config.habitat_baselines.plugins = ["plugged_in"]
        config.habitat_baselines.rl.memory.kind = "of_a_plugin"
    with pytest.raises(UserError, match="of_a_plugin"):
        check_model_config(config)
    MemoTrainer(config).train()
    assert "of_a_plugin" in kinds()
    unregister("of_a_plugin")
    del sys.modules["plugged_in"]
    assert len(told(tmp_path / "run")) == 3


def test_workers_are_not_taken_for_environments_in_this_process():
    assert not isinstance(SimpleNamespace(num_envs=1), InProcessVectorEnv)
