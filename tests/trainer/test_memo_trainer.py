"""The trainer over scripted environments: counting, stopping, going on, and who fits whom."""

from __future__ import annotations

import contextlib
import gzip
import json
import logging
import math
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from gym import spaces
from habitat import logger
from habitat.config import read_write
from habitat.config.default import patch_config
from habitat_baselines.common.env_spec import EnvironmentSpec
from omegaconf import OmegaConf, open_dict

from memo_habitat.config.compose import compose_config
from memo_habitat.config.evaluation import evaluation_config
from memo_habitat.config.task import SENSORS
from memo_habitat.errors import NonFiniteError, UserError
from memo_habitat.policy.policy import MemoPolicy
from memo_habitat.trainer import resumable
from memo_habitat.trainer.checkpoint import (
    read_checkpoint,
    read_resume_state,
    write_resume_state,
)
from memo_habitat.trainer.profile import COLLECT, LEARN
from memo_habitat.trainer.run_dir import LATEST, RESUME_STATE
from memo_habitat.trainer.trainer import MemoTrainer
from memo_habitat.trainer.validation import (
    check_resumed_model,
    check_training_config,
    check_training_settings,
)
from tests.factories.policies import NUM_ACTIONS, observation_space

TRIAL, UPDATES, ENVS = 8, 2, 2
PER_UPDATE = TRIAL // UPDATES * ENVS
SIZES = (
    f"habitat.task.trial_steps={TRIAL}",
    f"habitat_baselines.num_environments={ENVS}",
    f"habitat_baselines.rl.ppo.updates_per_trial={UPDATES}",
    "habitat_baselines.rl.ppo.ppo_epoch=1",
    "habitat_baselines.rl.memory.width=16",
    "habitat_baselines.rl.memory.layers=1",
    "habitat_baselines.rl.memory.heads=2",
    "habitat_baselines.rl.memory.hidden=16",
    "habitat_baselines.rl.memory.segment_length=4",
    "habitat_baselines.rl.memory.summary_length=2",
    "habitat_baselines.rl.encoder.auxiliary_sensor=''",
    "habitat_baselines.rl.encoder.features=8",
    "habitat_baselines.rl.encoder.base_channels=4",
)


class ScriptedEnvs:
    """Lockstep environments without a simulator; `at` maps a step to what happens in it."""

    def __init__(self, trial_steps, at, num_envs):
        self.num_envs = num_envs
        self.observation_spaces = [observation_space()] * num_envs
        self.action_spaces = self.orig_action_spaces = [spaces.Discrete(NUM_ACTIONS)] * num_envs
        self._trial_steps, self._at = trial_steps, dict(at)
        self._steps = self.taken = 0
        self.closed = False
        self.deaths = Path("/nowhere")

    def _observe(self):
        place = self._steps % self._trial_steps
        drawn = np.random.default_rng(self._steps)
        spaces_ = self.observation_spaces[0].spaces
        return {
            **{uuid: np.zeros(space.shape, space.dtype) for uuid, space in spaces_.items()},
            "head_rgb": drawn.integers(0, 256, (16, 16, 3), dtype=np.uint8),
            "one_hot_target_sensor": np.eye(3, dtype=np.float32)[place % 3],
            "gps": drawn.normal(size=2).astype(np.float32),
            "trial_step": np.array([place], dtype=np.int64),
        }

    def reset(self):
        return [self._observe()] * self.num_envs

    def post_step(self, observations):
        return observations

    def async_step_at(self, index, action):
        if index == 0:
            self._steps += 1
            self.taken += 1
            self._at.pop(self._steps, lambda: None)()

    def wait_step_at(self, index):
        done = self._steps % 3 == 0 or self._steps % self._trial_steps == 0
        return self._observe(), 1.0, done, {"spl": 0.5}

    def call_at(self, index, name, arguments):
        assert name == "skip_trials"
        self._steps = arguments["count"] * self._trial_steps
        return True

    def close(self):
        self.closed = True


class ScriptedTrainer(MemoTrainer):
    """The trainer with scripted environments in the place of workers."""

    trial_steps, at, num_envs, begins_at = TRIAL, (), ENVS, 0

    def _init_envs(self, config=None, is_eval=False):
        self.envs = ScriptedEnvs(self.trial_steps, self.at, self.num_envs)
        self.envs._steps = self.begins_at
        self._env_spec = EnvironmentSpec(
            observation_space=self.envs.observation_spaces[0],
            action_space=self.envs.action_spaces[0],
            orig_action_space=self.envs.orig_action_spaces[0],
        )
        self._rank0_keys, self._single_proc_infos = set(), {}
        self._skip_trials()


@pytest.fixture(scope="module")
def composed():
    return patch_config(compose_config("extobjnav/studio", SIZES))


@pytest.fixture
def train(composed, tmp_path):
    """Train to a number of steps in one run folder; returns the trainer, however it ended."""

    def go(total, at=(), dies=None, window=50, **attributes):
        config = composed.copy()
        with read_write(config):
            config.run_dir = str(tmp_path)
            config.habitat_baselines.total_num_steps = total
            config.habitat_baselines.num_checkpoints = 2
            config.habitat_baselines.rl.ppo.reward_window_size = window
        # As it is resumed: the config of the run counts, so the new total goes there.
        if (tmp_path / "config.yaml").is_file():
            OmegaConf.save(config, tmp_path / "config.yaml")
        trainer = ScriptedTrainer(config)
        trainer.at = at
        for name, value in attributes.items():
            setattr(trainer, name, value)
        if dies is None:
            trainer.train()
        else:
            with pytest.raises(dies):
                trainer.train()
        assert trainer.envs.closed
        return trainer

    go.folder = tmp_path
    return go


def rows(folder):
    return [json.loads(line) for line in (folder / "progress.jsonl").read_text().splitlines()]


def counted(folder):
    return [row["steps"] for row in rows(folder)]


def every_update(total):
    return list(range(PER_UPDATE, total + 1, PER_UPDATE))


def interrupt():
    signal.raise_signal(signal.SIGINT)


class Killed(Exception):
    """Stands for the end of the process."""


def kill():
    raise Killed


def test_every_step_of_every_environment_counts_once(train):
    trainer = train(64)
    assert trainer.num_steps_done == 64
    assert trainer.num_updates_done == 64 // PER_UPDATE
    assert counted(train.folder) == every_update(64)
    assert read_checkpoint(train.folder / "checkpoints" / LATEST)["extra_state"]["step"] == 64


def test_from_the_state_before_it_goes_on_with_the_config_of_the_run(train):
    train(32)
    newest = train.folder / "checkpoints" / RESUME_STATE
    newest.write_bytes(newest.read_bytes()[:-1])
    trainer = train(64)
    assert trainer.num_steps_done == trainer.config.habitat_baselines.total_num_steps == 64
    assert counted(train.folder) == every_update(64)


def test_an_interrupt_stops_after_the_step_and_going_on_leaves_no_gap(train):
    # Step 10 of each environment lies in the second trial, before its first update.
    trainer = train(64, at={10: interrupt})
    assert trainer.num_steps_done == 2 * PER_UPDATE
    assert trainer.envs._steps == 10
    weights = trainer._agent.actor_critic.state_dict()
    state = read_resume_state(train.folder / "checkpoints")
    assert all(torch.equal(weights[key], state["state_dict"][key]) for key in weights)
    assert train(64).num_steps_done == 64
    assert counted(train.folder) == every_update(64)


def test_an_interrupt_in_mid_trial_keeps_the_partial_update(train):
    trainer = train(64, at={13: interrupt})
    assert trainer.num_steps_done == 3 * PER_UPDATE
    latest = read_checkpoint(train.folder / "checkpoints" / LATEST)
    assert latest["extra_state"]["step"] == 3 * PER_UPDATE
    train(64)
    assert counted(train.folder) == every_update(64)


def test_a_schedulers_sigterm_is_a_stop_as_well(train):
    trainer = train(64, at={5: lambda: signal.raise_signal(signal.SIGTERM)})
    assert trainer.num_steps_done == PER_UPDATE
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_going_on_with_another_model_is_refused_and_nothing_is_touched(train, composed):
    train(32, at={13: interrupt})
    folder = train.folder / "checkpoints"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    config = composed.copy()
    with read_write(config):
        config.run_dir = str(train.folder)
        config.habitat_baselines.rl.memory.hidden = 32
    with pytest.raises(UserError, match=r"memory\.hidden=32"):
        ScriptedTrainer(config).train()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_checkpoint_interval_between_trial_ends_is_kept_at_the_next_one(composed, tmp_path):
    config = composed.copy()
    with read_write(config):
        config.run_dir = str(tmp_path)
        config.habitat_baselines.total_num_steps = 64
        config.habitat_baselines.num_checkpoints = -1
        config.habitat_baselines.checkpoint_interval = 3
    ScriptedTrainer(config).train()
    folder = tmp_path / "checkpoints"
    steps = [
        read_checkpoint(folder / f"ckpt.{i}.safetensors")["extra_state"]["step"] for i in range(3)
    ]
    # Updates 3 and 6; trials end at 2, 4, 6 and 8, the training at 8.
    assert steps == [4 * PER_UPDATE, 6 * PER_UPDATE, 8 * PER_UPDATE]


def test_a_kill_goes_back_to_the_last_update_and_no_step_counts_twice(train, monkeypatch):
    monkeypatch.setattr(resumable, "CHEAP_SECONDS", math.inf)  # however busy the disk
    train(64, at={15: kill}, dies=Killed)
    assert counted(train.folder) == every_update(3 * PER_UPDATE)
    assert read_resume_state(train.folder / "checkpoints")["counts"]["num_steps_done"] == 24
    assert train(64).num_steps_done == 64
    assert counted(train.folder) == every_update(64)


def by_trial(composed, folder):
    config = composed.copy()
    with read_write(config):
        config.run_dir = str(folder)
        config.habitat_baselines.total_num_steps = 64
        config.habitat_baselines.rl.memory.segment_jitter = 0.5
        config.habitat_baselines.rl.memory.segment_jitter_in = "trial"
    return config


def test_a_restart_draws_the_lengths_that_an_undisturbed_training_has(composed, tmp_path):
    torch.manual_seed(0)
    whole = ScriptedTrainer(by_trial(composed, tmp_path / "whole"))
    whole.train()
    torch.manual_seed(0)
    config = by_trial(composed, tmp_path / "killed")
    killed = ScriptedTrainer(config)
    killed.at = {21: kill}  # in the third trial, behind its first update
    with pytest.raises(Killed):
        killed.train()
    resumed = ScriptedTrainer(config)
    resumed.begins_at = 2 * TRIAL
    resumed.train()
    learned = [
        [(row["steps"], row["learner"]) for row in rows(tmp_path / name)]
        for name in ("whole", "killed")
    ]
    assert learned[0] == learned[1]
    assert len({row["segment_length"] for _, row in learned[0]}) > 1
    assert all(
        first[1]["segment_length"] == last[1]["segment_length"]
        for first, last in zip(learned[0][::2], learned[0][1::2], strict=True)
    )
    assert max(abs(row["initial_approx_kl"]) for _, row in learned[0]) < 1e-6
    weights = whole._agent.actor_critic.state_dict()
    for name, weight in resumed._agent.actor_critic.state_dict().items():
        assert torch.equal(weights[name], weight), name


def test_a_finished_training_is_not_trained_or_saved_again(train):
    train(64)
    before = sorted(path.name for path in (train.folder / "checkpoints").glob("*.safetensors"))
    trainer = train(64)
    assert trainer.envs.taken == 0
    after = sorted(path.name for path in (train.folder / "checkpoints").glob("*.safetensors"))
    assert after == before


@pytest.mark.parametrize("undefined_in", [(0,), (0, 1)])
def test_an_episode_without_a_measure_is_left_out_of_its_mean(train, monkeypatch, undefined_in):
    whole = ScriptedEnvs.wait_step_at

    def without(self, index):
        # In the first update, and later in one environment or both.
        undefined = self._steps in (3, 16, 17, 18) and index in undefined_in
        return *whole(self, index)[:3], {"spl": math.nan if undefined else 0.5}

    monkeypatch.setattr(ScriptedEnvs, "wait_step_at", without)
    train(64, window=2)
    found = [row["metrics"]["spl"] for row in rows(train.folder)]
    # Of the window of the first update, which is in three, nothing is known if none had a number.
    unknown = 2 if undefined_in == (0, 1) else 0
    assert found[:unknown] == [None] * unknown and set(found[unknown:]) == {0.5}


def test_a_longer_total_goes_on_and_keeps_the_checkpoints_before(train):
    train(32)
    folder = train.folder / "checkpoints"
    before = {path.name: path.read_bytes() for path in folder.glob("ckpt.*")}
    (left_by_a_kill := folder / f".{LATEST}.0123abcd").touch()
    train(64)
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert not left_by_a_kill.exists()
    assert read_checkpoint(folder / LATEST)["extra_state"]["step"] == 64


def test_another_number_of_environments_may_go_on(train, composed):
    train(32, at={13: interrupt})
    trainer = train(64, num_envs=1)
    assert trainer.num_steps_done >= 64
    assert all(len(row["metrics"]) for row in rows(train.folder))


def test_one_process_goes_on_from_several_workers_and_counts_its_own_episodes(train):
    train(32, at={13: interrupt})
    folder = train.folder / "checkpoints"
    state = read_resume_state(folder)
    # Habitat keeps sums over all workers beside those of the first.
    saved = state["statistics"]
    saved["workers"] = 100
    saved["window"] = {k: [100 * v for v in values] for k, values in saved["window"].items()}
    config = state.pop("config")
    write_resume_state(folder, state, config)
    before = len(rows(train.folder))
    train(32)
    assert {row["metrics"]["spl"] for row in rows(train.folder)[before:]} == {0.5}
    assert all(row["episodes"] >= 1 for row in rows(train.folder)[before:])


def test_environments_with_other_trials_are_refused(train):
    train(64, trial_steps=TRIAL + 1, dies=UserError)


def test_an_auxiliary_sensor_that_is_not_observed_is_named(composed, tmp_path):
    config = composed.copy()
    with read_write(config):
        config.run_dir = str(tmp_path)
        config.habitat_baselines.rl.encoder.auxiliary_sensor = "sonar"
    with pytest.raises(UserError, match="auxiliary_sensor names 'sonar', which is not observed"):
        ScriptedTrainer(config).train()


def test_a_dead_worker_is_one_line(train):
    def die():
        raise EOFError

    train(64, at={3: die}, dies=UserError)


def test_a_reward_that_is_no_number_ends_a_training_with_a_dump_and_keeps_what_is_good(
    train, tmp_path, monkeypatch
):
    good = 2 * TRIAL * ENVS  # two trials, then a reward that is none

    def step(envs, index):
        reward = float("nan") if envs._steps == 2 * TRIAL + 3 and index == 1 else 1.0
        return envs._observe(), reward, False, {"spl": 0.5}

    monkeypatch.setattr(ScriptedEnvs, "wait_step_at", step)
    train(4 * good, dies=NonFiniteError)
    (path,) = tmp_path.glob("nonfinite-*.json")
    dump = json.loads(path.read_text())
    assert (dump["what"], dump["non_finite"]) == ("reward", ["environment 1 at step 2"])
    assert (dump["update"], dump["steps"]) == (4, good)
    assert dump["rollout"]["rewards"]["non_finite"] == 1
    assert dump["rollout"]["rewards"]["environments"] == [1]
    assert dump["config"]["habitat_baselines"]["total_num_steps"] == 4 * good
    assert path.stat().st_size < 100_000
    assert read_resume_state(tmp_path / "checkpoints")["counts"]["num_steps_done"] == good
    assert rows(tmp_path)[-1]["steps"] == good


@pytest.fixture
def full_disk(tmp_path):
    """A folder of a file system with room for one block."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4k", "none", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        pytest.skip(f"no command mount: {error}")
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def write_to(composed, tmp_path, **places):
    """What a training says that writes these to another place."""
    config = composed.copy()
    with read_write(config):
        config.run_dir = str(tmp_path / "run")
        config.habitat_baselines.total_num_steps = 64 * PER_UPDATE
        for name, place in places.items():
            config.habitat_baselines[name] = str(place)
    trainer = ScriptedTrainer(config)
    with pytest.raises(UserError) as refused:
        trainer.train()
    assert trainer.envs.closed
    return str(refused.value)


def test_a_log_on_a_full_disk_is_one_line(composed, tmp_path, full_disk, capfd):
    path = full_disk / "train.log"
    said = write_to(composed, tmp_path, log_file=path)
    for handler in [h for h in logger.handlers if isinstance(h, logging.FileHandler)]:
        logger.removeHandler(handler)
        with contextlib.suppress(OSError):  # what it has not written is still not to be written
            handler.close()
    assert said.startswith("cannot write ") and f"{path} (No space left on device)" in said
    assert "Traceback" not in capfd.readouterr().err


def test_tensorboard_on_a_full_disk_is_one_line(composed, tmp_path, full_disk, capfd):
    said = write_to(composed, tmp_path, tensorboard_dir=full_disk)
    assert said.startswith(f"cannot write {full_disk} (No space left on device)")
    assert "Traceback" not in capfd.readouterr().err
    assert read_resume_state(tmp_path / "run/checkpoints")["counts"]["num_steps_done"] > 0


def test_what_tensorboard_gets(train):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(32, at={13: interrupt})
    train(32)
    events = EventAccumulator(str(train.folder / "tb"))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    wanted = {
        *("reward", "metrics/spl", "memory/tokens", "memory/kv_bytes"),
        *("learner/value_loss", "learner/action_loss", "learner/dist_entropy"),
        *("perf/fps", "perf/trainer.step_env", "perf/trainer.rollout_collect"),
        *("perf/trainer.update_agent", "perf/trainer.ppo", "perf/trainer.refresh"),
    }
    assert wanted <= tags
    assert [event.step for event in events.Scalars("reward")] == every_update(32)


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("num_updates", 5, "total_num_steps.*num_updates=5"),
        ("total_num_steps", -1, "total_num_steps=-1"),
        ("checkpoint_interval", 5, "checkpoint_interval=5"),
        ("num_environments", 0, "num_environments=0"),
        ("total_num_steps", 0, "total_num_steps=0.*give more than 0, or -1 with num_updates"),
        ("total_num_steps", -5, "total_num_steps=-5.*give more than 0"),
        ("num_checkpoints", 0, "num_checkpoints=0: .* or -1 with checkpoint_interval"),
        ("log_interval", 0, "log_interval=0: at least 1"),
        ("rl.ppo.ppo_epoch", 0, "ppo_epoch=0: at least 1"),
        ("rl.ppo.num_mini_batch", 0, "num_mini_batch=0: at least 1"),
        ("rl.ppo.refresh_chunk", 0, "refresh_chunk=0: at least 1"),
        ("rl.ppo.lr", -1, r"rl\.ppo\.lr=-1.*: give 0 or more"),
        ("rl.ppo.lr", float("nan"), r"rl\.ppo\.lr=nan: give 0 or more"),
        ("rl.ppo.gamma", -0.1, "gamma=-0.1: give a number from 0 to 1"),
        ("rl.ppo.gamma", 1.1, "gamma=1.1: give a number from 0 to 1"),
        ("rl.ppo.teacher_share", 1.1, "teacher_share=1.1: give a number from 0 to 1"),
        ("rl.ppo.imitation_coef", -1.0, "imitation_coef=-1.0: give 0 or more"),
        ("rl.ppo.hindsight_passes", 1, "hindsight_passes=1: .*encoder.recall=target"),
        ("rl.ppo.clip_param", 0, "clip_param=0.*: give more than 0"),
        ("rl.ppo.max_grad_norm", 0, "max_grad_norm=0.*: give more than 0"),
        ("worker_timeout", 0, "worker_timeout=0.*: give more than 0"),
        ("max_worker_restarts", -1, "max_worker_restarts=-1: give 0 or more"),
        ("rl.ppo.lr_warmup_steps", -1, "lr_warmup_steps=-1: give 0 or more"),
        ("progress_file", "", "progress_file is empty: .*leave it at"),
        ("rl.ppo.entropy_coef", -0.1, "entropy_coef=-0.1: give 0 or more"),
        ("rl.ppo.entropy_coef_final", -0.1, "entropy_coef_final=-0.1: give 0 or more, or null"),
        ("rl.ppo.value_loss_coef", -0.1, "value_loss_coef=-0.1: give 0 or more"),
        ("rl.ppo.auxiliary_coef", -0.1, "auxiliary_coef=-0.1: give 0 or more"),
        ("rl.ppo.rollout_gpu_gb", -1.0, "rollout_gpu_gb=-1.0: give 0 or more, or null"),
        ("rl.ddppo.sync_frac", 0.0, "sync_frac=0.0: give a share above 0, up to 1"),
        ("rl.ddppo.sync_frac", 1.5, "sync_frac=1.5: give a share above 0, up to 1"),
        ("rl.ddppo.distrib_backend", "glo", "distrib_backend='glo': choose one of GLOO, NCCL"),
        ("rl.ddppo.train_encoder", False, "train_encoder=False"),
        ("rl.ppo.num_steps", 7, r"num_steps=7 has no effect .*: set habitat.task.trial_steps"),
        ("force_blind_policy", True, "force_blind_policy=True has no effect.*encoder=blind"),
        ("load_resume_state_config", False, "load_resume_state_config=False is not.*it to True"),
        ("rl.preemption.save_state_batch_only", True, "save_state_batch_only=True has no effect"),
        ("rl.preemption.save_resume_state_interval", 5, "save_resume_.*=5 has no effect"),
        ("rl.preemption.append_slurm_job_id", True, "append_slurm_job_id=True has no effect"),
        ("eval_keys_to_include_in_name", ["a"], r"in_name=\['a'\] has no effect.*records.jsonl"),
        ("rl.ppo.use_double_buffered_sampler", True, "use_double_buffered_sampler=True"),
        ("rl.encoder.kind", "vit", "encoder.kind='vit'"),
        ("rl.memory.summary_length", 4, r"rl\.memory\.summary_length 4"),
        ("rl.memory.kind", "rnn", "rnn"),
        ("rl.memory.top_k", -1, r"rl\.memory\.top_k is -1"),
        ("rl.precision", "float16", "rl.precision='float16': choose one of float32, bfloat16"),
        ("rl.encoder.chunk_size", 0, "chunk_size=0"),
        ("rl.ppo.updates_per_trial", 3, "updates_per_trial=3: try 1, 2, 4"),
    ],
)
def test_what_cannot_be_trained_is_named_before_anything_starts(
    composed, tmp_path, key, value, named
):
    config = composed.copy()
    with read_write(config):
        config.run_dir = str(tmp_path)
        OmegaConf.update(config.habitat_baselines, key, value)
    with pytest.raises(UserError, match=named):
        check_training_config(config)


@pytest.mark.parametrize(
    "values",
    [
        {"total_num_steps": -1, "num_updates": 1},
        {"num_checkpoints": -1, "checkpoint_interval": 1},
        {"rl.ppo.entropy_coef": 0, "rl.ppo.entropy_coef_final": 0, "rl.ppo.rollout_gpu_gb": 0},
        {"rl.ddppo.sync_frac": 1, "rl.ddppo.distrib_backend": "nccl", "rl.ppo.lr_warmup_steps": 0},
        {"rl.ppo.lr": 0, "rl.ppo.gamma": 1, "rl.ppo.tau": 0, "rl.ppo.max_grad_norm": float("inf")},
    ],
)
def test_numbers_at_the_ends_of_what_is_valid_can_be_trained_with(composed, tmp_path, values):
    config = composed.copy()
    with read_write(config):
        config.run_dir = str(tmp_path)
        for key, value in values.items():
            OmegaConf.update(config.habitat_baselines, key, value)
    check_training_config(config)


def test_passes_in_hindsight_need_optimiser_steps_of_their_own(composed, tmp_path):
    config = composed.copy()
    with read_write(config):
        config.run_dir = str(tmp_path)
        config.habitat_baselines.rl.ppo.hindsight_passes = 1
        config.habitat_baselines.rl.ppo.accumulate_gradients = True
    with pytest.raises(UserError, match=r"hindsight_passes=1: .*set .*accumulate_gradients=false"):
        check_training_config(config)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"ppo.updates_per_trial": 1}, r"there is one: set .*updates_per_trial to 2 or more"),
        ({"memory.kind": "no_iea"}, r"changes nothing for .*kind=no_iea"),
        ({"ppo.returns_across_episodes": True}, r"returns_across_episodes=true: .*use one"),
        ({}, None),
    ],
)
def test_shuffling_is_refused_where_it_does_nothing_or_harm(composed, values, named):
    config = composed.copy()
    with read_write(config):
        for key, value in {"ppo.shuffle_episodes": True, **values}.items():
            OmegaConf.update(config.habitat_baselines.rl, key, value)
    if named is None:
        check_training_settings(config)
        return
    with pytest.raises(UserError, match=f"shuffle_episodes=true.*{named}"):
        check_training_settings(config)


def with_profile(composed, folder, first, count):
    config = composed.copy()
    with read_write(config):
        config.run_dir = str(folder)
        config.habitat_baselines.total_num_steps = 6 * PER_UPDATE
        config.habitat_baselines.profiling.capture_start_step = first
        config.habitat_baselines.profiling.num_steps_to_capture = count
    return config


@pytest.mark.parametrize(("first", "count"), [(0, 1), (2, 3)])
def test_a_profile_has_the_updates_that_were_named(composed, tmp_path, first, count):
    ScriptedTrainer(with_profile(composed, tmp_path, first, count)).train()
    assert counted(tmp_path) == every_update(6 * PER_UPDATE)
    with gzip.open(tmp_path / "profile/0.trace.json.gz") as file:
        events = json.load(file)["traceEvents"]
    for name in (COLLECT, LEARN):
        assert sum(event.get("name") == name for event in events) == count
    text = (tmp_path / "profile/0.txt").read_text()
    assert text.split()[0] == "collect" and "aten::" in text and "Self CPU" in text


def test_a_profile_that_never_began_says_so(composed, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(logger, "warning", said.append)
    ScriptedTrainer(with_profile(composed, tmp_path, 9, 1)).train()
    assert any("the training ended within 9 updates" in line for line in said)
    assert not (tmp_path / "profile").exists()


@pytest.mark.parametrize(("first", "count"), [(3, -1), (3, 0), (-1, 2)])
def test_half_a_profile_is_refused(composed, tmp_path, first, count):
    with pytest.raises(UserError, match=f"capture_start_step={first} and num_steps_to.*={count}"):
        check_training_settings(with_profile(composed, tmp_path, first, count))


def test_episodes_are_shuffled_before_the_memory_is_recomputed(composed, tmp_path, monkeypatch):
    config = composed.copy()
    with read_write(config):
        config.run_dir = str(tmp_path)
        config.habitat_baselines.total_num_steps = 4 * 16 * ENVS
        config.habitat_baselines.rl.ppo.shuffle_episodes = True
        config.habitat.task.trial_steps = 16
    seen = []

    def refresh(self, storage, chunk, values, refresh=MemoPolicy.refresh):
        refresh(self, storage, chunk, values)
        seen.append(storage.observations["trial_step"][:, : storage.steps, 0].tolist())
        assert self.acting_cache(ENVS).steps.tolist() == [storage.steps] * ENVS

    monkeypatch.setattr(MemoPolicy, "refresh", refresh)
    torch.manual_seed(0)
    trainer = ScriptedTrainer(config)
    trainer.trial_steps = 16
    trainer.train()
    # Of the eight steps before a trial's first update, two episodes of three or so are finished.
    halfway = [row for trials in seen[::2] for row in trials]
    assert [sorted(row) for row in halfway] == [list(range(8))] * 4 * ENVS
    assert {row[0] for row in halfway} > {0}
    assert all(row[-1] == 7 for row in halfway)
    assert seen[1::2] == [[[]] * ENVS] * 4


@pytest.mark.parametrize(("kind", "needed"), [("memo", 10), ("fct", 16)])
def test_training_needs_a_token_budget_that_drops_nothing(composed, tmp_path, kind, needed):
    config = composed.copy()
    with read_write(config):
        config.run_dir = str(tmp_path)
        # Three summaries of 2 tokens and a segment of 4 steps, or 16 steps.
        config.habitat.task.trial_steps = 16
        config.habitat_baselines.rl.memory.kind = kind
        config.habitat_baselines.rl.memory.token_budget = needed
        check_training_config(config)
        config.habitat_baselines.rl.memory.token_budget = needed - 1
    with pytest.raises(UserError, match=f"token_budget={needed - 1} is less than the {needed}"):
        check_training_config(config)


def test_a_token_budget_is_to_hold_trials_in_the_longest_segments_they_may_act_in(composed):
    config = composed.copy()
    with read_write(config):
        memory = config.habitat_baselines.rl.memory
        config.habitat.task.trial_steps, memory.segment_jitter = 16, 0.5
        memory.segment_jitter_in = "trial"
        # Segments of 2 to 6 steps: seven summaries of 2 tokens and 2 steps are the most.
        memory.token_budget = 16
        check_training_settings(config)
        memory.token_budget = 15
    with pytest.raises(UserError, match="token_budget=15 is less than the 16 tokens"):
        check_training_settings(config)


def test_how_the_model_is_run_may_change_when_going_on(train, composed):
    train(32, at={13: interrupt})
    saved = read_resume_state(train.folder / "checkpoints")["config"]
    config = composed.copy()
    with read_write(config):
        config.habitat_baselines.rl.memory.activation_checkpointing = True
        config.habitat_baselines.rl.encoder.chunk_size = 5
    check_resumed_model(config, saved)


def test_going_on_with_another_optimiser_is_refused(composed):
    saved, config = composed.copy(), composed.copy()
    with read_write(config):
        config.habitat_baselines.rl.ppo.optimizer = "muon"
    with read_write(saved):
        saved.habitat_baselines.rl.ppo.optimizer = "adam"
    with pytest.raises(UserError, match=r"rl\.ppo\.optimizer=muon, but .* has adam"):
        check_resumed_model(config, saved)
    other = saved.copy()
    with read_write(other):
        other.habitat_baselines.rl.ppo.eps = 0.1  # is in the optimiser's state
    with pytest.raises(UserError, match=r"rl\.ppo\.eps=0\.1, but"):
        check_resumed_model(other, saved)


def test_an_evaluation_takes_the_model_from_the_checkpoint_and_its_token_budget_from_the_user(
    composed,
):
    given = composed.copy()
    with read_write(given):
        given.habitat_baselines.rl.memory.token_budget = 300
        given.habitat_baselines.rl.memory.width = 64
    memory = evaluation_config(given, composed).habitat_baselines.rl.memory
    assert (memory.token_budget, memory.width) == (300, 16)


def test_an_evaluation_does_without_the_auxiliary_sensor(composed):
    given, trained = composed.copy(), composed.copy()
    for config in (given, trained):
        with read_write(config):
            config.habitat_baselines.rl.encoder.auxiliary_sensor = "target_found"
    assert evaluation_config(given, trained).habitat_baselines.rl.encoder.auxiliary_sensor == ""


def test_an_evaluation_with_detections_records_whether_the_target_was_seen_earlier(composed):
    given = composed.copy()
    assert "target_seen_earlier" not in evaluation_config(given, None).habitat.task.measurements
    with read_write(given), open_dict(given):
        given.habitat.task.lab_sensors.detections_sensor = SENSORS["detections_sensor"]
    assert "target_seen_earlier" in evaluation_config(given, None).habitat.task.measurements


def test_full_context_may_have_any_summary_length(composed, tmp_path):
    config = composed.copy()
    with read_write(config):
        config.run_dir = str(tmp_path)
        config.habitat_baselines.rl.memory.kind = "fct"
        config.habitat_baselines.rl.memory.summary_length = 400
    check_training_config(config)


def test_a_torn_write_does_not_keep_a_run_from_beginning_but_other_files_do(composed, tmp_path):
    config = composed.copy()
    with read_write(config):
        config.run_dir = str(tmp_path)
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / ".latest.safetensors.x1").write_bytes(b"torn")
    check_training_config(config)
    (folder / "ckpt.0.safetensors").write_bytes(b"of another run")
    with pytest.raises(UserError, match="nothing to resume from"):
        check_training_config(config)
