"""What a policy says about finding people in common, in plain words, with the limits of the method. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from policies.plans.models import VERTICAL_FAMILIES

if TYPE_CHECKING:
    from policies.alignment_policy import Alignment
    from policies.silo_policy import SiloPolicy

LIMITS: Final = (
    "The coordinator learns how many people any of the lists have in common, but no id.",
    "The coordinator and one silo together learn which of that silo's people are elsewhere. If this silo's "
    "agent and the coordinator were in one hand, so would this silo's.",
    "A malicious silo can put anybody's id into its own list, whether or not that person is its customer.",
)
"""What no policy changes about an alignment."""


def alignment_sentences(policy: SiloPolicy) -> Iterator[str]:
    """Yield what ``policy`` permits of finding people in common, and what that does not hide."""
    limits = policy.alignment
    if limits is None:
        yield "No: plans that find which people several silos have in common are denied."
        return
    yield _who_and_how_often(limits)
    yield f"This silo's list is always filled up to {limits.capacity:,}, so nobody learns how long it is."
    yield "Of more people than surely fit, some are left out at random; only this silo is told."
    yield f"With fewer than about {limits.min_intersection:,} in common a job ends, and nobody learns more."
    yield from _shown(limits)
    if limits.identifiers is not None:
        yield f"Ids are compared as: {limits.identifiers}."
    yield (
        "Before any silo learns slots, somebody here approves each run (archipel align approve)."
        if limits.approval == "ask"
        else "Nobody is asked again once this policy has accepted the plan."
    )
    yield from LIMITS


def takes_horizontal(policy: SiloPolicy) -> bool:
    """Whether a policy accepts a family of models that is not of vertical plans."""
    families = policy.accepts.families
    return families is None or bool(set(families) - VERTICAL_FAMILIES)


def vertical_leaves(policy: SiloPolicy) -> Iterator[str]:
    """Yield what leaves a silo in the vertical plans that its policy accepts; nothing where it takes none."""
    limits, families = policy.alignment, policy.accepts.families
    accepted = VERTICAL_FAMILIES if families is None else VERTICAL_FAMILIES & set(families)
    if limits is None or limits.roles == () or not accepted:
        return
    yield "In vertical plans: a list of its people's ids that every silo has blinded in turn, filled up."
    roles = limits.roles or ("label", "feature")
    if "feature" in roles:
        what = {
            "cross-moments": "sums over the people in common",
            "private-encoder": "some numbers of each person",
        }
        told = " or ".join(what[family] for family in sorted(accepted))
        yield f"As a feature silo: {told}, with all of its own noise, to the label silo alone."
        if "private-encoder" in accepted:
            yield "From these numbers the label silo makes lists without asking anybody (dp_release)."
    if "label" in roles and "cross-moments" in accepted:
        yield "As a label silo: its rows, encrypted under a key that it alone has."


def _who_and_how_often(limits: Alignment) -> str:
    if limits.roles is None:
        role = "in any role"
    elif limits.roles:
        words = {"label": "to have its own items ranked", "feature": "to bring what it knows of people"}
        role = " or ".join(words[name] for name in limits.roles)
    else:
        role = "in no role, so every vertical plan is denied"
    runs = limits.max_runs_per_30_days
    often = "once" if runs == 1 else f"{runs} times"
    return f"Yes, with the partners above, {role}, at most {often} in 30 days."


def _shown(limits: Alignment) -> Iterator[str]:
    if limits.reveal == "none":
        yield "No silo is told which of its people the others know."
    else:
        yield "A plan may tell every silo which of its people all the others know."
    if limits.max_epsilon is not None:
        yield (
            "The numbers of its people and of those in common get noise, which may cost epsilon "
            f"{limits.max_epsilon:g} at most."
        )
