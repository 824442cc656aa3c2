"""What a policy says about alignments: checked, decided, compared, explained, published, shown."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from policies.alignment_policy import Alignment
from policies.catalog import render_template
from policies.comparison import Change, changes
from policies.decisions.decision import PolicyDeniedError, authorize
from policies.decisions.history import under
from policies.decisions.meet import meet, refusals
from policies.decisions.vertical_reasons import alignment_reasons
from policies.explain import explain_policy
from policies.explain_alignment import LIMITS
from policies.files import load_yaml
from policies.plans.asking import FAMILIES
from policies.plans.models import VERTICAL_FAMILIES
from policies.plans.plan import Plan
from policies.plans.vertical.drafting import VerticalDraft, complete_vertical_plan
from policies.requirements import PublishedRequirements, extract
from policies.silo_policy import SiloPolicy
from privacy.ledger.state import LedgerState
from tests.contracts.decision_scene import CATALOGUE, NOW, altered, make_charter, make_ledger, make_policy
from tests.contracts.policy_scene import make_scene, read_policy

EXAMPLES = Path(__file__).parents[2] / "examples" / "vertical-partner"
SILOS = ("shop", "content", "social")
CAPACITIES = {"shop": 4096, "content": 4096, "social": 2048}
LIMITS_OF_ALL: dict[str, Any] = {"min_intersection": 500, "max_runs_per_30_days": 2}
UNITS = {"content": "user", "social": "user_row"}
CHARTER = make_charter(SILOS)


def make_vertical(**decided: Any) -> Plan:
    fields: dict[str, Any] = {
        "label": "shop",
        "features": UNITS,
        "catalogue_sha256": CATALOGUE,
        "catalogue_items": 300,
        "target_epsilon": 4.0,
        "target_delta": 1e-6,
        "capacities": CAPACITIES,
        "min_intersection": 500,
    }
    return complete_vertical_plan(VerticalDraft(**{**fields, **decided}))


def policy_of(silo: str = "content", changes: dict[str, Any] | None = None, **limits: Any) -> SiloPolicy:
    """A policy of one of the three that accepts :func:`make_vertical`, with other limits or fields."""
    base = make_policy(silo, with_members=[name for name in SILOS if name != silo], min_silos=2)
    section = {**LIMITS_OF_ALL, "capacity": CAPACITIES[silo], **limits}
    fields: dict[str, Any] = {"alignment": section}
    if UNITS.get(silo, "user") != "user":
        fields["datasets.purchases.unit"] = UNITS[silo]
    return altered(base, fields | (changes or {}))


def codes(plan: Plan, policy: SiloPolicy, recent: int = 0) -> set[str]:
    """Why ``policy`` denies ``plan``, by the whole decision."""
    try:
        authorize(plan, policy, make_ledger(policy), NOW, charter=CHARTER, recent_alignments=recent)
    except PolicyDeniedError as denied:
        return {reason.code for reason in denied.reasons}
    return set()


# ── the decision ──


@pytest.mark.parametrize("silo", SILOS)
def test_every_role_accepts_a_fitting_plan(silo: str) -> None:
    assert codes(make_vertical(), policy_of(silo)) == set()


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ({"capacity": 4097}, "capacity_mismatch"),
        ({"capacity": 4095}, "capacity_mismatch"),
        ({"min_intersection": 501}, "min_intersection_too_small"),
        ({"max_epsilon": 0.09}, "alignment_epsilon_too_high"),
        ({"identifiers": "email"}, "identifiers_mismatch"),
        ({"roles": ["label"]}, "role_not_accepted"),
        ({"roles": []}, "role_not_accepted"),
    ],
)
def test_each_limit_is_held_to(limits: dict[str, Any], code: str) -> None:
    assert codes(make_vertical(), policy_of(**limits)) == {code}


def test_limits_that_are_just_met_deny_nothing() -> None:
    limits = {"max_epsilon": 0.1, "identifiers": "exact", "roles": ["feature"], "min_intersection": 500}
    assert codes(make_vertical(), policy_of(**limits)) == set()
    assert codes(make_vertical(), policy_of("shop", roles=["label"])) == set()


def test_reveal_both_needs_a_policy_that_allows_it_and_one_that_does_allows_none_too() -> None:
    revealing = make_vertical(reveal="both")
    assert codes(revealing, policy_of()) == {"reveal_not_accepted"}
    assert codes(revealing, policy_of(reveal="both")) == set()
    assert codes(make_vertical(), policy_of(reveal="both")) == set()


def test_runs_are_counted_whoever_takes_part() -> None:
    assert codes(make_vertical(), policy_of(), recent=1) == set()
    assert codes(make_vertical(), policy_of(), recent=2) == {"too_many_alignments"}


def test_all_that_stands_against_a_plan_is_said_at_once() -> None:
    policy = policy_of(capacity=9999, max_epsilon=0.01, identifiers="phone", roles=["label"])
    found = {reason.code for reason in alignment_reasons(make_vertical(reveal="both"), policy, 5)}
    assert found == {
        "capacity_mismatch",
        "alignment_epsilon_too_high",
        "identifiers_mismatch",
        "role_not_accepted",
        "reveal_not_accepted",
        "too_many_alignments",
    }


def test_a_label_silo_is_asked_for_its_own_price_only() -> None:
    """Epsilon 0.6 pays for the number of people in common, not for what a feature silo releases."""
    plan, small = make_vertical(), {"budgets.customers.epsilon": 0.6}
    assert codes(plan, policy_of("shop", small)) == set()
    assert codes(plan, policy_of("content", small)) == {"budget_exceeded"}
    capped = {"budgets.customers.max_epsilon_with": {"social": 0.6}}
    assert codes(plan, policy_of("shop", capped)) == set()
    assert codes(plan, policy_of("content", capped)) == {"budget_exceeded"}


@settings(max_examples=60, deadline=None)
@given(
    min_intersection=st.sampled_from([500, 600, 2048]),
    epsilon=st.sampled_from([0.05, 0.1, 0.3]),
    reveal=st.sampled_from(["none", "both"]),
    limits=st.fixed_dictionaries(
        {},
        optional={
            "min_intersection": st.sampled_from([400, 550, 900]),
            "max_epsilon": st.sampled_from([0.05, 0.1, 0.2]),
            "reveal": st.sampled_from(["none", "both"]),
        },
    ),
)
def test_no_weaker_plan_is_accepted_where_a_stronger_one_is_denied(
    min_intersection: int, epsilon: float, reveal: str, limits: dict[str, Any]
) -> None:
    strong = make_vertical(min_intersection=min_intersection, alignment_epsilon=epsilon)
    assert strong.alignment is not None
    weaker = {"min_intersection": min_intersection - 60, "epsilon": 2 * epsilon, "reveal": reveal}
    weak = strong.model_copy(update={"alignment": strong.alignment.model_copy(update=weaker)})
    policy = policy_of(**limits)
    before = {reason.code for reason in alignment_reasons(strong, policy, 0)}
    assert before <= {reason.code for reason in alignment_reasons(weak, policy, 0)}


# ── the section itself ──


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"min_intersection": 4097}, "never has so many in common"),
        ({"roles": ["label", "label"]}, "a role stands here twice"),
        ({"roles": ["leader"]}, "roles"),
        ({"approval": "never"}, "approval"),
        ({"max_epsilon": 0.0}, "max_epsilon"),
    ],
)
def test_what_contradicts_itself_is_no_policy(limits: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        policy_of(**limits)


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (policy_of(reveal="both"), "tells every silo of a plan"),
        (policy_of(roles=[]), "every vertical plan is denied"),
        (policy_of(changes={"accepts.families": ["item-graph"]}), "nothing is ever aligned"),
    ],
)
def test_what_deserves_a_second_look(policy: SiloPolicy, said: str) -> None:
    assert any(said in warning for warning in policy.warnings())
    assert not any(said in warning for warning in policy_of().warnings())


def test_it_may_be_signed(tmp_path: Path) -> None:
    assert policy_of().unenforced() == ()


def test_vertical_families_are_those_that_plan_new_makes() -> None:
    assert set(FAMILIES["vertical"]) == VERTICAL_FAMILIES


# ── two versions ──


def differences(old: SiloPolicy, new: SiloPolicy) -> list[Change]:
    return [change for change in changes(old, altered(new, {"version": 9})) if change.field != "version"]


def test_a_section_that_appears_or_goes_is_said_once() -> None:
    without = policy_of(changes={"alignment": None})
    assert [(c.field, c.direction) for c in differences(without, policy_of())] == [("alignment", "weaker")]
    assert [(c.field, c.direction) for c in differences(policy_of(), without)] == [("alignment", "stricter")]


@pytest.mark.parametrize(
    ("field", "value", "direction"),
    [
        ("capacity", 8192, "other"),
        ("min_intersection", 400, "weaker"),
        ("reveal", "both", "weaker"),
        ("max_runs_per_30_days", 3, "weaker"),
        ("max_epsilon", 0.2, "weaker"),
        ("max_epsilon", None, "weaker"),
        ("identifiers", "phone", "other"),
        ("roles", ["label", "feature"], "weaker"),
        ("roles", None, "weaker"),
        ("approval", "automatic", "weaker"),
    ],
)
def test_each_limit_has_a_direction_and_back_the_opposite(field: str, value: Any, direction: str) -> None:
    strict = policy_of(max_epsilon=0.1, identifiers="email", roles=["feature"], approval="ask")
    other = altered(strict, {f"alignment.{field}": value})
    opposite = {"weaker": "stricter", "other": "other"}[direction]
    for old, new, expected in ((strict, other, direction), (other, strict, opposite)):
        (change,) = differences(old, new)
        assert (change.field, change.direction) == (f"alignment.{field}", expected)
        assert change.consequence != "changed"


# ── in plain words ──


def words(policy: SiloPolicy) -> str:
    parts = {part.heading: part.sentences for part in explain_policy(policy, NOW)}
    return " ".join(parts["Whether people in common are found"])


def test_explain_says_what_is_permitted_and_what_no_policy_hides() -> None:
    found = words(policy_of(max_epsilon=0.1, roles=["feature"], identifiers="email"))
    for part in ("4,096", "about 500", "2 times in 30 days", "epsilon 0.1", "email", "bring what it knows"):
        assert part in found
    assert "No silo is told" in found
    for limit in LIMITS:
        assert limit in found
    assert "every silo which of its people" in words(policy_of(reveal="both"))
    assert "somebody here approves" in words(policy_of(approval="ask"))


def test_explain_says_that_nobody_is_aligned_without_the_section() -> None:
    found = words(policy_of(changes={"alignment": None}))
    assert found.startswith("No:")
    assert not any(limit in found for limit in LIMITS)


def leaves(policy: SiloPolicy) -> str:
    parts = {part.heading: part.sentences for part in explain_policy(policy, NOW)}
    return " ".join((*parts["What leaves this silo"], *parts["What nobody outside learns"]))


def test_explain_says_what_leaves_in_each_role() -> None:
    assert "In vertical plans" not in leaves(policy_of(changes={"alignment": None}))
    both = leaves(policy_of())
    for part in (
        "blinded in turn",
        "As a feature silo: sums",
        "some numbers of each person",
        "makes lists without asking anybody (dp_release)",
        "As a label silo",
    ):
        assert part in both
    assert "Sums over all silos" in both
    only_moments = leaves(policy_of(changes={"accepts.families": ["cross-moments"]}, roles=["feature"]))
    assert "numbers of each person" not in only_moments
    assert "dp_release" not in only_moments
    assert "As a label silo" not in only_moments
    for part in ("Sums over all silos", "Its own contribution"):
        assert part not in only_moments
    encoder = leaves(policy_of(changes={"accepts.families": ["private-encoder"]}, roles=["label"]))
    assert "encrypted under a key" not in encoder
    assert "In vertical plans" not in leaves(policy_of(roles=[]))


# ── published ──


def published(*policies: SiloPolicy) -> dict[str, PublishedRequirements]:
    identity = next(iter(make_scene().silos.values())).identity
    return {policy.silo: extract(policy, CHARTER, identity, NOW) for policy in policies}


def refused(plan: Plan, *policies: SiloPolicy) -> dict[str, set[str]]:
    found = refusals(plan, published(*policies), charter=CHARTER, now=NOW, proposer="shop")
    return {silo: {reason.code for reason in reasons} for silo, reasons in found.items()}


def test_members_that_publish_their_limits_are_judged_by_them() -> None:
    everybody = [policy_of(silo) for silo in SILOS]
    assert refused(make_vertical(), *everybody) == {silo: set() for silo in SILOS}
    stricter = [policy_of("shop"), policy_of("content", capacity=5000), policy_of("social", max_epsilon=0.05)]
    assert refused(make_vertical(), *stricter) == {
        "shop": set(),
        "content": {"capacity_mismatch"},
        "social": {"alignment_epsilon_too_high"},
    }
    without = policy_of("content", changes={"alignment": None})
    assert refused(make_vertical(), without) == {"content": {"alignment_not_accepted"}}


def test_the_meet_says_what_all_would_accept() -> None:
    policies = (
        policy_of("shop", min_intersection=800, identifiers="email", roles=["feature"]),
        policy_of("content", capacity=5000, max_epsilon=0.05),
        policy_of("social", max_epsilon=0.02, reveal="both"),
    )
    found = {demand.field: demand for demand in meet(make_vertical(), published(*policies))}
    assert found["alignment.capacities.content"].accepted == "5000"
    assert (found["alignment.capacities.content"].met, found["alignment.capacities.shop"].met) == (
        False,
        True,
    )
    assert found["alignment.min_intersection"].accepted == "at least 800"
    assert (found["alignment.epsilon"].accepted, found["alignment.epsilon"].by) == (
        "at most 0.02",
        ("social",),
    )
    assert (found["alignment.identifiers"].accepted, found["alignment.identifiers"].by) == (
        "email",
        ("shop",),
    )
    assert found["roles"].by == ("shop",)
    assert (found["alignment.reveal"].accepted, found["alignment.reveal"].met) == ("none", True)
    assert "privacy.unit" not in found


def test_the_meet_of_a_fitting_plan_is_met() -> None:
    assert all(demand.met for demand in meet(make_vertical(), published(*map(policy_of, SILOS))))


def test_the_meet_names_who_aligns_nobody_and_who_protects_something_else() -> None:
    policies = (policy_of("shop"), policy_of("social", {"datasets.purchases.unit": "user_node"}))
    found = {demand.field: demand for demand in meet(make_vertical(), published(*policies))}
    assert found["roles.features.social.unit"].accepted == "user_node"
    nobody = published(policy_of("content", changes={"alignment": None}))
    (demand,) = [one for one in meet(make_vertical(), nobody) if one.field == "alignment"]
    assert (demand.by, demand.met, demand.possible) == (("content",), False, False)


# ── the template and its example ──


def example_policy(silo: str) -> SiloPolicy:
    """The template as the other two silos of the example would fill it in."""
    plan = load_yaml(EXAMPLES / "plan.yaml", Plan)
    assert plan.alignment is not None
    unit = plan.unit_of(silo)
    return read_policy(
        render_template(
            "vertical-partner",
            silo=silo,
            with_members=[name for name in plan.silos if name != silo],
            capacity=plan.alignment.capacities[silo],
            unit="user_row" if unit == "user_row" else None,
        )
    )


@pytest.mark.parametrize("silo", SILOS)
def test_the_example_plan_fits_the_template_in_every_role(silo: str) -> None:
    plan = load_yaml(EXAMPLES / "plan.yaml", Plan)
    policy = example_policy(silo)
    state = under(LedgerState({}, {}), policy)
    accepted = authorize(plan, policy, state, NOW, charter=make_charter(plan.silos), proposer="shop")
    assert accepted.dataset == "views"


def test_the_shown_policy_is_the_template_with_partners_and_no_warning() -> None:
    shown = load_yaml(EXAMPLES / "policy.yaml", SiloPolicy)
    assert shown.alignment == example_policy("content").alignment
    assert shown.warnings() == ()
    assert shown.unenforced() == ()
    assert set(shown.alignment.model_fields_set if shown.alignment else ()) >= set(Alignment.model_fields) - {
        "identifiers"
    }
    text = (EXAMPLES / "policy.yaml").read_text(encoding="utf-8")
    assert "# identifiers: email" in text
    for limit in (
        "which of\n# that silo's people are elsewhere",
        "anybody's id",
        "how many people the lists share",
    ):
        assert limit in text


def test_the_example_is_made_from_the_draft_that_is_shown() -> None:
    draft = runpy.run_path(str(EXAMPLES.parent / "make.py"))["VERTICAL_DRAFT"]
    assert load_yaml(EXAMPLES / "plan.yaml", Plan) == complete_vertical_plan(draft)
