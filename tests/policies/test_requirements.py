"""What members publish of their policies, who would refuse a plan by it, and what all would accept."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.charters.charter import Charter
from policies.decisions.demand import Demand
from policies.decisions.meet import meet, refusals
from policies.decisions.reasons import reasons_against
from policies.documents import PolicyFileError
from policies.plans.plan import Plan
from policies.requirements import PublishedRequirements, extract, read_requirements, trust_requirements
from policies.signing import PrivateKey, SignatureError
from policies.silo_policy import SiloPolicy
from policies.trust import ExpiredError, WrongSiloError
from privacy.budget import RenyiFilter
from privacy.errors import DataError
from tests.contracts.decision_scene import (
    NOW,
    ORDERS,
    SILOS,
    altered,
    make_charter,
    make_ledger,
    make_plan,
    make_policy,
)

IN_THREE = {"datasets.purchases.max_silos_per_user": 3}
TWO_ORDERS = {"budgets.customers.filter": "renyi", "budgets.customers.orders": [2.0, 4.0]}
KEYS = {name: PrivateKey.generate() for name in SILOS}


def charter() -> Charter:
    values = make_charter().model_dump(mode="json")
    for member in values["members"]:
        member["identity_key"] = str(KEYS[member["silo"]].public_key)
    return Charter.model_validate_json(json.dumps(values))


CHARTER = charter()


def published(*policies: SiloPolicy) -> dict[str, PublishedRequirements]:
    return {policy.silo: extract(policy, CHARTER, KEYS[policy.silo], NOW) for policy in policies}


def written(one: PublishedRequirements) -> bytes:
    return json.dumps(one.model_dump(mode="json", exclude_unset=True)).encode()


def refused(plan: Plan, *policies: SiloPolicy) -> dict[str, set[str]]:
    found = refusals(plan, published(*policies), charter=CHARTER, now=NOW, proposer="shop-a")
    return {silo: {reason.code for reason in reasons} for silo, reasons in found.items()}


def demands(plan: Plan, *policies: SiloPolicy) -> dict[str, Demand]:
    return {demand.field: demand for demand in meet(plan, published(*policies))}


class TestExtract:
    def test_reads_back_signed_by_the_silo(self):
        one = published(make_policy())["shop-a"]
        assert trust_requirements(written(one), charter=CHARTER, now=NOW) == one

    def test_says_nothing_of_the_budget_the_tables_or_strangers(self):
        policy = altered(
            make_policy(epsilon=7.25, with_members=["shop-b", "elsewhere"]),
            {
                "datasets.purchases.source": {"csv": "secret/place.csv"},
                "budgets.customers.max_epsilon_with": {"shop-b": 3.125},
                "budgets.customers.scope": "renewals",
                "budgets.customers.renewals": [{"date": "2026-07-01", "epsilon": 1.0625}],
            },
        )
        text = written(published(policy)["shop-a"]).decode()
        for secret in ("7.25", "3.125", "1.0625", "secret", "elsewhere", "customers", "purchases", "sha256"):
            assert secret not in text
        for said in ("shop-b", "product-recommendation", "8.0"):
            assert said in text

    def test_two_budgets_make_one_extract(self):
        """Nobody can guess a budget by trying: Ed25519 signs the same content the same way."""
        assert written(published(make_policy(epsilon=4.0))["shop-a"]) == written(
            published(make_policy(epsilon=12.0))["shop-a"]
        )

    def test_an_expired_one_counts_as_none(self, tmp_path):
        one = published(altered(make_policy("shop-b"), {"expires": "2026-05-31"}))["shop-b"]
        with pytest.raises(ExpiredError):
            trust_requirements(written(one), charter=CHARTER, now=NOW)
        (tmp_path / "b.json").write_bytes(written(one))
        assert read_requirements([tmp_path], charter=CHARTER, now=NOW) == {}

    def test_of_two_of_one_silo_the_newer_version_counts(self, tmp_path):
        for number, version in enumerate((5, 3, 4)):
            policy = altered(make_policy("shop-b"), {"version": version})
            (tmp_path / f"{number}.json").write_bytes(written(published(policy)["shop-b"]))
        found = read_requirements([tmp_path], charter=CHARTER, now=NOW)
        assert found["shop-b"].policy_version == 5


class TestForgeries:
    def forged(self, **changes: Any) -> bytes:
        one = json.loads(written(published(make_policy("shop-b"))["shop-b"]))
        return json.dumps(one | changes).encode()

    @pytest.mark.parametrize(
        "changes",
        [
            {"max_epsilon_per_plan": 9.0},
            {"min_silos": 2},
            {"policy_version": 99},
            {"expires": "2029-01-01"},
            {"with_members": ["shop-a"]},
            {"silo": "shop-c"},
            {"families": ["popularity"]},
        ],
    )
    def test_forged_requirements_are_refused(self, changes):
        with pytest.raises(SignatureError, match="not what"):
            trust_requirements(self.forged(**changes), charter=CHARTER, now=NOW)

    def test_signed_by_an_administrator_or_another_member(self):
        for key in (PrivateKey.generate(), KEYS["shop-c"]):
            one = extract(make_policy("shop-b"), CHARTER, key, NOW)
            with pytest.raises(SignatureError):
                trust_requirements(written(one), charter=CHARTER, now=NOW)

    def test_of_a_stranger(self):
        one = extract(make_policy("shop-z"), CHARTER, PrivateKey.generate(), NOW)
        with pytest.raises(WrongSiloError):
            trust_requirements(written(one), charter=CHARTER, now=NOW)

    def test_what_is_none(self):
        for content in (b"", b"[", b"\xff"):
            with pytest.raises(DataError):
                trust_requirements(content, charter=CHARTER, now=NOW)
        with pytest.raises(PolicyFileError, match="budget"):
            trust_requirements(self.forged(budget=1.0), charter=CHARTER, now=NOW)

    def test_one_forgery_in_a_directory_is_not_passed_over(self, tmp_path):
        (tmp_path / "a.json").write_bytes(self.forged(min_silos=2))
        with pytest.raises(SignatureError):
            read_requirements([tmp_path], charter=CHARTER, now=NOW)


class TestWhoWouldRefuse:
    def test_nobody(self):
        plan = make_plan()
        assert refused(plan, *map(make_policy, SILOS)) == {name: set() for name in SILOS}

    @pytest.mark.parametrize(
        ("changes", "field", "code"),
        [
            ({"accepts.max_epsilon_per_plan": 2.0}, "privacy.target_epsilon", "epsilon_too_high"),
            ({"accepts.min_colluding_silos": 2}, "privacy.colluding_silos", "collusion_not_covered"),
            ({"accepts.with_members": ["shop-a", "shop-b"]}, "silos", "member_not_accepted"),
            ({"accepts.purposes": {"research": "purchases"}}, "purpose", "purpose_not_accepted"),
            ({"accepts.families": ["popularity"]}, "model.family", "family_not_accepted"),
            ({"accepts.catalogues": ["cd" * 32]}, "catalogue.sha256", "catalogue_not_accepted"),
            ({"budgets.customers.delta": 1e-8}, "privacy.target_delta", "delta_too_high"),
            (IN_THREE, "privacy.max_silos_per_user", "max_silos_per_user_too_small"),
            ({"datasets.purchases.unit": "user_row"}, "privacy.unit", "unit_required"),
            (TWO_ORDERS, "privacy.filter", "promise_not_kept"),
        ],
    )  # fmt: skip
    def test_who_and_which_field(self, changes, field, code):
        plan = make_plan()
        strict = altered(make_policy("shop-c"), changes)
        others = [make_policy(name) for name in ("shop-a", "shop-b", "shop-d")]
        found = refused(plan, *others, strict)
        assert code in found.pop("shop-c")
        assert set().union(*found.values()) == set()
        asked = demands(plan, *others, strict)
        assert [name for name, demand in asked.items() if not demand.met] == [field]
        assert "shop-c" in asked[field].by

    def test_a_member_that_published_nothing_is_not_judged(self):
        assert set(refused(make_plan(), make_policy("shop-b"))) == {"shop-b"}
        assert meet(make_plan(), {}) == ()

    def test_a_small_account_does_not_show(self):
        assert refused(make_plan(), make_policy("shop-b", epsilon=0.1)) == {"shop-b": set()}


class TestMeet:
    def test_what_no_plan_of_the_roster_can_meet_is_said(self):
        plan = make_plan(silos=SILOS[:3])
        found = demands(
            plan,
            make_policy("shop-a", min_silos=4, families=["popularity"]),
            make_policy("shop-b", families=["linear"], purposes={"research": "purchases"}),
        )
        for field in ("protection.min_silos", "model.family", "purpose"):
            assert not found[field].possible
        assert found["model.family"].accepted == "nothing"

    def test_the_least_and_the_most_win(self):
        found = demands(
            make_plan(),
            make_policy(
                "shop-a", max_epsilon_per_plan=3.0, min_colluding_silos=2, metrics="none", max_rounds=7
            ),
            make_policy("shop-b", max_epsilon_per_plan=2.0, min_silos=4, max_rounds=9),
        )
        assert (found["privacy.target_epsilon"].accepted, found["privacy.target_epsilon"].by) == (
            "at most 2",
            ("shop-b",),
        )
        assert found["privacy.colluding_silos"].accepted == "at least 2"
        assert found["releases.metrics"].accepted == "none"
        assert found["training.rounds"].accepted == "at most 7"
        assert found["protection.min_silos"].by == ("shop-b",)


POLICIES = st.fixed_dictionaries(
    {
        "accepts.max_epsilon_per_plan": st.sampled_from([0.5, 1.0, 4.0]),
        "accepts.min_colluding_silos": st.integers(1, 2),
        "accepts.min_silos": st.integers(2, 4),
        "budgets.customers.delta": st.sampled_from([1e-8, 1e-6, 1e-5]),
        "datasets.purchases.max_silos_per_user": st.integers(1, 4),
        "accepts.metrics": st.sampled_from(["none", "noised"]),
        "accepts.families": st.sampled_from([None, ["popularity", "item-graph"], ["popularity"]]),
        "accepts.max_rounds": st.sampled_from([None, 1, 5]),
    }
)


@settings(max_examples=25, deadline=None)
@given(st.lists(POLICIES, min_size=4, max_size=4), st.booleans())
def test_a_plan_made_from_the_meet_is_accepted_by_every_untouched_account(changes, renyi):
    filters = {"budgets.customers.filter": "renyi", "budgets.customers.orders": list(ORDERS)} if renyi else {}
    policies = [
        altered(make_policy(name, epsilon=50.0), change | filters)
        for name, change in zip(SILOS, changes, strict=True)
    ]
    members = published(*policies).values()
    plan = make_plan(
        family="popularity",
        target_epsilon=min(one.max_epsilon_per_plan for one in members),
        target_delta=min(terms.max_delta for one in members for terms in one.purposes.values()),
        colluding_silos=max(one.min_colluding_silos for one in members),
        max_silos_per_user=max(
            terms.max_silos_per_user for one in members for terms in one.purposes.values()
        ),
        filter=RenyiFilter(orders=ORDERS) if renyi else None,
    )
    assert all(demand.met for demand in meet(plan, published(*policies)))
    for policy in policies:
        found = reasons_against(plan, policy, make_ledger(policy), NOW, charter=CHARTER, proposer="shop-a")
        assert [reason.code for reason in found] == []


@settings(max_examples=40, deadline=None)
@given(
    POLICIES,
    st.sampled_from(
        [make_plan(), make_plan(metrics_epsilon=0.4, holdout="random"), make_plan(colluding_silos=2)]
    ),
)
def test_the_extract_refuses_exactly_what_the_policy_refuses(change, plan):
    """One decision code judges both; only the account is not in it."""
    policy = altered(make_policy("shop-b", epsilon=50.0), change)
    own = {
        reason.code
        for reason in reasons_against(
            plan, policy, make_ledger(policy), NOW, charter=CHARTER, proposer="shop-a"
        )
    }
    assert refused(plan, policy)["shop-b"] == own


def test_dates(tmp_path: Path) -> None:
    one = published(make_policy())["shop-a"]
    assert (one.published, one.expires) == (date(2026, 6, 1), date(2027, 1, 1))
    (tmp_path / "x.json").write_bytes(written(one))
    late = NOW + timedelta(days=400)
    assert read_requirements([tmp_path / "x.json"], charter=CHARTER, now=late) == {}


def test_a_directory_without_any_is_said_and_not_read_as_silence(tmp_path: Path) -> None:
    (tmp_path / "shop-a.yaml").write_bytes(b"{}")
    with pytest.raises(DataError, match="nothing that a member published") as caught:
        read_requirements([tmp_path], charter=CHARTER, now=NOW)
    assert "NAME.json" in str(caught.value.remedy)
