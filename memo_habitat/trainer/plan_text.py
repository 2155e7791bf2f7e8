"""A plan as people read it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from memo_habitat.trainer.plan import USABLE, Minibatch, Plan, gigabytes


def table(name: str, plan: Plan) -> str:
    """All figures of a plan, and its warnings in lines of their own at the end."""
    return "\n".join(
        (*_heading(name, plan), *_holdings(plan), *_minibatches(plan), *_updates(plan), *_end(plan))
    )


def measured_text(plan: Plan, measured: dict[str, Any]) -> str:
    """What was measured beside what was planned."""
    planned = plan.configured.peak_bytes
    lines = [
        f"measured here ({measured['device']}), {measured['environments']} environments at once, "
        f"the update in {measured['seconds']:.1f} s",
        _compared("update", planned, measured["update_bytes"]),
        _compared("caches made anew", plan.refresh_bytes, measured["refresh_bytes"]),
    ]
    if measured["resident_bytes"] is not None:
        highest = max(planned, plan.refresh_bytes)
        lines.append(_compared("whole process", highest, measured["resident_bytes"]))
    return "\n".join(lines)


def _compared(name: str, planned: int, measured: int) -> str:
    return (
        f"  {name:<26}{gigabytes(measured):>10}  planned {gigabytes(planned)}, "
        f"{100 * (planned / measured - 1):+.1f} %"
    )


def _heading(name: str, plan: Plan) -> Iterator[str]:
    workers = f"{plan.workers} workers" if plan.workers > 1 else "1 worker"
    yield (
        f"{name}: {workers}, each with {plan.environments} environments in trials of "
        f"{plan.trial_steps} steps"
    )


def _holdings(plan: Plan) -> Iterator[str]:
    share = plan.cache_bytes / max(plan.full_context_cache_bytes, 1)
    rows = (
        ("parameters", f"{plan.parameters:,}", ""),
        ("  weights", gigabytes(plan.parameter_bytes), ""),
        ("  gradients", gigabytes(plan.gradient_bytes), ""),
        ("  optimiser", gigabytes(plan.optimiser_bytes), ""),
        ("rollout", gigabytes(plan.rollout_bytes), "one trial of every environment"),
        (
            "cache, acting",
            gigabytes(plan.cache_bytes),
            "allocated at a trial's end, by 256 tokens at a time; full context: "
            f"{gigabytes(plan.full_context_cache_bytes)} (1/{1 / max(share, 1e-9):.1f})",
        ),
        ("peak, caches made anew", gigabytes(plan.refresh_bytes), "after every update"),
    )
    for what, amount, note in rows:
        yield f"  {what:<26}{amount:>10}  {note}".rstrip()


def _minibatches(plan: Plan) -> Iterator[str]:
    yield "peak of the full update"
    yield f"  {'environments at once':<22}{'num_mini_batch':>14}{'bytes':>12}"
    rows = sorted({m.environments: m for m in (*plan.minibatches, plan.configured)}.items())
    for _, row in rows:
        yield f"  {row.environments:<22}{row.num_mini_batch:>14}{gigabytes(row.peak_bytes):>12}" + (
            _remark(plan, row)
        )


def _remark(plan: Plan, row: Minibatch) -> str:
    is_own = "  this config" if row.environments == plan.configured.environments else ""
    return ("" if row.peak_bytes <= plan.usable_bytes else "  too much") + is_own


def _updates(plan: Plan) -> Iterator[str]:
    epochs = f"in each of {plan.epochs} epochs"
    yield f"update{'':<18}{'steps in losses':>16}{'tokens pushed':>16}  {epochs}"
    for update in plan.updates:
        yield f"  {update.name:<22}{update.steps_in_losses:>16,}{update.tokens:>16,}"


def _end(plan: Plan) -> Iterator[str]:
    room = (
        f"{gigabytes(plan.usable_bytes)} ({100 * USABLE:.0f} % of {gigabytes(plan.memory_bytes)})"
    )
    if plan.largest_minibatch is None:
        yield f"fits in {room}: not even one environment per minibatch"
    else:
        yield (
            f"fits in {room}: at most {plan.largest_minibatch} environments at once, "
            f"habitat_baselines.rl.ppo.num_mini_batch={plan.smallest_num_mini_batch}"
        )
    for warning in plan.warnings:
        yield f"warning: {warning}"
