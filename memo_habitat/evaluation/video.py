"""Videos of chosen trials, written frame by frame: what is seen beside the map, and the memory.

`habitat_baselines.eval.video_option` says where they go, as in Habitat: `disk` is MP4 files in
`video_dir`, through ffmpeg; `tensorboard` is an animation of at most a hundred frames among the
images. Whatever its length, a trial costs the memory of some frames.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from memo_habitat.errors import UserError
from memo_habitat.evaluation.recorder import FilmStrip
from memo_habitat.evaluation.records import EpisodeRecord
from memo_habitat.simulator.interface import TopDownMap
from memo_habitat.utils.files import file_name

DISK, TENSORBOARD = "disk", "tensorboard"
# Pixels: two squares beside each other, and lines of text below. Multiples of 16, as H.264 has it.
_SIDE, _TEXT = 384, 64
SIZE = 2 * _SIDE, _SIDE + _TEXT
_ANIMATION_FRAMES, _MARGIN = 100, 12
_PAPER, _FLOOR, _INK, _PALE = (30, 32, 36), (92, 97, 105), (235, 235, 235), (150, 155, 165)
_PATH, _GOAL, _SEEN, _AGENT = (86, 180, 233), (240, 200, 60), (190, 120, 220), (255, 255, 255)
_OLD_PATH = (62, 92, 112)


@dataclass(frozen=True)
class VideoPlan:
    """What to film and where to put it.

    Attributes:
        options: of `disk` and `tensorboard`; none: no video.
        folder: of the files.
        fps: steps a second.
        trials: how many trials, those of different houses first.
        failures: a video of each episode that failed alone, and not one of each trial.
        trial_steps: length of a trial.
        step: environment steps that the agent has learned from, for the names.
    """

    options: Collection[str]
    folder: Path
    fps: int
    trials: int
    failures: bool
    trial_steps: int
    step: int

    def __post_init__(self) -> None:
        if unknown := set(self.options) - {DISK, TENSORBOARD}:
            raise UserError(
                f"habitat_baselines.eval.video_option has {min(unknown)!r}; there are {DISK} and"
                f" {TENSORBOARD}"
            )
        if self.fps < 1:
            raise UserError(f"habitat_baselines.video_fps={self.fps}: at least 1 is needed")


@dataclass
class Moment:
    """A step of a filmed trial.

    Attributes:
        step, episode: steps of the trial so far, episodes before this one.
        frame: uint8 [H, W, 3], or None where there is no camera.
        scene: as `top_down_scene` tells; None where the environment does not.
        detections: [C, 6] as `tasks.extobjnav.detections` has them, if observed.
        tokens: that the memory attends to; None without one.
    """

    step: int
    episode: int
    frame: Any
    scene: Mapping[str, Any] | None
    detections: Any
    tokens: int | None


class Videos:
    """The videos of one evaluation; closed, it leaves whole files only."""

    def __init__(self, plan: VideoPlan, writer: Any = None) -> None:
        """Film nothing yet; `writer` is Habitat's, for TensorBoard."""
        self._plan, self._writer = plan, writer
        if TENSORBOARD in plan.options and getattr(writer, "file_writer", None) is None:
            raise UserError(
                "habitat_baselines.eval.video_option=[tensorboard] needs "
                "habitat_baselines.writer_type=tb; write videos to the disk"
            )
        self._chosen: frozenset[str] = frozenset()
        self._reels: dict[str, _Reel] = {}

    def choose(self, trials: Sequence[str]) -> None:
        """Film the first of these trials."""
        self._chosen = frozenset(trials[: self._plan.trials] if self._plan.options else ())

    def films(self, trial: str) -> bool:
        """Whether this trial is filmed."""
        return trial in self._chosen

    def add(self, trial: str, house: TopDownMap | None, moment: Moment) -> None:
        """Take in a step of a filmed trial; without a map of its house none is drawn."""
        if trial not in self._reels:
            self._reels[trial] = _Reel(trial, self._plan, _Picture(house, self._plan.trial_steps))
        self._reels[trial].add(moment)

    def end_episode(self, record: EpisodeRecord, trial_over: bool) -> None:
        """Finish what the end of an episode finishes."""
        reel = self._reels.get(record.trial_id)
        if reel is None:
            return
        reel.end_episode(record)
        if self._plan.failures or trial_over:
            wanted = not self._plan.failures or not (record.success or record.truncated)
            name = reel.name(record if self._plan.failures else None)
            reel.finish(name if wanted else None, self._writer)
        if trial_over:
            del self._reels[record.trial_id]

    def close(self) -> None:
        """Drop what is not whole."""
        for reel in self._reels.values():
            reel.finish(None, None)
        self._reels.clear()


class _Reel:
    """One trial being filmed."""

    def __init__(self, trial: str, plan: VideoPlan, picture: _Picture) -> None:
        self._trial, self._plan, self._picture = trial, plan, picture
        self._part = plan.folder / f".{file_name(trial)}.part.mp4"
        self._ffmpeg: Any = None
        self._strip = FilmStrip(_ANIMATION_FRAMES)
        self._episodes = self._successes = 0.0

    def add(self, moment: Moment) -> None:
        image = self._picture.draw(moment, int(self._successes), int(self._episodes))
        if TENSORBOARD in self._plan.options:
            self._strip.add(moment.step, image)
        if DISK not in self._plan.options:
            return
        if self._ffmpeg is None:
            try:
                self._plan.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(
                    f"habitat_baselines.video_dir={self._plan.folder} cannot be made"
                    f" ({error.strerror}): choose another"
                ) from error
            self._ffmpeg = imageio_ffmpeg.write_frames(
                str(self._part), SIZE, fps=self._plan.fps, ffmpeg_log_level="error"
            )
            self._ffmpeg.send(None)
        self._ffmpeg.send(np.ascontiguousarray(image))

    def end_episode(self, record: EpisodeRecord) -> None:
        self._episodes += not record.truncated
        self._successes += record.success
        self._picture.end_episode()

    def name(self, record: EpisodeRecord | None) -> str:
        """As Habitat names videos; of one episode, or of the trial."""
        if record is None:
            rate = self._successes / max(1.0, self._episodes)
            which, metric = self._trial, f"success={rate:.2f}-found={self._successes:.0f}"
        else:
            which = f"{self._trial}-{record.episode_index:04d}"
            metric = f"success={record.success:.2f}"
        return f"episode={file_name(which)}-ckpt={self._plan.step}-{metric}"

    def finish(self, name: str | None, writer: Any) -> None:
        """Give what was filmed since the last time this name; None drops it."""
        if self._ffmpeg is not None:
            with contextlib.suppress(OSError):  # a full disk has ended ffmpeg already
                self._ffmpeg.close()
            self._ffmpeg = None
            if name is None:
                self._part.unlink(missing_ok=True)
            else:
                self._part.replace(self._plan.folder / f"{name}.mp4")
        frames = [frame for _, frame in self._strip.frames()]
        self._strip = FilmStrip(_ANIMATION_FRAMES)
        if name is not None and frames and writer is not None:
            _log_animation(writer, name, frames, self._plan)


def _log_animation(writer: Any, name: str, frames: Sequence[np.ndarray], plan: VideoPlan) -> None:
    # SummaryWriter's add_video holds all frames in memory and needs a moviepy that is no more.
    from tensorboard.compat.proto.summary_pb2 import Summary

    images = [Image.fromarray(frame) for frame in frames]
    encoded = io.BytesIO()
    first, *others = images
    duration = round(1000 / plan.fps)
    first.save(encoded, "GIF", save_all=True, append_images=others, duration=duration, loop=0)
    image = Summary.Image(
        height=SIZE[1], width=SIZE[0], colorspace=3, encoded_image_string=encoded.getvalue()
    )
    writer.file_writer.add_summary(Summary(value=[Summary.Value(tag=name, image=image)]), plan.step)


@dataclass
class _Picture:
    """Draws the frames of one trial; the map is drawn once and its paths step by step."""

    house: TopDownMap | None
    trial_steps: int
    path: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._font = ImageFont.load_default(15)
        self._most_tokens = 1
        self._ground = Image.new("RGB", (_SIDE, _SIDE), _PAPER)
        self._scale, self._offset = 1.0, np.zeros(2)
        if self.house is not None and self.house.free.any():
            self._draw_floor(self.house)
        self._now = self._ground.copy()

    def _draw_floor(self, house: TopDownMap) -> None:
        free, resolution = house.free, house.resolution
        rows, columns = np.nonzero(free)
        low = np.array([columns.min(), rows.min()])
        high = np.array([columns.max(), rows.max()]) + 1
        pixels = (_SIDE - 2 * _MARGIN) / (high - low).max()  # of a cell
        self._scale = pixels / resolution
        self._offset = house.origin + low * resolution
        part = free[low[1] : high[1], low[0] : high[0]].astype(np.uint8) * 255
        width, height = (pixels * (high - low)).round().astype(int).tolist()
        mask = Image.fromarray(part).resize((width, height), Image.Resampling.NEAREST)
        self._ground.paste(_FLOOR, (_MARGIN, _MARGIN), mask)

    def _at(self, point: Any) -> tuple[float, float]:
        """The pixel of a place (x, z), m."""
        x, y = _MARGIN + (np.asarray(point, dtype=float) - self._offset) * self._scale
        return float(x), float(y)

    def draw(self, moment: Moment, found: int, ended: int) -> np.ndarray:
        """uint8 [H, W, 3]."""
        canvas = Image.new("RGB", SIZE, _PAPER)
        canvas.paste(self._view(moment.frame), (0, 0))
        target = ""
        if self.house is not None and moment.scene is not None:
            canvas.paste(self._map(moment.scene, moment.detections), (_SIDE, 0))
            target = f": find {moment.scene['target']}"
        pen = ImageDraw.Draw(canvas)
        line = (
            f"step {moment.step + 1:,} of {self.trial_steps:,}   "
            f"episode {moment.episode + 1}{target}   found {found} of {ended}"
        )
        pen.text((_MARGIN, _SIDE + 8), line, fill=_INK, font=self._font)
        if target:
            self._legend(pen)
        if moment.tokens is not None:
            self._bar(pen, moment.tokens)
        return np.asarray(canvas)

    def _legend(self, pen: ImageDraw.ImageDraw) -> None:
        left, middle = _SIDE + 210, _SIDE + 42
        _dot(pen, (left, middle), 6, outline=_GOAL)
        pen.text((left + 12, middle), "target", _PALE, self._font, anchor="lm")
        _dot(pen, (left + 82, middle), 3, fill=_SEEN)
        pen.text((left + 90, middle), "detected", _PALE, self._font, anchor="lm")

    def _view(self, frame: Any) -> Image.Image:
        if frame is None or np.asarray(frame).dtype != np.uint8 or np.asarray(frame).ndim != 3:
            empty = Image.new("RGB", (_SIDE, _SIDE), _PAPER)
            text = (_SIDE // 2, _SIDE // 2)
            ImageDraw.Draw(empty).text(text, "no camera", _PALE, self._font, anchor="mm")
            return empty
        image = Image.fromarray(np.asarray(frame)[..., :3])
        return image.resize((_SIDE, _SIDE), Image.Resampling.NEAREST)

    def _map(self, scene: Mapping[str, Any], detections: Any) -> Image.Image:
        here, heading = np.asarray(scene["position"], dtype=float), float(scene["heading"])
        place = self._at(here)
        if self.path:
            ImageDraw.Draw(self._now).line([self.path[-1], place], _PATH, 2)
        self.path.append(place)
        image = self._now.copy()
        pen = ImageDraw.Draw(image)
        for goal in scene["goals"]:
            _dot(pen, self._at(goal), 6, outline=_GOAL)
        forward = np.array([-math.sin(heading), -math.cos(heading)])
        left = np.array([-math.cos(heading), math.sin(heading)])
        for row in () if detections is None else np.asarray(detections, dtype=float):
            if row[0] > 0:  # forward and left of the agent, in the task's unit
                seen = here + scene["detection_scale"] * (row[1] * forward + row[2] * left)
                _dot(pen, self._at(seen), 3, fill=_SEEN)
        nose, tail = np.array(place) + 9 * forward, np.array(place) - 5 * forward
        wings = [tuple(tail + side * 5 * left) for side in (1, -1)]
        pen.polygon([tuple(nose), *wings], fill=_AGENT)
        return image

    def _bar(self, pen: ImageDraw.ImageDraw, tokens: int) -> None:
        """The memory in use, of the most that was in use so far."""
        self._most_tokens = max(self._most_tokens, tokens)
        top, left, width = _SIDE + 36, _MARGIN, 200
        pen.rectangle((left, top, left + width, top + 12), outline=_PALE)
        filled = round(width * tokens / self._most_tokens)
        pen.rectangle((left, top, left + filled, top + 12), fill=_PATH)
        text = f"memory: {tokens} tokens, at most {self._most_tokens} so far"
        pen.text((left + width + 12, top - 3), text, fill=_PALE, font=self._font)

    def end_episode(self) -> None:
        """Its path is a trace from now on."""
        if len(self.path) > 1:
            ImageDraw.Draw(self._ground).line(self.path, _OLD_PATH, 2)
        self._now, self.path = self._ground.copy(), []


def _dot(pen: ImageDraw.ImageDraw, at: tuple[float, float], radius: int, **colors: Any) -> None:
    pen.ellipse((at[0] - radius, at[1] - radius, at[0] + radius, at[1] + radius), **colors, width=2)
