"""Acting, training and refreshing see the same network: the fast ways against the plain one."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from gym import spaces
from torch._dynamo.utils import counters

from memo_habitat.config.memory import MemoryConfig
from memo_habitat.config.policy import EncoderConfig
from memo_habitat.errors import UserError
from memo_habitat.memory import static_step
from memo_habitat.memory.variants import kinds
from memo_habitat.policy.agent import PolicyAgent
from memo_habitat.policy.encoders import check_encoder
from memo_habitat.policy.network import fourier_features
from memo_habitat.policy.policy import MemoPolicy, sample_action
from tests.factories.policies import (
    NUM_ACTIONS,
    act_trial,
    new_storage,
    observation_space,
    random_observation,
    small_policy,
)


def acted(kind, steps=11, envs=3, encoder="cnn", seed=0, **options):
    torch.manual_seed(seed)
    policy = small_policy(kind, encoder, **options).eval()
    storage = new_storage(policy, envs, trial_steps=16)
    act_trial(policy, storage, steps)
    return policy, storage


@pytest.mark.parametrize("encoder", ["cnn", "blind", "resnet18"])
@pytest.mark.parametrize("kind", kinds())
def test_training_sees_the_log_probabilities_and_values_of_acting(kind, encoder):
    policy, storage = acted(kind, encoder=encoder)
    batch = next(storage.minibatches(1))
    out = policy.evaluate_trials(batch, segment_length=None, context_encoder_gradients=True)
    torch.testing.assert_close(out.log_probs, batch.log_probs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(out.values, batch.values, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["memo", "rmt", "ac"])
def test_lengths_drawn_by_trial_hold_in_acting_refresh_and_update(kind):
    torch.manual_seed(0)
    policy = small_policy(kind, segment_jitter=0.5, segment_jitter_in="trial").eval()
    storage = new_storage(policy, 3, trial_steps=16)
    lengths = set()
    for seed in range(6):
        storage.steps = 0
        policy.begin_trials(seed, 0)
        act_trial(policy, storage, 7, seed)
        length = policy.learning_segment_length()
        assert policy.learning_segment_length() == length
        policy.refresh(storage, chunk=3, values=False)
        act_trial(policy, storage, 5, seed)
        batch = storage.batch(torch.arange(3))
        out = policy.evaluate_trials(batch, length, context_encoder_gradients=True)
        torch.testing.assert_close(out.log_probs, batch.log_probs, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(out.values, batch.values, atol=1e-5, rtol=1e-5)
        policy.refresh(storage, chunk=64, values=True)
        torch.testing.assert_close(out.values, storage.values[:, :12], atol=1e-5, rtol=1e-5)
        lengths.add(length)
    assert len(lengths) > 2


@pytest.mark.parametrize("drawn_in", ["update", "update_with_recomputed_ratios"])
def test_lengths_drawn_in_the_update_leave_acting_alone(drawn_in):
    policy = small_policy(segment_jitter=0.5, segment_jitter_in=drawn_in)
    policy.begin_trials(0, 0)
    assert policy.acting_cache(2).segment_length == 4
    assert {policy.learning_segment_length() for _ in range(100)} == {2, 3, 4, 5, 6}


@pytest.mark.parametrize("chunk", [1, 3, 64])
@pytest.mark.parametrize("kind", kinds())
def test_refresh_with_new_weights_equals_acting_anew_from_the_start(kind, chunk):
    policy, storage = acted(kind)
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(0.1 * torch.randn_like(p))
    policy.refresh(storage, chunk, values=True)
    refreshed = storage.values[:, : storage.steps].clone()
    now = storage.get_last_step()
    with torch.inference_mode():
        after = policy.get_value(now["observations"], None, now["prev_actions"], now["masks"])
        policy.forget()
        anew = []
        for step in range(storage.steps + 1):
            current = {k: v[:, step] for k, v in storage.observations.items()}
            anew.append(
                policy.get_value(
                    current,
                    None,
                    storage.prev_actions[:, step, None],
                    ~storage.episode_starts[:, step, None],
                )
            )
    expected = torch.cat(anew, dim=1)
    torch.testing.assert_close(refreshed, expected[:, :-1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(after, expected[:, -1:], atol=1e-5, rtol=1e-5)


def test_a_rollout_in_host_memory_is_acted_on_refreshed_and_learned_from_alike():
    found = []
    for gigabytes in (None, 0.0):
        torch.manual_seed(0)
        policy = small_policy().eval()
        storage = new_storage(policy, 3, trial_steps=16)
        storage.to(torch.device("cpu"), gigabytes)
        act_trial(policy, storage, 11)
        policy.refresh(storage, chunk=4, values=True)
        torch.manual_seed(1)
        batch = next(storage.minibatches(2))
        out = policy.evaluate_trials(batch, None, context_encoder_gradients=True)
        found.append((storage.actions, storage.values, storage.features, out.log_probs))
    assert all(torch.equal(placed, plain) for plain, placed in zip(*found, strict=True))


def test_context_steps_are_seen_through_the_refreshed_features():
    policy, storage = acted("memo")
    policy.refresh(storage, chunk=64, values=True)
    storage.after_update()
    act_trial(policy, storage, 3)
    batch = next(storage.minibatches(1))
    stored = policy.evaluate_trials(batch, None, context_encoder_gradients=False)
    encoded = policy.evaluate_trials(batch, None, context_encoder_gradients=True)
    assert batch.loss_start == 11
    torch.testing.assert_close(stored.values, encoded.values, atol=1e-5, rtol=1e-5)


def test_a_trial_start_empties_the_memory_of_that_environment_alone():
    policy = small_policy().eval()
    generator = torch.Generator().manual_seed(0)
    masks = torch.ones(2, 1, dtype=torch.bool)
    previous = torch.zeros(2, 1, dtype=torch.long)
    with torch.inference_mode():
        for step in range(6):
            policy.act(random_observation(2, step, generator), None, previous, masks)
        last = random_observation(2, 6, generator)
        last["trial_step"][1] = 0
        policy.act(last, None, previous, masks)
    # Environment 0: a summary of 2 tokens and 3 steps; environment 1: one step.
    assert policy.context_use().tokens.tolist() == [5, 1]
    assert policy.context_use().full_context_kv_bytes.tolist() == [7 * 256, 256]


@pytest.mark.parametrize("kind", ["memo", "lstm"])
def test_the_number_of_environments_changes_between_trials_only(kind):
    policy, storage = acted(kind, steps=5, envs=3)
    generator = torch.Generator().manual_seed(0)
    masks, previous = torch.ones(2, 1, dtype=torch.bool), torch.zeros(2, 1, dtype=torch.long)
    with torch.inference_mode():
        with pytest.raises(UserError, match=r"2 environments .* trials of 3: call forget\(\)"):
            policy.act(random_observation(2, 5, generator), None, previous, masks)
        assert policy.acting_cache(3).steps.tolist() == [5] * 3
        policy.act(random_observation(2, 0, generator), None, previous, masks)
        assert policy.acting_cache(2).steps.tolist() == [1] * 2
        policy.refresh(storage, chunk=64, values=False)  # made anew, whatever it held
        assert policy.acting_cache(3).steps.tolist() == [5] * 3
        policy.forget()
        policy.act(random_observation(2, 5, generator), None, previous, masks)
    assert policy.acting_cache(2).steps.tolist() == [1] * 2


def test_actions_are_drawn_as_often_as_they_are_probable():
    torch.manual_seed(0)
    probabilities = torch.tensor([0.0, 0.1, 0.25, 0.65])
    drawn = sample_action(probabilities.log().expand(100_000, 4))
    shares = drawn.bincount(minlength=4) / len(drawn)
    # Four standard errors of the likeliest share.
    torch.testing.assert_close(shares, probabilities, atol=0.006, rtol=0)
    assert shares[0] == 0


def test_an_episode_start_hides_the_previous_action():
    policy = small_policy().eval()
    observation = random_observation(2, 0, torch.Generator().manual_seed(1))
    start = torch.zeros(2, 1, dtype=torch.bool)
    with torch.inference_mode():
        first = policy.get_value(observation, None, torch.zeros(2, 1, dtype=torch.long), start)
        policy.forget()
        other = policy.get_value(observation, None, torch.ones(2, 1, dtype=torch.long), start)
    assert torch.equal(first, other)


@pytest.mark.parametrize(("trial_step", "hidden"), [(0, True), (3, False)])
def test_across_episodes_only_a_trials_start_hides_the_previous_action(trial_step, hidden):
    encoder = EncoderConfig(kind="blind", action_across_episodes=True)
    policy = MemoPolicy(observation_space(), spaces.Discrete(4), encoder, MemoryConfig()).eval()
    observation = random_observation(1, trial_step, torch.Generator().manual_seed(1))
    values = []
    for action in (0, 1):
        previous = torch.tensor([action])
        values.append(policy._step(observation, previous, torch.ones(1, dtype=torch.bool))[1])
        policy.forget()
    assert torch.equal(*values) == hidden


def test_an_evaluation_shows_previous_actions_as_training_does_across_episodes():
    torch.manual_seed(3)
    encoder = EncoderConfig(kind="blind", action_across_episodes=True)
    sizes = MemoryConfig(width=16, layers=2, heads=2, hidden=32, segment_length=4, summary_length=2)
    policy = decided(MemoPolicy(observation_space(), spaces.Discrete(4), encoder, sizes)).eval()
    agent, generator = PolicyAgent(policy, deterministic=True), torch.Generator().manual_seed(5)
    envs, steps = 6, 9
    for _ in range(2):  # trials
        seen, starts = [], torch.rand(envs, steps, generator=generator) < 0.4
        starts[:, 0] = True
        actions = torch.zeros(envs, steps, dtype=torch.long)
        for step in range(steps):
            seen.append(random_observation(envs, step, generator))
            trial_start = torch.full((envs,), step == 0)
            actions[:, step] = agent.act(seen[-1], trial_start, starts[:, step])
        observations = {name: torch.stack([o[name] for o in seen], dim=1) for name in seen[0]}
        previous = torch.cat([torch.zeros(envs, 1, dtype=torch.long), actions[:, :-1]], dim=1)
        features = policy.network.features(observations)
        tokens = policy.network.tokens(features, observations, previous, starts)
        outputs = policy.network.memory(tokens, None, starts)
        logits = policy.network.heads(outputs, observations, previous, starts).logits
        assert torch.equal(logits.argmax(-1), actions)
        hidden = previous.masked_fill(starts, 0)
        tokens = policy.network.tokens(features, observations, hidden, starts)
        outputs = policy.network.memory(tokens, None, starts)
        logits = policy.network.heads(outputs, observations, hidden, starts).logits
        assert not torch.equal(logits.argmax(-1), actions)


def test_a_teacher_has_no_say_in_an_evaluation():
    policy, _ = acted("memo", steps=1)
    policy.teacher, policy.teacher_share = "perfect_memory_action", 1.0
    observation = random_observation(3, 0, torch.Generator().manual_seed(1))
    del observation["perfect_memory_action"]
    start = torch.ones(3, dtype=torch.bool)
    PolicyAgent(policy, deterministic=True).act(observation, start, start)


def last_episode_of(agent, earlier, seed=9):
    """Actions [N, 6] of an episode that is the same whatever the `earlier` seed drew before it."""
    before, now = (torch.Generator().manual_seed(s) for s in (earlier, seed))
    envs, episode, actions = 8, 6, []
    for step in range(7 + episode):
        # Episodes begin at steps 0, 3 and 7; the trial goes on, as its observed step says.
        seen = random_observation(envs, step, before if step < 7 else now)
        reward = torch.full((envs, 1), float(earlier)) if step <= 7 else torch.zeros(envs, 1)
        trial_start, start = (
            torch.full((envs,), begins) for begins in (step == 0, step in (0, 3, 7))
        )
        actions.append(agent.act({**seen, "last_reward": reward}, trial_start, start))
    return torch.stack(actions[7:], dim=1)


@pytest.mark.parametrize(
    ("kind", "options"),
    [(kind, {}) for kind in kinds()]
    + [("memo", {"token_budget": 8}), ("fct", {"token_budget": 8}), ("lstm", {"reward": True})],
)
def test_an_agent_that_forgets_acts_on_its_episode_alone(kind, options):
    torch.manual_seed(1)
    options = dict(options)
    space = observation_space()
    space = spaces.Dict({**space.spaces, "last_reward": spaces.Box(-1.0, 1.0, (1,), np.float32)})
    encoder = EncoderConfig(
        kind="blind",
        state_sensors=["one_hot_target_sensor", "gps"],
        last_reward=options.pop("reward", False),
        action_across_episodes=True,
    )
    sizes = dict(width=16, layers=2, heads=2, hidden=32, segment_length=4, summary_length=2)
    memory = MemoryConfig(kind=kind, **sizes, **options)
    policy = MemoPolicy(space, spaces.Discrete(NUM_ACTIONS), encoder, memory)
    # Larger weights: what is remembered moves actions.
    with torch.no_grad():
        for weight in (w for w in policy.parameters() if w.dim() > 1):
            weight.mul_(3)
        policy.network.actor.weight.mul_(100)
    with torch.inference_mode():
        forgetting = PolicyAgent(policy, deterministic=True, forget=True)
        alone = last_episode_of(forgetting, earlier=1)
        assert torch.equal(last_episode_of(forgetting, earlier=2), alone)
        assert int(forgetting.context().tokens.max()) <= 6
        remembering = PolicyAgent(policy, deterministic=True)
        first, second = (last_episode_of(remembering, earlier) for earlier in (1, 2))
        # The previous action alone crosses the border of an episode without memory of others.
        assert not torch.equal(first, second)


def test_harmonics_are_sines_and_cosines_of_multiples_of_pi():
    values = torch.tensor([[0.25, 0.5]])
    found = fourier_features(values, 3)
    expected = [
        [f(k * math.pi * x) for f in (math.sin, math.cos) for k in (1, 2, 3)] for x in (0.25, 0.5)
    ]
    torch.testing.assert_close(found, torch.tensor(expected).reshape(1, -1))
    # On a grid of nine places each is most like itself, and by far.
    places = fourier_features(torch.linspace(0, 1, 9)[:, None], 8)
    alike = places @ places.T
    assert (alike.diagonal()[:, None] - alike + 4 * torch.eye(9) >= 4 - 1e-4).all()


def test_state_values_join_the_token_with_their_harmonics():
    plain = EncoderConfig(kind="blind")
    rich = EncoderConfig(kind="blind", fourier_features=5)
    widths = [
        MemoPolicy(
            observation_space(), spaces.Discrete(4), encoder, MemoryConfig()
        ).network.token_projection.in_features
        for encoder in (plain, rich)
    ]
    assert widths[1] - widths[0] == 2 * 5 * (3 + 2)
    with pytest.raises(UserError, match="fourier_features=-1"):
        check_encoder(EncoderConfig(fourier_features=-1))


@pytest.mark.parametrize(
    "given",
    [
        {"features": 0},
        {"base_channels": 0},
        {"kind": "resnet18", "base_channels": 1},
        {"goal_queries": -1},
    ],
)
def test_an_encoder_of_no_size_is_refused(given):
    name, value = list(given.items())[-1]
    with pytest.raises(UserError, match=rf"rl\.encoder\.{name}.*{value}"):
        check_encoder(EncoderConfig(**given))


def test_a_network_without_image_and_sensors_has_the_steps_of_a_trial():
    encoder = EncoderConfig(kind="blind", state_sensors=[])
    network = MemoPolicy(observation_space(), spaces.Discrete(4), encoder, MemoryConfig()).network
    assert network.features(random_observation(3, 0, torch.Generator())).shape == (3, 0)


@pytest.mark.parametrize(
    ("encoder", "named"),
    [
        (EncoderConfig(kind="vit"), "vit"),
        (EncoderConfig(cameras=["rear_rgb"]), "rear_rgb"),
        (EncoderConfig(state_sensors=["sonar"]), "sonar"),
    ],
)
def test_what_the_observations_lack_is_named(encoder, named):
    with pytest.raises(UserError, match=named):
        MemoPolicy(observation_space(), spaces.Discrete(4), encoder, MemoryConfig())


def test_observations_without_the_trial_step_are_refused():
    space = spaces.Dict({"gps": spaces.Box(-1, 1, (2,), np.float32)})
    with pytest.raises(UserError, match="trial_step"):
        MemoPolicy(
            space,
            spaces.Discrete(4),
            EncoderConfig(kind="blind", state_sensors=["gps"]),
            MemoryConfig(),
        )


def decided(policy):
    """Let the heads tell steps apart: they start nearly alike, which any precision gives."""
    with torch.no_grad():
        policy.network.actor.weight.mul_(100.0)
        policy.network.critic.weight.mul_(100.0)
    return policy


def near_in_bfloat16(low, exact):
    """Within the rounding of 8 bits, which the heads of `decided` make a hundred times as large."""
    error = (low - exact).abs()
    assert error.mean() < 1e-2
    assert error.max() < 5e-2


@pytest.mark.parametrize("kind", kinds())
def test_bfloat16_acts_trains_and_refreshes_near_float32(kind):
    exact, storage = acted(kind, steps=14)
    low = small_policy(kind, precision="bfloat16").eval()
    low.load_state_dict(decided(exact).state_dict())
    batch = next(storage.minibatches(1))
    expected = exact.evaluate_trials(batch, None, True)
    trained = low.evaluate_trials(batch, None, True)
    assert expected.log_probs.std() > 0.05
    assert expected.values.std() > 0.01
    near_in_bfloat16(trained.log_probs, expected.log_probs)
    for part in (trained.log_probs, trained.values, trained.entropy):
        assert part.dtype == torch.float32
    taken = []
    with torch.inference_mode():
        for step in range(batch.actions.shape[1]):
            seen = {name: value[:, step] for name, value in batch.observations.items()}
            starts, previous = batch.episode_starts[:, step], batch.prev_actions[:, step]
            logits, _ = low._step(seen, previous, starts)
            assert logits.dtype == torch.float32
            taken.append(logits.log_softmax(-1).gather(-1, batch.actions[:, step, None]))
    near_in_bfloat16(torch.cat(taken, dim=1), expected.log_probs)
    refreshed = []
    for policy in (exact, low):
        policy.refresh(storage, chunk=5, values=True)
        refreshed.append(storage.values[:, : storage.steps].clone())
    near_in_bfloat16(*reversed(refreshed))


def test_bfloat16_halves_the_cache():
    used = []
    for precision in ("float32", "bfloat16"):
        policy, _ = acted("memo", precision=precision)
        use = policy.context_use()
        used.append((use.kv_bytes, use.full_context_kv_bytes))
    for exact, low in zip(*used, strict=True):
        assert torch.equal(exact, 2 * low)
        assert (low > 0).all()


def gradients(policy, batch):
    out = policy.evaluate_trials(batch, None, True)
    (out.log_probs.mean() + out.values.square().mean()).backward()
    return [out.log_probs, out.values, *(p.grad for p in policy.parameters() if p.grad is not None)]


@pytest.mark.parametrize("encoder", ["cnn", "resnet18"])
@pytest.mark.parametrize("kind", ["memo", "lstm"])
def test_images_encoded_in_pieces_give_the_same_outputs_and_gradients(kind, encoder):
    plain, storage = acted(kind, encoder=encoder)
    pieces = small_policy(kind, encoder, chunk_size=7).eval()
    pieces.network._chunk_size = 7  # what the memory's activation_checkpointing turns on
    pieces.load_state_dict(plain.state_dict())
    batch = next(storage.minibatches(1))
    for expected, actual in zip(gradients(plain, batch), gradients(pieces, batch), strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)


def test_the_activations_of_one_piece_of_images_are_there_at_a_time():
    policy, storage = acted("memo", chunk_size=7, activation_checkpointing=True)
    sizes = []
    policy.network.visual_encoder.register_forward_pre_hook(
        lambda module, inputs: sizes.append(len(inputs[0]["head_rgb"]))
    )
    batch = next(storage.minibatches(1))
    out = policy.evaluate_trials(batch, None, True)
    assert sizes == [7, 7, 7, 7, 5]
    out.values.mean().backward()  # recomputed there, piece by piece, since nothing was kept
    assert sorted(sizes[5:]) == [5, 7, 7, 7, 7]


@pytest.mark.parametrize(
    ("encoder", "options"),
    [
        ("detections", {"recall": "target"}),
        pytest.param("cnn", {}, marks=pytest.mark.slow),
        pytest.param("resnet18", {}, marks=pytest.mark.slow),
        pytest.param("cnn", {"precision": "bfloat16"}, marks=pytest.mark.slow),
    ],
)
def test_compiled_acting_is_three_graphs_and_acts_as_without(encoder, options, monkeypatch):
    _, expected = acted("memo", encoder=encoder, **options)
    # Without the last stage, which needs a C++ compiler; what cannot be in a graph is an error.
    monkeypatch.setattr(
        torch, "compile", partial(torch.compile, backend="aot_eager", fullgraph=True)
    )
    static_step.compiled.cache_clear()
    torch._dynamo.reset()
    counters.clear()
    _, found = acted("memo", encoder=encoder, compile_acting=True, **options)
    static_step.compiled.cache_clear()
    assert torch.equal(found.actions, expected.actions)
    tolerance = 1e-3 if "precision" in options else 1e-5
    torch.testing.assert_close(found.log_probs, expected.log_probs, atol=tolerance, rtol=0)
    torch.testing.assert_close(found.values, expected.values, atol=tolerance, rtol=0)
    assert counters["stats"]["unique_graphs"] == 3


def test_an_unknown_precision_is_named():
    with pytest.raises(UserError, match="precision='float16': choose one of float32, bfloat16"):
        small_policy(precision="float16")
