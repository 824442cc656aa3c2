"""A policy in plain words: who may learn what, at which cost, until when. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from math import exp
from typing import NamedTuple

from policies.explain_alignment import alignment_sentences, takes_horizontal, vertical_leaves
from policies.plans.words import listed
from policies.serving import serving_words
from policies.silo_policy import AccountBudget, SiloPolicy
from policies.trust import days_left


class Paragraph(NamedTuple):
    """One heading and its sentences."""

    heading: str
    sentences: tuple[str, ...]


def explain_policy(policy: SiloPolicy, now: datetime) -> tuple[Paragraph, ...]:
    """What ``policy`` permits, for somebody who does not read YAML.

    Args:
        policy: the policy.
        now: reference time, aware; for how long it is still in force.
    """
    return (
        Paragraph("In force", tuple(_in_force(policy, now))),
        Paragraph("Who may take part", tuple(_partners(policy))),
        Paragraph("Which data, for what", tuple(_data(policy))),
        Paragraph("Whether people in common are found", tuple(alignment_sentences(policy))),
        Paragraph("What it may cost a person", tuple(_cost(policy))),
        Paragraph("What leaves this silo", tuple(_leaves(policy))),
        Paragraph("What nobody outside learns", tuple(_stays(policy))),
        Paragraph("If a person asks to be erased", tuple(_erasure(policy))),
    )


def _in_force(policy: SiloPolicy, now: datetime) -> Iterator[str]:
    left = days_left(policy.expires, now)
    day = policy.expires.isoformat()
    until = f"until {day}, {left} days from now" if left >= 0 else f"no longer: it ended on {day}"
    yield f"Policy version {policy.version} of {policy.silo} is in force {until}."
    yield "Without a signed policy in force the agent does not run."


def _partners(policy: SiloPolicy) -> Iterator[str]:
    accepts = policy.accepts
    if not accepts.with_members:
        yield "Nobody: no partner is named, so every plan is denied."
        return
    yield f"Only plans among {listed((policy.silo, *accepts.with_members))}, or some of them."
    yield f"At least {accepts.min_silos} silos contribute to every sum."
    who = (
        "one silo helps" if accepts.min_colluding_silos == 1 else f"{accepts.min_colluding_silos} silos help"
    )
    yield f"The promise must hold even if {who} the coordinator."


def _data(policy: SiloPolicy) -> Iterator[str]:
    if not policy.accepts.purposes:
        yield "None: no purpose is accepted, so every plan is denied."
    for purpose, name in policy.accepts.purposes.items():
        dataset = policy.datasets[name]
        yield (
            f"Plans for {purpose} use the table {name} ({dataset.source.format}: {dataset.source.path}), "
            f"at most {dataset.max_interactions_per_user} interactions of each person."
        )
        silos = "this silo only" if dataset.max_silos_per_user == 1 else f"{dataset.max_silos_per_user} silos"
        yield f"A person in {name} is taken to be a customer of {silos}."
        if dataset.events is not None:
            yield f"Of its events these count: {listed(tuple(dataset.events))}."
        if dataset.min_rating is not None:
            yield f"What somebody rated below {dataset.min_rating:g} does not count."
        if dataset.exclude_users:
            yield f"People listed in {dataset.exclude_users} are left out from the next job on."
    families, max_rounds = policy.accepts.families, policy.accepts.max_rounds
    if families is not None:
        yield (
            f"Only these kinds of models are made: {listed(families)}."
            if families
            else ("No kind of model is accepted, so every plan is denied.")
        )
    if max_rounds is not None:
        yield f"A training reads the rows at most {max_rounds:,} times."
    unused = [name for name in policy.datasets if name not in policy.accepts.purposes.values()]
    if unused:
        yield f"No plan may use: {listed(tuple(unused))}."


def _cost(policy: SiloPolicy) -> Iterator[str]:
    ceiling = policy.accepts.max_epsilon_per_plan
    yield f"One plan may cost at most epsilon {ceiling:g}, everything it releases included."
    for name, budget in policy.budgets.items():
        yield (
            f"All plans together, for ever, may cost each of the {name} at most epsilon "
            f"{budget.total_epsilon:g} (delta {budget.delta:g}); {_filter_words(budget)}."
        )
        yield (
            f"With all of it spent, somebody who thought it a coin toss whether a person is of the {name} "
            f"could become {_guess_rate(budget.total_epsilon)} sure, and no surer."
        )
        yield from _account_limits(name, budget)
    if policy.accepts.max_epsilon_per_selection is not None:
        yield (
            "A private choice among released models, made here and published, may cost epsilon "
            f"{policy.accepts.max_epsilon_per_selection:g}."
        )


def _account_limits(name: str, budget: AccountBudget) -> Iterator[str]:
    for number, renewal in enumerate(budget.renewals or (), start=1):
        taken = "has been taken" if number <= budget.renewed else "may be taken by a newer signed version"
        yield (
            f"Renewal {number} adds epsilon {renewal.epsilon:g} from {renewal.date.isoformat()} on; "
            f"it {taken}. Nothing that was spent is forgotten."
        )
    if budget.expires is not None:
        yield f"No plan draws on the account of the {name} after {budget.expires.isoformat()}."
    for partner, cap in (budget.max_epsilon_with or {}).items():
        yield f"All plans with {partner} together may cost each of the {name} at most epsilon {cap:g}."


def _leaves(policy: SiloPolicy) -> Iterator[str]:
    if takes_horizontal(policy):
        yield (
            "Sums over all silos, with noise, encrypted and masked; the members open them and so share the "
            "model."
        )
    yield from vertical_leaves(policy)
    yield "The coordinator forwards what it cannot open: it learns who takes part, when, and sizes."
    if policy.accepts.metrics == "noised":
        yield "Quality figures, with noise, paid from the same account."
    else:
        yield "No quality figures."
    share = policy.accepts.verify_sums
    yield (
        f"This silo recomputes {share:.0%} of the coordinator's sums."
        if share
        else ("This silo checks none of the coordinator's sums.")
    )


def _stays(policy: SiloPolicy) -> Iterator[str]:
    yield "No row that anybody else could read, no user id and no number of users leaves it."
    if takes_horizontal(policy):
        yield "Its own contribution to a sum over all silos is nobody's to see."
    yield "The remaining budget is shown here only; others see reason codes of a refusal."
    yield from serving_words(policy)


def _erasure(policy: SiloPolicy) -> Iterator[str]:
    with_list = [name for name, dataset in policy.datasets.items() if dataset.exclude_users]
    without = [name for name in policy.datasets if name not in with_list]
    if with_list:
        yield f"Who is on the opt-out list of {listed(tuple(with_list))} is in no job from the next one on."
    if without:
        yield (
            f"{listed(tuple(without))} has no opt-out list (exclude_users): delete the person's rows, "
            "and no later job has them."
        )
    yield (
        "Models that were released stay where they are, at every member: they were made so that nobody can "
        "tell from them, beyond the epsilon above, whether the person was ever in the data."
    )
    yield (
        "What was spent stays spent. The ledger names no person, so there is nothing in it to erase. What "
        "this silo keeps un-noised, its files of rows above all, holds the person until it is made again."
    )


def _filter_words(budget: AccountBudget) -> str:
    if budget.orders is None:
        return "counted as zCDP, for unsampled noise"
    return f"counted at the Rényi orders {', '.join(f'{order:g}' for order in budget.orders)}"


def _guess_rate(epsilon: float) -> str:
    """Posterior of an even prior after an odds ratio of ``e^epsilon`` (hypothesis-testing view of DP)."""
    share = 1 / (1 + exp(-epsilon))
    return f"{share:.1%}" if share < 0.999 else f"{share:.3%}"
