"""What runs in an environment's own process; imports no more than the environment needs."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gym
import numpy as np
from habitat.gym import make_gym_from_config
from omegaconf import DictConfig

from memo_habitat.errors import UserError
from memo_habitat.register import import_plugins, register_environment
from memo_habitat.simulator.interface import task_simulator
from memo_habitat.tasks.extobjnav.episode import house_of
from memo_habitat.tasks.record_fields import Declaration, declared_fields
from memo_habitat.utils.processes import without_noise

# The sensor whose observation is filled in here (uuid): a reward is known after its observation.
LAST_REWARD = "last_reward"


def make_env(config: DictConfig, death_note: str) -> gym.Env:
    """Register everything, make the environment, write down what kills it."""

    def make() -> gym.Env:
        register_environment()
        import_plugins(config)
        env = make_gym_from_config(config)
        env.seed(config.habitat.seed)
        return env

    with _words_kept(death_note):
        return TrialEnv(_noted(death_note, make), death_note)


def exit_note(death_note: str) -> Path:
    """Where the trainer writes a worker's exit status."""
    return Path(death_note).with_suffix(".exit")


def terminal_note(note: str | Path) -> Path:
    """Where a worker leaves what it wrote to its terminal before it was made."""
    return Path(note).with_suffix(".stderr")


@contextlib.contextmanager
def _words_kept(death_note: str) -> Iterator[None]:
    """Within, what libraries write to the terminal goes to a file and then there.

    A renderer that finds no driver, or an LLVM beside another, ends the process without an
    exception: only that file can say why. Threads share their terminal with others, and keep it.
    """
    if multiprocessing.parent_process() is None:
        yield
        return
    terminal = os.dup(2)
    said = terminal_note(death_note)
    with said.open("wb", buffering=0) as file:
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        words = said.read_text(errors="replace").splitlines(keepends=True)
        os.write(2, "".join(without_noise(words)).encode())


class TrialEnv(gym.Wrapper):
    """Answers what an evaluation asks about trials, tells the last reward, notes what kills it."""

    def __init__(self, env: gym.Env, death_note: str) -> None:
        super().__init__(env)
        self._death_note = death_note
        self._last_reward = 0.0

    def step(self, action: Any) -> Any:
        """One step of the environment."""
        observation, reward, done, info = _noted(self._death_note, lambda: self.env.step(action))
        self._last_reward = float(reward)
        return self._with_last_reward(observation), reward, done, info

    def reset(self, **kwargs: Any) -> Any:
        """The first observation of the next episode, which may be a trial's first."""
        observation = _noted(self._death_note, lambda: self.env.reset(**kwargs))
        return self._with_last_reward(observation)

    def _with_last_reward(self, observation: Any) -> Any:
        if LAST_REWARD not in observation:
            return observation
        if self.habitat_env.task.trial.steps == 0:
            self._last_reward = 0.0
        return {**observation, LAST_REWARD: np.array([self._last_reward], dtype=np.float32)}

    def arrangements(self) -> list[tuple[str, str]]:
        """The (house, arrangement) pairs that can be played here, in the data set's order."""
        return [(house_of(e.scene_id), e.episode_id) for e in self.habitat_env.episodes]

    def record_fields(self) -> Declaration:
        """How the task's measures are recorded, by their uuid."""
        return declared_fields(self.habitat_env.task.measurements.measures)

    def schedule_trials(self, trials: list[tuple[str, str, int]], seed: int) -> None:
        """From the next reset on play these (house, arrangement, repetition) with this seed."""
        iterator = self.habitat_env.episode_iterator
        iterator.seed = seed
        iterator.play(trials)
        # Also drops the episode that Habitat took from the iterator before the first reset.
        self.habitat_env.episode_iterator = iterator

    def top_down_map(self, resolution: float) -> dict[str, Any]:
        """Where the agent can stand in the present house; `resolution` in metres per cell."""
        found = task_simulator(self.habitat_env.sim).top_down_map(resolution)
        return {"free": found.free, "origin": found.origin, "resolution": found.resolution}


def _noted(death_note: str, act: Callable[[], Any]) -> Any:
    """The result of `act`; the cause of its failure goes to the file before the worker ends.

    The parent only sees the pipe close, so the note is all it can tell the user. Every exception
    ends the worker in this way, whatever its kind.
    """
    try:
        return act()
    except Exception as error:
        cause = str(error)
        if not isinstance(error, UserError):
            where = traceback.extract_tb(error.__traceback__)[-1]
            cause = f"{type(error).__name__}: {error} (at {where.filename}:{where.lineno})"
        Path(death_note).write_text(cause)
        raise SystemExit(1) from error
