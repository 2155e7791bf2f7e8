"""The rules once more, one trial and one cell at a time, as the specification's sentences say."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass
class PlainTrial:
    """One trial; cells are (x, y)."""

    size: int
    episode_limit: int
    trial_length: int
    start: tuple[int, int]
    key: tuple[int, int]
    door: tuple[int, int]
    agent: tuple[int, int] = field(init=False)
    holds_key: bool = False
    episode_step: int = 0
    trial_step: int = 0
    last_reward: float = 0.0
    episodes_over: int = 0
    total: float = 0.0
    entered: set = field(default_factory=set)

    def __post_init__(self):
        self.agent = self.start
        self.entered.add((self.agent, self.holds_key))

    def walk(self, action):
        """Actions: up, down, left, right, stay. Walls clip."""
        x, y = self.agent
        if action == "up" and y < self.size - 1:
            y += 1
        if action == "down" and y > 0:
            y -= 1
        if action == "left" and x > 0:
            x -= 1
        if action == "right" and x < self.size - 1:
            x += 1
        self.agent = (x, y)

    def step(self, action):
        """Returns reward, whether the door was opened, the episode is over, the trial is over."""
        self.walk(action)
        self.episode_step += 1
        self.trial_step += 1
        reward, opened = 0.0, False
        # "+1 for the door while holding the key, which ends the episode"; "each reward needs a
        # step of its own": what is picked up in this step opens no door in this step.
        if self.holds_key:
            if self.agent == self.door:
                reward, opened = 1.0, True
        # The key pays once per episode.
        elif self.agent == self.key:
            reward, self.holds_key = 1.0, True
        # "An episode lasts at most 50 steps"
        episode_over = opened or self.episode_step == self.episode_limit
        # "then, or at the door, the agent is back at the start cell and the key must be fetched
        # again. The reset costs no step: its observation replaces the terminal one."
        if episode_over:
            self.agent, self.holds_key, self.episode_step = self.start, False, 0
            self.episodes_over += 1
        self.entered.add((self.agent, self.holds_key))
        self.last_reward = reward
        self.total += reward
        # "A trial lasts 500 steps, whatever the number of episodes."
        return reward, opened, episode_over, self.trial_step == self.trial_length

    def visited_ahead(self):
        """Per action: whether the cell it leads to was entered before, with the key as now."""
        here, ahead = self.agent, []
        for action in ("up", "down", "left", "right", "stay"):
            self.walk(action)
            ahead.append(float((self.agent, self.holds_key) in self.entered))
            self.agent = here
        return ahead

    def observation(self):
        """x/8, y/8, holds key, episode step/50, last reward, trial step/500."""
        x, y = self.agent
        widest = self.size - 1
        return (
            x / widest,
            y / widest,
            float(self.holds_key),
            self.episode_step / self.episode_limit,
            self.last_reward,
            self.trial_step / self.trial_length,
        )


class GivenLayouts:
    """Layouts [K, 3] of a list, from its beginning again when it is used up."""

    def __init__(self, layouts):
        self._layouts = np.asarray(layouts, dtype=np.int64)

    def of(self, trials):
        return self._layouts[trials % len(self._layouts)]
