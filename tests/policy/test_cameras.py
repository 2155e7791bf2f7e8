"""Several cameras and depth: each with an encoder of its own, or their channels stacked."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gym import spaces

from memo_habitat.config.policy import EncoderConfig
from memo_habitat.errors import UserError
from memo_habitat.policy.encoders import build_encoder, check_encoder
from tests.factories.policies import observation_space

CAMERAS = ["head_rgb", "head_depth"]


def space(depth_side: int = 16, farthest: float = 10.0) -> spaces.Dict:
    depth = spaces.Box(0.0, farthest, (depth_side, depth_side, 1), np.float32)
    return spaces.Dict({**observation_space().spaces, "head_depth": depth})


def observed(farthest: float = 10.0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "head_rgb": torch.randint(0, 256, (2, 5, 16, 16, 3), generator=generator).byte(),
        "head_depth": farthest * torch.rand(2, 5, 16, 16, 1, generator=generator),
        "one_hot_target_sensor": torch.eye(3)[torch.zeros(2, 5, dtype=torch.long)],
    }


def build(of: spaces.Dict | None = None, **options):
    torch.manual_seed(0)
    return build_encoder(EncoderConfig(features=8, base_channels=4, **options), of or space())


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize("kind", ["cnn", "resnet18", "resnet50"])
def test_every_camera_has_its_effect(kind, stacked):
    encoder = build(kind=kind, cameras=CAMERAS, stack_cameras=stacked)
    seen = observed()
    found = encoder(seen)
    assert found.shape == (2, 5, encoder.features) == (2, 5, 8 if stacked else 16)
    for camera in CAMERAS:
        other = encoder({**seen, camera: seen[camera].flip(2)})
        assert not torch.allclose(other, found, atol=1e-4)


def test_encoders_of_their_own_keep_the_cameras_apart():
    encoder, seen = build(cameras=CAMERAS), observed()
    changed = encoder({**seen, "head_depth": 0 * seen["head_depth"]}) - encoder(seen)
    assert (changed[..., :8] == 0).all() and (changed[..., 8:] != 0).any()


def test_a_camera_alone_is_encoded_as_ever():
    alone, both, seen = build(), build(cameras=CAMERAS), observed()
    torch.testing.assert_close(both(seen)[..., :8], alone(seen))


def test_depth_means_the_same_in_whatever_unit_its_space_has():
    options = dict(cameras=["head_depth"])
    metres, shares = (build(**options, of=space(farthest=far)) for far in (10.0, 1.0))
    seen = observed(1.0)
    far = {**seen, "head_depth": 10 * seen["head_depth"]}
    before = far["head_depth"].clone()
    torch.testing.assert_close(metres(far), shares(seen))
    assert torch.equal(far["head_depth"], before)  # scaled elsewhere


def test_cameras_of_different_sizes_are_not_stacked():
    build(cameras=CAMERAS, of=space(depth_side=24))
    with pytest.raises(UserError, match=r"stack_cameras=true: head_rgb, head_depth have sizes"):
        build(cameras=CAMERAS, stack_cameras=True, of=space(depth_side=24))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"stack_cameras": True}, "stack_cameras=true"),
        ({"cameras": []}, "name at least one"),
        ({"cameras": ["head_rgb", "head_rgb"]}, "each once"),
        ({"kind": "blind", "cameras": CAMERAS}, "looks at no image"),
    ],
)
def test_what_would_have_no_effect_is_refused(options, named):
    with pytest.raises(UserError, match=named):
        check_encoder(EncoderConfig(**options))
