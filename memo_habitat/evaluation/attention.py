"""What an inspected evaluation writes down of its agent's attention: means by part of the trial."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from memo_habitat.errors import UserError
from memo_habitat.evaluation.records import keep_trials
from memo_habitat.memory.attention_probe import AttentionStats
from memo_habitat.policy.network import ContextUse

MEMORY_FILE = "memory.jsonl"
_STRETCHES = 64  # equal parts of a trial at most, each a line of the file
# Names of a stretch's means over the steps that were looked at.
_MEANS = ("sink", "summaries", "steps", "effective_context")
_USES = ("context_tokens", "kv_bytes", "full_context_kv_bytes")


@dataclass
class Stretch:
    """Means over the steps looked at in one part of a trial, or of several.

    Attributes:
        trial_id: the trial; empty for several.
        trial_step_start: steps of the trial taken before this part.
        trial_step_end: steps taken at its end.
        observed: steps that were looked at.
        sink: share of the attention on the sink.
        summaries: share on all summaries together.
        steps: share on raw steps.
        effective_context: tokens, see `memory.attention_probe.AttentionStats`.
        context_tokens: tokens in use.
        kv_bytes: bytes of their keys and values.
        full_context_kv_bytes: bytes of those of every step so far.
        by_age: share on the newest summary, the one before, ...; over the steps that had it.
        observed_by_age: how many steps that were.
    """

    trial_id: str
    trial_step_start: int
    trial_step_end: int
    observed: int = 0
    sink: float = 0.0
    summaries: float = 0.0
    steps: float = 0.0
    effective_context: float = 0.0
    context_tokens: float = 0.0
    kv_bytes: float = 0.0
    full_context_kv_bytes: float = 0.0
    by_age: list[float] = field(default_factory=list)
    observed_by_age: list[int] = field(default_factory=list)

    def merge(self, other: Stretch) -> None:
        """Take in the steps of `other`."""
        total = self.observed + other.observed
        for name in (*_MEANS, *_USES):
            both = self.observed * getattr(self, name) + other.observed * getattr(other, name)
            setattr(self, name, both / max(1, total))
        self.observed = total
        for age, (share, count) in enumerate(zip(other.by_age, other.observed_by_age, strict=True)):
            if age == len(self.by_age):
                self.by_age.append(0.0)
                self.observed_by_age.append(0)
            had = self.observed_by_age[age]
            self.by_age[age] = (had * self.by_age[age] + count * share) / max(1, had + count)
            self.observed_by_age[age] = had + count


class AttentionLog:
    """Collects the readings of running trials and appends a trial's lines when it ends.

    A trial that is not played to its end leaves nothing, as it leaves no records.
    """

    def __init__(self, folder: Path, steps_per_trial: int, every: int) -> None:
        """Write into `folder`; one step in `every` is looked at."""
        self._path = folder / MEMORY_FILE
        self._steps = steps_per_trial
        self._count = min(_STRETCHES, max(1, steps_per_trial // every))
        self._open: dict[str, dict[int, Stretch]] = {}

    def add(
        self, trial: str, step: int, reading: AttentionStats, use: ContextUse, index: int
    ) -> None:
        """Take in environment `index`, which took step `step` (from 1) of `trial`."""
        number = (step - 1) * self._count // self._steps
        start, end = (-(-n * self._steps // self._count) for n in (number, number + 1))
        own = self._open.setdefault(trial, {})
        stretch = own.setdefault(number, Stretch(trial, start, end))
        held = int(reading.held[index])
        by_age = reading.summaries[index, :held].tolist()
        stretch.merge(
            Stretch(
                trial,
                step - 1,
                step,
                1,
                float(reading.sink[index]),
                sum(by_age),
                float(reading.steps[index]),
                float(reading.effective_context[index]),
                float(use.tokens[index]),
                float(use.kv_bytes[index]),
                float(use.full_context_kv_bytes[index]),
                by_age,
                [1] * held,
            )
        )

    def end_trial(self, trial: str) -> None:
        """Write what was collected of `trial`."""
        own = self._open.pop(trial, {})
        lines = [json.dumps(_rounded(asdict(own[number]))) + "\n" for number in sorted(own)]
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write("".join(lines))
        except OSError as error:
            raise UserError(
                f"cannot write {self._path} ({error.strerror or error}); make its folder writable"
            ) from error


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {
        key: np.round(value, 6).tolist() if isinstance(value, float | list) else value
        for key, value in values.items()
    }


def parse_stretches(path: Path, lines: Iterable[dict[str, Any]]) -> list[Stretch]:
    """Stretches as `AttentionLog` wrote them into `path`."""
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            found.append(Stretch(**line))
        except TypeError as error:
            raise UserError(
                f"{path}, line {number}: no stretch of a trial ({error}); delete the file, or "
                "evaluate again into a folder of another name"
            ) from error
    return found


def over_trials(stretches: Iterable[Stretch]) -> list[Stretch]:
    """The same parts of all trials taken together, in order."""
    merged: dict[int, Stretch] = {}
    for stretch in stretches:
        start, end = stretch.trial_step_start, stretch.trial_step_end
        merged.setdefault(start, Stretch("", start, end)).merge(stretch)
    return [merged[start] for start in sorted(merged)]


def continue_inspection(folder: Path, complete: Collection[str]) -> None:
    """Keep what is known of the trials that are complete, drop what others left.

    Raises:
        UserError: some of the complete trials were played without being inspected.
    """
    missing = set(complete) - keep_trials(folder / MEMORY_FILE, complete)
    if missing:
        raise UserError(
            f"{folder} holds {len(missing)} trials that were played without being inspected, such "
            f"as {min(missing)}; choose another name (--name, or habitat_baselines.evaluator.name)"
        )
