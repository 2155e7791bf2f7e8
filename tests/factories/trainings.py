"""Overrides that make a training of extobjnav/studio small enough for a test."""

from __future__ import annotations

#: One environment, two trials of 32 steps, images of 32 x 32 pixels, a narrow memory.
TINY_STUDIO = (
    "habitat.task.trial_steps=32",
    "habitat.environment.max_episode_steps=10",
    "habitat.simulator.agents.main_agent.sim_sensors.head_rgb_sensor.width=32",
    "habitat.simulator.agents.main_agent.sim_sensors.head_rgb_sensor.height=32",
    "habitat_baselines.num_environments=1",
    "habitat_baselines.num_checkpoints=1",
    "habitat_baselines.total_num_steps=64",
    "habitat_baselines.rl.ppo.ppo_epoch=1",
    "habitat_baselines.rl.memory.width=32",
    "habitat_baselines.rl.memory.hidden=64",
    "habitat_baselines.rl.memory.segment_length=8",
    "habitat_baselines.rl.memory.summary_length=4",
)
#: Of an evaluation: one environment in one house.
ONE_HOUSE = (
    "habitat_baselines.num_environments=1",
    "habitat.dataset.content_scenes=[studio_1_test_000]",
)
