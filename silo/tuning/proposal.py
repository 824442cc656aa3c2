"""What a search proposes, as a plan file and as JSON values."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from policies.files import load_yaml, write_atomically
from policies.plans.plan import Plan
from policies.plans.text import render_plan
from policies.schema import write_schema
from policies.silo_policy import SiloPolicy
from privacy.errors import ArchipelError, UsageError
from silo.data.sources import source_files
from silo.tuning.search import Found
from silo.tuning.space import with_values
from silo.tuning.world import PublicWorld


class PrivateRowsError(UsageError):
    """A search that costs nothing was pointed at rows of this silo."""

    code = "private_rows"


def refuse_private_rows(data: Path, directory: Path) -> None:
    """Refuse a set that ``policy.yaml`` knows as the silo's own.

    A file copied elsewhere is not recognised: that rows are public is for whoever names them to know.

    Raises:
        PrivateRowsError: it is, or holds, a table of the policy.
    """
    path = directory / "policy.yaml"
    if not path.exists():
        return
    named = data.resolve()
    for name, dataset in load_yaml(path, SiloPolicy).datasets.items():
        try:
            files = [file.resolve() for file in source_files(dataset, directory)]
        except ArchipelError:
            continue  # a table that is not there is not what was named
        if any(file == named or named in file.parents for file in files):
            raise PrivateRowsError(
                f"this is dataset {name} of this silo's policy, and not public",
                where=str(data),
                remedy="name a public set, or leave --data out for the built-in marketplace",
            )


def propose(plan: Plan, found: Found, target: Path) -> Plan:
    """Write the plan with the chosen numbers and the noise that keeps its promise with them.

    Raises:
        PlanImpossibleError: no noise or grid can do it for the plan's own catalogue and bounds.
    """
    proposed = with_values(plan, found.repeated[found.chosen].values)
    write_plan(proposed, target)
    return proposed


def write_plan(plan: Plan, target: Path) -> None:
    """Write a commented plan file and, beside it, the schema that editors want."""
    write_atomically(target, render_plan(plan).encode())
    write_schema("plan", target.with_name("plan.schema.json"))


def as_json(found: Found, world: PublicWorld, target: Path) -> dict[str, Any]:
    """What ``archipel tune --kind public`` writes as JSON."""
    return {
        "kind": "public",
        "plan": str(target),
        "data": {
            "name": world.name,
            "notes": list(world.notes),
            "people": world.train.num_users,
            "items": world.train.num_items,
            "interactions": world.train.num_interactions,
            "validation_users": world.validation.num_users,
            "test_users": world.test.num_users,
            "people_by_silo": [int(users.size) for users in world.silos],
        },
        "epsilon": 0.0,
        "metric": found.metric,
        "searched": [asdict(dimension) for dimension in found.dimensions],
        "trials": [asdict(tried) for tried in found.trials],
        "repeated": {name: asdict(again) for name, again in found.repeated.items()},
        "lead": None if found.lead is None else asdict(found.lead),
        "chosen": found.chosen,
        "popularity_test": found.popularity,
    }
