"""An inspected evaluation plays the same episodes and writes down where the memory attends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from memo_habitat.config.evaluation import EvaluationPlan
from memo_habitat.errors import UserError
from memo_habitat.evaluation.attention import TrialBin, over_trials
from memo_habitat.evaluation.play_trials import evaluate
from memo_habitat.evaluation.recorder import Recorder
from memo_habitat.evaluation.schedule import Observation
from memo_habitat.policy.agent import PolicyAgent
from memo_habitat.report.html import write_report
from memo_habitat.report.load import load_run
from memo_habitat.utils.files import read_json_lines
from tests.factories.policies import small_policy
from tests.factories.runs import write_run
from tests.factories.vector_envs import FakeEnv, FakeVectorEnv

STEPS, EVERY = 64, 4
TRIALS = ("loft/a/0", "loft/a/1", "studio/a/0", "studio/a/1")


class Silent:
    def update(self, n: int) -> None:
        pass

    def set_postfix_str(self, s: str, refresh: bool = True) -> None:
        pass


def batch(seen: Observation) -> dict[str, Tensor]:
    """What the small policy observes, made from what the fake environments show."""
    steps = torch.as_tensor(seen["trial_step"])[None]
    images = torch.as_tensor(seen["head_rgb"])[None]
    return {
        "trial_step": steps,
        "head_rgb": images,
        "gps": torch.cat([steps, -steps], dim=1).float(),
        "one_hot_target_sensor": torch.eye(3)[steps[:, 0] % 3],
    }


def play(folder: Path, inspect: bool, kind: str = "memo", envs: int = 2, **sizes: Any) -> None:
    torch.manual_seed(0)
    policy = small_policy(kind, **sizes)
    plan = EvaluationPlan(2, STEPS, inspect_memory=inspect, inspect_every=EVERY, map_resolution=0)
    every = EVERY if inspect else 0
    agents = [PolicyAgent(policy.with_own_memory(), inspect_every=every) for _ in range(envs)]
    pairs = [("loft", "a"), ("studio", "a")]
    fakes = FakeVectorEnv([FakeEnv(list(pairs), STEPS, image_size=16) for _ in range(envs)])
    with torch.inference_mode(), Recorder(folder, plan) as recorder:
        evaluate(fakes, agents, plan, recorder, Silent(), batch)


def bins_of(folder: Path) -> list[TrialBin]:
    return list(read_json_lines(folder / "memory.jsonl", TrialBin.model_validate))


def test_inspecting_changes_no_record(tmp_path: Path) -> None:
    play(tmp_path / "plain", inspect=False)
    play(tmp_path / "inspected", inspect=True)
    plain, inspected = (
        (tmp_path / name / "records.jsonl").read_text() for name in ("plain", "inspected")
    )
    assert inspected == plain
    assert not (tmp_path / "plain" / "memory.jsonl").exists()


@pytest.mark.parametrize("kind", ["memo", "lstm"])
def test_what_is_sampled_in_a_trial_does_not_depend_on_those_beside_it(
    tmp_path: Path, kind: str
) -> None:
    inspect = kind != "lstm"
    for envs in (1, 3):  # of three, one is idle in the second half
        play(tmp_path / str(envs), inspect, kind, envs)
    names = ("records.jsonl", "returns.jsonl", *(["memory.jsonl"] if inspect else []))
    for name in names:
        files = {(tmp_path / str(envs) / name).read_bytes() for envs in (1, 3)}
        assert len(files) == 1, name


@pytest.mark.parametrize("kind", ["memo", "fct", "rmt", "no_iea"])
def test_shares_add_up_and_one_step_in_every_few_is_looked_at(tmp_path: Path, kind: str) -> None:
    play(tmp_path, inspect=True, kind=kind, envs=3)  # of three, one is idle in the second half
    found = bins_of(tmp_path)
    for trial in TRIALS:
        own = [part for part in found if part.trial_id == trial]
        assert sum(part.observed for part in own) == STEPS // EVERY
        starts = [part.trial_step_start for part in own]
        assert starts == sorted(set(starts))
    for part in found:
        assert part.sink + part.summaries + part.steps == pytest.approx(1, abs=1e-4)
        assert 1 - 1e-4 <= part.effective_context <= part.context_tokens + 4
        assert part.trial_step_end - part.trial_step_start == EVERY
        assert part.observed_by_age == [1] * len(part.by_age)
    assert max(len(part.by_age) for part in found) == {
        "memo": (STEPS - 1) // 4,
        "rmt": 1,
    }.get(kind, 0)


def test_the_step_looked_at_is_not_always_at_the_same_place_of_a_segment(tmp_path: Path) -> None:
    play(tmp_path, inspect=True, kind="fct")  # whose full context tells which step it was
    found = [part for part in bins_of(tmp_path) if part.trial_id == TRIALS[0]]
    bytes_per_step = found[0].full_context_kv_bytes / found[0].context_tokens
    steps = [round(part.full_context_kv_bytes / bytes_per_step) for part in found]
    assert all(
        p.trial_step_start < s <= p.trial_step_end for p, s in zip(found, steps, strict=True)
    )
    assert len({step % EVERY for step in steps}) == EVERY


def test_bins_are_means_over_the_steps_looked_at() -> None:
    def of(name: str, observed: int, *means: float, **ages: list) -> TrialBin:
        names = ("sink", "summaries", "steps", "effective_context")
        context = ("context_tokens", "kv_bytes", "full_context_kv_bytes")
        shares = dict(zip((*names, *context), means, strict=True))
        place = {"trial_id": name, "trial_step_start": 0, "trial_step_end": 8}
        return TrialBin(**place, observed=observed, **shares, **ages)

    first = of("a", 1, 0.1, 0.2, 0.7, 3, 4, 8, 8, by_age=[0.2], observed_by_age=[1])
    second = of("b", 3, 0.5, 0.3, 0.2, 7, 8, 16, 32, by_age=[0.1, 0.2], observed_by_age=[3, 2])
    (both,) = over_trials([first, second])
    assert (both.observed, both.sink, both.effective_context) == (4, pytest.approx(0.4), 6.0)
    assert (both.kv_bytes, both.full_context_kv_bytes) == (14.0, 26.0)
    assert both.by_age == pytest.approx([0.125, 0.2])
    assert both.observed_by_age == [4, 2]
    assert first.observed == 1


def test_a_continued_evaluation_keeps_complete_trials_and_drops_the_others(tmp_path: Path) -> None:
    play(tmp_path, inspect=True)
    records, memory = tmp_path / "records.jsonl", tmp_path / "memory.jsonl"
    before = memory.read_text()
    lines = records.read_text().splitlines(keepends=True)
    last = [line for line in lines if json.loads(line)["trial_id"] != TRIALS[-1]]
    records.write_text("".join(last))
    memory.write_text(before + '{"trial_id": "torn')
    with Recorder(tmp_path, EvaluationPlan(2, STEPS, inspect_memory=True)):
        assert {part.trial_id for part in bins_of(tmp_path)} == set(TRIALS[:-1])
    play(tmp_path, inspect=True)
    assert {part.trial_id for part in bins_of(tmp_path)} == set(TRIALS)
    assert len(bins_of(tmp_path)) == len(before.splitlines())


def test_trials_played_without_being_inspected_are_named(tmp_path: Path) -> None:
    play(tmp_path, inspect=False)
    with pytest.raises(UserError, match=r"4 trials .* such as loft/a/0; choose another name"):
        Recorder(tmp_path, EvaluationPlan(2, STEPS, inspect_memory=True))


def test_an_lstm_is_refused_before_it_acts() -> None:
    policy = small_policy("lstm")
    with pytest.raises(UserError, match="attends to nothing"):
        PolicyAgent(policy, inspect_every=16)


def test_looking_at_no_step_is_refused() -> None:
    with pytest.raises(UserError, match="inspect_every is 0"):
        EvaluationPlan(1, 1, inspect_every=0)


@pytest.fixture(scope="module")
def inspected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    agents = {"random": (0.1, 0.1), "ckpt.2": (0.3, 0.7), "ckpt.9": (0.3, 0.8)}
    folder = tmp_path_factory.mktemp("runs") / "run"
    return write_run(folder, agents, steps=1200, houses=1, trials_per_house=2, inspected=True)


@pytest.mark.slow
def test_the_report_shows_attention_of_inspected_agents(inspected: Path) -> None:
    page = write_report([inspected]).read_text(encoding="utf-8")
    section = page[page.index('<section id="attention">') :]
    section = section[: section.index("</section>")]
    assert section.count("<figure>") == 4  # shares of each agent, single summaries, effective
    for text in ("Attention of ckpt.2", "Attention of ckpt.9", "Effective context", "summaries"):
        assert text in section
    assert "Attention of random" not in section
    first = load_run(inspected).evaluations[1].attention()[0]
    assert f"<td>{100 * first.steps:.1f}</td>" in section
    assert f"<td>{first.effective_context:,.1f}</td>" in section


def test_a_report_without_inspection_has_no_such_section(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", {"ckpt.2": (0.3, 0.7)}, 300, houses=1, trials_per_house=1)
    page = write_report([folder]).read_text(encoding="utf-8")
    assert 'id="attention"' not in page and "attends" not in page


def test_unfinished_trials_are_left_out_of_attention_too(inspected: Path) -> None:
    evaluation = load_run(inspected).evaluations[1]
    everything = sum(part.observed for part in evaluation.attention())
    assert everything == 2 * 1200 // 16
    records = evaluation.folder / "records.jsonl"
    before = records.read_text()
    try:
        records.write_text("".join(before.splitlines(keepends=True)[:-1]))
        cut = load_run(inspected).evaluations[1].attention()
    finally:
        records.write_text(before)
    assert sum(part.observed for part in cut) == everything // 2


def test_a_malformed_line_is_named(tmp_path: Path) -> None:
    folder = write_run(
        tmp_path / "run", {"ckpt.2": (0.3, 0.7)}, 300, 1, trials_per_house=1, inspected=True
    )
    path = folder / "eval" / "ckpt.2" / "memory.jsonl"
    path.write_text('{"trial_id": "a", "surprise": 1}\n')
    with pytest.raises(UserError, match=r"memory\.jsonl, line 1"):
        write_report([folder])
