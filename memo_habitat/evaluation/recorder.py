"""Writes what an evaluation keeps: records, rewards, frames, maps, context and attention."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from pydantic import BaseModel, NonNegativeInt, PositiveInt

from memo_habitat.config.evaluation import EvaluationPlan
from memo_habitat.errors import UserError
from memo_habitat.evaluation.attention import ATTENTION_FILE, AttentionLog
from memo_habitat.evaluation.records import (
    RECORDS_FILE,
    EpisodeRecord,
    complete_trials,
    keep_trials,
    sort_by_trial,
)
from memo_habitat.evaluation.schedule import TrialKey
from memo_habitat.memory.attention_probe import AttentionStats
from memo_habitat.policy.network import ContextUse
from memo_habitat.simulator.interface import TopDownMap
from memo_habitat.utils.files import append_json_line, atomic_path, file_name

if TYPE_CHECKING:
    from memo_habitat.evaluation.inspection import Inspector
    from memo_habitat.evaluation.video import Videos

FRAMES_FOLDER = "frames"
FRAMES_INDEX = "index.jsonl"
MAPS_FOLDER = "maps"
TRACE_FILE = "trace.jsonl"
REWARDS_FILE = "returns.jsonl"
# Those that have lines about trials.
LINES_OF_TRIALS = (
    *(RECORDS_FILE, REWARDS_FILE, ATTENTION_FILE, TRACE_FILE),
    f"{FRAMES_FOLDER}/{FRAMES_INDEX}",
)
# Points of the context curve of one trial: enough to see every segment's saw tooth in a plot.
TRACE_POINTS = 600
# Sums of rewards along a trial at most: as many points as a curve across half a page can show.
_REWARD_BINS = 100


class FilmedEpisode(BaseModel):
    """An episode with frames: PNG files of the same folder, in order."""

    trial_id: str
    episode_index: NonNegativeInt
    target_category: str
    success: float
    num_steps: int
    files: list[str]


class TracePoint(BaseModel):
    """Context in use after a step of a trial, in tokens and bytes, and the process's memory."""

    trial_id: str
    trial_step: int
    context_tokens: int
    kv_bytes: int
    full_context_kv_bytes: int
    process_bytes: int | None = None


class RewardLine(BaseModel):
    """Rewards of a trial, summed over `bin_steps` steps each; the last sum may be of fewer."""

    trial_id: str
    bin_steps: PositiveInt
    rewards: list[float]


def context_at(use: ContextUse) -> dict[str, int]:
    """Tokens and bytes in use of one agent in one environment, by their names in records."""
    used = {"context_tokens": use.tokens, "kv_bytes": use.kv_bytes}
    used["full_context_kv_bytes"] = use.full_context_kv_bytes
    return {name: int(values) for name, values in used.items()}


class Recorder:
    """Writes one evaluation into its folder as it is played.

    What an earlier, interrupted evaluation left is kept where its trial is complete and dropped
    where it is not, because memory and draws of a trial cannot be taken up in its middle.

    Attributes:
        complete: names of the trials that are there already.
        videos: where videos are wanted, what writes them; or what inspects a trial.
    """

    videos: Videos | Inspector | None = None

    def __init__(self, folder: Path, plan: EvaluationPlan) -> None:
        """Open the folder, making it.

        Raises:
            UserError: it holds a malformed record, complete trials that were played without being
                inspected where that is asked for, or cannot be written.
        """
        self._folder, self._plan = folder, plan
        self.complete = complete_trials(folder / RECORDS_FILE, plan.steps_per_trial)
        if plan.inspect_memory:
            missing = self.complete - keep_trials(folder / ATTENTION_FILE, self.complete)
            if missing:
                raise UserError(
                    f"{folder} holds {len(missing)} trials that were played without being "
                    f"inspected, such as {min(missing)}; choose another name (--name, or "
                    "habitat_baselines.evaluator.name)"
                )
        for name in LINES_OF_TRIALS:
            keep_trials(folder / name, self.complete)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._records = (folder / RECORDS_FILE).open("a", encoding="utf-8")
        except OSError as error:
            raise UserError(
                f"cannot write into {folder} ({error.strerror or error}); give another output "
                "folder or make this one writable"
            ) from error
        self._filmed: frozenset[str] = frozenset()
        self._strips: dict[int, FilmStrip] = {}
        self._spacing = max(1, plan.steps_per_trial // TRACE_POINTS)
        self._attention = AttentionLog(folder, plan.steps_per_trial, plan.inspect_every)
        self._reward_bin = -(-plan.steps_per_trial // _REWARD_BINS)
        self._rewards: dict[str, list[float]] = {}

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *error: object) -> None:
        self._records.close()
        if self.videos is not None:
            self.videos.close()

    def choose_filmed(self, planned: Sequence[TrialKey]) -> None:
        """Film the first trials of `planned`, the first of every house before any second one."""
        seen = Counter[str]()
        order = []
        for position, trial in enumerate(planned):
            order.append((seen[trial.house], position, trial.id))
            seen[trial.house] += 1
        names = [name for _, _, name in sorted(order)]
        self._filmed = frozenset(names[: self._plan.filmed_trials])
        if self.videos is not None:
            self.videos.choose(names)
            if missed := [
                name for name in names if name in self.complete and self.videos.films(name)
            ]:
                logging.getLogger(__name__).warning(
                    "%d of the trials to look at were played before and are not looked at, such as "
                    "%s: evaluate under another name (--name) to film or inspect them",
                    *(len(missed), missed[0]),
                )

    def needs_map(self, house: str) -> bool:
        """Whether the map of `house` is wanted and not yet there."""
        return self._plan.map_resolution > 0 and not self._map_path(house).exists()

    def save_map(self, house: str, found: TopDownMap) -> None:
        """Write the map of `house` from above."""
        with atomic_path(self._map_path(house)) as path, path.open("wb") as file:
            np.savez_compressed(
                file, free=found.free, origin=found.origin, resolution=found.resolution
            )

    def films(self, trial: str, episode: int) -> bool:
        """Whether frames of this episode of the trial are kept."""
        return trial in self._filmed and episode < self._plan.filmed_episodes

    def see(self, index: int, trial: str, episode: int, step: int, frame: Any) -> None:
        """Keep what the camera of environment `index` shows, if its episode is one to film.

        A `frame` that is None or has another form than uint8 [H, W, 3] is no picture: not kept.
        """
        if not self.films(trial, episode):
            return
        image = np.asarray(frame)
        if image.dtype == np.uint8 and image.ndim == 3:
            strip = self._strips.setdefault(index, FilmStrip(self._plan.frames_per_episode))
            strip.add(step, image)

    def remember(
        self, trial: str, step: int, use: ContextUse | None, stats: AttentionStats | None
    ) -> None:
        """Keep what the agent had in context at `step` (from 1) of a trial, if due.

        None: it has no memory (`use`), or this step was not looked at (`stats`).
        """
        if use is None:
            return
        context = context_at(use)
        if trial in self._filmed and step % self._spacing == 0:
            memory = _resident_bytes()
            point = TracePoint(trial_id=trial, trial_step=step, process_bytes=memory, **context)
            append_json_line(self._folder / TRACE_FILE, point.model_dump())
        if stats is not None:
            self._attention.add(trial, step, stats, context)

    def reward(self, trial: str, step: int, reward: float) -> None:
        """Take in the reward of step `step` (from 1) of `trial`."""
        bins = -(-self._plan.steps_per_trial // self._reward_bin)
        sums = self._rewards.setdefault(trial, [0.0] * bins)
        sums[min((step - 1) // self._reward_bin, bins - 1)] += reward

    def end_episode(self, index: int, record: EpisodeRecord, trial_over: bool) -> None:
        """Write the episode that environment `index` has ended, and its trial if that is over."""
        # The record is last: a trial whose records are complete is never played again.
        if trial_over:
            sums = [round(value, 6) for value in self._rewards.pop(record.trial_id, [])]
            line = RewardLine(trial_id=record.trial_id, bin_steps=self._reward_bin, rewards=sums)
            append_json_line(self._folder / REWARDS_FILE, line.model_dump())
            self._attention.end_trial(record.trial_id)
        if strip := self._strips.pop(index, None):
            self._save_frames(strip, record)
        if self.videos is not None:
            self.videos.end_episode(record, trial_over)
        # Flushed, so that a kill loses no finished episode.
        self._records.write(record.model_dump_json() + "\n")
        self._records.flush()

    def put_in_order(self, trials: Sequence[str]) -> None:
        """Sort all lines by trial, as in `trials`, whatever the order in which they were played."""
        self._records.flush()
        places = {trial: place for place, trial in enumerate(trials)}
        for name in LINES_OF_TRIALS:
            sort_by_trial([self._folder / name], self._folder / name, places)

    def _save_frames(self, strip: FilmStrip, record: EpisodeRecord) -> None:
        folder = self._folder / FRAMES_FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        stem = file_name(f"{record.trial_id}-{record.episode_index:04d}")
        frames = {f"{stem}-{step:06d}.png": frame for step, frame in strip.frames()}
        for name, frame in frames.items():
            Image.fromarray(frame[..., :3]).save(folder / name)
        shared = record.model_dump(include=set(FilmedEpisode.model_fields))
        line = FilmedEpisode(**shared, files=[*frames])
        append_json_line(folder / FRAMES_INDEX, line.model_dump())

    def _map_path(self, house: str) -> Path:
        return self._folder / MAPS_FOLDER / f"{file_name(house)}.npz"


class FilmStrip:
    """At most `size` frames spread evenly over an episode of unknown length.

    When the strip is full every other frame is dropped and the spacing doubled, so its memory
    is bounded whatever the length. The latest frame is always the strip's last.
    """

    def __init__(self, size: int) -> None:
        self._size = max(2, size)
        self._kept: list[tuple[int, np.ndarray]] = []
        self._spacing = 1
        self._count = 0
        self._latest: tuple[int, np.ndarray] | None = None

    def add(self, step: int, frame: np.ndarray) -> None:
        """Offer one frame, uint8 [H, W, 3]."""
        if self._count % self._spacing == 0:
            self._kept.append((step, frame.copy()))
            if len(self._kept) == self._size:  # one place is the latest frame's
                self._kept = self._kept[::2]
                self._spacing *= 2
        self._latest = (step, frame)
        self._count += 1

    def frames(self) -> list[tuple[int, np.ndarray]]:
        """(step, frame) in order; the last one is the frame that the last action was chosen on."""
        if self._latest is None:
            return []
        if self._kept and self._kept[-1][0] == self._latest[0]:
            return self._kept
        return [*self._kept, self._latest]


def _resident_bytes() -> int | None:
    """Memory of this process in bytes; None where the system does not tell."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return None
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
