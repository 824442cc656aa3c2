"""A plan, a policy, a charter and a ledger that fit together; tests change one thing."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

from policies.canonical import digest
from policies.charters.charter import Charter
from policies.decisions.decision import Authorization, PolicyDeniedError, authorize
from policies.plans.drafting import Draft, complete_plan
from policies.plans.plan import Plan
from policies.signing import PrivateKey
from policies.silo_policy import SiloPolicy
from privacy.events import EventCount
from privacy.ledger.state import AccountStatus, Allowance, JobStatus, LedgerState

SILOS = ("shop-a", "shop-b", "shop-c", "shop-d")
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
CATALOGUE = "ab" * 32
ORDERS = (2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
_KEY = str(PrivateKey.generate().public_key)


def make_draft(**changes: Any) -> Draft:
    """Four shops, an item graph over 300 items, epsilon 4."""
    fields: dict[str, Any] = {
        "silos": SILOS,
        "catalogue_sha256": CATALOGUE,
        "catalogue_items": 300,
        "family": "item-graph",
        "target_epsilon": 4.0,
        "target_delta": 1e-6,
        "max_users_per_silo": 4096,
        "max_silos_per_user": 1,
    }
    return Draft(**{**fields, **changes})


def make_plan(**changes: Any) -> Plan:
    return complete_plan(make_draft(**changes))


def plan_document(plan: Plan | None = None) -> dict[str, Any]:
    return (plan or make_plan()).model_dump(mode="json", exclude_unset=True)


def altered(model: Any, changes: dict[str, Any]) -> Any:
    """The same plan or policy with dotted fields changed (None removes one); validated anew."""
    document = model.model_dump(mode="json", exclude_unset=True)
    for path, value in changes.items():
        *parents, last = path.split(".")
        place = document
        for name in parents:
            place = place[name]
        if value is None:
            place.pop(last, None)
        else:
            place[last] = value
    return type(model).model_validate(document)


def make_policy(
    silo: str = "shop-a",
    *,
    epsilon: float = 8.0,
    delta: float = 1e-6,
    orders: Sequence[float] | None = None,
    max_silos_per_user: int = 1,
    population: str = "customers",
    **accepts: Any,
) -> SiloPolicy:
    budget: dict[str, Any] = {"epsilon": epsilon, "delta": delta, "scope": "lifetime", "filter": "zcdp"}
    if orders is not None:
        budget |= {"filter": "renyi", "orders": list(orders)}
    return SiloPolicy.model_validate(
        {
            "kind": "SiloPolicy",
            "schema_version": 1,
            "version": 3,
            "silo": silo,
            "expires": "2027-01-01",
            "datasets": {
                "purchases": {
                    "source": {"parquet": "data/*.parquet"},
                    "columns": {"user_id": "user_id", "item_id": "item_id", "timestamp": "at"},
                    "max_interactions_per_user": 100,
                    "population": population,
                    "max_silos_per_user": max_silos_per_user,
                }
            },
            "budgets": {population: budget},
            "accepts": {
                "purposes": {"product-recommendation": "purchases"},
                "with_members": [name for name in SILOS if name != silo],
                "max_epsilon_per_plan": 8.0,
                "min_silos": 3,
                "min_colluding_silos": 1,
                "metrics": "noised",
                "verify_sums": 0.1,
                **accepts,
            },
        }
    )


def make_charter(silos: Sequence[str] = SILOS, expires: date = date(2027, 1, 1)) -> Charter:
    def entry(name: str) -> dict[str, Any]:
        certificate = f"certificate of {name}".encode()
        return {
            "identity_key": str(PrivateKey.generate().public_key),
            "certificate": base64.b64encode(certificate).decode(),
            "certificate_sha256": hashlib.sha256(certificate).hexdigest(),
        }

    administrators = {"threshold": 1, "keys": [_KEY]}
    return Charter.model_validate_json(
        json.dumps(
            {
                "kind": "Charter",
                "schema_version": 1,
                "name": "test",
                "coordinator": {"name": "hub", "host": "127.0.0.1", "port": 8443, **entry("hub")},
                "members": [
                    {"silo": name, "administrators": administrators, **entry(name)} for name in silos
                ],
                "amendments": {"threshold": len(silos)},
                "expires": expires.isoformat(),
            }
        )
    )


def make_ledger(
    policy: SiloPolicy,
    *,
    committed: Sequence[EventCount] = (),
    outstanding: Sequence[EventCount] = (),
    **changes: Any,
) -> LedgerState:
    """One account per population under the policy's terms, untouched unless events are given."""
    accounts = {}
    for population, budget in policy.budgets.items():
        terms: dict[str, Any] = {
            "budget": budget.to_budget(),
            "policy_sha256": digest(policy),
            "policy_version": policy.version,
        }
        accounts[population] = AccountStatus(
            account=population,
            committed=tuple(committed),
            outstanding=tuple(outstanding),
            **{**terms, **changes},
        )
    return LedgerState(accounts, {})


def reservation_of(authorization: Authorization, job: str = "job-1") -> JobStatus:
    """What the ledger remembers of an accepted job."""
    return JobStatus(
        job=job,
        account=authorization.account,
        dataset=authorization.dataset,
        plan_sha256=authorization.plan_sha256,
        policy_sha256=authorization.policy_sha256,
        requested_by="shop-b",
        seq=7,
        allowances=tuple(Allowance(event, count, 0) for event, count in authorization.events),
        open=True,
    )


CHARTER = make_charter()


def decide(
    plan: Plan,
    policy: SiloPolicy | None = None,
    ledger: LedgerState | None = None,
    *,
    now: datetime = NOW,
    charter: Charter = CHARTER,
    proposer: str | None = None,
) -> Authorization:
    policy = policy or make_policy()
    known = ledger or make_ledger(policy)
    return authorize(plan, policy, known, now, charter=charter, proposer=proposer)


def refusals(
    plan: Plan, policy: SiloPolicy | None = None, ledger: LedgerState | None = None, **kw: Any
) -> set[str]:
    """Codes of all reasons; empty when the plan is accepted."""
    try:
        decide(plan, policy, ledger, **kw)
    except PolicyDeniedError as denied:
        return {reason.code for reason in denied.reasons}
    return set()
