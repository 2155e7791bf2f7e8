"""The storage over the partial updates of a trial, and the batch contract."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gym import spaces

from memo_habitat.errors import UserError
from memo_habitat.rollout.batch import TrialBatch
from memo_habitat.rollout.storage import TrialStorage

ENVS, STEPS = 3, 4


def storage():
    space = spaces.Dict(
        {
            "image": spaces.Box(0, 255, (2, 2, 3), np.uint8),
            "gps": spaces.Box(-1, 1, (2,), np.float32),
        }
    )
    store = TrialStorage(ENVS, STEPS, space, feature_width=5)
    store.insert_first_observations(observation(0))
    return store


def observation(step):
    return {
        "image": torch.full((ENVS, 2, 2, 3), step, dtype=torch.uint8),
        "gps": torch.full((ENVS, 2), float(step)),
    }


def collect(store, ends=()):
    """One step: action = step index + 1, reward = 10 * step."""
    step = store.steps
    column = torch.ones(ENVS, 1)
    store.insert(
        actions=(step + 1) * column.long(), action_log_probs=-column, value_preds=0 * column
    )
    store.insert(
        next_observations=observation(step + 1),
        rewards=10.0 * step * column,
        next_masks=torch.tensor([[env not in ends] for env in range(ENVS)]),
    )
    store.advance_rollout()


def test_the_next_step_knows_the_previous_action_and_where_episodes_start():
    store = storage()
    collect(store, ends=(1,))
    current = store.get_last_step()
    assert current["prev_actions"].flatten().tolist() == [1, 1, 1]
    assert current["masks"].flatten().tolist() == [True, False, True]
    assert current["observations"]["image"].dtype == torch.uint8


def test_an_observation_of_another_shape_than_its_space_is_named():
    store = storage()
    wrong = {**observation(1), "gps": torch.zeros(ENVS, 3)}
    with pytest.raises(UserError, match=r"'gps' has shape \(3,\), and its space says \(2,\)"):
        store.insert_first_observations(wrong)


# A trial's images are 180 bytes, its places 120.
@pytest.mark.parametrize(
    ("gigabytes", "in_host"), [(0.0, {"image", "gps"}), (150e-9, {"image"}), (1.0, set())]
)
def test_what_is_kept_in_host_memory_is_read_as_from_the_device(gigabytes, in_host):
    stores = storage(), storage()
    stores[1].to(torch.device("cpu"), gigabytes)
    assert stores[1].in_host == in_host
    for step in range(STEPS):
        for store in stores:
            collect(store, ends=(step % ENVS,))
        plain, placed = (store.get_last_step()["observations"] for store in stores)
        assert list(placed) and placed.keys() == plain.keys()
        rows = torch.tensor([2, 0])
        batches = [store.batch(rows).observations for store in stores]
        for uuid in plain:
            assert torch.equal(placed[uuid], plain[uuid])
            assert placed[uuid].dtype == plain[uuid].dtype
            assert torch.equal(batches[1][uuid], batches[0][uuid])
    for store in stores:
        store.after_update()
    plain, placed = (store.get_last_step()["observations"] for store in stores)
    assert all(torch.equal(placed[uuid], plain[uuid]) for uuid in plain)


def test_a_minibatch_is_on_the_device_wherever_the_rollout_is():
    store = storage()
    collect(store)
    store.to(torch.device("meta"), gigabytes=150e-9)
    assert store.observations["image"].device.type == "cpu"
    assert store.observations["gps"].device.type == store.rewards.device.type == "meta"
    batch = store.batch(torch.tensor([1]))
    assert {x.device.type for x in (*batch.observations.values(), batch.values)} == {"meta"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that PyTorch can use")
def test_beside_a_gpu_host_memory_is_pinned_and_gives_the_same():
    stores, device = (storage(), storage()), torch.device("cuda")
    for store, gigabytes in zip(stores, (None, 0.0), strict=True):
        store.to(device, gigabytes)
    assert all(buffer.is_pinned() for buffer in stores[1].observations.values())
    for _ in range(STEPS):
        found = []
        for store in stores:
            column = torch.ones(ENVS, 1, device=device)
            store.insert(
                next_observations={k: v.to(device) for k, v in observation(store.steps).items()},
                rewards=column,
                next_masks=column.bool(),
            )
            store.advance_rollout()
            rows = torch.tensor([2, 0])
            found.append([store.get_last_step()["observations"], store.batch(rows).observations])
        for plain, placed in zip(*found, strict=True):
            for uuid in plain:
                assert placed[uuid].device.type == "cuda"
                assert torch.equal(placed[uuid], plain[uuid])


def test_partial_updates_put_only_new_steps_in_the_loss_and_the_last_update_all():
    store = storage()
    for _ in range(2):
        collect(store)
    starts = []
    for _ in range(2):
        batches = list(store.minibatches(2))
        assert sum(len(b.actions) for b in batches) == ENVS
        starts.append((batches[0].loss_start, batches[0].actions.shape[1]))
        store.after_update()
        collect(store)
    collect(store) if not store.trial_complete else None
    whole = next(store.minibatches(1))
    starts.append((whole.loss_start, whole.actions.shape[1]))
    assert starts == [(0, 2), (2, 3), (0, 4)]


def test_after_the_full_update_the_next_trial_begins_with_the_observation_already_seen():
    store = storage()
    for _ in range(STEPS):
        collect(store)
    store.after_update()
    assert store.steps == store.loss_start == 0
    current = store.get_last_step()
    assert current["observations"]["gps"].unique().tolist() == [float(STEPS)]
    assert current["prev_actions"].unique().tolist() == [0]


def test_minibatches_are_whole_environments_each_once():
    store = storage()
    for _ in range(2):
        collect(store)
    store.actions[:, 0] = torch.arange(ENVS)
    seen = torch.cat([b.actions[:, 0] for b in store.minibatches(2)])
    assert sorted(seen.tolist()) == [0, 1, 2]


def test_returns_are_rewards_to_go_within_the_episode_without_discount():
    store = storage()
    collect(store)
    collect(store, ends=(0,))
    collect(store)
    store.compute_returns(torch.zeros(ENVS), use_gae=True, gamma=1.0, tau=1.0)
    assert store.returns[0, :3].tolist() == [10.0, 10.0, 20.0]
    assert store.returns[1, :3].tolist() == [30.0, 30.0, 20.0]


@pytest.mark.parametrize(
    "change",
    [
        {"actions": torch.zeros(2, 3)},
        {"values": torch.zeros(2, 2)},
        {"loss_start": 3},
        {"observations": {"gps": torch.zeros(3, 2)}},
    ],
)
def test_a_batch_that_breaks_the_contract_is_refused(change):
    step = torch.zeros(2, 3)
    fields = dict(
        observations={"gps": torch.zeros(2, 3, 2)},
        features=torch.zeros(2, 3, 0),
        prev_actions=step.long(),
        episode_starts=step.bool(),
        actions=step.long(),
        log_probs=step,
        values=step,
        returns=step,
        advantages=step,
        loss_start=0,
    )
    TrialBatch(**fields)
    with pytest.raises(UserError):
        TrialBatch(**{**fields, **change})


def test_finished_episodes_change_places_with_all_that_is_known_of_their_steps():
    torch.manual_seed(0)
    space = spaces.Dict({"gps": spaces.Box(-1, 1, (2,), np.float32)})
    orders = set()
    for _ in range(20):
        store = TrialStorage(2, 8, space, feature_width=3)
        count = torch.arange(8.0).expand(2, 8)
        store.steps = 7
        # Of row 0 the episodes 0-1, 2-4 and 5, and 6 under way; of row 1 only one.
        store.episode_starts[:] = False
        store.episode_starts[0, [0, 2, 5, 6]] = True
        store.episode_starts[1, 0] = True
        store.actions[:] = store.prev_actions[:, :8] = count.long()
        for tensor in (store.rewards, store.log_probs, store.values, store.advantages):
            tensor[:] = count
        store.returns[:], store.features[:] = count, count[..., None]
        store.observations["gps"][:, :8] = count[..., None]
        store.shuffle_episodes()
        order = store.actions[0].tolist()
        assert sorted(order) == list(range(8))
        assert order[6:] == [6, 7]
        assert " 0 1 " in f" {' '.join(map(str, order))} "
        assert " 2 3 4 " in f" {' '.join(map(str, order))} "
        assert store.actions[1].tolist() == list(range(8))
        starts = [step in (0, 2, 5, 6) for step in order]
        assert store.episode_starts[0, :8].tolist() == starts
        assert store.observations["gps"][0, :8, 0].tolist() == order
        assert store.features[0, :, 2].tolist() == order
        names = ("prev_actions", "rewards", "log_probs", "values", "returns", "advantages")
        assert all(getattr(store, name)[0, :8].tolist() == order for name in names)
        orders.add(tuple(order))
    assert len(orders) == 6


def test_a_finished_episode_at_the_border_of_two_updates_is_moved_too():
    store = storage()
    for step in range(3):
        collect(store, ends=(0,) if step in (0, 2) else ())
    for _ in range(50):
        store.shuffle_episodes()
        if store.actions[0, 0] == 2:
            break
    assert store.actions[0, :3].tolist() == [2, 3, 1]
    assert store.get_last_step()["prev_actions"].flatten().tolist() == [3] * ENVS


def test_every_environment_is_live_again_in_the_next_trial():
    store = storage()
    collect(store)
    store.live[1] = False
    store.after_update()
    assert store.live.tolist() == [True, False, True]  # in the course of the trial
    for _ in range(STEPS - 1):
        collect(store)
    store.episode_starts[1, STEPS] = False  # a trial that broke off ends without an episode's end
    store.after_update()
    assert store.live.all() and store.episode_starts[:, 0].all()
