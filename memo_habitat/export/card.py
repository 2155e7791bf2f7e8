"""The model card of an exported agent: Markdown behind the front matter that hubs read.

Its text is the template `templates/card.md.j2`.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from omegaconf import DictConfig

from memo_habitat.export.agent import Spaces
from memo_habitat.report.load import Evaluation
from memo_habitat.report.statistics import Estimate
from memo_habitat.report.text import amount, interval, percent, short_number
from memo_habitat.utils.data_paths import download_of
from memo_habitat.utils.hub import SOURCES

# Names of the hub for what an evaluation measures.
_METRICS = {"success": "success rate", "spl": "SPL", "targets": "targets per 1,000 steps"}
_TEMPLATES = Environment(  # of Markdown, in which nothing is escaped
    loader=PackageLoader("memo_habitat.export", "templates"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters.update(percent=percent, amount=amount, interval=interval, number=short_number)


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
    habitat = facts.config.habitat
    commands = [facts.record.get("command") or ()]
    commands += [resume["command"] for resume in facts.record.get("resumed") or ()]
    download = download_of(str(habitat.dataset.data_path))
    card: str = _TEMPLATES.get_template("card.md.j2").render(
        facts=facts,
        front=yaml.safe_dump(_front_matter(facts), sort_keys=False, width=1000),
        habitat=habitat,
        memory=facts.config.habitat_baselines.rl.memory,
        data=_data(facts.config),
        results=[(evaluation, _estimates(evaluation)) for evaluation in facts.evaluations],
        resampled=sorted({evaluation.episodes.resampled for evaluation in facts.evaluations}),
        commands=[shlex.join(command) for command in commands],
        data_licence=SOURCES[download].licence if download else None,
    )
    return f"{card}\n"


def _front_matter(facts: CardFacts) -> dict[str, Any]:
    task, data = facts.config.habitat.task.type, _data(facts.config)
    memory = facts.config.habitat_baselines.rl.memory.kind
    front: dict[str, Any] = {
        "license": facts.licence,
        "library_name": "memo-habitat",
        "pipeline_tag": "reinforcement-learning",
        "tags": ["reinforcement-learning", "embodied-ai", "habitat", task, memory],
    }
    results = [
        {
            "task": {"type": "reinforcement-learning", "name": task},
            "dataset": {"type": data, "name": data, "split": evaluation.meta.split},
            "metrics": metrics,
        }
        for evaluation in facts.evaluations
        if evaluation.agent == "checkpoint" and (metrics := [*_index_metrics(evaluation)])
    ]
    if results:
        front["model-index"] = [{"name": facts.name, "results": results}]
    return front


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


def _data(config: DictConfig) -> str:
    """The data set's folder or file, without the split."""
    path = str(config.habitat.dataset.data_path)
    return path.partition("/episodes/")[0].partition("/{split}")[0] or path
