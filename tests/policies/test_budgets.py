"""Budgets that end, are renewed as declared, and are capped for each partner."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.administration import check_policy, early_renewals, sign_policy
from policies.canonical import digest
from policies.catalog import TEMPLATES, render_template
from policies.decisions.decision import PolicyDeniedError
from policies.decisions.history import read_rosters
from policies.decisions.reasons import reasons_against
from policies.documents import PolicyFileError
from policies.explain import explain_policy
from policies.files import dump_yaml, save_yaml
from policies.plans.price import reserved_events
from policies.silo_policy import SiloPolicy
from policies.trust import RenewalTooEarlyError, trust_policy
from privacy.accounting import Spending
from privacy.budget import ZcdpFilter
from privacy.events import EventCount
from privacy.ledger.ledger import Ledger
from privacy.ledger.state import Allowance, JobStatus, LedgerState
from tests.contracts.decision_scene import (
    CHARTER,
    NOW,
    SILOS,
    altered,
    decide,
    make_ledger,
    make_plan,
    make_policy,
    refusals,
)
from tests.contracts.ledger_tools import Owner
from tests.contracts.policy_scene import make_scene, policy_text, read_policy, sign

RENEWALS = [{"date": "2026-01-01", "epsilon": 2.0}, {"date": "2026-09-01", "epsilon": 1.0}]
CHEAP = make_plan(silos=SILOS[:3], target_epsilon=2.0)


def renewed(number: int, **changes: Any) -> SiloPolicy:
    base = {"budgets.customers.scope": "renewals", "budgets.customers.renewals": RENEWALS}
    return altered(make_policy(), base | {"budgets.customers.renewed": number} | changes)  # type: ignore[no-any-return]


def capped(cap: float = 3.0, partner: str = "shop-b") -> SiloPolicy:
    return altered(make_policy(), {"budgets.customers.max_epsilon_with": {partner: cap}})  # type: ignore[no-any-return]


def with_jobs(policy: SiloPolicy, *jobs: tuple[str, bool]) -> LedgerState:
    """``CHEAP`` as jobs of these names, committed or still open."""
    events = reserved_events(CHEAP)
    state = make_ledger(
        policy,
        committed=[item for _, is_done in jobs if is_done for item in events],
        outstanding=[item for _, is_done in jobs if not is_done for item in events],
    )
    statuses = {
        name: JobStatus(
            job=name, account="customers", dataset="purchases", plan_sha256=digest(CHEAP),
            policy_sha256=digest(policy), requested_by="shop-b", seq=number, open=not is_done,
            allowances=tuple(Allowance(event, count, count if is_done else 0) for event, count in events),
        )
        for number, (name, is_done) in enumerate(jobs, start=1)
    }  # fmt: skip
    return LedgerState(state.accounts, statuses)


class TestRenewals:
    def test_a_renewal_before_its_day_is_said_when_it_is_checked(self):
        assert early_renewals(renewed(1), NOW) == []
        (said,) = early_renewals(renewed(2), NOW)
        assert "budgets.customers.renewed: the renewal of 2026-09-01 is taken before its day" in said
        assert early_renewals(renewed(2), datetime(2026, 9, 1, tzinfo=UTC)) == []

    @pytest.mark.parametrize(("number", "total"), [(0, 8.0), (1, 10.0), (2, 11.0)])
    def test_the_ledger_gets_what_was_taken(self, number, total):
        assert renewed(number).budgets["customers"].to_budget().epsilon == total

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"budgets.customers.scope": "lifetime"}, "belong to scope"),
            ({"budgets.customers.renewals": None}, "belong to scope"),
            ({"budgets.customers.renewed": 3}, "3 of 2"),
            ({"budgets.customers.renewals": RENEWALS[::-1]}, "order of their dates"),
            ({"budgets.customers.renewals": [RENEWALS[0], RENEWALS[0]]}, "order of their dates"),
            ({"budgets.customers.renewals": [{"date": "2026-01-01", "epsilon": 93.0}]}, "no promise"),
            ({"budgets.customers.renewals": [{"date": "2026-01-01", "epsilon": 0.0}]}, "greater than 0"),
            ({"budgets.customers.renewals": []}, "at least 1"),
        ],
    )
    def test_nonsense_is_refused(self, changes, said):
        with pytest.raises(ValueError, match=said):
            renewed(1, **changes)

    def test_a_renewal_before_its_day_is_no_policy(self):
        scene = make_scene()
        text = policy_text().replace(
            "scope: lifetime", "scope: renewals, renewed: 1, renewals: [{date: 2026-06-02, epsilon: 1.0}]"
        )
        signed = sign(read_policy(text).signed_bytes(), *scene.administrators()[:2])

        def accept(now: datetime) -> SiloPolicy:
            return trust_policy(
                text.encode(), signed, charter=scene.charter, silo="shop-a", previous_version=6, now=now
            )

        with pytest.raises(RenewalTooEarlyError, match="2026-06-02") as caught:
            accept(datetime(2026, 6, 1, 23, 59, tzinfo=UTC))
        assert "renewed: 0" in str(caught.value)
        assert accept(datetime(2026, 6, 2, tzinfo=UTC)).budgets["customers"].total_epsilon == 9.0

    def test_each_is_an_entry_and_forgets_nothing(self, tmp_path):
        owner = Owner()
        with Ledger.open(tmp_path / "ledger.db", sign=owner.sign, key_id=owner.key_id) as ledger:
            for version, number in ((3, 0), (4, 1), (5, 2)):
                policy = renewed(number, version=version)
                budget = policy.budgets["customers"].to_budget()
                ledger.open_account("customers", budget, digest(policy), version)
            kinds = [entry.kind for entry in ledger.entries()]
            assert kinds == ["account_opened", "budget_changed", "budget_changed"]
            assert ledger.status("customers").budget.epsilon == 11.0

    def test_explained_with_what_is_to_come(self):
        words = said(renewed(1))
        assert "Renewal 1 adds epsilon 2 from 2026-01-01 on; it has been taken" in words
        assert "Renewal 2 adds epsilon 1 from 2026-09-01 on; it may be taken" in words
        assert "at most epsilon 10 " in words


class TestExpiry:
    def test_an_account_that_ended_pays_for_nothing(self):
        for day, codes in (("2026-05-31", {"budget_expired"}), ("2026-06-01", set())):
            assert refusals(CHEAP, altered(make_policy(), {"budgets.customers.expires": day})) == codes

    def test_is_explained(self):
        assert "after 2026-05-31" in said(altered(make_policy(), {"budgets.customers.expires": "2026-05-31"}))


class TestPartners:
    def test_a_plan_within_the_cap_and_one_above(self):
        assert refusals(CHEAP, capped(2.0)) == set()
        assert refusals(CHEAP, capped(1.9)) == {"budget_exceeded"}

    def test_other_partners_are_not_capped(self):
        assert refusals(CHEAP, capped(1.0, "shop-d")) == set()

    @pytest.mark.parametrize("is_done", [True, False])
    def test_jobs_with_the_partner_count_whether_open_or_done(self, is_done):
        state = with_jobs(capped(2.5), ("1", is_done))
        assert refused(state, capped(2.5), {"1": SILOS[:3]})
        assert not refused(state, capped(2.5), {"1": ("shop-a", "shop-c", "shop-d")})
        assert not refused(with_jobs(capped(3.5), ("1", is_done)), capped(3.5), {"1": SILOS[:3]})

    def test_a_job_whose_plan_was_lost_counts_for_every_partner(self):
        state = with_jobs(capped(2.5), ("1", True))
        assert refused(state, capped(2.5), {})

    def test_jobs_of_other_people_do_not_count(self):
        state = with_jobs(capped(2.5), ("1", True))
        elsewhere = {
            name: JobStatus(**{**vars(job), "account": "guests", "dataset": "visits"})
            for name, job in state.jobs.items()
        }
        assert not refused(LedgerState(make_ledger(capped(2.5)).accounts, elsewhere), capped(2.5), {})

    def test_nobody_outside_learns_that_it_was_the_cap(self):
        with pytest.raises(PolicyDeniedError) as caught:
            decide(CHEAP, capped(1.0))
        (reason,) = caught.value.outbound
        assert (reason.code, reason.field) == ("budget_exceeded", "privacy.target_epsilon")
        assert "shop-b" in reason.found

    def test_oneself_is_no_partner_and_a_stranger_is_warned_about(self):
        with pytest.raises(ValueError, match="itself"):
            capped(partner="shop-a")
        assert any("not in accepts.with_members" in text for text in capped(partner="shop-z").warnings())

    def test_is_explained(self):
        assert "All plans with shop-b together may cost each of the customers at most epsilon 3" in said(
            capped()
        )

    @settings(max_examples=25, deadline=None)
    @given(
        st.floats(0.5, 6.0),
        st.lists(st.tuples(st.sampled_from([0.5, 1.0, 2.0]), st.booleans()), min_size=1, max_size=6),
    )
    def test_whatever_is_proposed_the_partners_jobs_stay_within_the_cap(self, cap, proposals):
        policy = altered(make_policy(epsilon=50.0), {"budgets.customers.max_epsilon_with": {"shop-b": cap}})
        done: list[tuple[EventCount, ...]] = []
        state, rosters = make_ledger(policy), {}
        for number, (epsilon, has_b) in enumerate(proposals):
            silos = SILOS[:3] if has_b else ("shop-a", "shop-c", "shop-d")
            plan = make_plan(silos=silos, target_epsilon=epsilon)
            if refused(state, policy, rosters, plan):
                continue
            events = reserved_events(plan)
            done += [events] if has_b else []
            job = f"{number}"
            rosters[job] = silos
            state = LedgerState(state.accounts, {**state.jobs, job: JobStatus(
                job=job, account="customers", dataset="purchases", plan_sha256=digest(plan),
                policy_sha256=digest(policy), requested_by="shop-a", seq=number, open=False,
                allowances=tuple(Allowance(event, count, count) for event, count in events),
            )})  # fmt: skip
        spending = Spending.of([item for events in done for item in events], ZcdpFilter(kind="zcdp"))
        assert spending.epsilon(policy.budgets["customers"].delta) <= cap * (1 + 1e-9)

    def test_rosters_come_from_plans_that_are_the_ledgers(self, tmp_path):
        jobs = with_jobs(capped(), ("a" * 32, True), ("b" * 32, True), ("c" * 32, True)).jobs
        save_yaml(tmp_path / "jobs" / ("a" * 32) / "plan.yaml", CHEAP)
        save_yaml(tmp_path / "jobs" / ("b" * 32) / "plan.yaml", make_plan())
        assert read_rosters(tmp_path, jobs) == {"a" * 32: SILOS[:3]}


class TestPartnersOfSeveralPopulations:
    """Each population has its own promise: a cap counts the jobs of its own people, and no others."""

    NEWS = CHEAP.model_copy(update={"purpose": "news"})

    @pytest.fixture
    def policy(self) -> SiloPolicy:
        """Customers may be asked by shop-b for 2.5, by shop-c for 9; readers by shop-b for 3.5."""
        base = make_policy().model_dump(mode="json", exclude_unset=True)
        reading = base["datasets"]["purchases"] | {"population": "readers"}
        budget = base["budgets"]["customers"]
        return altered(make_policy(), {
            "datasets.reading": reading,
            "accepts.purposes": {"product-recommendation": "purchases", "news": "reading"},
            "budgets.customers": budget | {"max_epsilon_with": {"shop-b": 2.5, "shop-c": 9.0}},
            "budgets.readers": budget | {"max_epsilon_with": {"shop-b": 3.5}},
        })  # type: ignore[no-any-return]  # fmt: skip

    def after(self, policy: SiloPolicy, *jobs: tuple[str, str]) -> LedgerState:
        """Jobs of epsilon 2 each, done: their name and their population."""
        state, events = make_ledger(policy), reserved_events(CHEAP)
        done = tuple(Allowance(event, count, count) for event, count in events)
        statuses = {
            name: JobStatus(
                job=name, account=account, dataset="any", plan_sha256=digest(CHEAP), open=False,
                policy_sha256=digest(policy), requested_by="shop-b", seq=number, allowances=done,
            )
            for number, (name, account) in enumerate(jobs, start=1)
        }  # fmt: skip
        return LedgerState(state.accounts, statuses)

    def test_jobs_of_one_population_leave_the_others_cap_alone(self, policy):
        state, rosters = self.after(policy, ("1", "customers")), {"1": SILOS[:3]}
        assert refused(state, policy, rosters, CHEAP)
        assert not refused(state, policy, rosters, self.NEWS)

    def test_each_cap_is_its_own(self, policy):
        rosters = {"1": SILOS[:3], "2": SILOS[:3]}
        state = self.after(policy, ("1", "readers"))
        assert not refused(state, policy, rosters, self.NEWS)
        assert not refused(state, policy, rosters, CHEAP)
        state = self.after(policy, ("1", "readers"), ("2", "readers"))
        (reason,) = reasons_against(self.NEWS, policy, state, NOW, charter=CHARTER, rosters=rosters)
        assert reason.allowed == "epsilon 3.5 for all jobs with shop-b"
        assert not refused(state, policy, rosters, CHEAP)

    def test_a_job_whose_plan_was_lost_counts_in_its_own_population_only(self, policy):
        state = self.after(policy, ("1", "readers"), ("2", "readers"))
        assert refused(state, policy, {}, self.NEWS)
        assert not refused(state, policy, {}, CHEAP)

    def test_each_is_explained_for_its_own_people(self, policy):
        words = said(policy)
        assert "All plans with shop-b together may cost each of the customers at most epsilon 2.5" in words
        assert "All plans with shop-b together may cost each of the readers at most epsilon 3.5" in words


class TestNothingThatDoesNothing:
    @pytest.mark.parametrize(
        ("text", "field"),
        [
            ("serving: {mode: dp_release}", "serving.mode"),
        ],
    )
    def test_a_field_that_nothing_holds_to_is_not_signed(self, tmp_path, text, field):
        scene = make_scene()
        scene.write(tmp_path)
        silo = tmp_path / "shop-b"
        path = silo / "policy.yaml"
        path.write_text(path.read_text().replace("serving: {mode: own_features_only}\n", "") + text + "\n")
        (problem,) = check_policy(silo, NOW).problems
        assert problem.field == field
        assert "a plan of the family private-encoder releases" in str(problem)
        with pytest.raises(PolicyFileError, match=field):
            sign_policy(silo, NOW)
        assert not (silo / "policy.sig.json").exists()

    def test_a_dataset_with_a_unit_that_no_accepted_plan_has_is_warned_about(self):
        policy = altered(make_policy(), {"datasets.purchases.unit": "user_row"})
        assert any("all of them are denied" in text for text in policy.warnings())
        assert refusals(CHEAP, policy) == {"unit_required"}
        limits = {"capacity": 2000, "min_intersection": 100, "max_runs_per_30_days": 2}
        assert not any("denied" in text for text in altered(policy, {"alignment": limits}).warnings())


class TestTemplates:
    @pytest.mark.parametrize("template", TEMPLATES)
    def test_what_stands_behind_a_comment_sign_is_valid_too(self, template):
        text = render_template(template, silo="me", with_members=["shop-b", "shop-c", "clinic-b"])
        lines = text.splitlines()
        found = 0
        for number, line in enumerate(lines):
            stripped = line.strip()
            if stripped.startswith("# ") and stripped[2:].split(":")[0] in ("exclude_users", lines_of(text)):
                indent = line[: len(line) - len(line.lstrip())]
                fresh = indent + stripped[2:]
                name = stripped[2:].split(":")[0]
                kept = [other for other in lines if not other.strip().startswith(f"{name}: {{")]
                place = kept.index(line) if line in kept else number
                read_policy("\n".join([*kept[:place], fresh, *kept[place + 1 :]]))
                found += 1
        assert found

    @pytest.mark.parametrize("template", TEMPLATES)
    def test_explains_itself_to_people(self, template):
        words = said(read_policy(render_template(template, silo="me", with_members=["shop-b", "shop-c"])))
        for expected in (
            "in force until",
            "at most epsilon",
            "learns who takes part",
            "ledger names no person",
        ):
            assert expected in words


def lines_of(text: str) -> str:
    """The template's population."""
    return next(line.split(":")[1].split()[0] for line in text.splitlines() if "population:" in line)


def refused(
    state: LedgerState, policy: SiloPolicy, rosters: dict[str, tuple[str, ...]], plan: Any = CHEAP
) -> bool:
    return bool(list(reasons_against(plan, policy, state, NOW, charter=CHARTER, rosters=rosters)))


def said(policy: SiloPolicy) -> str:
    return " ".join(sentence for part in explain_policy(policy, NOW) for sentence in part.sentences)


def test_the_new_fields_change_no_bytes_of_an_old_file(tmp_path: Path) -> None:
    policy = make_policy()
    assert "renew" not in json.dumps(policy.model_dump(mode="json", exclude_unset=True))
    save_yaml(tmp_path / "policy.yaml", renewed(1))
    assert digest(read_policy(dump_yaml(renewed(1)))) == digest(renewed(1))
    assert date(2026, 1, 1) == renewed(1).budgets["customers"].taken[0].date
