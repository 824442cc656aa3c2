"""Two policies compared by what follows: fields, budgets, and plans that would be answered otherwise."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from policies.canonical import digest
from policies.comparison import _FIELDS, Change, changes
from policies.decisions.history import answer, read_past, under
from policies.files import dump_yaml, save_yaml
from policies.plans.plan import Plan
from policies.plans.price import reserved_events
from policies.policy_commands import policy_app
from policies.signing import PrivateKey
from policies.silo_policy import SiloPolicy
from privacy.ledger.ledger import Ledger
from tests.contracts.decision_scene import CHARTER, altered, make_ledger, make_plan, make_policy, refusals
from tests.docs.test_policy_files import fields_of

OLD = make_policy(max_rounds=10)
START = datetime(2026, 5, 1, 12, tzinfo=UTC)
JOBS = ("1" * 32, "2" * 32, "3" * 32)


def one(path: str, value: Any, *more: tuple[str, Any]) -> Change:
    """The only change of fields between ``OLD`` and a newer version with these values."""
    found = changes(OLD, altered(OLD, {"version": 4, path: value, **dict(more)}))
    (change,) = (item for item in found if item.field != "version")
    return change


class TestChanges:
    def test_the_same_is_no_change(self):
        assert changes(OLD, OLD) == ()

    @pytest.mark.parametrize(
        ("path", "value", "direction", "said"),
        [
            ("budgets.customers.epsilon", 10.0, "weaker", "2 more"),
            ("budgets.customers.epsilon", 6.0, "stricter", "2 less"),
            ("budgets.customers.delta", 1e-5, "weaker", "more"),
            ("datasets.purchases.max_interactions_per_user", 200, "weaker", "100 more"),
            ("datasets.purchases.max_silos_per_user", 2, "stricter", "1 more"),
            ("datasets.purchases.exclude_users", "no.csv", "stricter", "who said no"),
            ("accepts.with_members", ["shop-b"], "stricter", "shop-c, shop-d may not"),
            ("accepts.with_members", ["shop-b", "shop-c", "shop-d", "shop-e"], "weaker", "shop-e may"),
            ("accepts.with_members", ["shop-d", "shop-c", "shop-b"], "other", "same"),
            ("accepts.max_epsilon_per_plan", 9.0, "weaker", "1 more"),
            ("accepts.min_silos", 2, "weaker", "1 less"),
            ("accepts.min_silos", 4, "stricter", "1 more"),
            ("accepts.min_colluding_silos", 2, "stricter", "1 more"),
            ("accepts.metrics", "none", "stricter", "quality"),
            ("accepts.verify_sums", 0.0, "weaker", "0.1 less"),
            ("accepts.catalogues", ["ab" * 32], "stricter", "item lists"),
            ("accepts.families", ["popularity"], "stricter", "kinds"),
            ("accepts.max_rounds", 5, "stricter", "how often"),
            ("accepts.max_rounds", None, "weaker", "how often"),
            ("accepts.max_epsilon_per_selection", 0.1, "weaker", "private choice"),
            ("accepts.purposes.research", "purchases", "weaker", "plans"),
            ("expires", "2028-01-01", "other", "last day"),
            ("datasets.purchases.source", {"csv": "x.csv"}, "other", "rows"),
        ],
    )
    def test_what_a_field_does_to_people(self, path, value, direction, said):
        found = [
            item
            for item in changes(OLD, altered(OLD, {"version": 4, path: value}))
            if item.field != "version"
        ]
        assert {item.direction for item in found} == {direction}
        assert all(said in item.consequence for item in found)

    @pytest.mark.parametrize(
        ("field", "value", "direction", "said"),
        [
            ("mode", "own_features_only", "stricter", "another silo's row"),
            ("mode", "user_side_merge", "stricter", "another silo's row"),
            ("answers", {"shop-b": ["product-recommendation"]}, "weaker", "people who consent"),
            ("max_requests_per_hour", 100, "stricter", "3500 less"),
            ("token_minutes", 60, "weaker", "50 more minutes"),
        ],
    )
    def test_what_serving_does_to_people(self, field, value, direction, said):
        consented = altered(OLD, {"serving": {"mode": "consented_session"}})
        newer = altered(consented, {"version": 4, f"serving.{field}": value})
        [there] = [item for item in changes(consented, newer) if item.field.startswith(f"serving.{field}")]
        assert (there.direction, said in there.consequence) == (direction, True)
        [back] = [item for item in changes(newer, consented) if item.field == there.field]
        assert back.direction == {"weaker": "stricter", "stricter": "weaker"}[direction]

    def test_the_way_back_is_the_other_way(self):
        newer = altered(OLD, {"version": 4, "accepts.min_silos": 2})
        again = altered(OLD, {"version": 5})
        assert [item.direction for item in changes(newer, again) if item.field != "version"] == ["stricter"]

    def test_a_new_account_is_weaker_and_said_once(self):
        account = {"epsilon": 1.0, "delta": 1e-6, "scope": "lifetime", "filter": "zcdp"}
        assert one("budgets.guests", account).direction == "weaker"

    def test_a_new_table_is_said_once_with_its_use(self):
        table = OLD.datasets["purchases"].model_dump(mode="json", exclude_unset=True)
        assert "no purpose" in one("datasets.views", table).consequence

    @pytest.mark.parametrize("version", [2, 3])
    def test_a_version_that_nobody_would_take_comes_first(self, version):
        found = changes(OLD, altered(OLD, {"version": version, "accepts.min_silos": 2}))
        assert (found[0].field, found[0].direction) == ("version", "refused")

    def test_another_silos_policy_is_nobodys_newer_version(self):
        assert changes(OLD, make_policy("shop-b", max_rounds=10))[0].direction == "refused"

    def test_every_field_of_a_policy_has_its_rule(self):
        """A field added later is not silently ``other``."""
        sections = {path.rpartition(".")[0] for path in fields_of(SiloPolicy)}
        leaves = [
            path for path in fields_of(SiloPolicy) if path not in sections and f"{path}.*" not in sections
        ]
        constant = {"kind", "schema_version"}
        patterns = [known.pattern for known in _FIELDS]
        missing = [
            path
            for path in leaves
            if path not in constant
            and not path.startswith("budgets.*.renewals.")
            and not any(
                path == pattern or (pattern.endswith("*") and path.startswith(pattern[:-2]))
                for pattern in patterns
            )
        ]
        assert missing == []


@pytest.fixture
def silo(tmp_path: Path) -> Path:
    """A directory with three answered plans: accepted dear, accepted cheap, and a refused one."""
    (tmp_path / "charter.yaml").write_text(dump_yaml(CHARTER))
    key = PrivateKey.generate()
    plans = (make_plan(), make_plan(target_epsilon=1.0), make_plan(target_epsilon=9.0))
    with Ledger.open(
        tmp_path / "ledger.db", sign=key.sign_raw, key_id=key.key_id, clock=lambda: START
    ) as ledger:
        for name, budget in OLD.budgets.items():
            ledger.open_account(name, budget.to_budget(), digest(OLD), OLD.version)
        for job, plan in zip(JOBS[:2], plans[:2], strict=True):
            reserve(ledger, job, plan)
    for job, plan in zip(JOBS, plans, strict=True):
        path = tmp_path / "jobs" / job / "plan.yaml"
        save_yaml(path, plan)
        os.utime(path, (START.timestamp() - 1,) * 2)
    save_yaml(tmp_path / "old.yaml", OLD)
    return tmp_path


def reserve(ledger: Ledger, job: str, plan: Plan) -> None:
    ledger.reserve(
        account="customers", job=job, dataset="purchases", plan_sha256=digest(plan),
        policy_sha256=digest(OLD), requested_by="shop-b", events=reserved_events(plan),
    )  # fmt: skip


def diff(silo: Path, new: dict[str, Any], *arguments: str, code: int = 0) -> dict[str, Any]:
    save_yaml(silo / "new.yaml", altered(OLD, {"version": 4, **new}))
    result = run("diff", str(silo / "old.yaml"), str(silo / "new.yaml"), "--dir", str(silo), "--json", "-",
                 "--days", "36500", *arguments, code=code)  # fmt: skip
    return dict(json.loads(result.stdout))


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(policy_app, list(arguments))
    assert result.exit_code == code, result.output
    return result


def names(plans: list[dict[str, Any]]) -> list[str]:
    return [plan["plan"] for plan in plans]


class TestPlans:
    def test_a_lower_ceiling_denies_the_dear_plan(self, silo):
        found = diff(silo, {"accepts.max_epsilon_per_plan": 2.0})["plans"]
        assert (found["judged"], names(found["now_denied"]), found["now_accepted"]) == (3, [JOBS[0]], [])
        assert found["now_denied"][0]["reasons"][0]["code"] == "epsilon_too_high"

    def test_a_higher_ceiling_and_budget_accept_the_refused_plan(self, silo):
        new = {"accepts.max_epsilon_per_plan": 20.0, "budgets.customers.epsilon": 20.0}
        found = diff(silo, new)
        assert names(found["plans"]["now_accepted"]) == [JOBS[2]]
        assert found["weaker"] is True

    def test_each_plan_is_judged_on_the_account_before_it(self, silo):
        """Both jobs together cost more than epsilon 4; the first alone does not."""
        found = diff(silo, {"budgets.customers.epsilon": 4.0})["plans"]
        assert names(found["now_denied"]) == [JOBS[1]]

    def test_plans_of_earlier_days_are_left_alone(self, silo):
        found = diff(silo, {"accepts.max_epsilon_per_plan": 2.0}, "--days", "0")["plans"]
        assert found["judged"] == 0

    def test_a_plan_at_hand_can_be_asked_about(self, silo):
        save_yaml(silo / "idea.yaml", make_plan(target_epsilon=1.0, max_users_per_silo=8192))
        found = diff(silo, {"accepts.min_silos": 5}, "--plan", str(silo / "idea.yaml"))["plans"]
        assert str(silo / "idea.yaml") in names(found["now_denied"])

    def test_a_file_that_is_no_plan_is_named(self, silo):
        (silo / "jobs" / JOBS[1] / "plan.yaml").write_text("kind: Plan\n")
        assert diff(silo, {})["plans"]["unreadable"] == [JOBS[1]]

    def test_nothing_is_written(self, silo):
        before = sorted((path, path.stat().st_mtime_ns) for path in silo.rglob("*") if path.is_file())
        run("diff", str(silo / "old.yaml"), str(silo / "old.yaml"), "--dir", str(silo))
        after = sorted((path, path.stat().st_mtime_ns) for path in silo.rglob("*") if path.is_file())
        assert [path for path in after if path not in before] == []

    def test_an_expired_policy_is_compared_by_its_law(self, silo):
        """Otherwise every plan would flip on the day after the last."""
        assert diff(silo, {"expires": "2020-01-01"})["plans"]["now_denied"] == []


class TestBudgets:
    def test_more_may_be_spent(self, silo):
        (found,) = diff(silo, {"budgets.customers.epsilon": 10.0})["budgets"]
        assert found["new"]["remaining"] - found["old"]["remaining"] == pytest.approx(2.0)

    def test_a_budget_below_what_is_spent_freezes(self, silo):
        (found,) = diff(silo, {"budgets.customers.epsilon": 2.0})["budgets"]
        assert found["new"]["frozen"] is True

    def test_another_filter_is_said_to_be_refused(self, silo):
        new = {"budgets.customers.filter": "renyi", "budgets.customers.orders": [2.0, 4.0]}
        (found,) = diff(silo, new)["budgets"]
        assert found["filter_changed"] is True
        assert "will not take" in run(
            "diff", str(silo / "old.yaml"), str(silo / "new.yaml"), "--dir", str(silo)
        ).output.replace("\n", " ")


class TestCommand:
    def test_strict_ends_with_4_where_something_is_weaker(self, silo):
        diff(silo, {"accepts.min_silos": 4}, "--strict")
        diff(silo, {"accepts.min_silos": 2}, "--strict", code=4)
        diff(silo, {"version": 3, "accepts.min_silos": 4}, "--strict", code=4)

    def test_by_default_what_is_in_force_against_what_is_being_written(self, silo):
        save_yaml(silo / "policies" / "2.yaml", altered(OLD, {"version": 2}))
        save_yaml(silo / "policies" / "10.yaml", altered(OLD, {"version": 10}))
        save_yaml(silo / "policy.yaml", altered(OLD, {"version": 11, "accepts.min_silos": 2}))
        text = run("diff", "--dir", str(silo)).output
        assert "version 10 → 11" in text
        assert "Weaker: look twice" in text

    def test_without_a_version_in_force_both_must_be_named(self, silo):
        assert "name both" in run("diff", "--dir", str(silo), code=6).stderr

    def test_two_files_without_a_silo(self, silo, tmp_path_factory):
        elsewhere = tmp_path_factory.mktemp("elsewhere")
        old = str(silo / "old.yaml")
        assert "none was answered" in run("diff", old, old, "--dir", str(elsewhere)).output
        plan = str(silo / "jobs" / JOBS[0] / "plan.yaml")
        run("diff", old, old, "--dir", str(elsewhere), "--plan", plan, code=6)

    def test_a_malformed_file_is_told_with_its_line(self, silo):
        (silo / "new.yaml").write_text("kind: SiloPolicy\n")
        assert "problems" in run("diff", str(silo / "old.yaml"), str(silo / "new.yaml"), code=6).stderr


STRICTER = st.sampled_from(
    [
        {"accepts.min_silos": 4},
        {"accepts.min_colluding_silos": 2},
        {"accepts.max_epsilon_per_plan": 1.0},
        {"accepts.metrics": "none"},
        {"accepts.with_members": ["shop-b"]},
        {"accepts.families": ["popularity"]},
        {"accepts.max_rounds": 1},
        {"budgets.customers.epsilon": 0.5},
        {"budgets.customers.delta": 1e-9},
        {"datasets.purchases.max_silos_per_user": 3},
    ]
)
PLANS = [make_plan(), make_plan(target_epsilon=1.0), make_plan(max_silos_per_user=2, colluding_silos=2)]


@settings(max_examples=40, deadline=None)
@given(st.lists(STRICTER, min_size=1, max_size=4), st.sampled_from(PLANS))
def test_no_change_that_is_only_stricter_accepts_a_plan_that_was_denied(picked, plan):
    newer = altered(
        OLD, {"version": 4, **{path: value for change in picked for path, value in change.items()}}
    )
    assert {item.direction for item in changes(OLD, newer)} <= {"stricter", "other"}
    if refusals(plan, OLD):
        assert refusals(plan, newer)


def test_terms_of_another_policy_leave_the_spending_as_it_is() -> None:
    plan = make_plan()
    state = make_ledger(OLD, committed=reserved_events(plan))
    changed = under(state, altered(OLD, {"version": 4, "budgets.customers.epsilon": 20.0}))
    assert changed.accounts["customers"].epsilon_spent == state.accounts["customers"].epsilon_spent
    assert changed.accounts["customers"].budget.epsilon == 20.0


def test_the_past_of_an_empty_directory(tmp_path: Path) -> None:
    past = read_past(tmp_path, datetime.now(UTC) - timedelta(days=90))
    assert (past.plans, past.unreadable, past.now.accounts) == ((), (), {})


def test_a_past_plan_of_an_unknown_proposer_is_not_denied_for_it(silo: Path) -> None:
    plans = {item.name: item for item in read_past(silo, START - timedelta(days=1)).plans}
    assert plans[JOBS[0]].proposer == "shop-b"
    assert plans[JOBS[2]].proposer is None
    assert answer(plans[JOBS[0]], OLD, charter=CHARTER, now=START) == ()
