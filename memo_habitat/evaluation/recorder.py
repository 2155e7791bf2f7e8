"""What an evaluation keeps beside its records: frames, maps, context, rewards and attention."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from memo_habitat.evaluation.attention import AttentionLog
from memo_habitat.evaluation.records import EpisodeRecord
from memo_habitat.evaluation.schedule import EvaluationPlan, TrialKey
from memo_habitat.report.rewards import RewardLog
from memo_habitat.utils.files import append_json_line

FRAMES_FOLDER = "frames"
FRAMES_INDEX = "index.jsonl"
MAPS_FOLDER = "maps"
TRACE_FILE = "trace.jsonl"
# Points of the context curve of one trial: enough to see every segment's saw tooth in a plot.
TRACE_POINTS = 600


def file_name(text: str) -> str:
    """`text` with everything replaced that a file name may not hold."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)


def resident_bytes() -> int | None:
    """Memory of this process in bytes; None where the system does not tell."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    found = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
    return int(found.group(1)) * 1024 if found else None


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
            if len(self._kept) == self._size - 1:
                self._kept = self._kept[::2]
                self._spacing *= 2
            if self._count % self._spacing == 0:
                self._kept.append((step, frame.copy()))
        self._latest = (step, frame)
        self._count += 1

    def frames(self) -> list[tuple[int, np.ndarray]]:
        """(step, frame) in order; the last one is the frame that the last action was chosen on."""
        if self._latest is None:
            return []
        if self._kept and self._kept[-1][0] == self._latest[0]:
            return list(self._kept)
        return [*self._kept, self._latest]


class Observer:
    """Writes frames, maps and traces of an evaluation's first trials into its folder."""

    def __init__(self, folder: Path, plan: EvaluationPlan) -> None:
        """Write into `folder`, as much as `plan` asks for."""
        self._folder = folder
        self._plan = plan
        self._filmed: frozenset[str] = frozenset()
        self._strips: dict[int, FilmStrip] = {}
        self._spacing = max(1, plan.steps_per_trial // TRACE_POINTS)
        self.attention_log = AttentionLog(folder, plan.steps_per_trial, plan.inspect_every)
        self.reward_log = RewardLog(folder, plan.steps_per_trial)

    def choose(self, planned: Sequence[TrialKey]) -> None:
        """Watch the first trials of `planned`, the first of every house before any second one."""
        seen: dict[str, int] = {}
        order = []
        for position, trial in enumerate(planned):
            seen[trial.house] = seen.get(trial.house, -1) + 1
            order.append((seen[trial.house], position, trial.id))
        self._filmed = frozenset(name for _, _, name in sorted(order)[: self._plan.filmed_trials])

    def needs_map(self, house: str) -> bool:
        """Whether the map of `house` is wanted and not yet there."""
        return self._plan.map_resolution > 0 and not self._map_path(house).exists()

    def save_map(self, house: str, answer: Mapping[str, Any]) -> None:
        """Write a top-down map as `top_down_map` gives it."""
        path = self._map_path(house)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(
            path,
            free=np.asarray(answer["free"], dtype=bool),
            origin=np.asarray(answer["origin"], dtype=np.float64),
            resolution=np.float64(answer["resolution"]),
        )

    def see(self, index: int, trial: str, episode: int, step: int, frame: Any) -> None:
        """Keep a frame of environment `index` if its present episode is one to film.

        Args:
            index: the environment.
            trial: name of its trial.
            episode: number of its episode in the trial.
            step: step of the trial.
            frame: the camera's observation; None or another form than [H, W, 3] keeps nothing.
        """
        if trial not in self._filmed or episode >= self._plan.filmed_episodes:
            return
        image = None if frame is None else np.asarray(frame)
        if image is not None and image.dtype == np.uint8 and image.ndim == 3:
            strip = self._strips.setdefault(index, FilmStrip(self._plan.frames_per_episode))
            strip.add(step, image)

    def end_episode(self, index: int, record: EpisodeRecord) -> None:
        """Write the frames kept of the episode that `record` describes."""
        strip = self._strips.pop(index, None)
        if strip is None:
            return
        folder = self._folder / FRAMES_FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        stem = file_name(f"{record.trial_id}-{record.episode_index:04d}")
        names = []
        for step, frame in strip.frames():
            names.append(f"{stem}-{step:06d}.png")
            Image.fromarray(frame[..., :3]).save(folder / names[-1])
        line = {
            "trial_id": record.trial_id,
            "episode_index": record.episode_index,
            "target_category": record.target_category,
            "success": record.success,
            "num_steps": record.num_steps,
            "files": names,
        }
        append_json_line(folder / FRAMES_INDEX, line)

    def wants_trace(self, trial: str, step: int) -> bool:
        """Whether the context at this step of the trial belongs on its curve."""
        return trial in self._filmed and step % self._spacing == 0

    def trace(self, trial: str, step: int, tokens: int, kv_bytes: int, full: int) -> None:
        """Add a point to the curve of context along the trial."""
        line = {
            "trial_id": trial,
            "trial_step": step,
            "context_tokens": tokens,
            "kv_bytes": kv_bytes,
            "full_context_kv_bytes": full,
            "process_bytes": resident_bytes(),
        }
        append_json_line(self._folder / TRACE_FILE, line)

    def end_trial(self, trial: str) -> None:
        """Write rewards along `trial`, and where the memory attended if that was looked at."""
        self.reward_log.end_trial(trial)
        if self._plan.inspect_memory:
            self.attention_log.end_trial(trial)

    def _map_path(self, house: str) -> Path:
        return self._folder / MAPS_FOLDER / f"{file_name(house)}.npz"
