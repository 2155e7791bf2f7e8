"""What runs in an environment's own process; imports no more than the environment needs."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import multiprocessing
import os
import traceback
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gym
import numpy as np
from habitat.gym import make_gym_from_config
from omegaconf import DictConfig

from memo_habitat.errors import UserError
from memo_habitat.register import import_plugins, register_environment
from memo_habitat.simulator.interface import TopDownMap, task_simulator
from memo_habitat.tasks.extobjnav.episode import TrialIterator, house_of
from memo_habitat.tasks.extobjnav.measures import top_down_scene
from memo_habitat.tasks.extobjnav.task import ExtObjNavTask
from memo_habitat.tasks.record_fields import Declaration, declared_fields

# The sensor whose observation is filled in here (uuid): a reward is known after its observation.
LAST_REWARD = "last_reward"
# Exit status of a worker that another one in its place would not help: a file is missing, ...
CANNOT_MEND = 2
_ACTIONS_TRACED = 8


def make_env(config: DictConfig, death_note: str) -> gym.Env:
    """Register everything, make the environment, write down what kills it."""

    def make() -> gym.Env:
        register_environment()
        import_plugins(config)
        env = make_gym_from_config(config)
        env.seed(config.habitat.seed)
        return env

    _speak_into(terminal_note(death_note))
    return TrialEnv(_noted(death_note, make), death_note)


def exit_note(death_note: str | Path) -> Path:
    """Where the trainer writes a worker's exit status."""
    return Path(death_note).with_suffix(".exit")


def hung_note(death_note: str | Path) -> Path:
    """Where the trainer writes for how many seconds it has waited before it ended a worker."""
    return Path(death_note).with_suffix(".hung")


def terminal_note(death_note: str | Path) -> Path:
    """Where a worker writes what is meant for its terminal; the trainer passes it on."""
    return Path(death_note).with_suffix(".stderr")


def trace_note(death_note: str | Path) -> Path:
    """Where a worker writes what it is about to do, as JSON."""
    return Path(death_note).with_suffix(".trace")


def _speak_into(said: Path) -> None:
    """From now on what this process and its libraries write to the terminal goes to a file.

    A renderer that finds no driver, or an LLVM beside another, ends the process without an
    exception: only that file can say why. Threads share their terminal with others, and keep it.
    """
    if multiprocessing.parent_process() is None:
        return
    file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(file, 2)
    os.close(file)
    # Where in Python it was when a library crashes, or when the trainer ends it by SIGABRT.
    faulthandler.enable()


class TrialEnv(gym.Wrapper):
    """Answers what an evaluation asks about trials, tells the last reward, notes what kills it."""

    def __init__(self, env: gym.Env, death_note: str) -> None:
        super().__init__(env)
        self._death_note = death_note
        self._last_reward = 0.0
        self._actions: deque[str] = deque(maxlen=_ACTIONS_TRACED)
        self._names = tuple(self.habitat_env.task.actions)
        self._trace = trace_note(death_note).open("wb", buffering=0)
        self._memory = Path("/proc/self/statm")  # Linux alone has it
        # Where Habitat goes to the next episode: what kills workers is often a house's files.
        load = self.habitat_env.reconfigure

        def reconfigure(config: DictConfig) -> None:
            self._leave_trace()
            load(config)

        self.habitat_env.reconfigure = reconfigure

    def _leave_trace(self) -> None:
        """Write down where this worker is, what it did last and what it holds (bytes).

        Before every step, in one call of the system: the file tells it whatever ends the worker.
        """
        episode = self.habitat_env.current_episode
        trial = getattr(episode, "trial", None)  # of tasks with trials
        pages = int(self._memory.read_bytes().split()[1]) if self._memory.exists() else 0
        trace = {
            "pid": os.getpid(),
            "scene": episode.scene_id,
            "episode": episode.episode_id if trial is None else trial.trial_id,
            "trial_step": None if trial is None else trial.steps,
            "actions": list(self._actions),
            "resident": pages * os.sysconf("SC_PAGESIZE"),
        }
        with contextlib.suppress(OSError):  # a full disk is no reason to end
            line = json.dumps(trace).encode() + b"\n"  # what was longer before is behind it
            os.pwrite(self._trace.fileno(), line, 0)

    def step(self, action: Any) -> Any:
        """One step of the environment."""
        is_known = isinstance(action, int | np.integer) and 0 <= action < len(self._names)
        self._actions.append(self._names[action] if is_known else str(action))
        self._leave_trace()
        observation, reward, done, info = _noted(self._death_note, lambda: self.env.step(action))
        self._last_reward = float(reward)
        return self._with_last_reward(observation), reward, done, info

    def reset(self, **kwargs: Any) -> Any:
        """The first observation of the next episode, which may be a trial's first."""
        observation = _noted(self._death_note, lambda: self.env.reset(**kwargs))
        return self._with_last_reward(observation)

    def close(self) -> None:
        """Close the environment."""
        self._trace.close()
        super().close()

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

    def skip_trials(self, count: int) -> bool:
        """Let the next reset begin the trial that comes after `count` whole ones; whether it can.

        A task of somebody else's may deal out its episodes in its own way.
        """
        iterator = self.habitat_env.episode_iterator
        if not isinstance(iterator, TrialIterator):
            return False
        iterator.skip_trials(count)
        self.habitat_env.episode_iterator = iterator  # drops the episode taken before, as above
        return True

    def top_down_map(self, resolution: float) -> TopDownMap:
        """Where the agent can stand in the present house; `resolution` in metres per cell."""
        return task_simulator(self.habitat_env.sim).top_down_map(resolution)

    def top_down_scene(self) -> dict[str, Any] | None:
        """Where the agent stands and what it looks for, for videos; None of other tasks."""
        task = self.habitat_env.task
        if not isinstance(task, ExtObjNavTask):
            return None
        return top_down_scene(task.pose.position, task.pose.heading, task.goals)


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
        lasting = isinstance(error, UserError | FileNotFoundError)
        raise SystemExit(CANNOT_MEND if lasting else 1) from error
