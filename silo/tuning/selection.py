"""``archipel tune --kind local-private``: which released model this silo's people are served best by.

The candidates are models that jobs released: each was paid for, so comparing them is post-processing but for
the judges. A judge is one person: the metric of their own held-out rows, between 0 and 1, for each candidate;
it depends on no other person. Sums over people have sensitivity 1 and the choice is
:class:`privacy.selection.PrivateSelection`: reserved before a row is read, committed before it is drawn, and
published as one plan. No figure of a candidate is shown, to anybody.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from federation.locking import exclusive
from policies.canonical import digest
from policies.decisions.selections import Selection, is_selection, require_selection
from policies.files import write_atomically
from policies.silo_policy import SiloPolicy
from privacy.accounting import admit
from privacy.errors import DataError, UsageError
from privacy.events import EventCount, PureEvent
from privacy.ledger.ledger import Charge
from privacy.selection import PrivateSelection, Selected, loss_bound, total_utilities
from silo.data.interactions import Interactions
from silo.evaluation import Scorer, per_user_metrics, rank_each_alone
from silo.finished import Finished, finished_jobs, load_finished
from silo.local.files import Source
from silo.local.fusion import METRIC
from silo.rows import load_rows
from silo.site import Site
from silo.tuning.proposal import write_plan

TYPICAL_PEOPLE = 1_000

Notice = Callable[[str], None]


class NoCandidatesError(DataError):
    """Fewer than two released models that can be compared."""

    code = "no_candidates"


@dataclass(frozen=True, eq=False)
class Question:
    """What is asked, with everything needed to answer.

    Attributes:
        selection: the statement that the ledger names.
        policy: in force.
        account: the population that pays.
        candidates: models, in the statement's order.
        source: the rows that judge.
        left_out: job -> why it is no candidate.
    """

    selection: Selection
    policy: SiloPolicy
    account: str
    candidates: tuple[Finished, ...]
    source: Source
    left_out: dict[str, str]


def ask(site: Site, jobs: list[str], epsilon: float) -> Question:
    """Find the candidates and ask the policy; no row is read.

    Args:
        site: the silo.
        jobs: beginnings of handles; empty for all that can be compared with the newest.
        epsilon: price of the choice.

    Raises:
        NoCandidatesError: fewer than two, or nothing was held out.
        UsageError: a job that was named cannot be compared, or a price out of range.
        SelectionDeniedError: the policy says no.
    """
    if not 0 < epsilon <= 10:
        raise UsageError(
            f"epsilon is {epsilon:g}", where="--epsilon", remedy="above 0 and at most 10; 0.1 is usual"
        )
    law = site.law()
    models, left_out = _comparable(site, law.policy, jobs)
    if jobs and left_out:
        job, why = next(iter(left_out.items()))
        raise UsageError(f"job {job} cannot be compared: {why}", where="--job", remedy="leave it out")
    if len(models) < 2:
        raise NoCandidatesError(
            f"{len(models)} released model can be compared, and a choice needs two",
            where=str(site.directory / "jobs"),
            remedy="run jobs of another family or schedule with the same holdout, or choose on public rows",
        )
    source = _source(models[-1], law.policy)
    selection = Selection(
        kind="Selection",
        schema_version=1,
        silo=site.name,
        purpose=source.plan.purpose,
        dataset=source.dataset_name,
        metric=METRIC,
        epsilon=epsilon,
        candidates=tuple(model.job for model in models),
        nonce=secrets.token_hex(16),
    )
    account = require_selection(selection, law.policy, law.hold, site.now())
    return Question(selection, law.policy, account, tuple(models), source, left_out)


def price(site: Site, question: Question) -> dict[str, Any]:
    """What the account has spent, and what it will have; refused here where it cannot pay.

    Raises:
        BudgetExceededError, StalePolicyError: as the ledger would.
    """
    status = site.ledger_state(question.policy).accounts[question.account]
    event, delta = PureEvent(epsilon=question.selection.epsilon), status.budget.delta
    after = admit(status.counted.plus(event), status.budget)
    return {
        "epsilon": question.selection.epsilon,
        "account": question.account,
        "delta": delta,
        "budget": status.budget.epsilon,
        "counted_before": status.counted.epsilon(delta),
        "counted_after": after.epsilon(delta),
        "candidates": [
            {"job": model.job, "family": model.plan.model.family} for model in question.candidates
        ],
        "left_out": question.left_out,
    }


def show_price(question: Question, cost: dict[str, Any]) -> Iterator[str]:
    """The price in words, before anything is charged."""
    yield f"{len(question.candidates)} candidates, judged by {METRIC} of this silo's people:"
    for model in question.candidates:
        yield f"  job {model.job[:12]}  {model.plan.model.family}"
    for job, why in question.left_out.items():
        yield f"  not compared: job {job[:12]}: {why}"
    bound = loss_bound(question.selection.epsilon, len(question.candidates))
    yield (
        f"epsilon {cost['epsilon']:g} (pure), charged to {cost['account']} before the choice: "
        f"{cost['counted_before']:.4f} of {cost['budget']:g} counted now, {cost['counted_after']:.4f} after"
    )
    yield (
        f"the choice may miss the best by {bound / TYPICAL_PEOPLE:.4f} of {METRIC} where "
        f"{TYPICAL_PEOPLE:,} people judge, more with probability 5 %"
    )


def choose(site: Site, question: Question, target: Path, notice: Notice = lambda _: None) -> dict[str, Any]:
    """Charge, choose, and write the winner's plan: the only thing that depends on rows.

    A crash after the charge leaves it spent. What stops it before leaves nothing spent: what a kill left
    reserved, the next choice gives back.

    Raises:
        BudgetExceededError and other refusals of the ledger.
        DataError: the rows cannot be read.
        HostError: another choice is being made here.
    """
    place = site.directory / "selections"
    place.mkdir(mode=0o700, exist_ok=True)
    with exclusive(place, "private choice"):
        _give_back(site)
        return _choose(site, question, target, notice)


def _give_back(site: Site) -> None:
    """Close reservations of choices that were killed before their charge; nobody else is choosing."""
    for job, status in site.ledger.state().jobs.items():
        if is_selection(job) and status.open:
            site.ledger.release_rest(job)


def _choose(site: Site, question: Question, target: Path, notice: Notice) -> dict[str, Any]:
    selection = question.selection
    event = PureEvent(epsilon=selection.epsilon)
    site.ledger_state(question.policy)
    # Before the ledger names it: an auditor can open whatever the ledger names.
    _keep(site, question, None)
    reservation = site.ledger.reserve(
        account=question.account,
        job=selection.name,
        dataset=selection.dataset,
        plan_sha256=digest(selection),
        policy_sha256=digest(question.policy),
        requested_by=site.name,
        events=[EventCount(event, 1)],
    )
    try:
        utilities = _utilities(site.directory, question, notice)
        charge = site.ledger.commit(reservation, round=0, attempt=0, event=event)
    finally:
        site.ledger.release_rest(selection.name)
    winner = question.candidates[draw(charge, selection, utilities).index]
    found = _keep(site, question, winner)
    write_plan(winner.plan, target)
    return found | {"plan": str(target)}


def _keep(site: Site, question: Question, winner: Finished | None) -> dict[str, Any]:
    """Write what is asked, and which model won once one has."""
    selection = question.selection
    found = {
        "kind": "local-private",
        "selection": selection.model_dump(mode="json"),
        "name": selection.name,
        "epsilon": selection.epsilon,
        "account": question.account,
        "winner": None if winner is None else winner.job,
        "family": None if winner is None else winner.plan.model.family,
    }
    text = json.dumps(found, indent=2).encode()
    write_atomically(site.directory / "selections" / f"{selection.name}.json", text)
    return found


def draw(charge: Charge, selection: Selection, utilities: NDArray[np.int64]) -> Selected:
    """Make the choice that was paid for.

    Raises:
        UsageError: the charge is another selection's, or of another price.
    """
    chosen = PrivateSelection(selection.epsilon)
    if charge.job != selection.name or charge.event != chosen.event:
        raise UsageError("this selection was not paid for", where=selection.name, remedy="charge for it")
    return chosen.choose(utilities)


def judge(models: Sequence[Scorer], train: Interactions, held_out: Interactions) -> Iterator[Any]:
    """Scores of all candidates by each person, shape (candidates,); nobody's depends on anybody else's."""
    rankings = (rank_each_alone(model, train, held_out) for model in models)
    for of_person in zip(*rankings, strict=True):
        yield np.array([per_user_metrics(ranking)[METRIC][0] for ranking in of_person])


def _utilities(directory: Path, question: Question, notice: Notice) -> NDArray[np.int64]:
    source = question.source
    notice("reading rows")
    rows = load_rows(directory, source.plan, source.dataset)
    notice(f"{len(question.candidates)} candidates, one person after another")
    people = judge([one.recommender for one in question.candidates], rows.train, rows.held_out)
    return total_utilities(people, len(question.candidates))


def _comparable(site: Site, policy: SiloPolicy, jobs: list[str]) -> tuple[list[Finished], dict[str, str]]:
    """Models of equal terms, oldest first, and why others are left out; by plans and policy alone."""
    wanted = [load_finished(site.directory, job) for job in jobs or finished_jobs(site.directory)]
    models: list[Finished] = []
    left_out = {}
    terms = None
    for model in reversed(wanted):
        why = _unusable(model, policy)
        if why is None:
            own = _source(model, policy).terms()
            terms = terms or own
            if own != terms:
                why = "it learnt from other rows, or held out others"
        if why is None and model.job not in {known.job for known in models}:
            models.append(model)
        elif why is not None:
            left_out[model.job] = why
    return models[::-1], left_out


def _unusable(model: Finished, policy: SiloPolicy) -> str | None:
    named = policy.dataset_for(model.plan.purpose)
    if named is None:
        return f"the policy accepts no purpose {model.plan.purpose} any more"
    accepted = Source(model.dataset_name, model.dataset, model.plan).terms()
    if accepted != _source(model, policy).terms():
        return "the policy reads other rows than those it learnt from"
    if model.plan.holdout.kind == "none":
        return "its plan held no rows out"
    return None


def _source(model: Finished, policy: SiloPolicy) -> Source:
    """The rows as the policy in force reads them: who said no since does not judge."""
    named = policy.dataset_for(model.plan.purpose)
    assert named is not None  # noqa: S101 - candidates of other purposes are left out
    return Source(*named, model.plan)
