"""What a user adds from outside the package: each in a module of their own, named by the config.

Simulators: `tests/simulator/test_new_simulator.py`. Measures: also `test_own_measure.py`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from habitat.core.registry import registry
from habitat_baselines.common.baseline_registry import baseline_registry
from omegaconf import OmegaConf

import memo_habitat as mh
from memo_habitat.cli.main import main
from memo_habitat.errors import UserError
from memo_habitat.report import figures
from memo_habitat.tasks.dark_key.layouts import Setting
from memo_habitat.trainer.checkpoint import read_checkpoint
from memo_habitat.trainer.launch import evaluation_command, plan_training
from tests.factories.runs import write_run
from tests.factories.sweeps import write_sweep
from tests.integration.conftest import TINY_DARK_KEY

Write = Callable[[str], str]
TWO_TRIALS = mh.EvalOptions(trials=2)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes a module as a user would, outside the package; nothing but the config imports it."""
    names = []

    def write(code: str) -> str:
        names.append(f"own_module_{tmp_path.name}_{len(names)}".replace("-", "_"))
        (tmp_path / f"{names[-1]}.py").write_text(dedent(code))
        return names[-1]

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("HABITAT_ENV_DEBUG", "1")  # threads: workers take longer than the training
    yield write
    for name in names:
        sys.modules.pop(name, None)
    # Other tests of this process see the classes of the package and of Habitat alone.
    for kinds in (baseline_registry.mapping, registry.mapping):
        for known in kinds.values():
            for own in [key for key, made in known.items() if made.__module__ in names]:
                del known[own]


def train_and_evaluate(
    config: str, overrides: list[str], folder: Path, options: mh.EvalOptions = TWO_TRIALS
) -> tuple[Any, list[dict[str, Any]]]:
    """A run with its records."""
    training = mh.start_training(config, overrides, out=folder)
    assert mh.train(training)
    records = mh.evaluate(training.run, options) / "records.jsonl"
    return training.run, [json.loads(line) for line in records.read_text().splitlines()]


def test_a_memory(module: Write, tmp_path: Path) -> None:
    name = module(
        """
        from memo_habitat.memory.variants import Memo

        class HalfCredit(Memo):
            def carry(self, summary):
                return 0.5 * (summary + summary.detach())
        """
    )
    overrides = [
        *TINY_DARK_KEY,
        "habitat_baselines.total_num_steps=80",
        f"habitat_baselines.rl.memory.kind={name}:HalfCredit",
    ]
    run, records = train_and_evaluate("dark_key_to_door", overrides, tmp_path / "run")
    assert run.config().habitat_baselines.rl.memory.kind == f"{name}:HalfCredit"
    assert sum(record["trial_step_end"] == 20 for record in records) == 2
    assert all(record["kv_bytes"] > 0 for record in records)


SENSOR = """
    import numpy as np
    from habitat.core.embodied_task import Measure
    from habitat.core.registry import registry

    from memo_habitat.tasks.extobjnav.sensors import TaskSensor, real_box
    from memo_habitat.tasks.record_fields import RecordField

    SECTORS = 500

    @registry.register_sensor(name="SectorSensor")
    class SectorSensor(TaskSensor):
        cls_uuid = "sector"

        def observation_box(self):
            return real_box(0.0, 1.0, SECTORS)

        def get_observation(self, *args, **kwargs):
            turns = self._task.pose.heading / (2 * np.pi) % 1
            return np.eye(SECTORS, dtype=np.float32)[int(turns * SECTORS) % SECTORS]

    @registry.register_measure
    class EndsNorth(Measure):
        cls_uuid = "ends_north"
        record = RecordField("rate")

        def __init__(self, *args, task, **kwargs):
            self._task = task
            super().__init__()

        def _get_uuid(self, *args, **kwargs):
            return self.cls_uuid

        def reset_metric(self, *args, **kwargs):
            self.update_metric()

        def update_metric(self, *args, **kwargs):
            self._metric = bool(np.cos(self._task.pose.heading) > 0)
    """
SENSOR_CONFIG = """
    # @package _global_
    defaults:
      - /extobjnav/studio
      - override /encoder: blind
      - _self_
    habitat:
      task:
        lab_sensors:
          sector: {{type: SectorSensor}}
        measurements:
          ends_north: {{type: EndsNorth}}
    habitat_baselines:
      plugins: [{module}]
      rl:
        encoder:
          state_sensors: [one_hot_target_sensor, sector]
    """
TINY_STUDIO = (
    "habitat.task.trial_steps=16",
    "habitat.environment.max_episode_steps=8",
    "habitat.simulator.render_images=false",
    "habitat_baselines.num_environments=1",
    "habitat_baselines.num_checkpoints=1",
    "habitat_baselines.evaluator.map_resolution=0",
    "habitat_baselines.total_num_steps=16",
    "habitat_baselines.rl.ppo.updates_per_trial=1",
    "habitat_baselines.rl.ppo.ppo_epoch=1",
    "habitat_baselines.rl.ppo.num_mini_batch=1",
    "habitat_baselines.rl.memory.width=16",
    "habitat_baselines.rl.memory.layers=1",
    "habitat_baselines.rl.memory.heads=2",
    "habitat_baselines.rl.memory.hidden=16",
    "habitat_baselines.rl.memory.segment_length=8",
    "habitat_baselines.rl.memory.summary_length=2",
)


def test_a_sensor_and_a_measure(module: Write, tmp_path: Path) -> None:
    config = tmp_path / "sectors.yaml"
    config.write_text(dedent(SENSOR_CONFIG).format(module=module(SENSOR)))
    one_house = ("habitat.dataset.content_scenes=[studio_1_test_000]",)
    options = mh.EvalOptions(trials=1, overrides=one_house)
    run, records = train_and_evaluate(str(config), [*TINY_STUDIO], tmp_path / "run", options)
    weights = read_checkpoint(run.latest_checkpoint)["state_dict"]
    token_inputs = next(w for key, w in weights.items() if key.endswith("token_projection.weight"))
    assert token_inputs.shape[1] > 500
    assert records[-1]["trial_step_end"] == 16
    assert all(record["ends_north"] in (0.0, 1.0) for record in records)


def test_a_policy_and_a_trainer(module: Write, tmp_path: Path) -> None:
    """Both are derived from ours, and each may be used without the other."""
    name = module(
        """
        from habitat_baselines.common.baseline_registry import baseline_registry

        from memo_habitat.policy.policy import MemoPolicy
        from memo_habitat.trainer.trainer import MemoTrainer

        @baseline_registry.register_policy
        class OwnPolicy(MemoPolicy):
            pass

        @baseline_registry.register_trainer(name="own_trainer")
        class OwnTrainer(MemoTrainer):
            pass
        """
    )
    plugins = f"habitat_baselines.plugins=[{name}]"
    policy = "habitat_baselines.rl.policy.main_agent.name=OwnPolicy"
    trainer = "habitat_baselines.trainer_name=own_trainer"
    for number, own in enumerate(([policy], [trainer])):
        mh.start_training("extobjnav/studio", [plugins, *own], out=tmp_path / str(number))
    steps = "habitat_baselines.total_num_steps"
    overrides = [*TINY_DARK_KEY, plugins, policy, trainer, f"{steps}=80"]
    run, _ = train_and_evaluate("dark_key_to_door", overrides, tmp_path / "both")
    assert mh.train(mh.resume_training(run.path, [f"{steps}=160"]))
    assert run.record().resumed[-1].steps == 80
    assert evaluation_command(run) == f"memo-habitat eval {run.path}"


def test_classes_for_habitats_own_trainer_may_have_methods_called_as_ours(module: Write) -> None:
    name = module(
        """
        from habitat_baselines.common.baseline_registry import baseline_registry
        from habitat_baselines.rl.ddppo.policy import PointNavResNetPolicy
        from habitat_baselines.rl.ppo import PPO

        @baseline_registry.register_policy
        class OwnNavPolicy(PointNavResNetPolicy):
            def refresh(self):
                pass

        @baseline_registry.register_updater
        class OwnPPO(PPO):
            def anneal(self):
                pass
        """
    )
    overrides = [
        f"+habitat_baselines.plugins=[{name}]",
        "habitat_baselines.updater_name=OwnPPO",
        "habitat_baselines.rl.policy.main_agent.name=OwnNavPolicy",
    ]
    plan_training("nav/ppo_pointnav_studio", overrides)


def test_a_plugin_that_is_nowhere_is_named_with_the_remedy() -> None:
    plugins = "habitat_baselines.plugins=[mislaid]"
    with pytest.raises(UserError, match=r"plugins=mislaid: No module.*PYTHONPATH"):
        mh.make_env("extobjnav/studio", [plugins])


TASK = """
    import numpy as np
    from gym import spaces

    from memo_habitat.simulator.interface import TopDownMap
    from memo_habitat.tasks import record_fields
    from memo_habitat.tasks.record_fields import EPISODE_MEASURE, RecordField
    from memo_habitat.tasks.vector_env import (
        BatchedStep,
        InProcessVectorEnv,
        InProcessVectorEnvFactory,
    )

    BUTTONS, PRESSES = 3, 4

    class ButtonsEnv(InProcessVectorEnv):
        \"\"\"One of three buttons is right for a whole trial; pressing it ends an episode.\"\"\"

        def __init__(self, num_envs, trial_steps, seed):
            observed = spaces.Dict({
                "last_reward": spaces.Box(0.0, 1.0, (1,), np.float32),
                "trial_step": spaces.Box(0, 2**31, (1,), np.int64),
            })
            super().__init__(num_envs, observed, spaces.Discrete(BUTTONS))
            self._length, self._seed = trial_steps, seed
            self._queues = [[] for _ in range(num_envs)]
            self._played = np.zeros(num_envs, np.int64)

        # What training asks.

        def reset_batch(self):
            count = self.num_envs
            self._played[:] = 0
            self._right, self._trial = np.zeros((2, count), np.int64)
            self._steps, self._presses, self._episode = np.zeros((3, count), np.int64)
            self._reward = np.zeros((count, 1), np.float32)
            for i in range(count):
                self._begin_trial(i)
            return self._observations()

        def step_batch(self, actions, only=None):
            taken = np.ones(self.num_envs, bool) if only is None else only.copy()
            found = taken & (actions == self._right)
            self._steps += taken
            self._presses += taken
            self._reward[taken, 0] = found[taken]
            trial_over = taken & (self._steps == self._length)
            ends = found | (taken & (self._presses == PRESSES)) | trial_over
            measures = {
                "success": found.astype(float),
                "presses": self._presses.copy(),
            }
            self._records = {
                i: self._record(i, bool(found[i]), bool(trial_over[i]))
                for i in np.flatnonzero(ends)
            }
            rewards = np.where(taken, self._reward[:, 0], 0.0)
            self._presses[ends] = 0
            self._episode[ends] += 1
            for i in np.flatnonzero(trial_over):
                self._begin_trial(i)
            return BatchedStep(self._observations(), rewards, ends, measures)

        def _begin_trial(self, i):
            queue = self._queues[i]
            number = int(self._played[i]) * self.num_envs + i
            self._trial[i] = queue[self._played[i] % len(queue)] if queue else number
            self._played[i] += 1
            self._right[i] = np.random.default_rng([self._seed, self._trial[i]]).integers(BUTTONS)
            self._steps[i] = self._presses[i] = self._episode[i] = 0
            self._reward[i] = 0.0

        def _observations(self):
            return {"last_reward": self._reward.copy(), "trial_step": self._steps[:, None].copy()}

        # What an evaluation asks besides.

        def step_with_infos(self, actions, only):
            step, infos = super().step_with_infos(actions, only)
            for i, record in self._records.items():
                infos[i][EPISODE_MEASURE] = record
            return step, infos

        def record_fields(self, index):
            presses = RecordField("count", "num_steps", better="lower", title="Presses")
            return {"success": record_fields.SUCCESS, "presses": presses}

        def arrangements(self, index):
            return [("panel", "drawn")]

        def schedule_trials(self, index, trials, seed):
            self._queues[index], self._seed = [number for _, _, number in trials], seed

        def top_down_map(self, index, resolution):
            return TopDownMap(np.ones((1, 1), bool), (0.0, 0.0), 1.0)

        def _record(self, i, found, trial_over):
            return {
                "trial_id": f"panel/drawn/{self._trial[i]}",
                "scene_id": "panel",
                "arrangement_id": "drawn",
                "repetition": int(self._trial[i]),
                "episode_index": int(self._episode[i]),
                "target_category": "button",
                "trial_step_start": int(self._steps[i] - self._presses[i]),
                "trial_step_end": int(self._steps[i]),
                "truncated": trial_over and not found and self._presses[i] < PRESSES,
                "start_distance": 1.0,
                "path_length": float(self._presses[i]),
            }

    class ButtonsFactory(InProcessVectorEnvFactory):
        def make_envs(self, config, count, is_eval):
            return ButtonsEnv(count, config.habitat.task.trial_steps, config.habitat.seed)
    """


def test_a_task(module: Write, tmp_path: Path) -> None:
    overrides = [
        *TINY_DARK_KEY,
        "habitat_baselines.total_num_steps=80",
        f"habitat_baselines.vector_env_factory._target_={module(TASK)}.ButtonsFactory",
        "habitat_baselines.rl.encoder.state_sensors=[last_reward]",
        "habitat_baselines.rl.encoder.auxiliary_sensor=''",
    ]
    run, records = train_and_evaluate("dark_key_to_door", overrides, tmp_path / "run")
    (row,) = (json.loads(line) for line in run.progress_file.read_text().splitlines())
    assert row["steps"] == 80
    assert 1.0 <= row["metrics"]["presses"] <= 4.0
    assert {record["trial_id"] for record in records} == {"panel/drawn/0", "panel/drawn/1"}
    assert all(record["reward"] == record["success"] for record in records)
    assert sum(record["num_steps"] for record in records) == 2 * 20
    page = mh.write_report([run.path]).read_text(encoding="utf-8")
    assert "<th>Presses</th>" in page


FIGURE = """
    import numpy as np
    from markupsafe import Markup

    from memo_habitat.report import plots
    from memo_habitat.report.figures import EXTRA_FIGURES, Figure
    from memo_habitat.report.plots import Curve

    def lengths_figure(agents):
        curves = []
        for agent in agents:
            lengths = np.sort(agent.evaluation.episodes.finished().columns["num_steps"])
            shares = np.linspace(0.0, 1.0, len(lengths))
            curves.append(Curve(list(lengths), list(shares), agent.color))
        svg = Markup(plots.rates(curves, "steps of the episode"))
        return [Figure("Lengths of episodes", svg, "Share of episodes of at most so many steps.")]

    EXTRA_FIGURES.append(lengths_figure)
    """


def name_plugin(run: Path, plugin: str) -> None:
    """Into the config of a run that has none."""
    config = OmegaConf.load(run / "config.yaml")
    OmegaConf.update(config, "habitat_baselines.plugins", [plugin])
    OmegaConf.save(config, run / "config.yaml")


def test_a_figure(module: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "EXTRA_FIGURES", [])
    run = write_run(tmp_path / "run", {"memo": (0.2, 0.6)}, steps=512, houses=2, trials_per_house=2)
    name_plugin(run, module(FIGURE))
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Lengths of episodes" in page
    assert "Share of episodes of at most so many steps." in page


def test_a_figure_in_the_report_of_a_sweep(
    module: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "EXTRA_FIGURES", [])
    sweep = write_sweep(tmp_path / "sweep", {"memo": 0.9}, (0,), Setting(3, 10, 20), 2)
    name_plugin(sweep / "memo/seed_0", module(FIGURE))
    assert main(["report", str(sweep)]) == 0
    assert "Lengths of episodes" in (sweep / "report.html").read_text(encoding="utf-8")


def test_a_plugin_that_a_report_does_not_find_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", {"memo": (0.2, 0.6)}, steps=64, houses=1, trials_per_house=1)
    name_plugin(run, "mislaid")
    assert main(["report", str(run)]) == 2
    assert "plugins=mislaid: No module" in capsys.readouterr().err
