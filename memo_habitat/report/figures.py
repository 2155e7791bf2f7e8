"""What the sections of a report are made of: evaluations with their colours, and figures."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from memo_habitat.report.runs import Evaluation
from memo_habitat.report.summary import Headline

# Series colours of the page: 0 random, 1 oracle, from 2 on what was trained, then again from 2.
REFERENCE_COLORS = {"random": 0, "oracle": 1}
_FIRST_TRAINED, _NUM_TRAINED = 2, 8


def trained_color(number: int) -> int:
    """Number of the page's colour for the trained agent `number`, counted from 0."""
    return _FIRST_TRAINED + number % _NUM_TRAINED


@dataclass(frozen=True)
class Series:
    """An evaluation with its place in the page.

    Attributes:
        evaluation: what was evaluated.
        color: number of its colour.
        row: its headline numbers.
    """

    evaluation: Evaluation
    color: int
    row: Headline


@dataclass(frozen=True)
class Figure:
    """A picture with its title and definition.

    Attributes:
        title: what is shown.
        svg: the picture.
        text: definition of what is shown.
        columns: head of the table of its numbers.
        rows: the numbers as text; empty shows no table.
        wide: whether it takes the whole width of the page.
    """

    title: str
    svg: Markup
    text: str
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    wide: bool = False
