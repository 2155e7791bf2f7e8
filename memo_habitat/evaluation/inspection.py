"""Inspects one trial: which segments' memory was attended to at chosen moments, and needed.

A moment is a step before its action: a number, or one of `KINDS` in each episode whose target was
in view earlier in the trial, was not in view at its first step, and was found.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from memo_habitat.config.evaluation import EvaluationPlan
from memo_habitat.errors import UserError
from memo_habitat.evaluation.agents import Agent
from memo_habitat.evaluation.records import EpisodeRecord
from memo_habitat.evaluation.video import Moment
from memo_habitat.policy.detection_encoder import DETECTIONS, TARGET
from memo_habitat.policy.replay import Answer, Look, RecordingAgent
from memo_habitat.simulator.interface import TopDownMap
from memo_habitat.tasks.extobjnav.goals import turned
from memo_habitat.utils.files import atomic_write

INSPECTION_FILE = "inspection.json"
#: Moments of an episode by name: its first step, the last step at which its target has not come
#: into view, its successful stop.
ASKED, NEARING, FOUND = KINDS = ("asked", "nearing", "found")
# Episodes whose moments are shown, spread over the trial, and parts whose loss is tried at each.
_SHOWN, _ABLATED = 3, 48

Point = tuple[float, float]


class Said(BaseModel):
    """What the policy says at a step."""

    actions: list[float]  # probability of each
    value: float
    place: Point | None = None  # (x, z) where it recalls the target, m; None where it is not asked


class Loss(Said):
    """What it says without some of its memory."""

    kl: float  # nats, from the distribution of actions with all memory to this one


class LookedPart(BaseModel):
    """The summary of one segment, or its steps where those are kept."""

    segment: int
    first: int  # its first step in the trial, and the last one + 1
    end: int
    place: Point  # mean of where the agent stood, m
    seen: bool | None  # whether the target was in view in it; None where that is not observed
    attention: list[float]  # share, of each layer, mean over heads
    lost: Loss | None  # without it; None where that was not tried


class LookedMoment(BaseModel):
    """A step of the trial, before its action."""

    kind: str  # one of `KINDS`, or "step"
    step: int
    episode: int
    target: str
    goals: list[Point]
    heading: float  # rad
    sink: list[float]  # share of the attention, of each layer
    own: list[float]  # on the steps of the current segment
    parts: list[LookedPart]
    full: Said
    without_seen: Loss  # without the parts in which the target was in view
    without_others: Loss  # without the other ones
    without_any: Loss

    def off(self, said: Said) -> float | None:
        """Metres from the place recalled to the nearest target; None where either is not known."""
        if said.place is None or not self.goals:
            return None
        return min(math.dist(said.place, goal) for goal in self.goals)


class KindShares(BaseModel):
    """Means over all moments of one kind with parts in which the target was in view, and others."""

    kind: str
    moments: int
    parts: float  # how many of the parts had the target in view, as a share
    attention: list[float]  # share of the attention on parts that is on these, of each layer
    kl: list[float]  # nats, see `Loss`: without all of these, all others, any
    kl_of_one: list[float]  # without one of these, one of the others
    strongest: float  # share of the moments at which the one part missed most is one of these
    # m from the recalled place to the nearest target: with all parts, then as `kl`; empty where the
    # agent does not tell a place.
    off: list[float]


class Inspection(BaseModel):
    """One inspected trial, the content of `INSPECTION_FILE`."""

    model_config = ConfigDict(extra="forbid")

    trial_id: str
    kind: str  # of memory
    segment_length: int
    actions: list[str]
    path: list[Point]  # of every step, m
    starts: list[int]  # first step of every episode
    moments: list[LookedMoment]
    shares: list[KindShares]


class _Scene(NamedTuple):
    position: Point
    heading: float
    goals: list[Point]
    target: str


class Inspector:
    """Looks on as `Videos` does; when its trial ends it writes what it saw into the folder."""

    def __init__(
        self, folder: Path, agent: Agent, actions: Sequence[str], plan: EvaluationPlan
    ) -> None:
        """Inspect the first trial at the plan's `inspect_moments`.

        Raises:
            UserError: one of them is a step that no trial has.
        """
        if not isinstance(agent, RecordingAgent):
            raise TypeError(f"{agent.name} keeps nothing that could be inspected")
        self._folder, self._agent, self._actions = folder, agent, list(actions)
        self._wanted = parse_moments(plan.inspect_moments)
        if (last := max(self._steps(), default=0)) >= plan.steps_per_trial:
            raise UserError(
                f"moment {last}: trials have steps 0 to {plan.steps_per_trial - 1}; "
                "more with --steps"
            )
        self._trial = ""
        self._scenes: list[_Scene] = []
        self._records: list[EpisodeRecord] = []

    def choose(self, trials: Sequence[str]) -> None:
        """Inspect the first of these trials."""
        self._trial = trials[0]

    def films(self, trial: str) -> bool:
        """Whether this trial is inspected."""
        return trial == self._trial

    def add(self, trial: str, house: TopDownMap | None, moment: Moment) -> None:
        """Take in a step."""
        if moment.scene is None:
            raise UserError("this task does not tell where the agent stands: inspect ExtObjNav")
        scene = moment.scene
        goals = [(float(x), float(z)) for x, z in scene["goals"]]
        here = float(scene["position"][0]), float(scene["position"][1])
        self._scenes.append(_Scene(here, float(scene["heading"]), goals, scene["target"]))

    def end_episode(self, record: EpisodeRecord, trial_over: bool) -> None:
        """Look back at the trial when it is over."""
        if record.trial_id == self._trial:
            self._records.append(record)
            if trial_over:
                content = self._inspect().model_dump_json()
                atomic_write(self._folder / INSPECTION_FILE, content)

    def close(self) -> None:
        """A trial that was not played to its end leaves nothing."""
        self._scenes, self._records = [], []

    def _inspect(self) -> Inspection:
        config = self._agent.memory_config
        in_view = self._in_view()
        kinds = dict(self._moments(in_view))
        looked = {
            look.step: self._moment(look, kinds.get(look.step, "step"), in_view)
            for look in self._agent.looks({*kinds, *self._steps()})
        }
        shown = {*self._steps(), *self._spread(kinds)}
        return Inspection(
            trial_id=self._trial,
            kind=config.kind,
            segment_length=config.segment_length,
            actions=self._actions,
            path=[
                (round(x, 2), round(z, 2)) for x, z in (scene.position for scene in self._scenes)
            ],
            starts=[record.trial_step_start for record in self._records],
            moments=[looked[step] for step in sorted(shown)],
            shares=[s for kind in KINDS if (s := shares(kind, looked.values())) is not None],
        )

    def _steps(self) -> list[int]:
        return [int(word) for word in self._wanted if word not in KINDS]

    def _in_view(self) -> Tensor | None:
        """Bool [T, C]: which categories were detected at each step."""
        detections = self._agent.observed(DETECTIONS)
        return None if detections is None else detections[..., 0] > 0

    def _moments(self, in_view: Tensor | None) -> Iterator[tuple[int, str]]:
        """Steps and kinds of all moments that have a kind."""
        targets = self._agent.observed(TARGET)
        for record in self._records:
            first, end = record.trial_step_start, record.trial_step_end
            if in_view is None or targets is None or not record.success:
                continue
            seen = in_view[:end, int(targets[first].argmax())]
            if not seen[:first].any() or seen[first]:
                continue
            came = first + int(seen[first:].int().argmax()) if seen[first:].any() else end
            yield first, ASKED
            if first < came - 1 < end - 1:
                yield came - 1, NEARING
            yield end - 1, FOUND

    def _spread(self, kinds: Mapping[int, str]) -> list[int]:
        """Of the moments of the wanted kinds, those of a few episodes spread over the trial."""
        episodes: dict[int, list[int]] = {}
        for step, kind in kinds.items():
            if kind in self._wanted:
                episodes.setdefault(self._episode(step), []).append(step)
        own = list(episodes.values())
        # Late ones: there is more to remember.
        chosen = {math.ceil((i + 1) * len(own) / _SHOWN) - 1 for i in range(_SHOWN) if own}
        return [step for i in sorted(chosen) for step in own[i]]

    def _episode(self, step: int) -> int:
        return next(i for i, r in enumerate(self._records) if step < r.trial_step_end)

    def _moment(self, look: Look, kind: str, in_view: Tensor | None) -> LookedMoment:
        scene = self._scenes[look.step]
        targets = self._agent.observed(TARGET)
        seen = None
        if in_view is not None and targets is not None:
            seen = in_view[:, int(targets[look.step].argmax())]
        parts = [self._part(look, number, seen) for number in range(len(look.parts))]
        shown = [number for number, part in enumerate(parts) if part.seen]
        others = [number for number in range(len(parts)) if number not in shown]
        return LookedMoment(
            kind=kind,
            step=look.step,
            episode=self._episode(look.step),
            target=scene.target,
            goals=scene.goals,
            heading=scene.heading,
            sink=_rounded(look.sink),
            own=_rounded(look.own),
            parts=parts,
            full=self._said(look.answer),
            without_seen=self._lost(look, shown),
            without_others=self._lost(look, others),
            without_any=self._lost(look, range(len(parts))),
        )

    def _part(self, look: Look, number: int, seen: Tensor | None) -> LookedPart:
        segment, length = look.parts[number].segment, self._agent.memory_config.segment_length
        own = slice(segment * length, (segment + 1) * length)
        x, z = np.mean([scene.position for scene in self._scenes[own]], axis=0).tolist()
        tried = number in look.shares.mean(0).topk(min(_ABLATED, len(look.parts))).indices
        return LookedPart(
            segment=segment,
            first=own.start,
            end=own.stop,
            place=(round(x, 2), round(z, 2)),
            seen=None if seen is None else bool(seen[own].any()),
            attention=_rounded(look.shares[:, number]),
            lost=self._lost(look, [number]) if tried else None,
        )

    def _lost(self, look: Look, numbers: Sequence[int]) -> Loss:
        """What the policy says without these parts."""
        full, said = look.answer.log_probs, look.without(numbers)
        kl = float((full.exp() * (full - said.log_probs)).sum())
        return Loss(kl=max(0.0, kl), **self._said(said).model_dump())

    def _said(self, answer: Answer) -> Said:
        place = None
        if answer.place is not None:
            # From the frame of the trial's first pose to the world's.
            (x, z), heading = self._scenes[0].position, self._scenes[0].heading
            right, back = turned(*answer.place, heading)
            place = x + right, z + back
        return Said(actions=_rounded(answer.log_probs.exp()), value=answer.value, place=place)


def parse_moments(wanted: str) -> list[str]:
    """The words of "asked,240"; UserError where one is neither a kind nor a step."""
    words = [word.strip() for word in wanted.split(",")]
    for word in words:
        if word not in KINDS and not word.isdecimal():
            raise UserError(f"moment {word!r}: write {', '.join(KINDS)}, or a step's number")
    return words


def shares(kind: str, moments: Iterable[LookedMoment]) -> KindShares | None:
    """Means over the moments of this kind; None where there is none with parts of both sorts."""
    rows: dict[str, list[Any]] = {}
    for moment in moments:
        sorts = [[p for p in moment.parts if bool(p.seen) == seen] for seen in (True, False)]
        if moment.kind != kind or not all(sorts):
            continue
        on_seen, on_other = (np.sum([p.attention for p in own], axis=0) for own in sorts)
        on_both = on_seen + on_other  # 0 in a layer that attends to no summary
        of_one = [[p.lost.kl for p in own if p.lost is not None] or [0.0] for own in sorts]
        losses = [moment.without_seen, moment.without_others, moment.without_any]
        off = [moment.off(said) for said in (moment.full, *losses)]
        found = {
            "parts": len(sorts[0]) / len(moment.parts),
            "attention": on_seen / np.where(on_both > 0, on_both, 1),
            "kl": [loss.kl for loss in losses],
            "kl_of_one": [np.mean(own) for own in of_one],
            "strongest": max(of_one[0]) > max(of_one[1]),
            "off": [metres for metres in off if metres is not None],
        }
        for name, value in found.items():
            rows.setdefault(name, []).append(value)
    if not rows:
        return None
    means = {name: np.mean(values, axis=0).tolist() for name, values in rows.items()}
    return KindShares(kind=kind, moments=len(rows["kl"]), **means)


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 6) for value in values.tolist()]
