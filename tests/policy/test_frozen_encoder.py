"""A frozen encoder: its weights, what it makes of images, and a policy that knows no images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gym import spaces
from torch.nn.functional import interpolate

from memo_habitat.config.memory import MemoryConfig
from memo_habitat.config.policy import EncoderConfig
from memo_habitat.errors import UserError
from memo_habitat.policy import encoders
from memo_habitat.policy.encoders import check_encoder
from memo_habitat.policy.frozen_encoder import FrozenEncoder, pinned_digest
from memo_habitat.policy.policy import MemoPolicy
from memo_habitat.rollout.storage import TrialStorage
from tests.factories.frozen import BACKBONE, SIDE, WIDTH, frozen_config, vc1_shaped
from tests.factories.policies import NUM_ACTIONS, observation_space, random_observation

timm = pytest.importorskip("timm", reason="timm is not installed (extra 'timm')")

CPU = torch.device("cpu")
FEATURES = "head_rgb_features"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("vc1") / "pytorch_model.bin"
    return path, vc1_shaped(path)


def images(count: int, side: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randint(0, 256, (count, side, side, 3), generator=generator, dtype=torch.uint8)


def encoded(encoder: FrozenEncoder, rgb: torch.Tensor) -> torch.Tensor:
    return encoder({"head_rgb": rgb})[FEATURES]


# Weights ----------------------------------------------------------------------------------------


def test_a_checkpoint_as_vc1_is_laid_out_gives_the_features_of_its_model(checkpoint):
    path, weights = checkpoint
    found = encoded(FrozenEncoder(frozen_config(path), observation_space(), CPU), images(3))
    model = timm.create_model(BACKBONE, num_classes=0, img_size=SIDE).eval()
    positions = timm.layers.resample_abs_pos_embed(weights["pos_embed"], [SIDE // 16] * 2)
    model.load_state_dict({**weights, "pos_embed": positions})
    x = interpolate(
        images(3).permute(0, 3, 1, 2) / 255, (SIDE, SIDE), mode="bicubic", antialias=True
    ).clamp(0, 1)
    mean, std = (torch.tensor(model.pretrained_cfg[k]).view(3, 1, 1) for k in ("mean", "std"))
    with torch.inference_mode():
        expected = model.forward_head(model.forward_features((x - mean) / std))
    assert found.shape == (3, WIDTH) and found.dtype == torch.float16
    assert expected.std() > 0.01
    torch.testing.assert_close(found.float(), expected, atol=2e-3, rtol=2e-3)


@pytest.mark.slow
def test_the_real_shape_of_vc1_loads(tmp_path):
    weights = {
        name: torch.zeros_like(x)
        for name, x in timm.create_model("vit_base_patch16_224.mae").state_dict().items()
    }
    path = tmp_path / "vc1.bin"
    torch.save({"model": {**weights, "mask_token": torch.zeros(1, 1, 768)}}, path)
    config = EncoderConfig(
        kind="timm", backbone="vit_base_patch16_224.mae", weights=str(path), features=8
    )
    encoder = FrozenEncoder(config, observation_space(), CPU)
    assert encoder.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    space = encoder.transform_observation_space(observation_space())
    assert space.spaces[FEATURES].shape == (768,)
    assert sum(p.numel() for p in encoder.parameters()) == 85_798_656


def test_it_is_frozen(checkpoint):
    encoder = FrozenEncoder(frozen_config(checkpoint[0]), observation_space(), CPU)
    assert not any(p.requires_grad for p in encoder.parameters())
    assert not any(module.training for module in encoder.modules())


def test_half_precision_as_on_a_gpu_gives_nearly_the_same(checkpoint):
    encoder = FrozenEncoder(frozen_config(checkpoint[0]), observation_space(), CPU)
    exact = encoded(encoder, images(3)).float()
    low = encoded(encoder.half(), images(3))
    assert low.dtype == torch.float16
    torch.testing.assert_close(low.float(), exact, atol=0.02, rtol=0.02)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that PyTorch can use")
def test_on_a_gpu_it_computes_in_half_precision_on_images_from_anywhere(checkpoint):
    cuda = torch.device("cuda")
    encoder = FrozenEncoder(frozen_config(checkpoint[0]), observation_space(), cuda)
    assert {p.dtype for p in encoder.parameters()} == {torch.float16}
    found = encoded(encoder, images(3))
    assert found.device.type == "cuda"
    exact = encoded(
        FrozenEncoder(frozen_config(checkpoint[0]), observation_space(), CPU), images(3)
    )
    torch.testing.assert_close(found.cpu().float(), exact.float(), atol=0.02, rtol=0.02)


def test_random_weights_are_the_same_everywhere_and_draw_nothing():
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first, second = (
        encoded(FrozenEncoder(frozen_config(), observation_space(), CPU), images(2))
        for _ in range(2)
    )
    assert torch.equal(first, second)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_model_without_positions_takes_images_of_any_size():
    config = frozen_config(backbone="test_resnet", image_size=24)
    space = observation_space()
    encoder = FrozenEncoder(config, space, CPU)
    (width,) = encoder.transform_observation_space(space).spaces[FEATURES].shape
    assert encoded(encoder, images(2)).shape == (2, width)


def test_the_file_that_training_began_with_is_held_to(checkpoint, tmp_path):
    path, _ = checkpoint
    digest = pinned_digest(frozen_config(path))
    assert len(digest) == 64
    moved, other = tmp_path / "moved.bin", tmp_path / "other.bin"
    moved.write_bytes(path.read_bytes())
    vc1_shaped(other, seed=1)
    FrozenEncoder(frozen_config(moved, weights_digest=digest), observation_space(), CPU)
    with pytest.raises(UserError, match=rf"other.bin has the sha256 .* began with {digest[:12]}"):
        FrozenEncoder(frozen_config(other, weights_digest=digest), observation_space(), CPU)
    with pytest.raises(UserError, match="random"):
        pinned_digest(frozen_config("random", weights_digest=digest))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"weights": "nowhere/vc1.bin"}, "nowhere/vc1.bin"),
        (
            {"weights": "pretraind"},
            "encoder.weights is none of pretrained, random, and .*pretraind",
        ),
        ({"backbone": "vit_tiny_patch16_225"}, "did you mean vit_tiny_patch16_224"),
        ({"backbone": "test_vit.nothing"}, "backbone='test_vit.nothing'"),
        ({"cameras": ["rear_rgb"]}, "rear_rgb"),
        ({"cameras": ["gps"]}, "gps"),
    ],
)
def test_what_is_not_there_is_named(options, named):
    with pytest.raises(UserError, match=named):
        FrozenEncoder(frozen_config(**options), observation_space(), CPU)


def test_weights_of_another_model_are_refused(checkpoint, tmp_path):
    config = frozen_config(checkpoint[0], backbone="test_vit2")
    with pytest.raises(UserError, match=r"backbone=test_vit2: .* tensors differ, among them"):
        FrozenEncoder(config, observation_space(), CPU)
    torch.save([1, 2], tmp_path / "list.pth")
    for name, content in (
        ("weights.bin", b"not weights"),
        ("empty.pth", b""),
        ("junk.safetensors", bytes(range(256))),
        ("list.pth", None),
    ):
        file = tmp_path / name
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(UserError, match="cannot be read as weights"):
            FrozenEncoder(frozen_config(file), observation_space(), CPU)
    with pytest.raises(UserError, match="is a folder"):
        FrozenEncoder(frozen_config(tmp_path), observation_space(), CPU)


def test_without_timm_the_remedy_is_one_line(monkeypatch):
    monkeypatch.setattr(encoders, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'memo-habitat\[timm\]'"):
        check_encoder(frozen_config())


@pytest.mark.parametrize("option", [{"weights": "a.bin"}, {"backbone": "x"}, {"image_size": 8}])
def test_what_has_no_effect_on_another_kind_is_refused(option):
    with pytest.raises(UserError, match=f"{next(iter(option))}=.*has no effect on kind=cnn"):
        check_encoder(EncoderConfig(**option))


# The policy behind it ---------------------------------------------------------------------------


def with_depth() -> spaces.Dict:
    depth = spaces.Box(0.0, 10.0, (16, 16, 1), np.float32)
    return spaces.Dict({**observation_space().spaces, "head_depth": depth})


def acted(config: EncoderConfig, space: spaces.Dict, steps: int = 11):
    """A policy that acted on random images; the rollout, and the images it has not kept."""
    torch.manual_seed(0)
    frozen = FrozenEncoder(config, space, CPU)
    stored = frozen.transform_observation_space(space)
    sizes = dict(width=16, layers=2, heads=2, hidden=32, segment_length=4, summary_length=2)
    memory = MemoryConfig(**sizes)
    policy = MemoPolicy(stored, spaces.Discrete(NUM_ACTIONS), config, memory).eval()
    storage = TrialStorage(3, 16, stored, policy.network.kept_features)
    generator, seen = torch.Generator().manual_seed(0), []

    def observe(step: int):
        depth = 10 * torch.rand(3, 16, 16, 1, generator=generator)
        seen.append({**random_observation(3, step, generator), "head_depth": depth})
        return frozen(seen[-1])

    storage.insert_first_observations(observe(0))
    with torch.inference_mode():
        for _ in range(steps):
            now = storage.get_last_step()
            data = policy.act(now["observations"], None, now["prev_actions"], now["masks"])
            storage.insert(
                actions=data.actions,
                action_log_probs=data.action_log_probs,
                value_preds=data.values,
                next_observations=observe(storage.steps + 1),
                rewards=torch.randn(3, 1),
                next_masks=torch.rand(3, 1) > 0.2,
            )
            storage.advance_rollout()
    return policy, storage, frozen, seen


@pytest.fixture(scope="module", params=[["head_rgb"], ["head_rgb", "head_depth"]])
def rollout(request, checkpoint):
    return acted(frozen_config(checkpoint[0], cameras=request.param), with_depth())


def test_stored_features_are_those_recomputed_from_the_images(rollout):
    _, storage, frozen, seen = rollout
    for step, observations in enumerate(seen):
        for uuid, features in frozen(observations).items():
            if uuid.endswith("_features"):
                assert torch.equal(storage.observations[uuid][:, step], features)
    assert storage.observations[FEATURES][0, :11].float().std(dim=0).mean() > 1e-3


def test_acting_training_and_refresh_see_the_same(rollout):
    policy, storage, *_ = rollout
    batch = next(storage.minibatches(1))
    out = policy.evaluate_trials(batch, None, context_encoder_gradients=False)
    torch.testing.assert_close(out.log_probs, batch.log_probs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(out.values, batch.values, atol=1e-5, rtol=1e-5)
    before = storage.values[:, :11].clone()
    policy.refresh(storage, chunk=5, values=True)
    torch.testing.assert_close(storage.values[:, :11], before, atol=1e-5, rtol=1e-5)
    storage.loss_start = 6  # context steps, too, are seen through the present head
    later = policy.evaluate_trials(next(storage.minibatches(1)), None, False)
    torch.testing.assert_close(later.values.sort(0).values, out.values[:, 6:].sort(0).values)
    storage.loss_start = 0


def test_a_step_takes_the_bytes_of_its_features_and_none_of_an_image(rollout):
    _, storage, *_ = rollout
    cameras = sum(uuid.endswith("_features") for uuid in storage.observations)
    others = {k: v for k, v in storage.observations.items() if not k.endswith("_features")}
    assert "head_rgb" not in others
    features = sum(v[0, 0].nbytes for k, v in storage.observations.items() if k not in others)
    assert features == cameras * WIDTH * 2
    assert storage.features.nbytes == 0


def test_the_policy_holds_no_frozen_weights(rollout):
    policy, *_ = rollout
    names = [name for name in policy.state_dict() if "encoder" in name]
    assert {name.split(".")[2] for name in names} == {"head"}
