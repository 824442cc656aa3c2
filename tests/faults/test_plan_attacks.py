"""A proposer who wants more than was agreed: altered plans, impossible noise, replayed acceptances."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from policies.canonical import digest
from policies.decisions.decision import Authorization, AuthorizationMismatchError, reauthorize
from policies.plans.plan import Plan
from policies.plans.price import PlanImpossibleError, reserved_events, schedule
from policies.plans.text import render_plan
from policies.silo_policy import SiloPolicy
from policies.validation import PolicyFileError, parse_yaml
from privacy.errors import TrustError
from privacy.events import GaussianEvent
from privacy.ledger.ledger import ChargeRefusedError, Ledger, ReservationConflictError
from privacy.noise import NoiseError, NoiseShare
from tests.contracts.decision_scene import (
    altered,
    decide,
    make_ledger,
    make_plan,
    make_policy,
    refusals,
    reservation_of,
)
from tests.contracts.ledger_tools import Owner

POLICY = make_policy()
ALTERATIONS: list[dict[str, Any]] = [
    {"privacy.noise_multiplier": 0.01},
    {"privacy.target_epsilon": 3.9999999},
    {"privacy.grid": 8000},
    {"privacy.colluding_silos": 2},
    {"privacy.max_silos_per_user": 2},
    {"protection.masks": "none"},
    {"protection.encryption": "none"},
    {"protection.max_failed_opens": 1},
    {"protection.min_silos": 3},
    {"training.max_burned_rounds": 1},
    {"catalogue.sha256": "cd" * 32},
    {"catalogue.items": 301},
    {"silos": ["shop-b", "shop-a", "shop-c", "shop-d"]},
    {"silos": ["shop-a", "shop-b", "shop-c", "mallory"]},
    {"max_users_per_silo": 2},
    {"max_interactions_per_user": 201},
    {"holdout": {"kind": "random", "fraction": 0.2, "seed": 1}},
    {"model.rank": 63},
    {"purpose": "research"},
]
alterations = pytest.mark.parametrize("changes", ALTERATIONS, ids=lambda changes: next(iter(changes)))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    owner = Owner()
    with Ledger.open(tmp_path / "ledger.db", sign=owner.sign, key_id=owner.key_id) as opened:
        opened.open_account(
            "customers", POLICY.budgets["customers"].to_budget(), digest(POLICY), POLICY.version
        )
        yield opened


def accept(ledger: Ledger, plan: Plan, job: str = "job-1") -> Authorization:
    authorization = decide(plan, POLICY, ledger.state())
    reserve(ledger, authorization, job)
    return authorization


def reserve(ledger: Ledger, authorization: Authorization, job: str) -> None:
    ledger.reserve(
        account=authorization.account,
        job=job,
        dataset=authorization.dataset,
        plan_sha256=authorization.plan_sha256,
        policy_sha256=authorization.policy_sha256,
        requested_by="mallory",
        events=authorization.events,
    )


@alterations
def test_plan_altered_after_acceptance_has_another_digest(changes: dict[str, Any]) -> None:
    plan = make_plan()
    assert digest(altered(plan, changes)) != digest(plan)


@alterations
def test_plan_altered_after_acceptance_is_not_authorised_by_the_old_record(
    ledger: Ledger, changes: dict[str, Any]
) -> None:
    plan = make_plan()
    accept(ledger, plan)
    worse = altered(plan, changes)
    with pytest.raises(AuthorizationMismatchError, match="the plan"):
        reauthorize(worse, POLICY, ledger.state().jobs["job-1"])
    assert reauthorize(plan, POLICY, ledger.state().jobs["job-1"]).plan_sha256 == digest(plan)


def test_a_forged_digest_in_the_record_does_not_cover_another_cost() -> None:
    """Even if the plan's digest were the recorded one, the reserved events must be the plan's own."""
    plan = make_plan()
    cheap = reservation_of(decide(make_plan(target_epsilon=0.5), POLICY))
    with pytest.raises(AuthorizationMismatchError, match="the cost"):
        reauthorize(plan, POLICY, replace(cheap, plan_sha256=digest(plan)))


def test_replayed_acceptance_of_another_job_does_not_authorise_this_plan(ledger: Ledger) -> None:
    harmless, wanted = make_plan(target_epsilon=0.5), make_plan(target_epsilon=8.0)
    accept(ledger, harmless)
    with pytest.raises(TrustError, match="the plan is not the one"):
        reauthorize(wanted, POLICY, ledger.state().jobs["job-1"])


def test_replayed_acceptance_of_an_older_policy_is_refused(ledger: Ledger) -> None:
    plan = make_plan()
    accept(ledger, plan)
    newer: SiloPolicy = altered(POLICY, {"version": 4})
    with pytest.raises(TrustError, match="the policy is not the one"):
        reauthorize(plan, newer, ledger.state().jobs["job-1"])


def test_replayed_acceptance_cannot_be_reserved_again_for_another_plan(ledger: Ledger) -> None:
    accept(ledger, make_plan(target_epsilon=0.5))
    other = decide(make_plan(target_epsilon=1.0), POLICY, ledger.state())
    with pytest.raises(ReservationConflictError):
        reserve(ledger, other, "job-1")


def test_replayed_acceptance_is_paid_for_once_only(ledger: Ledger) -> None:
    plan = make_plan()
    accept(ledger, plan)
    before = ledger.status("customers")
    reserve(ledger, reauthorize(plan, POLICY, ledger.state().jobs["job-1"]), "job-1")
    event = schedule(plan)[0].event
    first = ledger.commit("job-1", round=1, attempt=1, event=event)
    assert ledger.commit("job-1", round=1, attempt=1, event=event) == first
    with pytest.raises(ChargeRefusedError):
        ledger.commit("job-1", round=1, attempt=2, event=event)
    assert ledger.status("customers").counted == before.counted


def test_an_accepted_plan_cannot_be_charged_a_cheaper_event(ledger: Ledger) -> None:
    accept(ledger, make_plan())
    cheaper = schedule(make_plan(target_epsilon=0.5))[0].event
    with pytest.raises(ChargeRefusedError):
        ledger.commit("job-1", round=1, attempt=1, event=cheaper)


def test_the_same_plan_proposed_again_and_again_runs_out_of_budget(ledger: Ledger) -> None:
    plan = make_plan()
    accepted = 0
    while refusals(plan, POLICY, ledger.state()) == set():
        accept(ledger, plan, f"job-{accepted}")
        accepted += 1
    assert refusals(plan, POLICY, ledger.state()) == {"budget_exceeded"}
    assert 2 <= accepted <= 4
    assert ledger.status("customers").counted.epsilon(1e-6) <= 8.0


@pytest.mark.parametrize("noise", [1e-9, 1e-6, 1e-4])
def test_impossible_noise_too_small_to_be_gaussian_is_refused(noise: float) -> None:
    plan = altered(make_plan(), {"privacy.noise_multiplier": noise})
    with pytest.raises(PlanImpossibleError, match="not Gaussian"):
        schedule(plan)
    assert refusals(plan) == {"plan_impossible"}


def test_impossible_noise_too_large_to_be_drawn_is_refused() -> None:
    plan = altered(make_plan(), {"privacy.noise_multiplier": 1e6, "privacy.grid": 2**20})
    assert refusals(plan) == {"plan_impossible"}


@pytest.mark.parametrize("noise", ["0", "-1.0", ".nan", ".inf", "1e400", "null", '"1.2"', "true"])
def test_impossible_noise_in_the_file_is_refused_at_its_line(noise: str) -> None:
    text = render_plan(make_plan())
    (line,) = [line for line in text.splitlines() if "noise_multiplier" in line]
    forged = text.replace(line, f"  noise_multiplier: {noise}")
    with pytest.raises(PolicyFileError) as caught:
        parse_yaml(forged.encode(), Plan, "plan.yaml")
    assert caught.value.problems[0].line == text.splitlines().index(line) + 1


def test_understated_noise_is_refused_whatever_the_plan_says_it_costs() -> None:
    assert refusals(altered(make_plan(), {"privacy.noise_multiplier": 1.2})) == {"promise_not_kept"}


def test_noise_of_another_plan_does_not_keep_this_plans_promise() -> None:
    """The object that draws refuses to deliver less than the event the ledger was charged for."""
    shape, weaker = schedule(make_plan())[0], schedule(make_plan(target_epsilon=8.0))[0]
    assert isinstance(shape.event, GaussianEvent)
    with pytest.raises(NoiseError):
        NoiseShare(weaker.share_std, num_shares=3, sensitivity=weaker.sensitivity, promised=shape.event)
    assert NoiseShare(shape.share_std, num_shares=3, sensitivity=shape.sensitivity, promised=shape.event)


def test_a_share_for_fewer_colluders_is_less_than_promised() -> None:
    shape = schedule(make_plan(colluding_silos=1))[0]
    assert isinstance(shape.event, GaussianEvent)
    with pytest.raises(NoiseError):
        NoiseShare(shape.share_std, num_shares=2, sensitivity=shape.sensitivity, promised=shape.event)


def test_a_frozen_account_authorises_nothing_however_small() -> None:
    overdrawn = make_ledger(POLICY, committed=[*reserved_events(make_plan(target_epsilon=20.0))])
    assert refusals(make_plan(target_epsilon=0.05), POLICY, overdrawn) == {"budget_exceeded"}
