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
    Recalled,
    TargetRecall,
    relative_place,
    sightings,
    with_drawn_targets,
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
    np.save(file, np.array([["a"] * 5] * CATEGORIES))
    with pytest.raises(UserError, match="of numbers"):
        build_detection_encoder(8, str(file), observation_space())
    file.write_text("no array")
    with pytest.raises(UserError, match="cannot be read"):
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


def recalled(trial: dict[str, Tensor]) -> Recalled:
    """What a memory without fault would say at each step."""
    shown = sightings(trial["detections"])
    target = trial["one_hot_target_sensor"].argmax(-1, keepdim=True)
    place = shown.place.gather(2, target[..., None].expand(-1, -1, -1, 2)).squeeze(2)
    return Recalled(40.0 * (shown.seen.gather(2, target).squeeze(2).float() - 0.5), place)


def test_who_remembers_without_fault_has_no_recall_loss():
    trial = observed()
    loss, parts = TargetRecall.loss(recalled(trial), trial, first=0)
    assert float(loss) == pytest.approx(0.0, abs=1e-6)
    assert parts["recall_error_m"] == pytest.approx(0.0, abs=1e-6)
    late = Recalled(*(part[:, 5:] for part in recalled(trial)))
    assert float(TargetRecall.loss(late, trial, first=5)[0]) == pytest.approx(0.0, abs=1e-6)
    wrong = recalled(trial)._replace(place=recalled(trial).place + torch.tensor([0.1, 0.0]))
    assert TargetRecall.loss(wrong, trial, first=0)[1]["recall_error_m"] == pytest.approx(1.0)
    assert TargetRecall.loss(wrong._replace(seen=-wrong.seen), trial, first=0)[0] > loss + 1.0


def test_the_actor_is_told_the_recalled_place_in_its_own_frame():
    # 3 m ahead of the frame's origin; the agent stands 1 m ahead of it and looks to the left.
    known = Recalled(torch.tensor([8.0]), torch.tensor([[0.3, 0.0]]))
    told = TargetRecall(16, 8).features(
        known, torch.tensor([[1.0, 0.0]]), torch.tensor([[math.pi / 2]])
    )
    assert told.shape == (1, TargetRecall.FEATURES)
    expected = torch.tensor([0.0, -2.0 / 5.0, 0.0, -1.0, 2.0 / 5.0, math.exp(-2.0)])
    torch.testing.assert_close(told[0, :6], expected, atol=1e-5, rtol=0)


def test_in_hindsight_each_step_seeks_something_and_sees_what_it_saw_of_it():
    torch.manual_seed(0)
    trial = observed(steps=40)
    asked = with_drawn_targets(trial, reach=2.0)
    drawn = asked["one_hot_target_sensor"].argmax(-1)
    assert set(drawn.flatten().tolist()) == set(range(CATEGORIES))
    assert (asked["one_hot_target_sensor"].sum(-1) == 1.0).all()
    row = trial["detections"].gather(2, drawn[..., None, None].expand(-1, -1, 1, 6)).squeeze(2)
    torch.testing.assert_close(asked["target_detection"][..., :6], row)
    near = (5.0 * row[..., 1:3]).norm(dim=-1) <= 2.0
    assert torch.equal(asked["target_detection"][..., 6] == 1.0, (row[..., 0] > 0) & near)
    assert not with_drawn_targets(trial, reach=0.0)["target_detection"][..., 6].any()
    shown = sightings(trial["detections"]).seen
    asked_for_seen = shown.gather(2, drawn[..., None]).float().mean()
    assert asked_for_seen > shown.float().mean()
    assert all(asked[name] is trial[name] for name in ("detections", "gps", "compass"))


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
    sizes = {"segment_jitter": 0.0, "depth_dropout": 0.0}
    policy = small_policy(kind, "detections", recall="target", **sizes).eval()
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
        "memo", "detections", recall="target", memory_loss="observations", memory_loss_coef=1.0
    )
    storage = new_storage(policy.eval(), num_envs=4, trial_steps=12)
    act_trial(policy, storage, 12)
    storage.compute_returns(torch.zeros(4), use_gae=True, gamma=0.9, tau=0.9)
    config = MemoPPOConfig(
        lr=3e-3, max_grad_norm=10.0, accumulate_gradients=False, hindsight_passes=1
    )
    updater = MemoPPO(policy.train(), config)
    logs = [updater.update(storage) for _ in range(8)]
    for name in ("memory_loss", "recall_seen"):
        assert logs[-1][name] < logs[0][name]


def test_the_observation_loss_needs_detections():
    with pytest.raises(UserError, match="choose encoder=detections"):
        small_policy("memo", "cnn", memory_loss="observations")
    with pytest.raises(UserError, match="no categories to ask for"):
        small_policy("memo", "cnn", recall="target")
