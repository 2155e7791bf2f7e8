"""Whatever ends a training and whenever: resumed, it comes out as if nothing had happened."""

from __future__ import annotations

import random
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from torch.utils.tensorboard import SummaryWriter

import memo_habitat as mh
from memo_habitat.tasks.dark_key.vector_env import DarkKeyVectorEnv
from memo_habitat.trainer.checkpoint import read_resume_state
from memo_habitat.trainer.compare_runs import differences, flip_byte, scalars
from memo_habitat.trainer.launch import work_at_training
from memo_habitat.trainer.run_dir import RunFolder

TRIAL, UPDATES, ENVS = 12, 3, 4
PER_UPDATE = TRIAL // UPDATES * ENVS
TOTAL = 4 * TRIAL * ENVS
CONFIG = (
    "habitat.task.size=3",
    f"habitat.task.trial_steps={TRIAL}",
    "habitat.environment.max_episode_steps=5",
    f"habitat_baselines.num_environments={ENVS}",
    f"habitat_baselines.total_num_steps={TOTAL}",
    "habitat_baselines.num_checkpoints=-1",
    "habitat_baselines.checkpoint_interval=4",
    f"habitat_baselines.rl.ppo.updates_per_trial={UPDATES}",
    "habitat_baselines.rl.ppo.num_mini_batch=2",
    "habitat_baselines.rl.ppo.ppo_epoch=1",
    "habitat_baselines.rl.memory.width=16",
    "habitat_baselines.rl.memory.layers=1",
    "habitat_baselines.rl.memory.heads=2",
    "habitat_baselines.rl.memory.hidden=16",
    "habitat_baselines.rl.memory.segment_length=3",
    "habitat_baselines.rl.memory.summary_length=2",
)
# What else is under way in a trial: episodes in another order, lengths of segments drawn by trial,
# other states than summaries.
MORE = {
    "plain": (),
    "shuffled": (
        "habitat_baselines.rl.ppo.shuffle_episodes=true",
        "habitat_baselines.rl.ppo.returns_across_episodes=false",
    ),
    "jitter": (
        "habitat_baselines.rl.memory.segment_jitter=0.5",
        "habitat_baselines.rl.memory.segment_jitter_in=trial",
    ),
    "full context": ("memory=fct",),
    "recurrent": ("memory=lstm",),
}


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def happens(monkeypatch):
    """Let something happen in the n-th step that environments take from now on."""

    def at(step, what):
        taken, inner = [0], DarkKeyVectorEnv.step_batch

        def step_batch(self, actions, only=None):
            taken[0] += 1
            if taken[0] == step:
                what()
            return inner(self, actions, only)

        monkeypatch.setattr(DarkKeyVectorEnv, "step_batch", step_batch)

    yield at


def begin(folder: Path, kind: str, *overrides: str) -> bool:
    given = [*CONFIG, *MORE[kind], *overrides]
    return mh.train(mh.start_training("dark_key_to_door", given, out=folder))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Undisturbed trainings, made when they are asked for."""
    made = {}

    def of(kind: str) -> RunFolder:
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind) / "run"
            assert begin(folder, kind)
            made[kind] = RunFolder(folder)
        return made[kind]

    return of


def done(run: RunFolder) -> int:
    return read_resume_state(run.checkpoint_dir)["counts"]["num_steps_done"]


def stop(number: signal.Signals):
    return lambda: signal.raise_signal(number)


def kill():
    raise Killed


@pytest.mark.slow
# Before the first update, in the middle of a trial, and after a whole one. What a resumed process
# does again of its trial counts, too.
@pytest.mark.parametrize(
    ("kind", "steps", "by"),
    [
        ("plain", (3, 15), signal.SIGUSR1),
        ("shuffled", (9, 15), signal.SIGTERM),
        ("jitter", (6, 10), signal.SIGINT),
        ("full context", (7, 11), signal.SIGUSR1),
        ("recurrent", (5, 14), signal.SIGTERM),
    ],
)
def test_a_stop_at_any_step_changes_nothing(whole, happens, tmp_path, kind, steps, by):
    run = RunFolder(tmp_path / "run")
    for number, step in enumerate(steps):
        happens(step, stop(by))
        assert not (mh.train(mh.resume_training(run.path)) if number else begin(run.path, kind))
    happens(0, None)
    assert mh.train(mh.resume_training(run.path))
    assert differences(run, whole(kind)) == []
    names = [sorted(p.name for p in r.checkpoint_dir.glob("ckpt.*")) for r in (run, whole(kind))]
    assert names[0] == names[1]


def test_curves_are_compared_in_the_order_in_which_they_were_written(tmp_path):
    # Files that TensorBoard begins within one second may be named in another one.
    for number, name in ((1, "tfevents.1.host.7.9"), (2, "tfevents.1.host.7.10")):
        with SummaryWriter(str(tmp_path / name), purge_step=number) as writer:
            writer.add_scalar("curve", number, number)
        (file,) = (tmp_path / name).iterdir()
        file.rename(tmp_path / f"events.{name}")
        (tmp_path / name).rmdir()
    assert scalars(tmp_path) == {"curve": [(1, 1.0), (2, 2.0)]}


def test_every_resume_is_on_record_once_whatever_command_began_it(happens, tmp_path):
    run = RunFolder(tmp_path / "run")
    happens(TRIAL + 1, stop(signal.SIGTERM))
    assert not begin(run.path, "plain")
    first = done(run)
    happens(TRIAL + 1, stop(signal.SIGTERM))
    work_at_training(run.config())  # as habitat-baselines does
    second = done(run)
    assert mh.train(mh.resume_training(run.path))
    found = [(resume.steps, resume.workers) for resume in run.record().resumed]
    assert found == [(first, 1), (second, 1)]
    assert first < second


@pytest.mark.slow
def test_a_kill_at_any_step_loses_no_more_than_the_update_under_way(whole, happens, tmp_path):
    run, steps = RunFolder(tmp_path / "run"), random.Random(1).sample(range(4, 2 * TRIAL), 2)
    reached = 0
    for number, step in enumerate(steps):
        happens(step, kill)
        with pytest.raises(Killed):
            mh.train(mh.resume_training(run.path)) if number else begin(run.path, "plain")
        # A resumed process takes the steps of the trial under way once more.
        replayed = reached // ENVS % TRIAL
        reached += max(0, step - 1 - replayed) // (TRIAL // UPDATES) * PER_UPDATE
        assert done(run) == reached
    happens(0, None)
    assert mh.train(mh.resume_training(run.path))
    assert differences(run, whole("plain")) == []


def test_after_a_damaged_state_the_one_before_leads_to_the_same(whole, happens, tmp_path):
    run = RunFolder(tmp_path / "run")
    happens(11, stop(signal.SIGTERM))
    begin(run.path, "plain")
    happens(0, None)
    reached = done(run)
    flip_byte(run.resume_state)
    assert done(run) == reached - PER_UPDATE
    assert mh.train(mh.resume_training(run.path))
    assert "is damaged" in run.log_file.read_text()
    assert differences(run, whole("plain")) == []


def test_a_trial_that_does_not_repeat_itself_is_left_for_another(happens, tmp_path, monkeypatch):
    run = RunFolder(tmp_path / "run")
    happens(7, stop(signal.SIGTERM))
    begin(run.path, "plain")
    inner = DarkKeyVectorEnv.step_batch

    def other(self, actions, only=None):
        step = inner(self, actions, only)
        return replace(step, rewards=1.0 - step.rewards)

    happens(0, None)
    monkeypatch.setattr(DarkKeyVectorEnv, "step_batch", other)
    assert mh.train(mh.resume_training(run.path))
    assert "the trial under way is left and others are begun: step" in run.log_file.read_text()


def test_environments_that_skip_no_trials_begin_others(happens, tmp_path, monkeypatch):
    run = RunFolder(tmp_path / "run")
    happens(TRIAL + 3, stop(signal.SIGTERM))
    begin(run.path, "plain")
    happens(0, None)
    monkeypatch.setattr(DarkKeyVectorEnv, "skip_trials", lambda self, count: False)
    assert mh.train(mh.resume_training(run.path))
    assert "these environments cannot skip" in run.log_file.read_text()


def test_with_another_seed_other_trials_are_begun_without_a_word(happens, tmp_path):
    run = RunFolder(tmp_path / "run")
    happens(7, stop(signal.SIGTERM))
    begin(run.path, "plain")
    happens(0, None)
    assert mh.train(mh.resume_training(run.path, ["habitat.seed=7"]))
    assert "left" not in run.log_file.read_text()


def test_two_runs_that_differ_are_told_apart(whole, tmp_path):
    other = tmp_path / "run"
    assert begin(other, "plain", "habitat_baselines.rl.ppo.gamma=0.5")
    weights, progress, curves = differences(RunFolder(other), whole("plain"))
    assert "weights differ" in weights
    assert "line 1 of progress differs in learner" in progress
    assert "TensorBoard curves differ, the first is learner/" in curves
