"""The model card of an exported agent: Markdown behind the front matter that hubs read."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from omegaconf import DictConfig

from memo_habitat.export.spaces import Spaces
from memo_habitat.report.load import Evaluation
from memo_habitat.report.statistics import Estimate
from memo_habitat.report.text import amount, interval, percent, short_number
from memo_habitat.utils.data_paths import download_of
from memo_habitat.utils.hub import SOURCES

# Names of the hub for what an evaluation measures.
_METRICS = {"success": "success rate", "spl": "SPL", "targets": "targets per 1,000 steps"}


@dataclass(frozen=True)
class CardFacts:
    """What a card is made of.

    Attributes:
        name: of the agent, its folder's.
        config: the experiment.
        record: of run.json, without what it says of a machine.
        spaces: what is observed and done.
        step: environment steps that the weights have learned from.
        parameters: how many numbers they are.
        evaluations: of these weights, and of agents to compare with.
        licence: of the weights, by its name on the hub.
    """

    name: str
    config: DictConfig
    record: Mapping[str, Any]
    spaces: Spaces
    step: int
    parameters: int
    evaluations: Sequence[Evaluation]
    licence: str


def model_card(facts: CardFacts) -> str:
    """The text of README.md."""
    parts = [
        f"---\n{yaml.safe_dump(_front_matter(facts), sort_keys=False, width=1000)}---",
        f"# {facts.name}",
        _introduction(facts),
        "## Results",
        _results(facts.evaluations),
        "## Use",
        _use(facts),
        "## How it was made",
        _provenance(facts),
        "## Licence",
        _licence(facts),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(facts: CardFacts) -> dict[str, Any]:
    task = facts.config.habitat.task.type
    front: dict[str, Any] = {
        "license": facts.licence,
        "library_name": "memo-habitat",
        "pipeline_tag": "reinforcement-learning",
        "tags": ["reinforcement-learning", "embodied-ai", "habitat", task, _memory(facts).kind],
    }
    results = [
        _index_entry(evaluation, facts, metrics)
        for evaluation in facts.evaluations
        if evaluation.agent == "checkpoint" and (metrics := [*_index_metrics(evaluation)])
    ]
    if results:
        front["model-index"] = [{"name": facts.name, "results": results}]
    return front


def _index_entry(
    evaluation: Evaluation, facts: CardFacts, metrics: list[dict[str, Any]]
) -> dict[str, Any]:
    data = _data(facts.config)
    return {
        "task": {"type": "reinforcement-learning", "name": facts.config.habitat.task.type},
        "dataset": {"type": data, "name": data, "split": evaluation.meta.split},
        "metrics": metrics,
    }


def _index_metrics(evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    over = evaluation.episodes.resampled
    for name, found in _estimates(evaluation).items():
        if math.isfinite(found.mean):
            metric: dict[str, Any] = {
                "type": name,
                "name": f"{_METRICS[name]} ({evaluation.label})",
                "value": round(found.mean, 4),
            }
            if math.isfinite(found.low):
                ends = [round(found.low, 4), round(found.high, 4)]
                metric["args"] = {"interval": ends, "confidence": 0.95, over: found.groups}
            yield metric


def _estimates(evaluation: Evaluation) -> dict[str, Estimate]:
    headline = evaluation.headline
    known = {name: headline.estimates[name] for name in _METRICS if name in headline.estimates}
    return {**known, "targets": headline.targets}


def _introduction(facts: CardFacts) -> str:
    memory, config = _memory(facts), facts.config
    observed = ", ".join(
        f"`{name}` {list(sensor.shape)}" for name, sensor in facts.spaces.observations.items()
    )
    rows = {
        "experiment": f"`{facts.record.get('config')}`, task `{config.habitat.task.type}`, "
        f"simulator `{config.habitat.simulator.type}`",
        "data": f"`{_data(config)}`, trained on the split `{config.habitat.dataset.split}`",
        "trials": f"of {config.habitat.task.trial_steps:,} steps in training",
        "memory": _memory_text(memory),
        "weights": f"{short_number(facts.parameters)} parameters after "
        f"{facts.step:,} environment steps",
        "observes": observed,
        "actions": ", ".join(f"`{name}`" for name in facts.spaces.actions),
    }
    table = "\n".join(f"| {name} | {text} |" for name, text in rows.items())
    return (
        "An embodied agent with a memory over episodes, trained by memo-habitat, a plugin of"
        f" Habitat-Lab.\n\n| | |\n|---|---|\n{table}"
    )


def _memory_text(memory: DictConfig) -> str:
    text = f"`{memory.kind}`, {memory.layers} layers of width {memory.width}"
    if memory.get("token_budget"):
        text += f", the newest {memory.token_budget} tokens"
    return text


def _results(evaluations: Sequence[Evaluation]) -> str:
    if not evaluations:
        return "None of these weights yet: `memo-habitat eval DIR` makes them."
    rows = [
        "| agent | split | trials | success % | SPL % | targets per 1,000 steps |",
        "|---|---|---|---|---|---|",
    ]
    for evaluation in evaluations:
        found = _estimates(evaluation)
        rates = (
            f"{percent(e.mean)} {interval(e, percents=True)}" if e is not None else "–"
            for e in (found.get("success"), found.get("spl"))
        )
        targets = f"{amount(found['targets'].mean)} {interval(found['targets'])}"
        trials = f"{len(evaluation.trials)} of {evaluation.steps:,} steps"
        cells = (evaluation.label, evaluation.meta.split, trials, *rates, targets)
        rows.append(f"| {' | '.join(map(str, cells))} |")
    over = sorted({evaluation.episodes.resampled for evaluation in evaluations})
    rows.append("")
    rows.append(
        f"[ ] 95 % interval, resampled over {' or '.join(over)}. `random`, `perfect_memory` and"
        " `oracle` are no weights: the first draws actions, the others know what the simulator"
        " knows."
    )
    return "\n".join(rows)


def _use(facts: CardFacts) -> str:
    name = facts.record.get("config")
    return f"""```python
import memo_habitat as mh

agent, env = mh.load_agent("DIR"), mh.make_env("{name}")
observations = env.reset()
agent.reset()  # at every episode's start
while not env.episode_over:
    observations = env.step(agent.act(observations))
```

`DIR` is this folder. `memo-habitat eval DIR` evaluates it, and `memo-habitat report DIR` then shows
how it did."""


def _provenance(facts: CardFacts) -> str:
    record = facts.record
    versions = record.get("versions") or {}
    commands = [record.get("command") or ()]
    commands += [resume["command"] for resume in record.get("resumed") or ()]
    lines = ["```", *(shlex.join(command) for command in commands if command), "```", ""]
    lines.append(
        f"Seed {record.get('seed')}, {record.get('workers')} training process(es), revision"
        f" {record.get('git_revision')}, "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + "."
    )
    return "\n".join(lines)


def _licence(facts: CardFacts) -> str:
    text = f"The weights: {facts.licence}."
    path = str(facts.config.habitat.dataset.data_path)
    if download := download_of(path):
        text += f" The data they were trained on has its own ({SOURCES[download].licence})."
    return text


def _memory(facts: CardFacts) -> DictConfig:
    return facts.config.habitat_baselines.rl.memory


def _data(config: DictConfig) -> str:
    """The data set's folder or file, without the split."""
    path = str(config.habitat.dataset.data_path)
    return path.partition("/episodes/")[0].partition("/{split}")[0] or path
