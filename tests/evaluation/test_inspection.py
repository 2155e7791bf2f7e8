"""An inspected trial: its moments, what is said of them, and the page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from memo_habitat.config.evaluation import EvaluationPlan
from memo_habitat.errors import UserError
from memo_habitat.evaluation.inspection import (
    INSPECTION_FILE,
    Inspection,
    Inspector,
    LookedMoment,
    LookedPart,
    Loss,
    parse_moments,
    shares,
)
from memo_habitat.evaluation.play_trials import evaluate
from memo_habitat.evaluation.recorder import Recorder
from memo_habitat.evaluation.schedule import Observation
from memo_habitat.policy.replay import RecordingAgent
from memo_habitat.report.inspection import write_inspection
from memo_habitat.trainer.run_dir import RunFolder
from tests.factories.policies import small_policy
from tests.factories.vector_envs import FakeEnv, FakeVectorEnv

STEPS, ACTIONS = 62, ("stop", "move_forward", "turn_left", "turn_right")


def batch(seen: Observation) -> dict[str, Tensor]:
    """What the small policy observes; its target, always of the first row, is in view at 9, ..."""
    step = torch.as_tensor(seen["trial_step"])[None]
    detections = torch.zeros(1, 3, 6)
    detections[0, 0, 0] = float(step % 10 == 9)
    return {
        "trial_step": step,
        "gps": torch.zeros(1, 2),
        "compass": torch.zeros(1, 1),
        "detections": detections,
        "target_detection": torch.zeros(1, 7),
        "one_hot_target_sensor": torch.eye(3)[:1],
        "oracle_action": torch.as_tensor(seen["oracle_action"])[None],
    }


class Oracle(RecordingAgent):
    """Records a policy and does what leads to the target."""

    def act(self, observations: dict[str, Tensor], *starts: Tensor) -> Tensor:
        super().act(observations, *starts)
        return observations["oracle_action"][0]


def inspected(folder: Path, wanted: str, kind: str = "memo") -> Inspection:
    torch.manual_seed(0)
    agent = Oracle(small_policy(kind, encoder="detections", recall="target"))
    plan = EvaluationPlan(1, STEPS, inspect_moments=wanted)
    bar = SimpleNamespace(update=lambda n: None, set_postfix_str=lambda *a, **k: None)
    envs = FakeVectorEnv([FakeEnv([("loft", "a")], STEPS)])
    with torch.inference_mode(), Recorder(folder, plan) as recorder:
        recorder.videos = Inspector(folder, agent, ACTIONS, plan)
        evaluate(envs, [agent], plan, recorder, bar, batch)
    return Inspection.model_validate_json((folder / INSPECTION_FILE).read_text())


@pytest.mark.parametrize("kind", ["memo", "fct", "rmt"])
def test_moments_are_of_targets_seen_before_and_found_again(tmp_path: Path, kind: str) -> None:
    found = inspected(tmp_path, "asked,nearing,found,40", kind)
    assert len(found.path) == STEPS and found.starts[0] == 0
    assert {moment.kind for moment in found.moments} >= {"asked", "found", "step"}
    ends = [*found.starts[1:], STEPS]
    for moment in found.moments:
        begin, end = found.starts[moment.episode], ends[moment.episode]
        assert begin <= moment.step < end
        if moment.kind in ("asked", "found"):
            assert begin > 9 and begin % 10 != 9  # seen in an episode before, and not at once
            assert moment.step == (begin if moment.kind == "asked" else end - 1)
        if moment.kind == "nearing":
            assert (moment.step + 1) % 10 == 9
        for part in moment.parts:
            assert part.seen == any(step % 10 == 9 for step in range(part.first, part.end))
            where = np.mean(found.path[part.first : part.end], axis=0)
            assert part.place == pytest.approx(where, abs=0.02)
        total = np.array(moment.sink) + moment.own
        total += np.sum([part.attention for part in moment.parts], axis=0)
        assert total == pytest.approx(1, abs=1e-4)


def test_the_page_is_whole_and_asks_for_nothing_else(tmp_path: Path) -> None:
    found = inspected(tmp_path, "asked,found,61")
    page = write_inspection(RunFolder(tmp_path), tmp_path, tmp_path / "page.html").read_text()
    assert page.count('<svg class="map plan"') == len(found.moments)
    assert page.count('class="disc') == sum(len(moment.parts) for moment in found.moments)
    assert not re.search(r"(?:src|href)=\"(?!data:|#)|https?://|url\(|@import", page)
    assert len(page) < 3_000_000


def test_steps_and_names_that_are_none_are_refused(tmp_path: Path) -> None:
    assert parse_moments("asked, 12") == ["asked", "12"]
    with pytest.raises(UserError, match="moment 'lost': write asked, nearing, found, or a step"):
        parse_moments("asked,lost")
    with pytest.raises(UserError, match="moment 62: trials have steps 0 to 61"):
        inspected(tmp_path, "asked,62")


def loss(kl: float, place: float) -> Loss:
    return Loss(actions=[1.0], value=0.0, place=(place, 0.0), kl=kl)


def moment(kind: str, parts: list[tuple[bool, float, float]], kl: Sequence[float]) -> LookedMoment:
    """Parts by whether the target was in view, attention, and KL without them."""
    every = [
        LookedPart(
            segment=i,
            first=0,
            end=1,
            place=(0, 0),
            seen=seen,
            attention=[a, a / 2],
            lost=loss(k, 0),
        )
        for i, (seen, a, k) in enumerate(parts)
    ]
    without = [loss(value, 3.0 + i) for i, value in enumerate(kl)]
    return LookedMoment(
        kind=kind,
        step=0,
        episode=0,
        target="cup",
        goals=[(1.0, 0.0), (9.0, 0.0)],
        heading=0.0,
        sink=[0.1],
        own=[0.2],
        parts=every,
        full=loss(0, 2.0),
        without_seen=without[0],
        without_others=without[1],
        without_any=without[2],
    )


def test_shares_are_means_over_moments_with_both_sorts_of_parts() -> None:
    given = [
        moment("asked", [(True, 0.3, 2.0), (False, 0.1, 0.5)], (1, 2, 3)),
        moment("asked", [(True, 0.1, 1.0), (False, 0.1, 0.0), (False, 0.2, 2.0)], (3, 2, 5)),
        moment("asked", [(True, 0.1, 9.0)], (9, 9, 9)),  # nothing to compare with
        moment("found", [(True, 0.1, 9.0), (False, 0.1, 0.0)], (9, 9, 9)),
    ]
    found = shares("asked", given)
    assert found is not None and found.moments == 2
    assert found.parts == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert found.attention == pytest.approx([(0.75 + 0.25) / 2] * 2)
    assert found.kl == pytest.approx([2, 2, 4])
    assert found.kl_of_one == pytest.approx([1.5, 0.75])
    assert found.strongest == 0.5
    assert found.off == pytest.approx([1, 2, 3, 4])
    assert shares("nearing", given) is None


def test_a_layer_that_attends_to_no_summary_has_no_share() -> None:
    found = shares("asked", [moment("asked", [(True, 0.0, 2.0), (False, 0.0, 0.5)], (1, 2, 3))])
    assert found is not None and found.attention == [0.0, 0.0]
