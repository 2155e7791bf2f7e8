"""Videos of trials: which, where, whole, and what is in them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import imageio_ffmpeg
import numpy as np
import pytest

from memo_habitat.config.evaluation import EvaluationPlan
from memo_habitat.errors import UserError
from memo_habitat.evaluation.agents import RandomAgent
from memo_habitat.evaluation.play_trials import evaluate
from memo_habitat.evaluation.recorder import Recorder
from memo_habitat.evaluation.video import SIZE, VideoPlan, Videos
from tests.factories.vector_envs import NUM_ACTIONS, FakeEnv, FakeVectorEnv

STEPS = 30


def film(folder: Path, writer: object = None, envs: FakeVectorEnv | None = None, **more: object):
    """Play two trials in each of two houses at random, filmed; returns the videos."""
    plan = {"options": ("disk",), "trials": 1, "failures": False, "fps": 10, **more}
    videos = Videos(VideoPlan(folder=folder / "videos", trial_steps=STEPS, step=7, **plan), writer)
    if envs is None:
        envs = FakeVectorEnv([FakeEnv([("loft", "a")], STEPS), FakeEnv([("studio", "a")], STEPS)])
    import torch

    def batch(observation):
        return {"trial_step": torch.tensor([int(observation["trial_step"][0])])}

    agents = [RandomAgent(NUM_ACTIONS) for _ in envs.envs]
    bar = SimpleNamespace(update=lambda n: None, set_postfix_str=lambda *a, **k: None)
    evaluation = EvaluationPlan(2, STEPS)
    with Recorder(folder / "eval", evaluation) as recorder:
        recorder.videos = videos
        evaluate(envs, agents, evaluation, recorder, bar, batch)
    return sorted((folder / "videos").glob("*")) if (folder / "videos").exists() else []


def frames(video: Path) -> np.ndarray:
    """uint8 [T, H, W, 3]."""
    reader = imageio_ffmpeg.read_frames(str(video))
    width, height = next(reader)["size"]
    return np.stack([np.frombuffer(f, np.uint8).reshape(height, width, 3) for f in reader])


def test_a_trial_is_one_video_with_a_frame_for_every_step(tmp_path):
    (video,) = film(tmp_path)
    assert video.name.startswith("episode=loft-a-0-ckpt=7-success=")
    seen = frames(video)
    assert seen.shape == (STEPS, SIZE[1], SIZE[0], 3)
    # The camera's grey is the step of the trial, and the map shows floor and target.
    view = seen[:, 100:200, 100:200].mean(axis=(1, 2, 3))
    assert np.abs(view - np.arange(STEPS)).max() < 4
    assert (seen[5, :, 384:].reshape(-1, 3) != seen[5, 0, 384]).any()


def test_houses_come_before_second_trials_of_one(tmp_path):
    videos = film(tmp_path, trials=2)
    assert [video.name.split("-")[0] for video in videos] == ["episode=loft", "episode=studio"]


def test_failures_alone(tmp_path):
    videos = film(tmp_path, failures=True)
    assert videos and all("success=0.00" in video.name for video in videos)
    assert len({video.name for video in videos}) == len(videos)


def test_what_is_not_whole_is_dropped(tmp_path):
    class Breaks(FakeEnv):
        def step(self, action):
            if self.steps_taken == 10:
                raise KeyboardInterrupt
            return super().step(action)

    with pytest.raises(KeyboardInterrupt):
        film(tmp_path, envs=FakeVectorEnv([Breaks([("loft", "a")], STEPS)]))
    assert not list((tmp_path / "videos").glob("*")) + list((tmp_path / "videos").glob(".*"))


def test_tensorboard_gets_an_animation(tmp_path):
    written = []
    writer = SimpleNamespace(
        file_writer=SimpleNamespace(add_summary=lambda summary, step: written.append(summary))
    )
    assert film(tmp_path, writer, options=("tensorboard",)) == []
    (value,) = written[0].value
    assert value.image.encoded_image_string.startswith(b"GIF89a")
    assert value.image.width == SIZE[0]
    with pytest.raises(UserError, match="writer_type=tb"):
        film(tmp_path / "other", SimpleNamespace(), options=("tensorboard",))


def test_trials_that_were_played_before_are_told_and_not_filmed(tmp_path, caplog):
    film(tmp_path, trials=0)
    assert "not filmed" not in caplog.text
    assert film(tmp_path, trials=1) == []
    assert "1 of the trials to look at were played before" in caplog.text


def test_nonsense_is_refused(tmp_path):
    with pytest.raises(UserError, match="video_option has 'vhs'; there are disk and tensorboard"):
        film(tmp_path, options=("vhs",))
    with pytest.raises(UserError, match="video_fps=0"):
        film(tmp_path, fps=0)
