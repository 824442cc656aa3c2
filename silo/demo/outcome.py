"""What the seeds of a demo gave, and what every report of it says."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any

from federation.job_state import JobState
from policies.plans.price import plan_epsilon_pld
from privacy.ledger.ledger import AccountStatus
from silo.demo.world import World
from silo.site import Site

Metrics = dict[str, float]


@dataclass(frozen=True)
class Measured:
    """What was measured of one federation.

    Attributes:
        columns: by row of the table, by metric.
        details: whatever else belongs into the JSON, by seed.
    """

    columns: Mapping[str, Metrics]
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Outcome:
    """What one seed gave."""

    seed: int
    world: World
    state: JobState
    measured: Measured
    sessions: Mapping[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


def summarise(outcomes: Sequence[Outcome]) -> tuple[dict[str, Metrics], dict[str, Metrics]]:
    """Mean and sample standard deviation of each figure over the seeds (0 for one seed)."""
    means: dict[str, Metrics] = {}
    spread: dict[str, Metrics] = {}
    for column, metrics in outcomes[0].measured.columns.items():
        values = {name: [o.measured.columns[column][name] for o in outcomes] for name in metrics}
        means[column] = {name: fmean(found) for name, found in values.items()}
        spread[column] = {name: stdev(found) if len(found) > 1 else 0.0 for name, found in values.items()}
    return means, spread


def metrics_of(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The JSON's three tables of figures."""
    means, spread = summarise(outcomes)
    by_seed = {str(outcome.seed): dict(outcome.measured.columns) for outcome in outcomes}
    return {"metrics": means, "metrics_std": spread, "metrics_by_seed": by_seed}


def cell(found: Mapping[str, Any], column: str, name: str, seeds: int) -> str:
    """One figure for people, with its spread where there are several seeds."""
    value = f"{found['metrics'][column][name]:.4f}"
    return value if seeds == 1 else f"{value} ± {found['metrics_std'][column][name]:.4f}"


def promised(outcome: Outcome) -> dict[str, Any]:
    """The promise as the plan has it, what a second accountant says, and what each silo has spent."""
    plan = outcome.world.plan()
    return {
        "neighboring_relation": plan.privacy.neighboring_relation,
        "target_epsilon": plan.privacy.target_epsilon,
        "target_delta": plan.privacy.target_delta,
        "epsilon_pld": plan_epsilon_pld(plan),
        "noise_placement": plan.privacy.noise_placement,
        "colluding_silos": plan.privacy.colluding_silos,
        "max_silos_per_user": plan.privacy.max_silos_per_user,
        "noise_multiplier": plan.privacy.noise_multiplier,
        "per_silo_spent": spent(outcome.world),
    }


def spent(world: World) -> dict[str, dict[str, Any]]:
    """What each silo's own ledger says it has spent."""
    found = {}
    for name in world.names:
        with Site(world.silo(name)) as site:
            account: AccountStatus = next(iter(site.ledger.state().accounts.values()))
        found[name] = {
            "epsilon": account.epsilon_spent,
            "delta": account.budget.delta,
            "accountant": account.budget.filter.kind,
        }
    return found


def traffic(world: World, job: str) -> dict[str, dict[str, int]]:
    """Bytes of one job, by silo, ``up`` and ``down``, as its agent's transport counted them."""
    found = {}
    for name in world.names:
        note = json.loads((world.silo(name) / "jobs" / job / "state.json").read_text())
        found[name] = {"up": int(note["bytes_sent"]), "down": int(note["bytes_received"])}
    return found
