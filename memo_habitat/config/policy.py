"""The settings of the policy in front of the memory: image encoder and state inputs."""

from __future__ import annotations

from dataclasses import dataclass, field

# Kinds of image encoders.
ENCODERS = ("cnn", "resnet18", "resnet50", "timm", "detections", "blind")
# What outputs of the memory are asked for by the recall loss.
RECALLS = ("none", "target")
# What the image encoder and the memory compute in; parameters and losses are always float32.
PRECISIONS = ("float32", "bfloat16")


@dataclass
class EncoderConfig:
    """What turns an image into features."""

    # "cnn": three convolutions, for small images; "resnet18", "resnet50": Habitat-Baselines' own;
    # "timm": a pretrained model that stays as it is, such as VC-1: features are stored, no images;
    # "detections": what a detector reports in the place of an image; "blind": no image.
    kind: str = "cnn"
    # The cameras that are encoded (uuids), RGB or depth: each by an encoder of its own, or
    # (`stack_cameras`) all by one, which sees their channels stacked.
    cameras: list[str] = field(default_factory=lambda: ["head_rgb"])
    stack_cameras: bool = False
    # Width of the visual features of an encoder, which join goal, pose and previous action in the
    # step token.
    features: int = 128
    # Of "timm": the model's name in that library; its weights: a file, "pretrained" (downloaded by
    # timm) or "random"; the edge to which images are scaled (0: that of its training).
    backbone: str = "vit_base_patch16_224.mae"
    weights: str = "pretrained"
    image_size: int = 0
    # sha256 of that file: filled in when training begins, and held to from then on.
    weights_digest: str = ""
    # Channels of the ResNet's first stage, or of the CNN's first layer.
    base_channels: int = 16
    # The goal (uuid), and how many queries of it the CNN looks for in the image (0: none).
    goal_sensor: str = "one_hot_target_sensor"
    goal_queries: int = 4
    # Images whose activations are there at the same time in an update, where
    # rl.memory.activation_checkpointing has them recomputed.
    chunk_size: int = 1024
    # Of "detections": width of a category's embedding, one for what is sought and what is seen.
    category_width: int = 64
    # A .npy with a vector for each category, such as a text encoder's, in the place of learned
    # embeddings: categories that were never trained on become possible. Empty: learned.
    category_vectors: str = ""
    # Of "detections": "target": every output says where the trial has shown the target, which is
    # learned from the detections and told to the actor; "none": the actor has the output alone.
    recall: str = "none"
    # A binary observation (uuid) that the memory's output learns to predict: seen by the loss,
    # never by the policy, and not needed in evaluation. Empty: none.
    auxiliary_sensor: str = ""
    # Vector observations that join the token as they are (uuids); those a task lacks are an error.
    state_sensors: list[str] = field(default_factory=lambda: ["one_hot_target_sensor", "gps"])
    # The reward of the trial's step before joins them (uuid last_reward), as RL2 needs it.
    last_reward: bool = False
    # Sines and cosines that join each of their values, which should lie in [0, 1]: of pi, 2 pi, ...
    # times the value, up to this multiple. 0: none.
    fourier_features: int = 0
    # Show the last action of an episode at the first step of the next one too: where an episode's
    # end is learned from, as in meta-learning tasks, it says what led there. Never across trials.
    action_across_episodes: bool = False

    @property
    def sees(self) -> bool:
        """Whether it looks at images."""
        return self.kind not in ("blind", "detections")


DEFAULT_ENCODER = EncoderConfig()
