"""Which encoder a config names: checked, and built for what is observed."""

from __future__ import annotations

import math
from importlib.util import find_spec

import numpy as np
from gym import spaces

from memo_habitat.config.policy import DEFAULT_ENCODER, ENCODERS, RECALLS, EncoderConfig
from memo_habitat.errors import UserError, check_at_least_one, check_choice
from memo_habitat.policy.detection_encoder import DetectionEncoder, build_detection_encoder
from memo_habitat.policy.image_encoders import EncoderPerCamera, FrozenFeatures, ResNet, SmallCNN

Encoder = SmallCNN | ResNet | EncoderPerCamera | FrozenFeatures | DetectionEncoder
_TRAINED = ("cnn", "resnet18", "resnet50")  # along with the policy, on images


def feature_uuid(camera: str) -> str:
    """The observation that a frozen encoder makes of a camera's images."""
    return f"{camera}_features"


def camera_spaces(config: EncoderConfig, observation_space: spaces.Dict) -> dict[str, spaces.Box]:
    """The images that the encoder looks at; UserError where one is not observed, or no image."""
    for uuid in config.cameras:
        space = observation_space.spaces.get(uuid)
        if space is None or len(space.shape) != 3 or not np.isfinite(space.high).all():
            raise UserError(
                f"habitat_baselines.rl.encoder.cameras names {uuid!r}, which is no image that is "
                f"observed; there are: {', '.join(sorted(observation_space.spaces))}"
            )
    return {uuid: observation_space.spaces[uuid] for uuid in config.cameras}


def check_encoder(config: EncoderConfig) -> None:
    """Raise UserError where there can be no such encoder."""
    key = "habitat_baselines.rl.encoder"
    check_choice(f"{key}.kind", config.kind, ENCODERS)
    check_choice(f"{key}.recall", config.recall, RECALLS)
    if config.kind != "detections" and (config.recall != "none" or config.category_vectors):
        raise UserError(
            f"{key}.kind={config.kind!r} has no categories to ask for: "
            "leave recall and category_vectors at their defaults, or choose encoder=detections"
        )
    check_at_least_one(f"{key}.category_width", config.category_width)
    check_at_least_one(f"{key}.chunk_size", config.chunk_size)
    check_at_least_one(f"{key}.features", config.features)
    check_at_least_one(f"{key}.base_channels", config.base_channels)
    if config.kind.startswith("resnet") and config.base_channels % 2:
        raise UserError(
            f"{key}.base_channels={config.base_channels}: a ResNet normalises pairs of channels; "
            "give an even number"
        )
    for name in ("fourier_features", "goal_queries"):
        if (count := getattr(config, name)) < 0:
            raise UserError(f"{key}.{name}={count}: give 0 for none, or how many")
    _check_camera_keys(config, key)


def _check_camera_keys(config: EncoderConfig, key: str) -> None:
    """Refuse keys of cameras, and of a frozen encoder, that would have no effect."""
    cameras = list(config.cameras)
    if not config.sees and cameras != DEFAULT_ENCODER.cameras:
        raise UserError(f"{key}.cameras={cameras}: {key}.kind={config.kind!r} looks at no image")
    if not cameras or len(set(cameras)) < len(cameras):
        raise UserError(f"{key}.cameras={cameras}: name at least one, and each once")
    if config.stack_cameras and (len(cameras) == 1 or config.kind not in _TRAINED):
        raise UserError(
            f"{key}.stack_cameras=true stacks several cameras of kind={' or '.join(_TRAINED)}; "
            f"here are {cameras} of kind={config.kind}: set it to false"
        )
    if config.kind != "timm":
        for name in ("backbone", "weights", "image_size"):
            if getattr(config, name) != getattr(DEFAULT_ENCODER, name):
                raise UserError(
                    f"{key}.{name}={getattr(config, name)} has no effect on kind={config.kind}: "
                    "choose encoder=timm, or leave it out"
                )
    elif find_spec("timm") is None:
        raise UserError(f"{key}.kind=timm needs timm: pip install 'memo-habitat[timm]'")


def build_encoder(config: EncoderConfig, observation_space: spaces.Dict) -> Encoder | None:
    """The encoder that `EncoderConfig` names, None for "blind"; UserError if it lacks an input."""
    check_encoder(config)
    if config.kind == "blind":
        return None
    if config.kind == "detections":
        return build_detection_encoder(
            config.category_width, config.category_vectors, observation_space
        )
    if config.kind == "timm":
        inputs = [feature_uuid(camera) for camera in config.cameras]
        return FrozenFeatures({u: observation_space.spaces[u] for u in inputs}, config.features)
    cameras = camera_spaces(config, observation_space)
    if config.goal_sensor not in observation_space.spaces:
        raise UserError(
            f"habitat_baselines.rl.encoder.goal_sensor={config.goal_sensor!r} is not observed; "
            f"there are: {', '.join(sorted(observation_space.spaces))}"
        )
    groups = [cameras] if config.stack_cameras else [{u: space} for u, space in cameras.items()]
    sizes = {space.shape[:2] for space in cameras.values()}
    if config.stack_cameras and len(sizes) > 1:
        raise UserError(
            f"habitat_baselines.rl.encoder.stack_cameras=true: {', '.join(cameras)} have sizes of "
            f"their own, {sorted(sizes)}: give them the same width and height, or do not stack"
        )
    goal = config.goal_sensor, math.prod(observation_space.spaces[config.goal_sensor].shape)
    channels, features = config.base_channels, config.features
    encoders: list[SmallCNN | ResNet] = [
        SmallCNN(group, channels, features, goal, config.goal_queries)
        if config.kind == "cnn"
        else ResNet(config.kind, group, channels, features)
        for group in groups
    ]
    return encoders[0] if len(encoders) == 1 else EncoderPerCamera(encoders)
