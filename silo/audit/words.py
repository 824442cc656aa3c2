"""Guarantees and assumptions in words that somebody outside the field can hold a silo to. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from policies.plans.plan import Plan
from silo.audit.alignments import alignment_assumptions
from silo.audit.spending import Account

_LARGE = 20.0


def guarantee(account: Account) -> tuple[str, ...]:
    """What was promised, and is kept so far, to one person of a population."""
    if account.spent is None:
        return (
            f"For the {account.account} nothing is guaranteed: what was released exceeds what the account's "
            "filter can bound.",
        )
    if account.spent == 0:
        return (f"Nothing derived from the {account.account} has left this silo.", _budget(account))
    return (
        f"Compare the world as it is with one in which any single person of the {account.account} had never "
        "been in the data, their whole history left out. Whoever sees everything that was released finds no "
        f"outcome more than {_times(account.spent)} times as likely in one as in the other, except with "
        f"probability {_odds(account.delta)} (epsilon {account.spent:.4g}, delta {account.delta:g}, add or "
        "remove one person).",
        "Put differently: somebody for whom it was a coin toss whether a given person is in the data can, "
        f"after seeing everything, be at most {_certainty(account.spent)} sure.",
        _budget(account),
    )


def assumptions(plans: Sequence[Plan]) -> tuple[str, ...]:
    """What the guarantee rests on, and what lies outside of it."""
    return (*_from_plans(plans), *_always())


def _budget(account: Account) -> str:
    text = (
        f"The signed policy allows epsilon {account.epsilon:g} for all time; what is spent is never refilled."
    )
    if account.frozen:
        text += " The account is frozen: the budget was lowered below what was already counted."
    return text


def _from_plans(plans: Sequence[Plan]) -> Iterator[str]:
    if not plans:
        return
    fewest = min(plan.privacy.colluding_silos for plan in plans)
    silos = "one silo, the reader's own included, helps" if fewest == 1 else (
        f"{fewest} silos, the reader's own included, help"
    )  # fmt: skip
    yield (
        f"Noise. The noise was drawn as the events say, and the guarantee holds as long as at most {silos} "
        "the coordinator. Larger coalitions see more than is stated here."
    )
    most = max(plan.privacy.max_silos_per_user for plan in plans)
    yield (
        "People in several silos. "
        + (
            "The plans take it that nobody is in the data of two silos. The silos declared this; "
            "nobody can check it. A person in two silos is protected less than is stated here."
            if most == 1
            else f"The stated epsilon covers a person who is in the data of up to {most} silos of a plan."
        )
    )
    if not all(plan.is_vertical for plan in plans):
        yield (
            "Encryption. Contributions were encrypted and masked, so that the coordinator saw only sums it "
            "could not read. This is beside the guarantee, which does not rest on it."
        )
    yield from alignment_assumptions(tuple(plans))


def _always() -> Iterator[str]:
    yield (
        "Honest running. The silos followed the protocol with the program they say they ran. A silo that "
        "left out its noise, or its ledger's entries, is not found by its own record alone; the "
        "coordinator's trail and the other silos' records are what it is compared with."
    )
    yield (
        "What is public. The catalogue of items, the plan and its constants are public and not protected. "
        "Whether an organisation takes part is not a secret either."
    )
    yield (
        "What stays inside. Recommendations that a silo computes from its own data for its own people are "
        "not a release, and no part of this account."
    )
    yield (
        "Erasure. A person who asks to be forgotten is left out of every later release. What was released "
        "before cannot be called back; the bound above is what it can say about them."
    )


def _times(epsilon: float) -> str:
    """How many times as likely: the exponential of epsilon, rounded up."""
    if epsilon > _LARGE:
        return f"e^{epsilon:.1f}"
    factor = math.exp(epsilon)
    return f"{math.ceil(factor * 100) / 100:,.2f}" if factor < 100 else f"{math.ceil(factor):,}"


def _odds(delta: float) -> str:
    return f"1 in {round(1 / delta):,}" if delta > 0 else "0"


def _certainty(epsilon: float) -> str:
    share = 1 / (1 + math.exp(-epsilon))
    return (
        f"{math.ceil(share * 1000) / 10:.1f} %" if share < 0.999 else f"{math.ceil(share * 1e6) / 1e4:.4f} %"
    )
