"""The page of an inspected trial: the floor plan and the memory used, moment by moment."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np

from memo_habitat.evaluation.inspection import (
    INSPECTION_FILE,
    Inspection,
    LookedMoment,
    Said,
)
from memo_habitat.report.html import write_page
from memo_habitat.report.load import read_house_map
from memo_habitat.report.maps import view_of
from memo_habitat.report.text import TEMPLATES
from memo_habitat.trainer.run_dir import RunFolder
from memo_habitat.utils.files import read_json
from memo_habitat.utils.provenance import now

# Radius of a disc of all attention, as a share of the drawing's longer side.
_WHOLE = 0.18


def write_inspection(run: RunFolder, played: Path, page: Path) -> Path:
    """Write the page on the trial that was inspected in the evaluation's folder `played`."""
    found = read_json(played / INSPECTION_FILE, Inspection.model_validate)
    house = read_house_map(played, found.trial_id.rsplit("/", 2)[0])
    goals = [goal for moment in found.moments for goal in moment.goals]
    view, ground = view_of([*found.path, *goals], house)
    last = max(1, len(found.path) // found.segment_length)
    episodes = itertools.groupby(found.moments, key=lambda moment: moment.episode)
    content = TEMPLATES.get_template("inspection.html.j2").render(
        made=now(),
        run=run.path.name,
        found=found,
        view=view,
        ground=ground,
        whole=_WHOLE * max(view[2:]),
        ways=[
            _way(found, first, first + found.segment_length)
            for first in range(0, len(found.path), found.segment_length)
        ],
        episodes=[(e, [_shown(m, found) for m in own]) for e, own in episodes],
        # From blue, the oldest, by violet to orange: neither the target's yellow nor a green.
        hue=lambda segment: f"{(215 + 170 * segment / last) % 360:.0f}",
        actions=[name.rsplit("_", 1)[-1] for name in found.actions],
    )
    return write_page(page, content)


def _way(found: Inspection, first: int, end: int) -> str:
    """The way of these steps, and to the first of them, as an SVG path: a line an episode."""
    drawn = ""
    for step in range(max(0, first - 1), min(end, len(found.path))):
        is_new = not drawn or step in found.starts
        # Turning on the spot moves nothing.
        if is_new or found.path[step] != found.path[step - 1]:
            x, z = found.path[step]
            drawn += f"{'M' if is_new else 'L'}{x:g} {z:g}"
    return drawn


def _shown(moment: LookedMoment, found: Inspection) -> dict[str, Any]:
    """What the template draws of a moment."""
    began = found.starts[moment.episode]
    answers: list[tuple[str, Said]] = [("all", moment.full)]
    if any(part.seen for part in moment.parts):
        answers += [("not seen", moment.without_seen), ("seen only", moment.without_others)]
    answers.append(("none", moment.without_any))
    return {
        "at": moment,
        "here": found.path[moment.step],
        "now": _way(found, began + 1, moment.step + 1),
        "parts": moment.parts,
        "attention": [float(np.mean(part.attention)) for part in moment.parts],
        "answers": answers,
        "off": [moment.off(said) for _, said in answers],
        "bars": _bars(moment),
    }


def _bars(moment: LookedMoment) -> list[dict[str, Any]]:
    """The charts below the plan: their titles, a height for every part, and least axes."""
    attention = [100 * float(np.mean(part.attention)) for part in moment.parts]
    lost = [part.lost for part in moment.parts]
    kl = [None if loss is None else loss.kl for loss in lost]
    change = [None if loss is None else loss.value - moment.full.value for loss in lost]
    own = 100 * float(np.mean(moment.own))
    return [
        {
            "title": f"attention on it, % (current segment: {own:.0f})",
            "heights": attention,
            "axis": (0, 5),
        },
        {"title": "change of actions without it, nats of KL", "heights": kl, "axis": (0, 0.01)},
        {"title": "change of value without it", "heights": change, "axis": (-0.05, 0.05)},
    ]
