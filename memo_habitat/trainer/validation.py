"""What can be known to be wrong before anything is launched."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from habitat.config import read_write
from habitat_baselines.config.default_structured_configs import HabitatBaselinesRLConfig
from omegaconf import DictConfig, OmegaConf

from memo_habitat.config.evaluation import RUNTIME_KEYS
from memo_habitat.config.memory import MemoryConfig
from memo_habitat.config.policy import PRECISIONS, EncoderConfig
from memo_habitat.errors import UserError, check_at_least_one, check_choice
from memo_habitat.memory.variants import (
    check_config,
    check_variant,
    memory_class,
    segment_lengths,
)
from memo_habitat.policy.encoders import check_encoder
from memo_habitat.policy.frozen_encoder import pinned_digest
from memo_habitat.ppo.optimiser import OPTIMISERS
from memo_habitat.trainer.class_names import check_names
from memo_habitat.trainer.run_dir import PREVIOUS_STATE, RESUME_STATE
from memo_habitat.trainer.wandb_writer import check_writer

# Of each pair Habitat-Baselines wants exactly one, the other at -1.
_ALTERNATIVES = (("total_num_steps", "num_updates"), ("num_checkpoints", "checkpoint_interval"))
# Keys of `habitat_baselines`, which numbers a training can be made with (NaN is none), in words.
_NUMBERS: tuple[tuple[str, Callable[[float], bool], str], ...] = (
    (
        "num_environments log_interval rl.ppo.ppo_epoch rl.ppo.num_mini_batch "
        "rl.ppo.reward_window_size rl.ppo.refresh_chunk",
        lambda x: x >= 1,
        "at least 1 is needed",
    ),
    *(
        (key, lambda x: x > 0 or x == -1, f"give more than 0, or -1 with {other}")
        for pair in _ALTERNATIVES
        for key, other in (pair, pair[::-1])
    ),
    (
        "rl.ppo.lr rl.ppo.lr_final rl.ppo.lr_warmup_start rl.ppo.imitation_coef "
        "rl.ppo.recall_coef rl.ppo.hindsight_passes max_worker_restarts rl.ppo.lr_warmup_steps "
        "rl.ppo.entropy_coef rl.ppo.value_loss_coef rl.ppo.auxiliary_coef",
        lambda x: 0 <= x < math.inf,
        "give 0 or more",
    ),
    (
        "rl.ppo.entropy_coef_final",
        lambda x: 0 <= x < math.inf,
        "give 0 or more, or null to keep rl.ppo.entropy_coef",
    ),
    ("rl.ppo.rollout_gpu_gb", lambda x: x >= 0, "give 0 or more, or null for all of it"),
    ("rl.ddppo.sync_frac", lambda x: 0 < x <= 1, "give a share above 0, up to 1"),
    (
        "rl.ppo.eps rl.ppo.clip_param rl.ppo.max_grad_norm rl.ppo.teacher_until worker_timeout",
        lambda x: x > 0,
        "give more than 0",
    ),
    (
        "rl.ppo.gamma rl.ppo.tau rl.ppo.teacher_share",
        lambda x: 0 <= x <= 1,
        "give a number from 0 to 1",
    ),
)
# Ways in which several processes talk that average the gradients of a training.
_BACKENDS = ("GLOO", "NCCL", "MPI", "UCC", "XCCL")
# Keys of `habitat_baselines` that other trainers act on and this one cannot: the only value.
_FIXED = {
    "rl.ddppo.train_encoder": True,
    "rl.ddppo.pretrained_encoder": False,
    "rl.ppo.use_double_buffered_sampler": False,
    "load_resume_state_config": True,  # without it Habitat refuses to resume
}
# Keys of Habitat-Baselines that nothing here reads, and what to set in their place: with another
# value than their default they would be believed to do something.
_WITHOUT_EFFECT = {
    "rl.ppo.num_steps": "set habitat.task.trial_steps and rl.ppo.updates_per_trial",
    "rl.ppo.hidden_size": "set rl.memory.width",
    "rl.ppo.use_linear_lr_decay": "set rl.ppo.lr_final",
    "rl.ppo.use_linear_clip_decay": "set rl.ppo.clip_param",
    "rl.ppo.entropy_target_factor": "set rl.ppo.entropy_coef",
    "rl.ppo.use_adaptive_entropy_pen": "set rl.ppo.entropy_coef",
    "rl.ddppo.backbone": "choose encoder=resnet18",
    "rl.ddppo.rnn_type": "choose memory=lstm or memory=gru",
    "rl.ddppo.num_recurrent_layers": "set rl.memory.layers",
    "rl.ddppo.reset_critic": "leave it",
    "rl.auxiliary_losses": "set rl.memory.memory_loss or rl.encoder.auxiliary_sensor",
    "force_blind_policy": "choose encoder=blind",
    "test_episode_count": "set evaluator.trials_per_house",
    "eval_keys_to_include_in_name": "leave it, records.jsonl has the measures of each episode",
    "eval.evals_per_ep": "set evaluator.trials_per_house",
    "eval.extra_sim_sensors": "add cameras to habitat.simulator.agents.main_agent.sim_sensors",
}
# Likewise, but an evaluation has no use for them anyway.
_WITHOUT_EFFECT_ON_TRAINING = {
    "rl.preemption.save_state_batch_only": "leave it, the state to resume is always saved",
    "rl.preemption.save_resume_state_interval": "leave it, the state is saved by the clock",
    "rl.preemption.append_slurm_job_id": "give each job a run folder with --out",
}


def check_training_config(config: DictConfig) -> None:
    """UserError where a config could not train: the key, its value, and what would be valid."""
    check_training_settings(config)
    _check_checkpoint_folder(config)


def check_and_pin_weights(config: DictConfig) -> None:
    """The same; and note in the config which file the weights of a frozen encoder are.

    Whoever resumes or evaluates may have the file elsewhere, and must have the same.
    """
    check_training_config(config)
    encoder = config.habitat_baselines.rl.encoder
    if encoder.kind == "timm":
        with read_write(config):
            encoder.weights_digest = pinned_digest(EncoderConfig(**encoder))


def check_training_settings(config: DictConfig) -> None:
    """`check_training_config` but for the folder, which a plan does not write to."""
    check_model_config(config)
    _check_effects(config.habitat_baselines, _WITHOUT_EFFECT_ON_TRAINING)
    _check_trainer_keys(config)
    _check_hindsight(config.habitat_baselines.rl)
    _check_shuffling(config.habitat_baselines.rl)
    trial_steps = config.habitat.task.trial_steps
    check_at_least_one("habitat.task.trial_steps", trial_steps)
    _check_token_budget(MemoryConfig(**config.habitat_baselines.rl.memory), trial_steps)
    # Updates of unequal length would be weighted unequally within one trial.
    updates = config.habitat_baselines.rl.ppo.updates_per_trial
    if updates < 1 or trial_steps % updates:
        divisors = [d for d in range(1, trial_steps + 1) if trial_steps % d == 0]
        nearest = sorted(divisors, key=lambda d: abs(d - updates))[:3]
        raise UserError(
            f"habitat.task.trial_steps={trial_steps} is not divisible by habitat_baselines.rl.ppo."
            f"updates_per_trial={updates}: try {', '.join(map(str, sorted(nearest)))}"
        )


def check_model_config(config: DictConfig) -> None:
    """Refuse a memory that could not be built, and keys that nobody would act on."""
    rl = config.habitat_baselines.rl
    check_names(config)
    _check_effects(config.habitat_baselines, _WITHOUT_EFFECT)
    try:
        memory = MemoryConfig(**rl.memory)
        check_config(memory)
        check_variant(memory)
    except UserError as error:
        # It names the fields of the memory ("memory width 3 ..."): here by their keys.
        named = str(error).replace("memory ", "habitat_baselines.rl.memory.", 1)
        raise UserError(named) from error
    check_encoder(EncoderConfig(**rl.encoder))
    check_choice("habitat_baselines.rl.precision", rl.precision, PRECISIONS)
    check_choice("habitat_baselines.rl.ppo.optimizer", rl.ppo.optimizer, OPTIMISERS)


def _check_effects(baselines: DictConfig, keys: Mapping[str, str]) -> None:
    defaults = OmegaConf.structured(HabitatBaselinesRLConfig)
    for key, remedy in keys.items():
        value = OmegaConf.select(baselines, key)
        if value != OmegaConf.select(defaults, key):
            raise UserError(
                f"habitat_baselines.{key}={value} has no effect on the trainer memo: {remedy}"
            )


def check_resumed_model(config: DictConfig, saved: DictConfig) -> None:
    """Refuse to go on with another model or optimiser than the training began with."""
    # Of the optimiser, too, no other can go on from the saved state, which holds its eps.
    ppo = (config.habitat_baselines.rl.ppo, saved.habitat_baselines.rl.ppo)
    optimiser = [
        (f"habitat_baselines.rl.ppo.{key}", *(each[key] for each in ppo))
        for key in ("optimizer", "eps")
    ]
    for key, wanted, had in (*_other_model(config, saved), *optimiser):
        if wanted == had:
            continue
        raise UserError(
            f"{key}={wanted}, but the training in {config.habitat_baselines.checkpoint_folder} "
            f"has {had}: go on with that, or choose another folder"
        )


def check_evaluated_model(config: DictConfig, trained: DictConfig) -> None:
    """Refuse to evaluate as another model than the one that was trained."""
    for key, wanted, had in _other_model(config, trained):
        raise UserError(
            f"{key}={wanted}, but what is evaluated was trained with {had}, and is that model "
            "whatever the key says: train another to compare"
        )


def _other_model(config: DictConfig, saved: DictConfig) -> Iterator[tuple[str, Any, Any]]:
    """Keys in which the models differ, with the value in `config` and the one in `saved`."""
    for part in ("memory", "encoder"):
        wanted, had = config.habitat_baselines.rl[part], saved.habitat_baselines.rl[part]
        for key in had:
            if key in wanted and key not in RUNTIME_KEYS[part] and wanted[key] != had[key]:
                yield f"habitat_baselines.rl.{part}.{key}", wanted[key], had[key]


def _check_checkpoint_folder(config: DictConfig) -> None:
    """Refuse a folder that cannot be written, or holds files of something else."""
    folder = Path(config.habitat_baselines.checkpoint_folder)
    writable = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not writable.is_dir() or not os.access(writable, os.W_OK):
        raise UserError(
            f"habitat_baselines.checkpoint_folder={folder} cannot be written: choose another folder"
        )
    # Hidden files are what a kill left of a write.
    holds = folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir())
    states = (folder / RESUME_STATE, folder / PREVIOUS_STATE)
    if holds and not any(state.is_file() for state in states):
        raise UserError(
            f"habitat_baselines.checkpoint_folder={folder} holds files but nothing to resume from: "
            "choose an empty folder"
        )


def _check_token_budget(memory: MemoryConfig, trial_steps: int) -> None:
    """Refuse to train under a budget that acting would have to drop tokens for.

    The training pass would attend to what acting had dropped: the policy that is improved would
    not be the one that acted.
    """
    if memory.token_budget == 0:
        return
    needed = trial_steps
    if getattr(memory_class(memory.kind), "summarises", False):
        # Acting always leaves room for a whole segment.
        by_trial = memory.segment_jitter_in == "trial"
        lengths = segment_lengths(memory) if by_trial else (memory.segment_length,)
        needed = max(
            (trial_steps - 1) // length * memory.summary_length + length for length in lengths
        )
    if needed > memory.token_budget:
        raise UserError(
            f"habitat_baselines.rl.memory.token_budget={memory.token_budget} is less than the "
            f"{needed} tokens of a trial of {trial_steps} steps: train with 0 (no limit), and give "
            "the budget when evaluating"
        )


def _check_hindsight(rl: DictConfig) -> None:
    """Refuse passes in hindsight that would not be made, or would have nothing to ask."""
    passes = f"habitat_baselines.rl.ppo.hindsight_passes={rl.ppo.hindsight_passes}"
    if rl.ppo.hindsight_passes and rl.ppo.accumulate_gradients:
        raise UserError(
            f"{passes}: these are optimiser steps after each minibatch's own, which has none where "
            "gradients accumulate: set habitat_baselines.rl.ppo.accumulate_gradients=false, or "
            "the passes to 0"
        )
    if rl.ppo.hindsight_passes and rl.encoder.recall == "none":
        raise UserError(
            f"{passes}: they ask what the recall loss asks: choose "
            "habitat_baselines.rl.encoder.recall=target with them, or set them to 0"
        )


def _check_shuffling(rl: DictConfig) -> None:
    """Refuse a new order of episodes that nothing would see, or that returns depend on."""
    if not rl.ppo.shuffle_episodes:
        return
    shuffled = "habitat_baselines.rl.ppo.shuffle_episodes=true"
    if rl.ppo.updates_per_trial == 1:
        raise UserError(
            f"{shuffled}: it is done between the updates of a trial, and there is one: set "
            "habitat_baselines.rl.ppo.updates_per_trial to 2 or more, or do not shuffle"
        )
    if getattr(memory_class(rl.memory.kind), "within_episode", False):
        raise UserError(
            f"{shuffled} changes nothing for habitat_baselines.rl.memory.kind={rl.memory.kind}, "
            "which sees no earlier episode: do not shuffle"
        )
    if rl.ppo.returns_across_episodes:
        raise UserError(
            f"{shuffled} with habitat_baselines.rl.ppo.returns_across_episodes=true: what an "
            "episode leads to in the next ones depends on their order; use one of the two"
        )


def _check_trainer_keys(config: DictConfig) -> None:
    baselines = config.habitat_baselines
    check_writer(baselines)
    for keys, holds, valid in _NUMBERS:
        for key in keys.split():
            number = OmegaConf.select(baselines, key)
            if number is not None and not holds(number):
                raise UserError(f"habitat_baselines.{key}={number}: {valid}")
    if not baselines.progress_file:
        raise UserError(
            "habitat_baselines.progress_file is empty: resuming, reports and sweeps read it; leave "
            "it at ${run_dir}/progress.jsonl"
        )
    backend = baselines.rl.ddppo.distrib_backend
    if backend.upper() not in _BACKENDS:  # written in any case
        check_choice("habitat_baselines.rl.ddppo.distrib_backend", backend, _BACKENDS)
    for first, second in _ALTERNATIVES:
        if (baselines[first] == -1) == (baselines[second] == -1):
            raise UserError(
                f"habitat_baselines.{first}={baselines[first]} and {second}={baselines[second]}: "
                "give one of them and set the other to -1"
            )
    profiling = baselines.profiling
    if (profiling.capture_start_step < 0) != (profiling.num_steps_to_capture < 1):
        raise UserError(
            "habitat_baselines.profiling.capture_start_step="
            f"{profiling.capture_start_step} and num_steps_to_capture="
            f"{profiling.num_steps_to_capture}: give both, updates before the profile and in it, "
            "or leave both at -1"
        )
    for key, only in _FIXED.items():
        value = OmegaConf.select(baselines, key)
        if value != only:
            raise UserError(
                f"habitat_baselines.{key}={value} is not offered by the trainer memo: "
                f"set it to {only}"
            )
