"""What an inspected evaluation writes down of its agent's attention: means by part of the trial."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from memo_habitat.memory.attention_probe import AttentionStats
from memo_habitat.utils.files import append_json_line

ATTENTION_FILE = "memory.jsonl"
_BINS = 64  # equal parts of a trial at most, each a line of the file
# Of a bin, means over the steps that were looked at.
_MEANS = (
    *("sink", "summaries", "steps", "effective_context"),
    *("context_tokens", "kv_bytes", "full_context_kv_bytes"),
)


class TrialBin(BaseModel):
    """Means over the steps looked at in one part of a trial, or of several trials."""

    model_config = ConfigDict(extra="forbid")

    trial_id: str  # the trial; empty for several
    trial_step_start: int  # steps of the trial taken before this part
    trial_step_end: int  # steps taken at its end
    observed: int = 0  # steps that were looked at
    sink: float = 0.0  # share of the attention on the sink
    summaries: float = 0.0  # share on all summaries together
    steps: float = 0.0  # share on raw steps
    effective_context: float = 0.0  # tokens, see `memory.attention_probe.AttentionStats`
    context_tokens: float = 0.0  # tokens in use
    kv_bytes: float = 0.0  # bytes of their keys and values
    full_context_kv_bytes: float = 0.0  # bytes of those of every step so far
    # Share on the newest summary, the one before, ...; over the steps that had it.
    by_age: list[float] = []
    observed_by_age: list[int] = []  # how many steps that were

    def merge(self, other: TrialBin) -> None:
        """Take in the steps of `other`."""
        total = self.observed + other.observed
        for name in _MEANS:
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
    """Collects what running trials attended to and appends a trial's lines when it ends.

    A trial that is not played to its end leaves nothing, as it leaves no records.
    """

    def __init__(self, folder: Path, steps_per_trial: int, every: int) -> None:
        """Write into `folder`; one step in `every` is looked at."""
        self._path = folder / ATTENTION_FILE
        self._steps = steps_per_trial
        self._count = min(_BINS, max(1, steps_per_trial // every))
        self._open: dict[str, dict[int, TrialBin]] = {}

    def add(self, trial: str, step: int, stats: AttentionStats, context: dict[str, int]) -> None:
        """Take in step `step` (from 1) of `trial`.

        `stats` are those of its one environment; `context` its tokens and bytes in use, by their
        names in records.
        """
        number = (step - 1) * self._count // self._steps
        start, end = (-(-n * self._steps // self._count) for n in (number, number + 1))
        by_age = stats.summaries[0, : int(stats.held[0])].tolist()
        part = TrialBin(
            trial_id=trial,
            trial_step_start=start,
            trial_step_end=end,
            observed=1,
            sink=float(stats.sink[0]),
            summaries=sum(by_age),
            steps=float(stats.steps[0]),
            effective_context=float(stats.effective_context[0]),
            by_age=by_age,
            observed_by_age=[1] * len(by_age),
            **context,
        )
        own = self._open.setdefault(trial, {})
        if number in own:
            own[number].merge(part)
        else:
            own[number] = part

    def end_trial(self, trial: str) -> None:
        """Write what was collected of `trial`."""
        for _, part in sorted(self._open.pop(trial, {}).items()):
            values = part.model_dump()
            rounded = {k: np.round(values[k], 6).tolist() for k in (*_MEANS, "by_age")}
            append_json_line(self._path, {**values, **rounded})


def over_trials(bins: Iterable[TrialBin]) -> list[TrialBin]:
    """The same parts of all trials taken together, in order."""
    merged: dict[int, TrialBin] = {}
    for part in bins:
        start, end = part.trial_step_start, part.trial_step_end
        empty = TrialBin(trial_id="", trial_step_start=start, trial_step_end=end)
        merged.setdefault(start, empty).merge(part)
    return [merged[start] for start in sorted(merged)]
