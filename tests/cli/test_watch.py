"""`memo-habitat watch`: a video of an agent, and nothing else left behind."""

from __future__ import annotations

import shutil
from pathlib import Path

import imageio_ffmpeg
import pytest
import torch
from omegaconf import OmegaConf

import memo_habitat as mh
from memo_habitat.cli.main import main
from memo_habitat.config.compose import compose_config
from tests.integration.conftest import TINY_DARK_KEY


@pytest.mark.slow
def test_it_prints_the_path_of_a_video_and_leaves_no_evaluation(
    tmp_path, checkout, capsys, monkeypatch
):
    # An optimiser, of no use here, would import torch.compile.
    monkeypatch.delattr(torch.optim, "Adam")
    run = shutil.copytree(checkout / "data/agents/recall", tmp_path / "o'brien")
    assert main(["watch", str(run), "--steps", "24", "--house", "loft_0_test_003"]) == 0
    video = Path(capsys.readouterr().out.splitlines()[-1])
    assert video.parent == run / "videos/watch" and "loft_0_test_003" in video.name
    assert imageio_ffmpeg.count_frames_and_secs(str(video))[0] == 24
    assert not list((run / "eval").iterdir())


def test_a_house_of_a_task_without_houses_is_refused(tmp_path, capsys):
    OmegaConf.save(compose_config("dark_key_to_door"), tmp_path / "config.yaml")
    assert main(["watch", str(tmp_path), "--house", "any"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--house any: DarkKeyToDoor-v0 is not played in houses; leave it out" in line


def test_inspect_of_a_task_without_houses_says_what_films_it(tmp_path, capsys):
    OmegaConf.save(compose_config("dark_key_to_door"), tmp_path / "config.yaml")
    for more in ([], ["--house", "any"]):
        assert main(["inspect", str(tmp_path), *more]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "DarkKeyToDoor-v0 is not played in houses" in line


@pytest.mark.slow
def test_a_task_without_houses_is_filmed(tmp_path, capsys):
    overrides = [*TINY_DARK_KEY, "habitat_baselines.total_num_steps=80"]
    training = mh.start_training("dark_key_to_door", overrides, out=tmp_path / "run")
    assert mh.train(training)
    capsys.readouterr()
    assert main(["watch", str(training.run.path)]) == 0
    assert Path(capsys.readouterr().out.splitlines()[-1]).stat().st_size > 0
