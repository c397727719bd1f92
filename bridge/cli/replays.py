"""How replays are printed: for people in lines, for programs as JSON."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from bridge.cli.letters import plain
from bridge.cli.times import format_time
from bridge.plan import Mode, Plan
from bridge.replays import Reached, Replays, State

GUESSED_RATE = 50_000
"""Records a second where no rate is said, for an estimate: what one partition has on two cores."""
LEFT = ("unreadable", "gone", "resolved", "redriven", "spent", "unknown")
"""Why a run leaves a record of its plan, in the order of the report."""


def as_json(plan: Plan, state: State, reached: Mapping[int, Reached]) -> dict[str, Any]:
    """Make what a program reads of a replay."""
    counts = count(reached)
    return {
        "id": plan.id,
        "service": plan.service,
        "mode": plan.mode.value,
        "state": state.value,
        "source": plan.source,
        "target": plan.target,
        "answers": plan.answers,
        "selected": plan.selected,
        "copied": counts["copied"],
        **{why: counts[why] for why in LEFT if counts[why]},
        "per_partition": {str(p): part.selected for p, part in plan.parts.items()},
        "copied_per_partition": {str(p): each.copied for p, each in sorted(reached.items())},
        "left_out": plan.left,
        "gone_before": {str(p): part.gone for p, part in plan.parts.items() if part.gone},
        "schemas": {
            name: {"count": each.count, "readable": each.readable}
            for name, each in sorted(plan.schemas.items())
        },
        "effects": plan.effects,
        "digest": plan.digest,
        "rate": plan.rate,
        "estimated_s": estimate_s(plan),
        "bounds": {str(p): [part.start, part.end] for p, part in plan.parts.items()},
        "asked": plan.asked,
        "by": plan.by,
        "time": format_time(plan.at_ms),
    }


def count(reached: Mapping[int, Reached]) -> Counter[str]:
    """Add up what a run did with the records of its plan: `copied`, or why not."""
    counts: Counter[str] = Counter()
    for each in reached.values():
        counts["copied"] += each.copied
        counts.update(each.left)
    return counts


def estimate_s(plan: Plan) -> float:
    """Estimate how long a run takes, in seconds."""
    return round(plan.selected / (plan.rate or GUESSED_RATE), 1)


def format_plan(plan: Plan, state: State, reached: Mapping[int, Reached]) -> list[str]:
    """Write a replay in full."""
    lines = [
        f"replay      {plan.id}",
        f"state       {state.value}",
        f"does        {_doing(plan)}",
        f"planned     {format_time(plan.at_ms)}, by {plain(plan.by)}",
        *(f"asked for   {plain(name)}: {plain(str(said))}" for name, said in plan.asked.items()),
        f"selected    {plan.selected} records of {plan.source}",
    ]
    lines += [
        f"  {plan.source}/{p}  {part.selected} from {part.start} to before {part.end}"
        + (f"; {part.gone} offsets before that are gone" if part.gone else "")
        for p, part in plan.parts.items()
        if part.selected or part.gone
    ]
    lines += [f"left out    {number} {why}" for why, number in plan.left.items()]
    lines += [
        f"schema      {name}: {each.count} records"
        + ("" if each.readable else ", which today's contract cannot read")
        for name, each in sorted(plan.schemas.items())
    ]
    counts = count(reached)
    lines += [f"{why:<12}{counts[why]}" for why in ("copied", *LEFT) if counts[why]]
    lines.append(f"takes       about {estimate_s(plan):g} s" + _rate(plan))
    lines.append(f"effects     {plan.effects}")
    return [*lines, f"digest      {plan.digest}"]


def format_line(plan: Plan, state: State, reached: Mapping[int, Reached]) -> str:
    """Write a replay in one line."""
    done = count(reached)["copied"]
    return (
        f"{format_time(plan.at_ms)}  {plan.id}  {state.value:<9}  {plan.mode.value:<9}  "
        f"{done}/{plan.selected}  {plan.service}"
    )


def shown(found: Replays, plan: Plan, now_ms: int) -> tuple[State, dict[int, Reached]]:
    """Return how it is with a replay."""
    return found.find_state(plan, now_ms), found.reached.get(plan.id, {})


def _doing(plan: Plan) -> str:
    if plan.mode is Mode.COPY:
        return f"copy {plan.source} to {plan.target}"
    if plan.mode is Mode.VERIFY:
        return f"verify {plan.source}: nothing is written"
    where = "to whoever was answered then" if plan.answers else "to the replay's own topic"
    return f"{plan.mode.value} {plan.source} through {plan.target}; answers go {where}"


def _rate(plan: Plan) -> str:
    return "" if plan.rate is None else f", at {plan.rate:g} records a second"
