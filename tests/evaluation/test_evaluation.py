"""The evaluation plays exactly the planned trials, whatever the number of environments."""

from __future__ import annotations

import gc
import json
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from memo_habitat.config.evaluation import EvaluationPlan
from memo_habitat.errors import UserError
from memo_habitat.evaluation.agents import Agent, RandomAgent, SensorAgent
from memo_habitat.evaluation.play_trials import evaluate
from memo_habitat.evaluation.recorder import FilmStrip, Recorder
from memo_habitat.evaluation.records import EpisodeRecord, iterate_records
from memo_habitat.evaluation.schedule import (
    Observation,
    StepResult,
    TrialKey,
    assign_trials,
    planned_trials,
    trial_seed,
)
from memo_habitat.policy.network import ContextUse
from memo_habitat.tasks.record_fields import EPISODE_MEASURE
from tests.factories.vector_envs import NUM_ACTIONS, FakeEnv, FakeVectorEnv

STEPS = 60
PAIRS = [("studio", "a"), ("studio", "b"), ("loft", "a")]
PLAN = EvaluationPlan(trials_per_house=3, steps_per_trial=STEPS)


class Counter:
    """Counts progress."""

    def __init__(self) -> None:
        self.total = 0

    def update(self, n: int) -> None:
        self.total += n

    def set_postfix_str(self, s: str, refresh: bool = True) -> None:
        pass


class Remembering(SensorAgent):
    """An oracle whose context is the number of steps since its trial began."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = torch.zeros(1, dtype=torch.long)
        self.seen_starts: list[tuple[list[bool], list[bool], list[int]]] = []

    def begin_trial(self, seed: int) -> None:
        self.steps = torch.zeros(1, dtype=torch.long)

    def act(
        self, observations: dict[str, Tensor], trial_start: Tensor, episode_start: Tensor
    ) -> Tensor:
        self.steps = self.steps + 1
        steps = observations["trial_step"].reshape(-1).tolist()
        self.seen_starts.append((trial_start.tolist(), episode_start.tolist(), steps))
        return super().act(observations, trial_start, episode_start)

    def context(self) -> ContextUse:  # type: ignore[override]
        return ContextUse(self.steps, self.steps * 8, self.steps * 16)


def batch_of_one(observation: Observation) -> dict[str, Tensor]:
    return {key: torch.as_tensor(value)[None] for key, value in observation.items()}


def vector_env(
    count: int, pairs: Sequence[tuple[str, str]] = PAIRS, **options: Any
) -> FakeVectorEnv:
    return FakeVectorEnv([FakeEnv(list(pairs), STEPS, **options) for _ in range(count)])


def run(
    folder: Path,
    envs: FakeVectorEnv,
    agent: Callable[[], Agent] = SensorAgent,
    plan: EvaluationPlan = PLAN,
) -> list[EpisodeRecord]:
    with Recorder(folder, plan) as recorder:
        evaluate(envs, [agent() for _ in envs.envs], plan, recorder, Counter(), batch_of_one)
    records = iterate_records(folder / "records.jsonl")
    return sorted(records, key=lambda record: (record.trial_id, record.episode_index))


def test_every_house_gets_its_trials_with_repetitions_of_its_arrangements() -> None:
    assert planned_trials(PAIRS, 3) == [
        TrialKey("loft", "a", 0),
        TrialKey("loft", "a", 1),
        TrialKey("loft", "a", 2),
        TrialKey("studio", "a", 0),
        TrialKey("studio", "b", 0),
        TrialKey("studio", "a", 1),
    ]


def test_trials_are_dealt_evenly_among_the_environments_that_hold_the_house() -> None:
    trials = planned_trials([("a", "0"), ("b", "0")], 4)
    dealt = assign_trials(trials, [[("a", "0")], [("b", "0")], [("a", "0"), ("b", "0")]])
    assert sorted(trial for own in dealt for trial in own) == sorted(trials)
    assert {trial.house for trial in dealt[0]} == {"a"}
    assert {trial.house for trial in dealt[1]} == {"b"}
    assert max(map(len, dealt)) <= 4


def test_a_house_that_no_environment_holds_is_an_error() -> None:
    with pytest.raises(UserError, match="'attic'"):
        assign_trials([TrialKey("attic", "0", 0)], [[("cellar", "0")]])


def test_all_planned_trials_are_recorded_whole(tmp_path: Path) -> None:
    records = run(tmp_path, vector_env(2))
    assert {r.trial_id for r in records} == {t.id for t in planned_trials(PAIRS, 3)}
    for trial in {r.trial_id for r in records}:
        own = [r for r in records if r.trial_id == trial]
        assert [r.episode_index for r in own] == list(range(len(own)))
        assert sum(r.num_steps for r in own) == STEPS
        assert own[-1].trial_step_end == STEPS
        assert [r.trial_step_start for r in own[1:]] == [r.trial_step_end for r in own[:-1]]
    assert all(r.success == 1 for r in records if not r.truncated)


def test_reward_is_the_sum_over_the_episode(tmp_path: Path) -> None:
    for record in run(tmp_path, vector_env(1)):
        assert record.reward == pytest.approx(2 * record.success - 0.003 * record.num_steps)


def draws() -> RandomAgent:
    return RandomAgent(NUM_ACTIONS)


def test_the_file_of_records_does_not_depend_on_the_number_of_environments(tmp_path: Path) -> None:
    for count in (1, 4, 9):
        run(tmp_path / str(count), vector_env(count), draws)
    files = [(tmp_path / str(n) / "records.jsonl").read_bytes() for n in (1, 4, 9)]
    assert files[0] == files[1] == files[2]
    trials = [json.loads(line)["trial_id"] for line in files[0].splitlines()]
    assert list(dict.fromkeys(trials)) == [trial.id for trial in planned_trials(PAIRS, 3)]


def test_only_an_episode_that_the_trial_cut_off_is_truncated(tmp_path: Path) -> None:
    records = run(tmp_path, vector_env(2), draws)
    cut = [r for r in records if r.truncated]
    assert cut
    assert all(r.trial_step_end == STEPS for r in cut)


def test_finished_environments_are_not_stepped(tmp_path: Path) -> None:
    envs = vector_env(4)
    run(tmp_path, envs)  # six trials on four environments: two play one, two play two
    assert sorted(env.steps_taken for env in envs.envs) == [STEPS, STEPS, 2 * STEPS, 2 * STEPS]


def test_a_trial_is_begun_by_its_name_and_memory_is_its_own(tmp_path: Path) -> None:
    agents: list[Remembering] = []
    begun: list[int] = []

    class Noting(Remembering):
        def begin_trial(self, seed: int) -> None:
            super().begin_trial(seed)
            begun.append(seed)

    def one() -> Noting:
        agents.append(Noting())
        return agents[-1]

    records = run(tmp_path, vector_env(4), one)
    assert all(r.context_tokens == r.trial_step_end for r in records)
    assert all(r.full_context_kv_bytes == 16 * r.trial_step_end for r in records)
    assert sorted(begun) == sorted(trial_seed(trial.id, 0) for trial in planned_trials(PAIRS, 3))
    assert sorted(len(agent.seen_starts) for agent in agents) == [
        STEPS,
        STEPS,
        2 * STEPS,
        2 * STEPS,
    ]
    for trial_start, episode_start, steps in (s for agent in agents for s in agent.seen_starts):
        assert [step == 0 for step in steps] == trial_start
        assert all(e for t, e in zip(trial_start, episode_start, strict=True) if t)


def test_an_agent_without_memory_has_no_context(tmp_path: Path) -> None:
    assert {r.context_tokens for r in run(tmp_path, vector_env(2))} == {None}


def test_an_interrupted_evaluation_goes_on_to_the_same_records(tmp_path: Path) -> None:
    class Impatient(SensorAgent):
        left = 200  # of all of them together

        def act(self, *args: Any) -> Tensor:
            Impatient.left -= 1
            if Impatient.left < 0:
                raise KeyboardInterrupt
            return super().act(*args)

    whole = run(tmp_path / "whole", vector_env(2))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", vector_env(2), Impatient)
    cut = list(iterate_records(tmp_path / "cut" / "records.jsonl"))
    assert 0 < len(cut) < len(whole)
    envs = vector_env(2)
    assert run(tmp_path / "cut", envs) == whole
    assert sum(env.steps_taken for env in envs.envs) < 6 * STEPS


def test_a_complete_evaluation_is_not_played_again(tmp_path: Path) -> None:
    first = run(tmp_path, vector_env(2))
    envs = vector_env(2)
    assert run(tmp_path, envs) == first
    assert sum(env.steps_taken for env in envs.envs) == 0


def test_more_trials_are_added_to_those_that_are_there(tmp_path: Path) -> None:
    fewer = run(tmp_path, vector_env(2), plan=EvaluationPlan(1, STEPS))
    more = run(tmp_path, vector_env(2))
    assert {r.trial_id for r in fewer} < {r.trial_id for r in more}
    assert more == run(tmp_path / "anew", vector_env(2))


def test_progress_counts_every_step_of_every_trial(tmp_path: Path) -> None:
    counter = Counter()
    with Recorder(tmp_path, PLAN) as recorder:
        evaluate(vector_env(4), [SensorAgent()] * 4, PLAN, recorder, counter, batch_of_one)
    assert counter.total == 6 * STEPS


@pytest.mark.parametrize("trial_steps", [STEPS // 2, STEPS * 2])
def test_another_trial_length_than_planned_names_the_setting(
    tmp_path: Path, trial_steps: int
) -> None:
    envs = FakeVectorEnv([FakeEnv(PAIRS, trial_steps)])
    with pytest.raises(UserError, match=f"trial_steps={STEPS}"):
        run(tmp_path, envs)


def test_an_episode_that_nobody_describes_names_the_measure_and_where_it_goes(
    tmp_path: Path,
) -> None:
    class Silent(FakeEnv):
        def step(self, action: int) -> StepResult:
            observation, reward, done, info = super().step(action)
            return (
                observation,
                reward,
                done,
                {k: v for k, v in info.items() if k != EPISODE_MEASURE},
            )

    envs = FakeVectorEnv([Silent(list(PAIRS), STEPS)])
    with pytest.raises(UserError, match=r"episode_record.*measurements.*step_with_infos"):
        run(tmp_path, envs)


def test_the_oracle_without_its_sensor_names_it() -> None:
    flags = torch.ones(1, dtype=torch.bool)
    with pytest.raises(UserError, match="oracle_action"):
        SensorAgent().act({"gps": torch.zeros(1, 2)}, flags, flags)


def test_random_actions_are_uniform_and_repeatable() -> None:
    flags = torch.ones(6000, dtype=torch.bool)
    first = RandomAgent(6, 1).act({}, flags, flags)
    assert torch.equal(first, RandomAgent(6, 1).act({}, flags, flags))
    assert torch.bincount(first, minlength=6).min() > 850


def test_frames_maps_and_traces_are_kept_of_the_first_trials_only(tmp_path: Path) -> None:
    plan = EvaluationPlan(3, STEPS, filmed_trials=2, filmed_episodes=2, frames_per_episode=4)
    run(tmp_path, vector_env(2), Remembering, plan)
    lines = [json.loads(x) for x in (tmp_path / "frames" / "index.jsonl").read_text().splitlines()]
    assert {line["trial_id"] for line in lines} == {"loft/a/0", "studio/a/0"}
    assert len(lines) == 4
    assert all(2 <= len(line["files"]) <= 4 or line["num_steps"] < 2 for line in lines)
    assert all((tmp_path / "frames" / name).exists() for line in lines for name in line["files"])
    assert {path.stem for path in (tmp_path / "maps").iterdir()} == {"loft", "studio"}
    points = [json.loads(x) for x in (tmp_path / "trace.jsonl").read_text().splitlines()]
    assert len(points) == 2 * STEPS
    assert all(point["context_tokens"] == point["trial_step"] for point in points)


@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 100, 1001])
def test_a_film_strip_is_bounded_and_ends_with_the_last_frame(length: int) -> None:
    strip = FilmStrip(8)
    for step in range(length):
        strip.add(step, np.zeros((2, 2, 3), np.uint8))
    steps = [step for step, _ in strip.frames()]
    assert len(steps) <= 8
    assert len(steps) >= min(length, 4)
    assert steps[0] == 0 and steps[-1] == length - 1
    assert len(set(np.diff(steps[:-1]).tolist())) <= 1


def test_counts_below_one_are_refused() -> None:
    with pytest.raises(UserError, match="steps_per_trial is 0"):
        EvaluationPlan(1, 0)


@pytest.mark.slow
def test_memory_does_not_grow_along_a_long_trial(tmp_path: Path) -> None:
    held: dict[int, int] = {}

    class Watched(Remembering):
        def act(self, observations: dict[str, Tensor], *flags: Tensor) -> Tensor:
            self.seen_starts.clear()
            step = int(observations["trial_step"][0])
            if step in (1_000, 5_000):
                gc.collect()
                held[step] = tracemalloc.get_traced_memory()[0]
            return super().act(observations, *flags)

    plan = EvaluationPlan(1, 5_001, map_resolution=0)
    envs = FakeVectorEnv([FakeEnv([("loft", "a")], plan.steps_per_trial)])
    tracemalloc.start()
    try:
        run(tmp_path, envs, Watched, plan)
    finally:
        tracemalloc.stop()
    # Frames kept would take 800 kB, records 1 MB.
    assert held[5_000] - held[1_000] < 200_000
