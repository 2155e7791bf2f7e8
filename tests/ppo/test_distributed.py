"""Two workers learn as one: the same weights everywhere, from the mean of their gradients."""

from __future__ import annotations

import copy
import hashlib

import pytest
import torch
from torch import distributed, multiprocessing

from memo_habitat.config.trainer import MemoPPOConfig
from memo_habitat.ppo.updater import MemoPPO
from tests.factories.policies import act_trial, new_storage, small_policy

ENVS = 2


def policy_and_storage(seed, num_envs=ENVS):
    torch.manual_seed(seed)
    policy = small_policy(segment_jitter=0.0, depth_dropout=0.0)
    storage = new_storage(policy.eval(), num_envs, trial_steps=6)
    act_trial(policy, storage, 6, seed=100 * seed)
    storage.compute_returns(torch.zeros(num_envs), use_gae=True, gamma=0.9, tau=0.9)
    return policy, storage


def updater_of(policy):
    return MemoPPO(policy.train(), MemoPPOConfig(ppo_epoch=1, num_mini_batch=1, lr=1e-3))


def work(rank, folder):
    """What one of two workers does for both tests that start them: a start takes seconds."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    torch.save(update_once(rank), f"{folder}/once{rank}.pt")
    torch.save(learn(*shard(rank), joined=True), f"{folder}/shard{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Returns what both workers have saved under a name."""
    folder = tmp_path_factory.mktemp("workers")
    multiprocessing.start_processes(work, (str(folder),), nprocs=2, start_method="spawn")
    return lambda name: [torch.load(folder / f"{name}{rank}.pt") for rank in (0, 1)]


def update_once(rank):
    """Weights before and after, of one worker with weights and steps of its own; rank 1 never runs
    its second layer.
    """
    policy, storage = policy_and_storage(rank)
    updater = updater_of(policy)
    updater.init_distributed()
    start = copy.deepcopy(policy.state_dict())
    if rank == 1:
        policy.network.memory._draw_layers = lambda: [0]
    updater.update(storage)
    return start, policy.state_dict()


def gradients(weights, rank):
    """What worker `rank` finds on its own, beginning from `weights`; zero where it finds none."""
    policy, storage = policy_and_storage(rank)
    policy.load_state_dict(weights)
    if rank == 1:
        policy.network.memory._draw_layers = lambda: [0]
    updater = updater_of(policy)
    updater.backward(next(storage.minibatches(1)), 1.0)
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in policy.parameters()]


@pytest.mark.slow
def test_workers_agree_on_the_step_of_their_mean_gradient_even_where_one_has_none(saved):
    (start, first), (other_start, second) = saved("once")
    for name, weight in first.items():
        assert torch.equal(start[name], other_start[name]), name
        assert torch.equal(weight, second[name]), name
    alone = updater_of(policy_and_storage(0)[0])
    alone.policy.load_state_dict(start)
    means = zip(gradients(start, 0), gradients(start, 1), strict=True)
    for parameter, (a, b) in zip(alone.parameters(), means, strict=True):
        parameter.grad = (a + b) / 2
    alone.optimiser_step()
    for name, weight in alone.policy.state_dict().items():
        torch.testing.assert_close(first[name], weight, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_a_pass_in_hindsight_leaves_the_actor_alone_among_workers_too(tmp_path, optimizer):
    """From zeros an optimiser would go on by its momentum."""

    def learn(policy, storage, joined):
        torch.manual_seed(3)
        config = MemoPPOConfig(
            ppo_epoch=2,
            num_mini_batch=2,
            lr=1e-3,
            accumulate_gradients=False,
            hindsight_passes=2,
            optimizer=optimizer,
        )
        updater = MemoPPO(policy.train(), config)
        if joined:
            updater.init_distributed()
        updater.update(storage)

    sizes = {"segment_jitter": 0.0, "depth_dropout": 0.0, "memory_loss": "observations"}
    torch.manual_seed(0)
    policy = small_policy("memo", "detections", recall="target", **sizes)
    storage = new_storage(policy.eval(), num_envs=4, trial_steps=12)
    act_trial(policy, storage, 12)
    storage.compute_returns(torch.zeros(4), use_gae=True, gamma=0.9, tau=0.9)
    twin = copy.deepcopy(policy)
    learn(policy, storage, joined=False)
    distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1
    )
    try:
        learn(twin, storage, joined=True)
    finally:
        distributed.destroy_process_group()
    for (name, alone), joined in zip(policy.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(joined, alone, atol=0, rtol=0, msg=name)


UPDATES = 3


def shard(rank):
    """A policy, the same in every process, and the trials of one worker's environments."""
    torch.manual_seed(0)
    policy = small_policy(segment_jitter=0.0, depth_dropout=0.0)
    storage = new_storage(policy.eval(), ENVS, trial_steps=6)
    act_trial(policy, storage, 6, seed=rank)
    storage.compute_returns(torch.zeros(ENVS), use_gae=True, gamma=0.9, tau=0.9)
    return policy, storage


def learn(policy, storage, joined):
    """Gradients [steps][parameters] as the optimiser gets them, and a digest after every update."""
    config = MemoPPOConfig(ppo_epoch=2, num_mini_batch=2, lr=1e-3, max_grad_norm=1e9)
    updater = MemoPPO(policy.train(), config)
    found = []
    updater.optimizer.register_step_pre_hook(
        lambda *_: found.append([p.grad.clone() for p in policy.parameters()])
    )
    if joined:
        updater.init_distributed()
    digests = []
    for _ in range(UPDATES):
        updater.update(storage)
        weights = torch.cat([w.detach().flatten() for w in policy.parameters()])
        digests.append(hashlib.sha256(weights.numpy().tobytes()).hexdigest())
    return found, digests


@pytest.mark.slow
def test_two_workers_learn_what_one_does_from_the_trials_of_both(saved):
    (found, digests), (other, others) = saved("shard")
    assert digests == others
    assert len(set(digests)) == UPDATES
    policy, both = shard(0)
    _, second = shard(1)
    for name, tensor in vars(both).items():
        if isinstance(tensor, torch.Tensor):
            setattr(both, name, torch.cat([tensor, getattr(second, name)]))
    both.observations = {
        k: torch.cat([v, second.observations[k]]) for k, v in both.observations.items()
    }
    alone, _ = learn(policy, both, joined=False)
    assert len(alone) == len(found) == 2 * UPDATES
    for step, gradients_ in enumerate(alone):
        for own, mine, same in zip(found[step], gradients_, other[step], strict=True):
            assert torch.equal(own, same)
            torch.testing.assert_close(own, mine, atol=1e-5, rtol=0)
