"""What each silo of a vertical plan reveals to whom, and which epsilon bounds it. Pure.

An epsilon bounds what the receiver may learn about any one person of the revealing silo. Some of what an
alignment shows is not noised at all: then there is no epsilon, and what is shown is said instead. Who pools
what with whom is another question: the coordinator with one silo learns which of *that* silo's people are
elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from policies.plans.plan import Plan
from policies.plans.price import plan_epsilon
from policies.plans.vertical.terms import AlignmentTerms
from policies.plans.words import listed
from privacy.errors import UsageError

COORDINATOR = "the coordinator"

Bound = Literal["noise", "key", "none"]


@dataclass(frozen=True)
class Disclosure:
    """Something that one party learns of one silo's people.

    Attributes:
        silo: whose people.
        to: the silo, or the coordinator, that learns it.
        what: in words.
        bound: ``noise``: an epsilon bounds it; ``key``: it is encrypted under the revealing silo's own key;
            ``none``: it is shown as it is.
        epsilon: at the plan's delta, by the plan's filter; of the noised number of people alone as it is,
            without delta; None where no noise bounds it.
    """

    silo: str
    to: str
    what: str
    bound: Bound
    epsilon: float | None = None


def disclosures(plan: Plan) -> tuple[Disclosure, ...]:
    """Return everything that the parties of a vertical plan learn of each silo's people, silo by silo.

    Raises:
        UsageError: the plan is not vertical.
    """
    terms = plan.alignment
    if terms is None:
        raise UsageError("only vertical plans have roles", where="partition", remedy="propose a vertical one")
    return tuple(one for silo in plan.silos for one in _of_silo(plan, terms, silo))


def epsilon_towards(plan: Plan) -> dict[str, dict[str, float]]:
    """Return for each silo and each other one: the epsilon of all that is noised on the way to it.

    What is not noised stands in :func:`disclosures` only.
    """
    found: dict[str, dict[str, float]] = {}
    for one in disclosures(plan):
        if one.epsilon is not None:
            towards = found.setdefault(one.silo, {})
            towards[one.to] = max(towards.get(one.to, 0.0), one.epsilon)
    return found


def _of_silo(plan: Plan, terms: AlignmentTerms, silo: str) -> Iterator[Disclosure]:
    yield Disclosure(silo, COORDINATOR, "how many of its people the other lists have, and no id", "none")
    for other in plan.silos:
        if other == silo:
            continue
        if silo != plan.leader and other == plan.leader:
            yield Disclosure(
                silo,
                other,
                f"{_what_is_noised(plan)}, and whether people in common are about "
                f"{terms.min_intersection:,}, all with noise",
                "noise",
                plan_epsilon(plan, silo=silo),
            )
        else:
            what = f"whether about {terms.min_intersection:,} people are in common, with noise"
            yield Disclosure(silo, other, what, "noise", terms.epsilon)
        if terms.reveal == "both":
            yield Disclosure(silo, other, "which people all silos have in common", "none")
        if silo == plan.leader and plan.model.family == "cross-moments":
            yield Disclosure(silo, other, "its rows, encrypted under its own key", "key")


def _what_is_noised(plan: Plan) -> str:
    dimensions = getattr(plan.model, "dimensions", None)
    if plan.model.family == "private-encoder":
        return f"{dimensions} numbers of each person"
    return f"sums over the people in common, of {dimensions} numbers each"


def describe_disclosures(plan: Plan) -> list[str]:
    """Return the same for people, those that show the same to the same together."""
    receivers: dict[tuple[str, str], list[str]] = {}
    for one in disclosures(plan):
        bound = {
            "noise": "" if one.epsilon is None else f" (epsilon {one.epsilon:.4g})",
            "key": "",
            "none": " (not noised)",
        }[one.bound]
        receivers.setdefault((one.silo, f"{one.what}{bound}"), []).append(one.to)
    silos: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (silo, what), to in receivers.items():
        silos.setdefault((what, tuple(to)), []).append(silo)
    return [
        f"{listed(who)} {'shows' if len(who) == 1 else 'show'} {listed(to)} {what}"
        for (what, to), who in silos.items()
    ]
