"""A forecast as people read it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

from policies.plans.summary import byte_size, counted
from silo.forecasts.tables import duration, framed
from silo.forecasts.vertical_text import describe_vertical

_NAMES_WIDTH = 20
_BAR_LENGTH = 24


def describe(found: Mapping[str, Any]) -> list[object]:
    """Return what is to be printed, in order: a table for each question, then warnings and the verdict.

    Args:
        found: what :func:`silo.forecasts.forecast.forecast_plan` returned.
    """
    if "description" in found:
        return [*describe_vertical(found), *_verdict(found["verdict"]), *_members(found["members"])]
    tables = [
        _table("What it costs a person", _cost(found)),
        *([_on_the_way(found)] if len(found["milestones"]) > 1 else []),
        _table("What is summed", _sums(found)),
        _table("What it takes this silo", _effort(found)),
        _table("What comes of it", _outcome(found)),
    ]
    return [
        *tables,
        *(f"warning: {text}" for text in found["warnings"]),
        *_verdict(found["verdict"]),
        *_members(found["members"]),
    ]


def _table(title: str, rows: Iterator[tuple[str, str]]) -> Table:
    table = framed(title, show_header=False)
    table.add_column(no_wrap=True, min_width=_NAMES_WIDTH)
    table.add_column()
    for name, value in rows:
        table.add_row(name, value)
    return table


def _cost(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield (
        "epsilon",
        f"{found['epsilon']:.4f} of {found['target_epsilon']:g} at delta {found['target_delta']:g} "
        f"({found['filter']}; {found['epsilon_pld']:.4f} by a second accountant)",
    )
    most = found["max_silos_per_user"]
    where = "who is in one silo of the roster" if most == 1 else f"who is in up to {most} silos of the roster"
    relation = found["neighboring_relation"].replace("_", " ")
    yield "protects", f"one {found['unit']}'s whole history ({relation}), {where}"
    yield "holds while", f"at most {counted(found['colluding_silos'], 'silo')} may help the coordinator"
    yield "noise multiplier", f"{found['noise_multiplier']:.4f}, {_placement(found)}"


def _placement(found: Mapping[str, Any]) -> str:
    if found["noise_placement"] == "federation":
        return "shares of one noise, hidden in the sum (federation)"
    return "each silo's own noise suffices (silo)"


def _on_the_way(found: Mapping[str, Any]) -> Table:
    table = framed("Epsilon on the way", show_header=True)
    table.add_column("training done", no_wrap=True, min_width=_NAMES_WIDTH)
    table.add_column("rounds", justify="right")
    table.add_column("epsilon", justify="right")
    table.add_column("")
    for step in found["milestones"]:
        share = step["epsilon"] / found["target_epsilon"]
        table.add_row(
            f"{step['part']:.0%}" if step["rounds"] else "popularity",
            f"{step['rounds']}",
            f"{step['epsilon']:.3f}",
            "▪" * round(_BAR_LENGTH * share),
        )
    rest = [name for name, is_there in _later(found) if is_there]
    if rest:
        table.add_row(f"with {' and '.join(rest)}", "", f"{found['epsilon']:.3f}", "▪" * _BAR_LENGTH)
    return table


def _later(found: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    purposes = {item["purpose"] for item in found["releases"]}
    yield "metrics", "metrics" in purposes
    yield "every failure", found["max_burned_rounds"] > 0


def _sums(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    burned = found["max_burned_rounds"]
    yield "secure sums", f"{found['sums']}; {f'up to {burned} more' if burned else 'none'} may fail"
    yield (
        "each of the training" if len(found["releases"]) > 1 else "each",
        f"{found['values_per_round']:,} values, {found['bits']} bits each, {found['values_per_slot']} a slot",
    )
    if found["fewest_contributors"] < len(found["silos"]):
        fewest = found["fewest_contributors"]
        yield "absent silos", f"rounds go on with {fewest} of {len(found['silos'])}"
    if found["rounding_cost"]:
        yield "rounding", f"{100 * found['rounding_cost']:.2f} % more noise; above 5 % a plan is refused"
    else:
        yield "rounding", f"longest histories lose {100 * found['weight_lost_at_cap']:.1f} % of their weight"


def _effort(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    traffic, rounds = found["traffic"], found["rounds"]
    ratio = f"{traffic['ratio_to_float32']:.2f} x float32"
    yield "sends", _bytes(traffic["upload_bytes"], rounds) + f", {ratio}"
    yield "fetches", _bytes(traffic["download_bytes"], rounds)
    taken = found["time"]
    if taken is None:
        return
    if taken["minutes"] is None:
        yield "computes", f"not measured: {taken['why']}"
        return
    yield (
        "computes",
        f"about {duration(taken['minutes'])} ({taken['round_seconds']:.2f} s a round), tried with made-up "
        f"people: {taken['people']:,} in a step, {taken['interactions']} interactions each",
    )


def _bytes(num_bytes: int, rounds: int) -> str:
    in_all = byte_size(num_bytes)
    return in_all if rounds == 1 else f"{byte_size(num_bytes / rounds)} a round, {in_all} in all"


def _outcome(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield (
        "people",
        f"fewer than about {found['people_needed']:,} over all silos drown in this noise; "
        f"the plan counts on {found['people_planned']:,} at most",
    )
    if found["rounds_affordable"] is not None:
        yield (
            "this silo's account",
            f"pays for {counted(found['rounds_affordable'], 'training round')} at this noise, "
            f"the plan has {found['training_rounds']}",
        )
    other = found["for_epsilon"]
    if other is not None:
        yield f"epsilon {other['epsilon']:g}", f"takes noise multiplier {other['noise_multiplier']:.4f}"
    other = found["rounds_for_epsilon"]
    if other is not None:
        yield (
            f"epsilon {other['epsilon']:g}",
            f"pays for {counted(other['rounds'], 'training round')} at this noise",
        )


def _verdict(verdict: Mapping[str, Any]) -> Iterator[str]:
    if verdict["accepted"]:
        yield f"{verdict['silo']} would accept it."
        return
    yield f"{verdict['silo']} would refuse it:"
    for reason in verdict["reasons"]:
        yield f"  {reason['field']}: {reason['found']} (allowed: {reason['allowed']}); {reason['remedy']}"


def _members(members: Mapping[str, Any] | None) -> Iterator[object]:
    """The other members, by what they published."""
    if members is None:
        return
    for silo in members["published"]:
        reasons = members["refusals"].get(silo)
        yield f"{silo} would {'refuse it' if reasons else 'accept it, if its account can pay'}" + (
            ":" if reasons else "."
        )
        for reason in reasons or ():
            yield f"  {reason['field']}: {reason['found']} (allowed: {reason['allowed']})"
    if members["silent"]:
        yield f"Unknown, nothing published here: {', '.join(members['silent'])}."
    if members["meet"]:
        table = framed("What all of these would accept", show_header=True)
        for name in ("field", "this plan", "all accept", "asked by"):
            table.add_column(name, overflow="fold")
        for demand in members["meet"]:
            mark = (
                "" if demand["met"] else "  <-" if demand["possible"] else "  <- no plan of this roster can"
            )
            table.add_row(
                demand["field"], demand["found"], demand["accepted"] + mark, ", ".join(demand["by"])
            )
        yield table
