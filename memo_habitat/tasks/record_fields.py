"""What an episode's record holds: how a measure declares its name, kind and unit in records.

A measure that is registered with Habitat declares it on its class:

    @registry.register_measure
    class Detour(Measure):
        cls_uuid = "detour"
        record = RecordField(kind="length", unit="m", better="lower", text="Metres beyond ...")

`record = None` keeps a measure out of records; a measure that is a mapping declares a mapping, its
entries one by one. One that declares nothing is recorded under its own
name as what its values look like. Evaluator, TensorBoard, statistics and report read nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

# The measure that describes the episode itself (trial, target, path, ...), by its uuid. A mapping;
# its entries are fields of `evaluation.records.EpisodeRecord`.
EPISODE_MEASURE = "episode_record"

# rate: from 0 to 1, such as a success; its mean is a share of episodes.
# length, count, quantity: a number, in a unit, of things, or of unknown meaning.
# failure: true where an episode failed for this cause; of all causes one at most holds.
# return: is summed over all episodes of a trial, that which the trial's end cuts off included.
# condition: true or false, nothing the agent did; other measures are told apart by it.
Kind = Literal["rate", "length", "count", "quantity", "return", "condition", "failure"]
Value = bool | float | None


@dataclass(frozen=True)
class RecordField:
    """How one measure of an episode is recorded and reported.

    Attributes:
        kind: what its values are and how they are summarised.
        name: its name in records; empty: the measure's uuid.
        unit: such as "m" or "steps"; empty for rates.
        better: which values are better; empty where neither is.
        title: heading in tables; empty: the name.
        text: its definition in one sentence, for the report.
    """

    kind: Kind
    name: str = ""
    unit: str = ""
    better: Literal["higher", "lower", ""] = ""
    title: str = ""
    text: str = ""

    def called(self, uuid: str) -> RecordField:
        """The same with a name and a title, made from `uuid` where they are empty."""
        name = self.name or uuid
        title = self.title or name.replace("_", " ").capitalize()
        return replace(self, name=name, title=title)


# Names that several tasks share, so that their records and reports can be compared.
SUCCESS = RecordField("rate", "success", better="higher", title="Success rate")
SPL = RecordField("rate", "spl", better="higher", title="SPL")
SOFT_SPL = RecordField("rate", "soft_spl", better="higher", title="Soft SPL")
DISTANCE_TO_GOAL = RecordField("length", "distance_to_goal", "m", "lower", "Distance left")
NUM_STEPS = RecordField(
    "count", "num_steps", "steps", "lower", "Steps", "Steps of the episode, the last one included."
)
# Of every record: the way covered is not measured beside it.
PATH_LENGTH = RecordField("length", "path_length", "m", "", "Path", "Length of the way covered.")
COLLISIONS = RecordField(
    "count", "collisions", "steps", "lower", "Collisions", "Steps that ran into something."
)
# Of every task: the evaluator itself sums what the environment gives.
REWARD = RecordField(
    "return",
    "reward",
    better="higher",
    title="Return per trial",
    text="Sum of the rewards of a whole trial, not discounted, all its episodes included.",
)

Declaration = dict[str, RecordField | None]
_UNDECLARED: Any = object()
_SHARED = {
    field.name: field
    for field in (
        *(SUCCESS, SPL, SOFT_SPL, DISTANCE_TO_GOAL, NUM_STEPS),
        *(COLLISIONS, REWARD, PATH_LENGTH),
    )
}


def declared_fields(measures: Mapping[str, object]) -> Declaration:
    """What measures declare on their classes, by uuid; those that declare nothing are left out.

    Args:
        measures: uuid -> measure, as in `EmbodiedTask.measurements.measures`.
    """
    declared: dict[str, RecordField | None] = {}
    for uuid, measure in measures.items():
        record = getattr(measure, "record", _UNDECLARED)
        if isinstance(record, Mapping):
            declared |= {f"{uuid}.{key}": field for key, field in record.items()}
        elif record is not _UNDECLARED:
            declared[uuid] = record
    return {uuid: None if field is None else field.called(uuid) for uuid, field in declared.items()}


def inferred_field(name: str, value: Value = None) -> RecordField:
    """The declaration of a measure that has none, from its name or one of its values."""
    if name in _SHARED:
        return _SHARED[name]
    kind: Kind = "quantity"
    if isinstance(value, bool):
        kind = "rate"
    elif isinstance(value, int):
        kind = "count"
    return RecordField(kind).called(name)


def recorded_values(
    info: Mapping[str, Any], declared: Declaration
) -> dict[str, tuple[RecordField, Value]]:
    """The scalars among an episode's measures that belong in its record, by their name there.

    Mappings are taken apart as Habitat does: their entries are called "<uuid>.<key>".

    Raises:
        ValueError: a rate outside 0 to 1, an infinite number, or two measures of one name.
    """
    found: dict[str, tuple[RecordField, Value]] = {}
    for uuid, value in _flat(info).items():
        if uuid in declared and declared[uuid] is None:
            continue
        field = declared.get(uuid) or inferred_field(uuid, value)
        if field.name in found:
            raise ValueError(f"two measures are recorded as '{field.name}'")
        found[field.name] = field, _checked(field, value)
    return found


def _flat(info: Mapping[str, Any]) -> dict[str, Value]:
    """Scalars of `info` and of mappings in it as Python's own; anything else is left out."""
    flat: dict[str, Value] = {}
    for uuid, value in info.items():
        if isinstance(value, np.generic | np.ndarray) and value.size == 1:
            value = value.item()
        if isinstance(value, Mapping) and uuid != EPISODE_MEASURE:
            flat |= {f"{uuid}.{key}": item for key, item in _flat(value).items()}
        elif value is None or isinstance(value, bool | int | float):
            flat[uuid] = value
    return flat


def _checked(field: RecordField, value: Value) -> Value:
    if value is None or math.isnan(value):
        return None  # not defined for this episode: written as null, left out of means
    if field.kind == "condition":
        return bool(value)
    if math.isinf(value):
        raise ValueError(f"measure '{field.name}' is {value}; a finite number is needed")
    if field.kind in ("rate", "failure"):
        # Within rounding: SPL is a quotient of lengths.
        if not -1e-6 <= value <= 1 + 1e-6:
            raise ValueError(f"measure '{field.name}' is {value}; a rate is from 0 to 1")
        return min(1.0, max(0.0, float(value)))
    return int(value) if field.kind == "count" and value == int(value) else float(value)
