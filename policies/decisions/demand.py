"""One field of a plan under what several members demand of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Demand:
    """One field of a plan under the demands of all members that published theirs.

    Attributes:
        field: of the plan.
        found: what the plan says.
        accepted: what all of them would accept, in words.
        by: the silos that ask for the most.
        met: whether the plan is within it.
        possible: whether any plan of this roster could be.
    """

    field: str
    found: str
    accepted: str
    by: tuple[str, ...]
    met: bool
    possible: bool = True


def ceiling(field: str, found: float, limits: Mapping[str, float]) -> Demand:
    """Return the smallest of the members' ceilings.

    Args:
        field: of the plan.
        found: what the plan says.
        limits: what each member allows at most; at least one.
    """
    lowest = min(limits.values())
    by = tuple(silo for silo, limit in limits.items() if limit == lowest)
    return Demand(field, f"{found:g}", f"at most {lowest:g}", by, found <= lowest)


def floor(field: str, found: int, limits: Mapping[str, int], most: int) -> Demand:
    """Return the largest of the members' floors.

    Args:
        field: of the plan.
        found: what the plan says.
        limits: what each member allows at least; at least one.
        most: what no plan of this roster can be above.
    """
    highest = max(limits.values())
    by = tuple(silo for silo, limit in limits.items() if limit == highest)
    return Demand(field, str(found), f"at least {highest}", by, found >= highest, highest <= most)


def words(names: Iterable[str]) -> str:
    """Return names for people, ``nothing`` where there are none."""
    return ", ".join(sorted(names)) or "nothing"
