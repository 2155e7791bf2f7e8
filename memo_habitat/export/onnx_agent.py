"""Acts with the ONNX graphs of an exported agent; needs NumPy and onnxruntime, nothing else.

A copy of this file lies beside the graphs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

NUMBERS_FILE = "onnx.json"
TRIAL_STEP = "trial_step"  # the sensor that is 0 where a trial begins


class OnnxAgent:
    """Of one environment: `reset` at an episode's start, then `act` or `step` at every step."""

    def __init__(self, folder: str | Path, seed: int | None = None, **options: Any) -> None:
        """Load the graphs in `folder`.

        Args:
            folder: written by `memo-habitat export --onnx`.
            seed: of sampled actions; None: the likeliest action is taken.
            options: of `onnxruntime.InferenceSession`, such as providers.
        """
        folder = Path(folder)
        self.numbers: dict[str, Any] = json.loads((folder / NUMBERS_FILE).read_text())
        self._graphs = {
            path.stem: onnxruntime.InferenceSession(path, **options)
            for path in sorted(folder.glob("*.onnx"))
        }
        self._random = None if seed is None else np.random.default_rng(seed)
        self._cache = np.zeros(self.numbers["cache"], np.float32)
        self._length = self._steps = self._previous = 0
        # What would have to be encoded again: [M, D] each, summaries, or steps that may be dropped.
        self._kept: list[np.ndarray] = []
        self.reset()

    def reset(self) -> None:
        """Say that the next observation is an episode's first."""
        self._episode_start = True

    def act(self, observations: Mapping[str, Any]) -> int:
        """Index of the action to take; observations by name, as the environment gives them."""
        logits, _ = self.step(observations)
        if self._random is not None:  # the largest of logits with Gumbel noise is a sample
            logits = logits + self._random.gumbel(size=logits.shape)
        self._previous = int(logits.argmax())
        return self._previous

    def step(self, observations: Mapping[str, Any]) -> tuple[np.ndarray, float]:
        """Action logits and value; whoever chooses the action itself tells `took` which."""
        if int(np.asarray(observations[TRIAL_STEP]).item()) == 0:
            self._length = self._steps = self._previous = 0  # what the cache holds is masked
            self._kept = []
        if self.numbers["within_episode"] and self._episode_start:
            self._length = 0
        self._make_room()
        observed = {
            name: np.asarray(observations[name], sensor["dtype"]).reshape(1, *sensor["shape"])
            for name, sensor in self.numbers["observations"].items()
        }
        logits, value, self._cache, token = self._run(
            "step",
            cache=self._cache,
            length=np.array(self._length),
            previous_action=np.array([self._previous]),
            episode_start=np.array([self._episode_start]),
            **observed,
        )
        self._length, self._steps, self._episode_start = self._length + 1, self._steps + 1, False
        if self.numbers["summary_length"]:
            self._close_segment()
        elif self.numbers["encoded_tokens"]:
            self._kept.append(token)
        return logits[0], float(value[0])

    def took(self, action: int) -> None:
        """Say which action followed the latest `step`."""
        self._previous = action

    def _close_segment(self) -> None:
        """At a segment's end its steps leave the cache, and its summary comes in their place."""
        if self._steps % self.numbers["segment_length"]:
            return
        (summary,) = self._run("summarise", cache=self._cache, length=np.array(self._length))
        self._kept = [*self._kept, summary] if self.numbers["accumulates"] else [summary]
        most = self.numbers["encoded_tokens"] // self.numbers["summary_length"]
        if len(self._kept) > most and self.numbers["most_steps"] is not None:
            raise self._too_long()
        self._encode(self._kept[-most:])

    def _make_room(self) -> None:
        """Where every slot is in use the oldest steps go; without a token budget: an error."""
        if self._length < self.numbers["slots"]:
            return
        if not self._kept or self.numbers["summary_length"]:
            raise self._too_long()
        self._encode(self._kept[self.numbers["segment_length"] :])

    def _too_long(self) -> RuntimeError:
        return RuntimeError(
            f"the trial has more steps than the graphs were made for "
            f"({self.numbers['most_steps']}): export with a larger --onnx-steps"
        )

    def _encode(self, kept: list[np.ndarray]) -> None:
        """Let the cache hold these tokens and no others."""
        self._kept = kept
        tokens = np.concatenate(kept)
        self._length = len(tokens)
        missing = self.numbers["encoded_tokens"] - self._length
        (self._cache,) = self._run("encode", tokens=np.pad(tokens, ((0, missing), (0, 0))))

    def _run(self, graph: str, **inputs: Any) -> list[np.ndarray]:
        session = self._graphs[graph]
        read = {each.name for each in session.get_inputs()}  # some observations are not
        given = {name: value for name, value in inputs.items() if name in read}
        found: list[np.ndarray] = session.run(None, given)
        return found
