"""The encoder of detections, and the losses that ask what was detected."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from memo_habitat.config.trainer import MemoPPOConfig
from memo_habitat.errors import UserError
from memo_habitat.policy.detection_encoder import DetectionEncoder, build_detection_encoder
from memo_habitat.policy.recall import (
    ObservationLoss,
    RecallLoss,
    relative_place,
    sightings,
)
from memo_habitat.ppo.updater import MemoPPO
from tests.factories.policies import (
    act_trial,
    new_storage,
    observation_space,
    random_observation,
    small_policy,
)

CATEGORIES = 3


def observed(steps: int = 12, seed: int = 0) -> dict[str, Tensor]:
    """Two trials of random observations, [2, steps, ...]."""
    generator = torch.Generator().manual_seed(seed)
    rows = [random_observation(2, step, generator) for step in range(steps)]
    return {uuid: torch.stack([row[uuid] for row in rows], dim=1) for uuid in rows[0]}


def test_a_category_is_the_same_vector_sought_and_seen():
    encoder, trial, order = DetectionEncoder(CATEGORIES, 8), observed(), torch.tensor([2, 0, 1])
    renamed = {
        **trial,
        "detections": trial["detections"][..., order, :],
        "one_hot_target_sensor": trial["one_hot_target_sensor"][..., order],
    }
    before = encoder(trial)
    with torch.no_grad():
        encoder.embeddings.copy_(encoder.embeddings[order].clone())
    torch.testing.assert_close(encoder(renamed), before)


def test_what_is_not_detected_does_not_enter():
    encoder, trial = DetectionEncoder(CATEGORIES, 8), observed()
    hidden = trial["detections"][..., :1] == 0
    noisy = {
        **trial,
        "detections": trial["detections"] + 9.0 * hidden * torch.tensor([0.0] + [1.0] * 5),
    }
    torch.testing.assert_close(encoder(noisy), encoder(trial))


def test_given_vectors_serve_a_larger_vocabulary_with_the_same_weights(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(CATEGORIES, 5))
    np.save(tmp_path / "vectors.npy", vectors)
    known = build_detection_encoder(8, str(tmp_path / "vectors.npy"), observation_space())
    scale = 1.0 / torch.from_numpy(vectors).float().std()
    more = torch.cat([torch.from_numpy(vectors).float(), torch.randn(2, 5)])
    larger = DetectionEncoder(CATEGORIES + 2, 8, more)
    larger.load_state_dict(known.state_dict())
    with torch.no_grad():
        larger.vectors *= scale * more.std()
    torch.testing.assert_close(larger.table()[:CATEGORIES], known.table())
    assert not any(name == "vectors" for name, _ in known.named_parameters())


def test_vectors_that_do_not_fit_are_refused(tmp_path):
    file = tmp_path / "vectors.npy"
    np.save(file, np.zeros((CATEGORIES + 1, 5)))
    with pytest.raises(UserError, match="one row for each of the 3 categories"):
        build_detection_encoder(8, str(file), observation_space())
    with pytest.raises(UserError, match="is no file"):
        build_detection_encoder(8, str(tmp_path / "none.npy"), observation_space())


def test_a_sighting_stays_until_the_category_is_seen_elsewhere():
    detections = torch.zeros(1, 5, CATEGORIES, 6)
    detections[0, 1, 2] = torch.tensor([1.0, 0, 0, 0.3, -0.2, 0])
    detections[0, 3, 2] = torch.tensor([1.0, 0, 0, 0.5, 0.1, 0])
    shown = sightings(detections)
    assert shown.seen[0, :, 2].tolist() == [False, True, True, True, True]
    assert shown.now[0, :, 2].tolist() == [False, True, False, True, False]
    expected = torch.tensor([[0.3, -0.2], [0.3, -0.2], [0.5, 0.1], [0.5, 0.1]])
    torch.testing.assert_close(shown.place[0, 1:, 2], expected)
    assert not shown.seen[0, :, :2].any()


def test_a_place_is_turned_into_the_agents_view():
    # 3 m ahead of the frame's origin; the agent stands 1 m ahead of it and looks to the left.
    place, gps = torch.tensor([[[3.0, 0.0]]]), torch.tensor([[1.0, 0.0]])
    seen = relative_place(place, gps, torch.tensor([[math.pi / 2]]))
    torch.testing.assert_close(seen, torch.tensor([[[0.0, -2.0]]]), atol=1e-6, rtol=0)


def test_recall_is_asked_only_of_what_is_out_of_view():
    trial = observed()
    everything = torch.ones_like(trial["detections"])
    outputs = torch.randn(2, 12, 16, requires_grad=True)
    loss, _ = RecallLoss(16, 8, others=2)(
        outputs, {**trial, "detections": everything}, torch.randn(CATEGORIES, 8), first=0
    )
    assert loss == 0.0
    loss, parts = RecallLoss(16, 8, others=2)(outputs, trial, torch.randn(CATEGORIES, 8), first=0)
    assert loss > 0.0
    assert set(parts) == {"recall_seen", "recall_side", "recall_place"}


def test_recall_of_later_steps_knows_what_earlier_ones_showed():
    torch.manual_seed(0)
    trial, outputs, table = observed(), torch.randn(2, 12, 16), torch.randn(CATEGORIES, 8)
    asks = RecallLoss(16, 8, others=0)
    shown, hidden = sightings(trial["detections"]), trial["target_detection"][..., 0] == 0
    target = trial["one_hot_target_sensor"].argmax(-1, keepdim=True)
    weights = [hidden[:, part].sum() for part in (slice(0, 5), slice(5, 12))]
    whole = asks(outputs, trial, table, first=0)[1]["recall_seen"]
    late = asks(outputs[:, 5:], trial, table, first=5)[1]["recall_seen"]
    early = asks(outputs[:, :5], {k: v[:, :5] for k, v in trial.items()}, table, first=0)[1]
    mean = (early["recall_seen"] * weights[0] + late * weights[1]) / sum(weights)
    assert whole == pytest.approx(float(mean), rel=1e-5)
    assert shown.seen.gather(2, target).any()


def test_summaries_learn_to_tell_what_their_segments_showed():
    torch.manual_seed(0)
    trial, table = observed(), torch.randn(CATEGORIES, 8)
    loss = ObservationLoss(16, 8, heads=2)
    summaries = [torch.randn(2, 2, 16, requires_grad=True) for _ in range(2)]
    optimiser = torch.optim.Adam([*loss.parameters(), *summaries], lr=0.01)
    errors = []
    for _ in range(150):
        error = loss(summaries, trial["detections"], table, segment_length=4)
        optimiser.zero_grad()
        error.backward()
        optimiser.step()
        errors.append(error.item())
    assert errors[-1] < 0.1 * errors[0]
    assert loss([], trial["detections"], table, segment_length=4) == 0.0


@pytest.mark.parametrize("kind", ["memo", "fct"])
def test_training_sees_the_probabilities_that_acting_used(kind):
    torch.manual_seed(0)
    policy = small_policy(kind, "detections", segment_jitter=0.0, depth_dropout=0.0).eval()
    storage = new_storage(policy, num_envs=3, trial_steps=10)
    act_trial(policy, storage, 10)
    storage.compute_returns(torch.zeros(3), use_gae=True, gamma=0.9, tau=0.9)
    (batch,) = storage.minibatches(1, torch.Generator().manual_seed(0))
    out = policy.evaluate_trials(batch, None, context_encoder_gradients=True)
    torch.testing.assert_close(out.log_probs, batch.log_probs, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_both_losses_are_learned_with_their_weights():
    torch.manual_seed(0)
    policy = small_policy(
        "memo", "detections", recall="dense", memory_loss="observations", memory_loss_coef=1.0
    )
    storage = new_storage(policy.eval(), num_envs=4, trial_steps=12)
    act_trial(policy, storage, 12)
    storage.compute_returns(torch.zeros(4), use_gae=True, gamma=0.9, tau=0.9)
    updater = MemoPPO(policy.train(), MemoPPOConfig(lr=3e-3, max_grad_norm=10.0))
    logs = [updater.update(storage) for _ in range(15)]
    for name in ("memory_loss", "recall_seen"):
        assert logs[-1][name] < logs[0][name]


def test_the_observation_loss_needs_detections():
    with pytest.raises(UserError, match="choose encoder=detections"):
        small_policy("memo", "cnn", memory_loss="observations")
    with pytest.raises(UserError, match="no categories to ask for"):
        small_policy("memo", "cnn", recall="target")
