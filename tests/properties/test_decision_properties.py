"""No weakening turns a refusal into an acceptance, and what was promised can be paid for.

A weakening is judged on plans that keep their promise under the account's filter. A plan that does not is
refused for that alone, and a smaller promise honestly made is no weakening of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from policies.plans.drafting import complete_plan
from policies.plans.plan import Plan
from policies.plans.price import plan_epsilon, reserved_events, schedule, training_shape
from policies.silo_policy import SiloPolicy
from privacy.budget import Budget, FilterSpec, RenyiFilter, ZcdpFilter
from privacy.errors import ArchipelError
from privacy.events import SAMPLER, EventCount, GaussianEvent
from privacy.ledger.state import AccountStatus, LedgerState
from tests.contracts.decision_scene import (
    ORDERS,
    SILOS,
    altered,
    make_draft,
    make_ledger,
    make_policy,
    refusals,
)

modest = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])

EPSILONS = (0.5, 1.0, 2.0, 4.0, 8.0)
DELTAS = (1e-8, 1e-7, 1e-6, 1e-5)
TRAINED = ("linear", "autoencoder")
FAMILY_LISTS = st.sampled_from([["item-graph", "popularity"], ["linear", "autoencoder"], []])


@st.composite
def drafts(draw: st.DrawFn) -> dict[str, Any]:
    num_silos = draw(st.integers(2, 4))
    family = draw(st.sampled_from(["popularity", "item-graph", "linear", "autoencoder"]))
    fields: dict[str, Any] = {
        "silos": SILOS[:num_silos],
        "family": family,
        "target_epsilon": draw(st.sampled_from(EPSILONS)),
        "target_delta": draw(st.sampled_from(DELTAS)),
        "colluding_silos": draw(st.integers(1, num_silos - 1)),
        "max_silos_per_user": draw(st.integers(1, num_silos)),
        "catalogue_items": draw(st.sampled_from([20, 300])),
        "max_burned_rounds": draw(st.integers(0, 2)),
        "holdout": "random",
        "max_users_per_silo": draw(st.sampled_from([100, 4096, 100_000])),
    }
    if draw(st.booleans()):
        fields["metrics_epsilon"] = fields["target_epsilon"] / 10
    if draw(st.booleans()):
        fields["filter"] = RenyiFilter(orders=ORDERS)
        fields["sample_rate"] = draw(st.sampled_from([0.1, 1.0])) if family in TRAINED else 1.0
    return fields | (draw(trainings(fields)) if family in TRAINED else {})


@st.composite
def trainings(draw: st.DrawFn, fields: dict[str, Any]) -> dict[str, Any]:
    """What only trained plans have."""
    num_silos = len(fields["silos"])
    added: dict[str, Any] = {
        "features": 3,
        "rounds": draw(st.integers(1, 5)),
        "clipping": draw(st.sampled_from(["flat", "automatic"])),
        "min_silos": draw(st.integers(2, num_silos)),
    }
    if fields["family"] == "autoencoder":
        added |= {"hidden": 2, "bias_epsilon": draw(st.sampled_from([0.0, fields["target_epsilon"] / 4]))}
    if fields["colluding_silos"] == num_silos - 1:
        added["local_steps"] = draw(st.integers(1, 3))
    return added


@st.composite
def laws(draw: st.DrawFn) -> SiloPolicy:
    return make_policy(
        epsilon=draw(st.sampled_from((2.0, 4.0, 8.0, 16.0))),
        delta=draw(st.sampled_from(DELTAS)),
        orders=draw(st.sampled_from([None, ORDERS])),
        max_silos_per_user=draw(st.integers(1, 4)),
        max_epsilon_per_plan=draw(st.sampled_from(EPSILONS)),
        min_silos=draw(st.integers(2, 4)),
        min_colluding_silos=draw(st.integers(1, 3)),
        metrics=draw(st.sampled_from(["none", "noised"])),
        **draw(
            st.fixed_dictionaries({}, optional={"families": FAMILY_LISTS, "max_rounds": st.integers(1, 8)})
        ),
    )


def ledgers(policy: SiloPolicy, spent: float) -> LedgerState:
    """The policy's account after one release of that noise; 0 is untouched."""
    event = [EventCount(GaussianEvent(noise_multiplier=spent, sampler=SAMPLER), 1)] if spent else []
    return make_ledger(policy, committed=event)


def weaken_colluders(fields: dict[str, Any]) -> dict[str, Any]:
    assume(fields["colluding_silos"] > 1 and fields.get("local_steps", 1) == 1)
    return fields | {"colluding_silos": fields["colluding_silos"] - 1}


def weaken_epsilon(fields: dict[str, Any]) -> dict[str, Any]:
    return fields | {"target_epsilon": 2 * fields["target_epsilon"]}


def weaken_delta(fields: dict[str, Any]) -> dict[str, Any]:
    return fields | {"target_delta": 10 * fields["target_delta"]}


def weaken_presence(fields: dict[str, Any]) -> dict[str, Any]:
    assume(fields["max_silos_per_user"] > 1)
    return fields | {"max_silos_per_user": fields["max_silos_per_user"] - 1}


def widen_metrics(fields: dict[str, Any]) -> dict[str, Any]:
    assume("metrics_epsilon" not in fields)
    return fields | {"metrics_epsilon": fields["target_epsilon"] / 4}


def widen_popularity(fields: dict[str, Any]) -> dict[str, Any]:
    assume(fields.get("bias_epsilon") == 0.0)
    return fields | {"bias_epsilon": fields["target_epsilon"] / 4}


def lengthen_training(fields: dict[str, Any]) -> dict[str, Any]:
    assume("rounds" in fields)
    return fields | {"rounds": fields["rounds"] + 3}


def weaken_quorum(fields: dict[str, Any]) -> dict[str, Any]:
    assume(fields.get("min_silos", 2) > 2)
    return fields | {"min_silos": fields["min_silos"] - 1}


REDRAFTED: list[Callable[[dict[str, Any]], dict[str, Any]]] = [
    weaken_colluders,
    weaken_presence,
    widen_metrics,
    widen_popularity,
    lengthen_training,
    weaken_quorum,
]
WEAKENED_PROMISES = [weaken_epsilon, weaken_delta]


def edits_of(plan: Plan) -> list[dict[str, Any]]:
    """The same plan with one number made worse by hand, its noise as it was."""
    privacy, protection = plan.privacy, plan.protection
    edits: list[dict[str, Any]] = [
        {"privacy.noise_multiplier": 0.9 * privacy.noise_multiplier},
        {"privacy.noise_multiplier": 0.999 * privacy.noise_multiplier},
        {"privacy.target_epsilon": 1.5 * privacy.target_epsilon},
        {"privacy.target_delta": 2 * privacy.target_delta},
        {"protection.masks": "none"},
        {"protection.encryption": "none"},
        {"training.max_burned_rounds": plan.training.max_burned_rounds + 1},
        {"releases.metrics": {"noised": True, "epsilon": privacy.target_epsilon}},
    ]
    if protection.min_silos > 2:
        fewer: dict[str, Any] = {"protection.min_silos": protection.min_silos - 1}
        edits.append(fewer if plan.is_statistics else fewer | {"protection.round_minutes": 5.0})
    if not plan.is_statistics:
        edits.append({"training.rounds": plan.training.rounds + 1})
    if plan.training.local_steps > 1:
        edits.append({"training.local_steps": plan.training.local_steps + 1})
    if plan.popularity is not None:
        edits.append({"model.bias.epsilon": 1.5 * plan.popularity.epsilon})
    if plan.num_noise_shares > 1 and privacy.colluding_silos > 1:
        edits.append({"privacy.colluding_silos": privacy.colluding_silos - 1})
    return edits


@modest
@given(
    fields=drafts(),
    policy=laws(),
    spent=st.sampled_from([0.0, 0.5, 1.0, 3.0]),
    weaken=st.sampled_from(REDRAFTED),
)
def test_no_weaker_draft_of_the_same_promise_is_accepted_where_the_stronger_was_refused(
    fields: dict[str, Any],
    policy: SiloPolicy,
    spent: float,
    weaken: Callable[[dict[str, Any]], dict[str, Any]],
) -> None:
    ledger = ledgers(policy, spent)
    found = _refusals_of_honest(_completed(fields), policy, ledger)
    weaker = refusals(_completed(weaken(fields)), policy, ledger)
    if found - {"budget_exceeded"}:  # calibrated anew to the same total, which may round to a hair less
        assert weaker


@modest
@given(
    fields=drafts(),
    policy=laws(),
    spent=st.sampled_from([0.0, 0.5, 1.0, 3.0]),
    weaken=st.sampled_from(WEAKENED_PROMISES),
)
def test_no_weaker_promise_is_accepted_where_the_stronger_was_refused(
    fields: dict[str, Any],
    policy: SiloPolicy,
    spent: float,
    weaken: Callable[[dict[str, Any]], dict[str, Any]],
) -> None:
    ledger = ledgers(policy, spent)
    if _refusals_of_honest(_completed(fields), policy, ledger):
        assert refusals(_completed(weaken(fields)), policy, ledger)


@modest
@given(data=st.data(), fields=drafts(), policy=laws(), spent=st.sampled_from([0.0, 0.5, 1.0, 3.0]))
def test_no_number_made_worse_by_hand_turns_a_refusal_into_an_acceptance(
    data: st.DataObject, fields: dict[str, Any], policy: SiloPolicy, spent: float
) -> None:
    ledger = ledgers(policy, spent)
    plan = _completed(fields)
    worse = altered(plan, data.draw(st.sampled_from(edits_of(plan))))
    if _refusals_of_honest(plan, policy, ledger):
        assert refusals(worse, policy, ledger)


@modest
@given(data=st.data(), fields=drafts())
def test_less_noise_or_more_releases_than_calibrated_are_always_refused(
    data: st.DataObject, fields: dict[str, Any]
) -> None:
    plan = _completed(fields)
    worse = altered(
        plan,
        data.draw(
            st.sampled_from(
                [
                    {"privacy.noise_multiplier": 0.99 * plan.privacy.noise_multiplier},
                    {"training.max_burned_rounds": plan.training.max_burned_rounds + 1},
                    *({"training.rounds": plan.training.rounds + 1} for _ in range(not plan.is_statistics)),
                    {"privacy.target_epsilon": 0.99 * plan.privacy.target_epsilon},
                    {"privacy.target_delta": 0.5 * plan.privacy.target_delta},
                ]
            )
        ),
    )
    policy = make_policy(epsilon=100.0, delta=1e-5, orders=plan.privacy.orders, max_silos_per_user=1)
    assert "promise_not_kept" in refusals(worse, policy)


@modest
@given(fields=drafts(), policy=laws(), spent=st.sampled_from([0.0, 0.5, 1.0, 3.0]))
def test_a_stricter_policy_never_accepts_more(
    fields: dict[str, Any], policy: SiloPolicy, spent: float
) -> None:
    plan = _completed(fields)
    budget = policy.budgets["customers"]
    stricter = [
        {"accepts.min_silos": policy.accepts.min_silos + 1},
        {"accepts.min_colluding_silos": policy.accepts.min_colluding_silos + 1},
        {"accepts.max_epsilon_per_plan": policy.accepts.max_epsilon_per_plan / 2},
        {"accepts.metrics": "none"},
        {"accepts.with_members": []},
        {"accepts.purposes": {}},
        {"accepts.catalogues": []},
        {"accepts.families": []},
        {"accepts.max_rounds": 1},
        {"datasets.purchases.max_silos_per_user": 4},
        {"budgets.customers.epsilon": budget.epsilon / 2},
        {"budgets.customers.delta": budget.delta / 2},
    ]
    if refusals(plan, policy, ledgers(policy, spent)):
        for changes in stricter:
            law = altered(policy, changes)
            assert refusals(plan, law, ledgers(law, spent)), changes


@modest
@given(fields=drafts(), factor=st.sampled_from([1.0, 1.5, 10.0]))
def test_a_plan_of_epsilon_e_fits_an_untouched_budget_of_e_with_the_same_filter(
    fields: dict[str, Any], factor: float
) -> None:
    plan = _completed(fields)
    budget = Budget(
        epsilon=plan.privacy.target_epsilon,
        delta=min(0.01, factor * plan.privacy.target_delta),
        filter=plan.privacy.filter_spec,
    )
    account = AccountStatus(account="customers", budget=budget, policy_sha256="", policy_version=1)
    assert account.admit(reserved_events(plan)).epsilon(budget.delta) <= budget.epsilon
    assert plan_epsilon(plan) <= plan.privacy.target_epsilon


@modest
@given(fields=drafts())
def test_a_silo_with_that_budget_accepts_it(fields: dict[str, Any]) -> None:
    plan = _completed(fields)
    policy = make_policy(
        epsilon=plan.privacy.target_epsilon,
        delta=plan.privacy.target_delta,
        orders=plan.privacy.orders,
        min_silos=2,
        max_silos_per_user=plan.privacy.max_silos_per_user,
        families=[plan.model.family],
        max_rounds=plan.training.rounds + plan.training.max_burned_rounds,
    )
    assert refusals(plan, policy) == set()


@modest
@given(fields=drafts(), spec=st.sampled_from([ZcdpFilter(), RenyiFilter(orders=ORDERS)]))
def test_schedule_and_reservation_tell_the_same_events(fields: dict[str, Any], spec: FilterSpec) -> None:
    assume(fields.get("sample_rate", 1.0) == 1.0)
    plan = _completed(fields | {"filter": spec})
    reserved = dict(reserved_events(plan))
    for shape in schedule(plan):
        reserved[shape.event] -= 1
    burned = plan.training.max_burned_rounds
    counts = 0 if plan.popularity is None else min(1, burned)
    assert sum(reserved.values()) == burned + counts
    assert min(reserved.values()) >= 0
    assert reserved[training_shape(plan).event] >= burned


@modest
@given(data=st.data(), fields=drafts())
def test_whoever_is_absent_the_shares_outside_the_collusion_are_what_is_charged(
    data: st.DataObject, fields: dict[str, Any]
) -> None:
    plan = _completed(fields)
    contributors = data.draw(st.integers(plan.fewest_contributors, plan.num_silos))
    for shape in set(schedule(plan)):
        std, shares = shape.share_std_among(contributors), shape.num_shares_among(contributors)
        delivered = std * math.sqrt(shares) / shape.sensitivity
        assert delivered >= shape.step_event.noise_multiplier * (1 - 1e-12)
        assert shares == 1 or shares == contributors - plan.privacy.colluding_silos >= 2


def _refusals_of_honest(plan: Plan, policy: SiloPolicy, ledger: LedgerState) -> set[str]:
    found = refusals(plan, policy, ledger)
    assume(not found & {"promise_not_kept", "filter_mismatch"})
    return found


def _completed(fields: dict[str, Any]) -> Plan:
    try:
        return complete_plan(make_draft(**fields))
    except ArchipelError:
        assume(False)
        raise
