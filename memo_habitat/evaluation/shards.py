"""The shards of an evaluation, and the one evaluation that is made of them.

<evaluation>/shards/3-of-16/ is a folder like that of an evaluation, of a part of the trials.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from memo_habitat.config.evaluation import Shard
from memo_habitat.errors import UserError
from memo_habitat.evaluation.recorder import LINES_OF_TRIALS
from memo_habitat.evaluation.records import (
    LOCK_FILE,
    META_FILE,
    RECORDS_FILE,
    EvaluationMeta,
    complete_trials,
    iterate_records,
    sort_by_trial,
)
from memo_habitat.trainer.run_dir import RunFolder
from memo_habitat.utils.lock import hold

# What shards of one evaluation have in common, beside what every evaluation keeps to.
_PLANNED = ("trials_per_house", "houses", "inspect_every")
_MERGING = 600.0  # how long to wait for another process that merges (s)


def missing_shards(folder: Path) -> list[Shard]:
    """The shards of the evaluation in `folder` that are not there, or not finished.

    Raises:
        UserError: there are none, or those of divisions into different numbers.
    """
    metas = _read_some(folder)
    total = next(iter(metas)).total
    every = [Shard(number, total) for number in range(1, total + 1)]
    return [shard for shard in every if shard not in metas or metas[shard].finished is None]


def check_mergeable(folder: Path, meta: EvaluationMeta, planned: Sequence[str]) -> None:
    """Refuse to play a shard of the evaluation in `folder` that could not be merged.

    Args:
        folder: of the evaluation, with what other shards there are.
        meta: of the shard.
        planned: names of the trials of all shards, in their order.

    Raises:
        UserError: names what contradicts it.
    """
    own = Shard.parse(meta.shard)
    metas = _read(folder)
    _check_same_trials(folder, metas, meta, planned)
    metas[own] = meta
    _check_alike(folder, metas)
    _check_nothing_dropped(folder, meta, planned)
    meta.check_continues(folder)


def merge_if_last(folder: Path) -> bool:
    """Merge the shards in `folder` if all are finished and no other process has merged them.

    Shards that end together come here together: the second waits for the first.

    Returns:
        whether this call has merged them.
    """
    with hold(folder / LOCK_FILE, _MERGING, any_rank=True):
        return not missing_shards(folder) and merge_shards(folder)


def merge_shards(folder: Path, *, again: bool = False) -> bool:
    """Write into `folder` what one evaluation would have written, from the shards in it.

    Records come in the order of the plan. Merging `again` writes the same; else nothing is done
    where these shards have been merged.

    Returns:
        whether it has written anything.

    Raises:
        UserError: a shard is missing, is not finished, or contradicts another one; names it.
    """
    metas = _read_some(folder)
    if missing := missing_shards(folder):
        names = ", ".join(map(str, missing))
        raise UserError(
            f"{folder} lacks {len(missing)} of {len(metas) + sum(s not in metas for s in missing)} "
            f"shards: {names} not there or not finished; evaluate with --shard {missing[0]}, which "
            "goes on where it was interrupted"
        )
    shards = sorted(metas)
    first = metas[shards[0]]
    _check_alike(folder, metas)
    places = _places(folder, shards, first)
    _check_nothing_dropped(folder, first, places)
    merged = first.model_copy(
        update={
            "shard": "",
            "environments": None,
            "measures": {name: f for meta in metas.values() for name, f in meta.measures.items()},
            "started": min(meta.started for meta in metas.values()),
            "finished": max(str(meta.finished) for meta in metas.values()),
            "seconds": round(sum(meta.seconds or 0.0 for meta in metas.values()), 1),
        }
    )
    merged.check_continues(folder)
    if not again and (folder / RECORDS_FILE).exists() and EvaluationMeta.read(folder) == merged:
        return False
    for shard in shards:
        for pictures in (path for path in (folder / shard.folder).iterdir() if path.is_dir()):
            shutil.copytree(pictures, folder / pictures.name, dirs_exist_ok=True)
    for name in LINES_OF_TRIALS:
        sort_by_trial([folder / shard.folder / name for shard in shards], folder / name, places)
    merged.write(folder)
    return True


def merge_run(run: RunFolder, name: str | None = None) -> list[Path]:
    """Merge the shards of the evaluation `name` of `run`, or of all that have any.

    Returns the folders of these evaluations; UserError as in `merge_shards`.
    """
    found = sorted(path.parent for path in run.path.glob("eval/*/shards"))
    folders = found if name is None else [run.eval_dir(name)]
    if not folders:
        raise UserError(f"no evaluation of {run.path} has shards; evaluate with --shard 1/2 first")
    for folder in folders:
        _read_some(folder)  # before a lock would make a folder that is not there
        with hold(folder / LOCK_FILE, _MERGING):
            merge_shards(folder, again=True)
    return folders


def _read(folder: Path) -> dict[Shard, EvaluationMeta]:
    """What the shards in `folder` say about themselves."""
    found = [EvaluationMeta.read(path.parent) for path in folder.glob(f"shards/*/{META_FILE}")]
    return {Shard.parse(meta.shard): meta for meta in found}


def _read_some(folder: Path) -> dict[Shard, EvaluationMeta]:
    metas = _read(folder)
    if not metas:
        raise UserError(
            f"{folder} holds no shards; evaluate with --shard 1/2 and --shard 2/2, for example"
        )
    _check_counts(folder, metas)
    return metas


def _check_counts(folder: Path, metas: Collection[Shard]) -> None:
    counts = sorted({shard.total for shard in metas})
    if len(counts) > 1:
        raise UserError(
            f"{folder / 'shards'} holds shards of {' and of '.join(map(str, counts))}: remove "
            "those that do not belong to it"
        )


def _check_same_trials(
    folder: Path,
    metas: Mapping[Shard, EvaluationMeta],
    meta: EvaluationMeta,
    planned: Sequence[str],
) -> None:
    """Refuse where the shards that are there have divided other trials.

    Trials are dealt out in turns over all houses, so more of them in a house change which shard
    each belongs to: what was played would stay in the wrong one, and could not be merged.
    """
    remedy = (
        f"remove {folder / 'shards'} to play all trials again, or choose another name (--name, or "
        "habitat_baselines.evaluator.name)"
    )
    for shard, there in sorted(metas.items()):
        if there.trials_per_house != meta.trials_per_house:
            raise UserError(
                f"shard {shard} of {folder} was begun with trials_per_house="
                f"{there.trials_per_house}, now {meta.trials_per_house}, which divides the trials "
                f"otherwise: {remedy}"
            )
    own = Shard.parse(meta.shard)
    path = folder / own.folder / RECORDS_FILE
    played = complete_trials(path, meta.steps_per_trial or 0)
    if others := played.difference(own.of(planned)):
        raise UserError(
            f"{path} holds {len(others)} trials that are not in shard {own} now, such as "
            f"{min(others)}: {remedy}"
        )


def _check_alike(folder: Path, metas: Mapping[Shard, EvaluationMeta]) -> None:
    """Refuse shards of several evaluations."""
    _check_counts(folder, metas)
    first, *others = sorted(metas)
    for shard in others:
        for name, (had, has) in metas[first].differences(metas[shard], *_PLANNED).items():
            raise UserError(
                f"shards {first} and {shard} of {folder} contradict each other: {name} is "
                f"{had!r} and {has!r}; remove the wrong one and evaluate it again"
            )


def _check_nothing_dropped(folder: Path, meta: EvaluationMeta, planned: Collection[str]) -> None:
    """Refuse where the evaluation holds trials already that are in no shard."""
    there = complete_trials(folder / RECORDS_FILE, meta.steps_per_trial or 0)
    if others := there.difference(planned):
        raise UserError(
            f"{folder} holds {len(others)} trials that are in no shard, such as {min(others)}, and "
            f"merging would drop them; remove {folder / 'shards'}, or {folder / RECORDS_FILE}"
        )


def _places(folder: Path, shards: list[Shard], meta: EvaluationMeta) -> dict[str, int]:
    """Place of every trial in the plan, of which shards took theirs in turns."""
    planned = range((meta.trials_per_house or 0) * len(meta.houses))
    places: dict[str, int] = {}
    for shard in shards:
        path = folder / shard.folder / RECORDS_FILE
        trials = list(dict.fromkeys(record.trial_id for record in iterate_records(path)))
        due = shard.of(planned)
        if len(trials) != len(due):
            raise UserError(
                f"{path} holds {len(trials)} trials, and {len(due)} were planned for it; remove "
                "that folder and evaluate the shard again"
            )
        for trial in trials:
            if trial in places:
                other = shards[places[trial] % shard.total]
                raise UserError(
                    f"trial {trial} is in the shards {other} and {shard} of {folder}; remove the "
                    "wrong one and evaluate it again"
                )
        places.update(zip(trials, due, strict=True))
    return places
