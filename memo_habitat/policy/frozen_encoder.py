"""A pretrained encoder that stays as it is: a frame passes it once, before anything is stored."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gym import spaces
from torch import Tensor, nn
from torch.nn.functional import interpolate

from memo_habitat.config.policy import EncoderConfig
from memo_habitat.errors import UserError
from memo_habitat.policy.encoders import camera_spaces, feature_uuid
from memo_habitat.utils.data_paths import resolve
from memo_habitat.utils.files import file_digest

_KEY = "habitat_baselines.rl.encoder"
_NO_FILE = ("pretrained", "random")
# What a masked autoencoder (VC-1 is one) leaves beside the encoder in its file.
_NOT_THE_ENCODER = ("decoder", "mask_token")


class FrozenEncoder(nn.Module):
    """Puts features in the place of images, in observations and in their space.

    Whatever comes after it, acting, storage, update, refresh, knows features alone. They are
    float16 everywhere; on a GPU they are computed so, too. This is no part of the policy: a
    checkpoint says which weights these are (`EncoderConfig`) and holds none of them.

    Attributes:
        cameras: spaces of the images that it takes, by uuid.
    """

    def __init__(
        self,
        config: EncoderConfig,
        observation_space: spaces.Dict,
        device: torch.device,
        load: bool = True,
    ) -> None:
        """Encode the cameras of `config`; without `load`, with weights of no meaning."""
        super().__init__()
        self.cameras = camera_spaces(config, observation_space)
        for uuid, space in self.cameras.items():
            if space.shape[2] not in (1, 3):
                raise UserError(
                    f"{_KEY}.cameras={list(self.cameras)}: {uuid} has {space.shape[2]} channels; "
                    f"{config.backbone} takes RGB (3) or depth (1)"
                )
        self.backbone = _backbone(config, load)
        made_for = self.backbone.pretrained_cfg
        self._side = config.image_size or made_for["input_size"][-1]
        self.mean: Tensor
        self.std: Tensor
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(made_for[name]).view(3, 1, 1))
        # Half precision is slow, or not there at all, on CPUs.
        dtype = torch.float16 if device.type == "cuda" else torch.float32
        self.eval().requires_grad_(False).to(device, dtype)

    def transform_observation_space(self, observation_space: spaces.Dict) -> spaces.Dict:
        """The space after this: a vector of features for each camera instead of its image."""
        shape = (int(self.backbone.num_features),)
        features = {
            feature_uuid(uuid): spaces.Box(-np.inf, np.inf, shape, np.float16)
            for uuid in self.cameras
        }
        others = {k: v for k, v in observation_space.spaces.items() if k not in self.cameras}
        return spaces.Dict({**others, **features})

    @torch.inference_mode()
    def forward(self, observations: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Observations with features [N, F] float16 in the place of images [N, H, W, C]."""
        frames = [self._frames(observations[u], space) for u, space in self.cameras.items()]
        features = self.backbone(torch.cat(frames)).half().split([len(x) for x in frames])
        others = {k: v for k, v in observations.items() if k not in self.cameras}
        return {**others, **dict(zip(map(feature_uuid, self.cameras), features, strict=True))}

    def _frames(self, images: Tensor, space: spaces.Box) -> Tensor:
        """Images [N, H, W, C] as the backbone was made for them: [N, 3, side, side].

        The whole view, where recipes for photographs cut off the border: success asks what the
        camera sees, and it is seen there, too. Depth is three equal channels.
        """
        low, high = float(space.low.min()), float(space.high.max())
        x = images.to(self.mean.device)  # environments in this process leave theirs on the CPU
        x = (x.permute(0, 3, 1, 2).float() - low) / (high - low)
        if x.shape[-2:] != (self._side, self._side):
            size = (self._side, self._side)
            x = interpolate(x, size, mode="bicubic", antialias=True).clamp(0.0, 1.0)
        return ((x.to(self.mean.dtype) - self.mean) / self.std).contiguous()


def pinned_digest(config: EncoderConfig) -> str:
    """The sha256 of the file of weights, empty where there is none.

    UserError where the file is missing, or is another than the one that training began with.
    """
    if config.weights in _NO_FILE and not config.weights_digest:
        return ""
    try:
        path = resolve(config.weights)
        if not path.is_file():
            raise UserError(f"{config.weights!r} is a folder: name a file")
    except UserError as error:
        valid = ", ".join(_NO_FILE)
        raise UserError(f"{_KEY}.weights is none of {valid}, and {error}") from error
    status = path.stat()
    found = _sha256(path, status.st_mtime_ns, status.st_size)
    if config.weights_digest not in ("", found):
        raise UserError(
            f"{_KEY}.weights={config.weights} has the sha256 {found[:12]}…, and training began "
            f"with {config.weights_digest[:12]}…: name that file"
        )
    return found


@functools.lru_cache(maxsize=8)
def _sha256(path: Path, mtime_ns: int, size: int) -> str:
    return file_digest(path)  # again where the file is another


def _backbone(config: EncoderConfig, load: bool) -> Any:
    """The model of timm by its name, without its classifier."""
    import timm

    name, weights = config.backbone, config.weights if load else "random"
    architecture, _, tag = name.partition(".")
    known = timm.list_models(pretrained=bool(tag))
    if not timm.is_model(architecture) or (tag and name not in known):
        close = difflib.get_close_matches(name, known, n=3)
        hint = f"did you mean {', '.join(close)}?" if close else "timm.list_models() names them"
        raise UserError(f"{_KEY}.backbone={name!r} is no model of timm {timm.__version__}: {hint}")
    options: dict[str, Any] = {"num_classes": 0}
    made_for = timm.models.get_pretrained_cfg(name)
    # Convolutions take images of any size and have no such argument.
    if config.image_size and made_for is not None and made_for.fixed_input_size:
        options["img_size"] = config.image_size
    if weights == "pretrained":
        try:
            return timm.create_model(name, pretrained=True, **options)
        except (OSError, RuntimeError, ValueError, ImportError) as error:
            raise UserError(
                f"{_KEY}.weights=pretrained: {name} cannot be had ({type(error).__name__}: "
                f"{' '.join(str(error).split())[:160]}); download its weights and name the file"
            ) from error
    # Random weights are the same in every process, and elsewhere nothing is drawn for them.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = timm.create_model(name, pretrained=False, **options)
    if weights != "random":
        pinned_digest(config)
        _load(model, name, resolve(weights))
    return model


def _load(model: Any, name: str, path: Path) -> None:
    """Load a file in timm's names (VC-1's are), alone or below "model" or "state_dict"."""
    import timm

    try:
        found = timm.models.load_state_dict(str(path), device="cpu", weights_only=True)
    except Exception as error:  # broken files and other formats raise nearly anything
        raise UserError(
            f"{_KEY}.weights={path} cannot be read as weights ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:160]}): give a checkpoint of timm's names"
        ) from error
    classifier = model.pretrained_cfg.get("classifier") or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    left_out = (*_NOT_THE_ENCODER, *(f"{head}." for head in heads))
    weights = {k: v for k, v in found.items() if not k.startswith(left_out)}
    own = model.state_dict()
    if "pos_embed" in weights and weights["pos_embed"].shape[1] != own["pos_embed"].shape[1]:
        weights["pos_embed"] = timm.layers.resample_abs_pos_embed(
            weights["pos_embed"],
            new_size=model.patch_embed.grid_size,
            num_prefix_tokens=0 if model.no_embed_class else model.num_prefix_tokens,
        )
    differing = sorted(
        key
        for key in own.keys() | weights.keys()
        if key not in own or key not in weights or own[key].shape != weights[key].shape
    )
    if differing:
        raise UserError(
            f"{_KEY}.weights={path} are not of {_KEY}.backbone={name}: {len(differing)} tensors "
            f"differ, among them {', '.join(differing[:3])}"
        )
    model.load_state_dict(weights)
