from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import pytest

from policies.canonical import digest
from policies.catalog import render_template
from policies.charters.charter import Charter
from policies.decisions.decision import (
    Authorization,
    AuthorizationMismatchError,
    PolicyDeniedError,
    authorize,
    reauthorize,
)
from policies.plans.plan import Plan
from policies.plans.price import reserved_events
from policies.silo_policy import SiloPolicy
from policies.validation import parse_yaml
from privacy.budget import RenyiFilter
from privacy.errors import BudgetExceededError, ExitCode
from privacy.events import SAMPLER, EventCount, GaussianEvent
from privacy.ledger.state import AccountFrozenError, LedgerState
from tests.contracts.decision_scene import (
    CATALOGUE,
    NOW,
    ORDERS,
    SILOS,
    altered,
    decide,
    make_charter,
    make_ledger,
    make_plan,
    make_policy,
    refusals,
    reservation_of,
)

PLAN = make_plan()


def test_an_accepted_plan_is_authorised_with_everything_a_release_needs() -> None:
    policy = make_policy()
    authorization = decide(PLAN, policy)
    assert authorization.silo == "shop-a"
    assert authorization.plan_sha256 == digest(PLAN)
    assert authorization.policy_sha256 == digest(policy)
    assert (authorization.policy_version, authorization.policy_expires) == (3, date(2027, 1, 1))
    assert (authorization.dataset, authorization.account) == ("purchases", "customers")
    assert authorization.events == reserved_events(PLAN)


def test_a_silo_may_cap_lower_but_not_higher() -> None:
    assert decide(PLAN).max_interactions_per_user == 100
    assert decide(altered(PLAN, {"max_interactions_per_user": 50})).max_interactions_per_user == 50


def test_the_only_sum_of_a_job_is_always_verified() -> None:
    assert decide(PLAN).verify_sums == 1.0
    assert decide(make_plan(family="linear", rounds=5)).verify_sums == 0.1


def test_nobody_else_makes_an_authorization() -> None:
    fields = vars(decide(PLAN))
    with pytest.raises(TypeError, match=r"policies\.decisions\.decision only"):
        Authorization(**fields, token=object())


Refusal = tuple[str, Callable[[], set[str]]]


def _sampled() -> Plan:
    return make_plan(family="linear", sample_rate=0.1, features=2)


def moved(population: str) -> LedgerState:
    """A dataset was charged to ``customers``; a newer policy calls its people something else."""
    before = reservation_of(decide(PLAN))
    return replace(make_ledger(make_policy(population=population)), jobs={before.job: before})


def without_times() -> SiloPolicy:
    """Sources without a column of times: nobody can say in which order things happened."""
    return altered(
        make_policy(), {"datasets.purchases.columns": {"user_id": "user_id", "item_id": "item_id"}}
    )


REASONS: list[Refusal] = [
    ("policy_expired", lambda: refusals(PLAN, altered(make_policy(), {"expires": "2026-05-31"}))),
    ("charter_expired", lambda: refusals(PLAN, charter=make_charter(expires=date(2026, 5, 31)))),
    ("not_in_roster", lambda: refusals(PLAN, make_policy("shop-z", with_members=list(SILOS)))),
    ("unknown_member", lambda: refusals(PLAN, charter=make_charter(SILOS[:3]))),
    ("proposer_not_accepted", lambda: refusals(PLAN, proposer="shop-z")),
    ("member_not_accepted", lambda: refusals(PLAN, make_policy(with_members=["shop-b", "shop-c"]))),
    ("too_few_silos", lambda: refusals(PLAN, make_policy(min_silos=5))),
    ("too_few_silos", lambda: refusals(altered(PLAN, {"protection.min_silos": 2}))),
    ("epsilon_too_high", lambda: refusals(PLAN, make_policy(max_epsilon_per_plan=3.9))),
    ("collusion_not_covered", lambda: refusals(PLAN, make_policy(min_colluding_silos=2))),
    (
        "metrics_not_accepted",
        lambda: refusals(make_plan(metrics_epsilon=0.2, holdout="last"), make_policy(metrics="none")),
    ),
    ("catalogue_not_accepted", lambda: refusals(PLAN, make_policy(catalogues=["cd" * 32]))),
    ("times_missing", lambda: refusals(make_plan(family="sequence", features=4), without_times())),
    ("item_list_missing", lambda: refusals(make_plan(family="language", encoder_sha256="cd" * 32))),
    ("family_not_accepted", lambda: refusals(PLAN, make_policy(families=["popularity", "linear"]))),
    ("family_not_accepted", lambda: refusals(PLAN, make_policy(families=[]))),
    ("too_many_rounds", lambda: refusals(make_plan(family="autoencoder"), make_policy(max_rounds=59))),
    (
        "too_many_rounds",
        lambda: refusals(make_plan(family="autoencoder", max_burned_rounds=1), make_policy(max_rounds=60)),
    ),
    ("encryption_required", lambda: refusals(altered(PLAN, {"protection.encryption": "none"}))),
    ("masks_required", lambda: refusals(altered(PLAN, {"protection.masks": "none"}))),
    ("purpose_not_accepted", lambda: refusals(altered(PLAN, {"purpose": "credit-scoring"}))),
    (
        "unit_required",
        lambda: refusals(PLAN, altered(make_policy(), {"datasets.purchases.unit": "user_row"})),
    ),
    ("max_silos_per_user_too_small", lambda: refusals(PLAN, make_policy(max_silos_per_user=2))),
    ("delta_too_high", lambda: refusals(PLAN, make_policy(delta=9e-7))),
    ("plan_impossible", lambda: refusals(altered(PLAN, {"privacy.grid": 100}))),
    ("filter_mismatch", lambda: refusals(_sampled())),
    ("promise_not_kept", lambda: refusals(altered(PLAN, {"privacy.noise_multiplier": 1.0}))),
    ("promise_not_kept", lambda: refusals(PLAN, make_policy(orders=ORDERS))),
    ("account_unknown", lambda: refusals(PLAN, ledger=LedgerState({}, {}))),
    (
        "account_of_other_policy",
        lambda: refusals(PLAN, ledger=make_ledger(make_policy(), policy_sha256="0" * 64)),
    ),
    (
        "account_of_other_policy",
        lambda: refusals(
            PLAN,
            ledger=make_ledger(
                make_policy(), budget=make_policy(epsilon=9.0).budgets["customers"].to_budget()
            ),
        ),
    ),
    ("dataset_moved", lambda: refusals(PLAN, make_policy(population="fresh"), moved("fresh"))),
    ("budget_exceeded", lambda: refusals(PLAN, make_policy(epsilon=3.9))),
]


@pytest.mark.parametrize(
    ("code", "found"), REASONS, ids=[f"{code}-{n}" for n, (code, _) in enumerate(REASONS)]
)
def test_each_reason_stands_alone(code: str, found: Callable[[], set[str]]) -> None:
    assert found() == {code}


def test_the_last_day_of_a_policy_and_of_a_charter_is_still_in_force() -> None:
    policy = altered(make_policy(), {"expires": "2026-06-01"})
    late = datetime(2026, 6, 1, 23, 59, tzinfo=UTC)
    assert refusals(PLAN, policy, charter=make_charter(expires=date(2026, 6, 1)), now=late) == set()


def test_an_accepted_catalogue_passes() -> None:
    assert refusals(PLAN, make_policy(catalogues=["cd" * 32, CATALOGUE])) == set()


def test_an_accepted_family_with_as_many_rounds_as_accepted_passes() -> None:
    plan = make_plan(family="autoencoder", rounds=50, max_burned_rounds=10)
    assert refusals(plan, make_policy(families=["item-graph", "autoencoder"], max_rounds=60)) == set()


def test_a_price_that_no_noise_can_keep_is_a_reason_and_no_crash() -> None:
    one_order = RenyiFilter(orders=(32.0,))
    plan = make_plan(metrics_epsilon=1.0, holdout="random", filter=one_order)
    hopeless = altered(plan, {"releases.metrics.epsilon": 0.01})
    assert refusals(hopeless, make_policy(orders=(32.0,))) == {"plan_impossible"}


def test_a_person_cannot_be_in_more_silos_than_the_roster_has() -> None:
    three = make_plan(silos=SILOS[:3], max_silos_per_user=3)
    assert refusals(three, make_policy(max_silos_per_user=9)) == set()


def test_an_empty_policy_denies_everything() -> None:
    nothing = make_policy(purposes={}, with_members=[])
    assert refusals(PLAN, nothing) == {"purpose_not_accepted", "member_not_accepted"}


def test_only_a_model_that_reads_an_order_needs_times() -> None:
    for architecture, reads in (("transformer", True), ("gru", True), ("bottleneck", False)):
        plan = make_plan(family="language", encoder_sha256="cd" * 32, architecture=architecture)
        assert ("times_missing" in refusals(plan, without_times())) is reads
    assert refusals(make_plan(family="autoencoder"), without_times()) == set()


def test_every_reason_is_given_at_once() -> None:
    plan = altered(
        make_plan(metrics_epsilon=0.2, holdout="last"),
        {"protection.masks": "none", "protection.encryption": "none", "privacy.noise_multiplier": 0.5},
    )
    policy = altered(
        make_policy(
            epsilon=1.0, delta=1e-7, max_silos_per_user=2, max_epsilon_per_plan=1.0, min_silos=6,
            min_colluding_silos=3, metrics="none", catalogues=[], with_members=["shop-b"],
        ),
        {"expires": "2026-01-01"},
    )  # fmt: skip
    charter = make_charter(SILOS[:2], expires=date(2026, 1, 1))
    assert refusals(plan, policy, charter=charter) == {
        "policy_expired", "charter_expired", "unknown_member", "member_not_accepted", "too_few_silos",
        "epsilon_too_high", "collusion_not_covered", "metrics_not_accepted", "catalogue_not_accepted",
        "encryption_required", "masks_required", "max_silos_per_user_too_small", "delta_too_high",
        "promise_not_kept", "budget_exceeded",
    }  # fmt: skip


def test_this_silo_and_those_it_works_with_may_propose() -> None:
    policy = make_policy("shop-a", with_members=["shop-b", "shop-c", "shop-d"])
    for proposer in (None, "shop-a", "shop-b"):
        assert refusals(PLAN, policy, proposer=proposer) == set()
    for proposer in ("hub", "shop-z", ""):
        assert refusals(PLAN, policy, proposer=proposer) == {"proposer_not_accepted"}


def test_a_dataset_that_stays_on_its_account_is_not_moved() -> None:
    assert refusals(PLAN, make_policy(), moved("customers")) == set()


def outbound(plan: Plan, policy: SiloPolicy) -> list[str]:
    with pytest.raises(PolicyDeniedError) as caught:
        decide(plan, policy)
    assert {reason.code for reason in caught.value.reasons} >= {"budget_exceeded"}
    return [reason.code for reason in caught.value.outbound]


def test_what_is_left_is_told_only_to_a_plan_that_everything_else_allows() -> None:
    assert outbound(PLAN, make_policy(epsilon=3.9)) == ["budget_exceeded"]
    short = make_policy(epsilon=3.9, max_epsilon_per_plan=2.0)
    rich = make_policy(max_epsilon_per_plan=2.0)
    assert outbound(PLAN, short) == ["epsilon_too_high"]
    with pytest.raises(PolicyDeniedError) as caught:
        decide(PLAN, rich)
    assert caught.value.outbound == caught.value.reasons


def test_a_refusal_tells_people_what_to_do() -> None:
    with pytest.raises(PolicyDeniedError) as caught:
        decide(PLAN, make_policy(max_epsilon_per_plan=2.0))
    (reason,) = caught.value.reasons
    assert (reason.field, reason.found, reason.allowed) == ("privacy.target_epsilon", "4", "at most 2")
    assert "propose a smaller target_epsilon" in str(caught.value)
    assert caught.value.exit_code is ExitCode.DENIED


def test_codes_and_fields_name_nothing_of_the_silo() -> None:
    """They are all that leaves: no population, no dataset, no figure of the policy or the account."""
    found: list[tuple[str, str]] = []
    for policy, ledger in (
        (make_policy(population="hiv-patients", epsilon=0.123, max_epsilon_per_plan=0.123), None),
        (make_policy(population="hiv-patients"), LedgerState({}, {})),
    ):
        with pytest.raises(PolicyDeniedError) as caught:
            decide(PLAN, policy, ledger)
        found += [(reason.code, reason.field) for reason in caught.value.reasons]
    assert not any("hiv" in part or any(sign.isdigit() for sign in part) for pair in found for part in pair)


def test_nobody_outside_learns_whether_an_account_is_frozen_or_short() -> None:
    spent = [EventCount(GaussianEvent(noise_multiplier=0.3, sampler=SAMPLER), 1)]
    policy = make_policy()
    frozen = make_ledger(policy, committed=spent)
    assert frozen.accounts["customers"].frozen
    with pytest.raises(AccountFrozenError):
        frozen.accounts["customers"].admit(reserved_events(PLAN))
    assert refusals(PLAN, policy, frozen) == refusals(PLAN, make_policy(epsilon=3.0)) == {"budget_exceeded"}


def test_what_other_jobs_reserved_counts_as_spent() -> None:
    policy = make_policy()
    once = reserved_events(PLAN)
    assert refusals(PLAN, policy, make_ledger(policy, outstanding=once)) == set()
    twice = make_ledger(policy, committed=once, outstanding=[*once, *once])
    assert refusals(PLAN, policy, twice) == {"budget_exceeded"}


def test_a_renyi_account_accepts_what_was_calibrated_with_its_orders() -> None:
    spec = RenyiFilter(orders=ORDERS)
    policy = make_policy(orders=ORDERS)
    assert refusals(make_plan(filter=spec), policy) == set()
    assert refusals(_sampled(), policy) == set()
    assert refusals(make_plan(filter=spec), make_policy()) == set(), "a zCDP account finds it cheaper"


def test_every_silo_of_the_roster_can_accept() -> None:
    charter = make_charter()
    for silo in SILOS:
        policy = make_policy(silo)
        accepted = authorize(PLAN, policy, make_ledger(policy), NOW, charter=charter)
        assert accepted.silo == silo


def test_a_ledger_that_was_drawn_on_meanwhile_is_a_refusal_like_any_other() -> None:
    denied = PolicyDeniedError.from_budget(BudgetExceededError("epsilon would be 9", remedy="wait"))
    assert [(reason.code, reason.remedy) for reason in denied.reasons] == [("budget_exceeded", "wait")]


def test_a_reservation_gives_the_same_authorization_again() -> None:
    policy = make_policy()
    first = decide(PLAN, policy)
    assert reauthorize(PLAN, policy, reservation_of(first)) == first


def test_an_accepted_job_keeps_its_law_when_budget_and_policy_are_gone() -> None:
    policy = altered(make_policy(), {"expires": "2026-06-01"})
    reserved = reservation_of(decide(PLAN, policy))
    assert reauthorize(PLAN, policy, reserved).policy_expires == date(2026, 6, 1)


@pytest.mark.parametrize(
    "other",
    [
        make_policy(verify_sums=0.2),
        altered(make_policy(), {"version": 4}),
        make_policy(purposes={"other": "purchases"}),
        make_policy(population="patients"),
    ],
)
def test_a_reservation_under_another_policy_is_no_authorization(other: SiloPolicy) -> None:
    with pytest.raises(AuthorizationMismatchError):
        reauthorize(PLAN, other, reservation_of(decide(PLAN)))


def test_time_without_a_zone_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="time zone"):
        decide(PLAN, now=datetime(2026, 6, 1))


def test_the_charter_is_that_of_the_caller() -> None:
    charter: Charter = make_charter(SILOS[1:])
    with pytest.raises(PolicyDeniedError) as caught:
        decide(PLAN, charter=charter)
    assert caught.value.reasons[0].found == "shop-a"


@pytest.mark.parametrize(
    ("template", "promise"),
    [
        ("retailer", {}),
        (
            "strict",
            {
                "purpose": "care-recommendation",
                "target_epsilon": 1.0,
                "target_delta": 1e-7,
                "colluding_silos": 2,
                "max_silos_per_user": 4,
            },
        ),
        ("research", {"purpose": "research", "filter": RenyiFilter(orders=ORDERS), "target_epsilon": 10.0}),
    ],
)
def test_the_templates_and_plans_made_for_them_fit_together(template: str, promise: dict[str, Any]) -> None:
    text = render_template(template, silo="shop-a", expires=date(2027, 1, 1), with_members=SILOS[1:])
    policy = parse_yaml(text.encode(), SiloPolicy, "policy.yaml")
    assert refusals(make_plan(**promise), policy) == set()
    unsigned_partners = render_template(template, silo="shop-a", expires=date(2027, 1, 1))
    denying = parse_yaml(unsigned_partners.encode(), SiloPolicy, "policy.yaml")
    assert refusals(make_plan(**promise), denying) == {"member_not_accepted"}
