"""What a plan would cost this silo and whether its policy would accept it, before anything is touched."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from policies.canonical import digest
from policies.decision import PolicyDeniedError, authorize
from policies.files import load_yaml
from policies.plan import Plan
from policies.plan_summary import byte_size
from policies.price import cap_loss, forecast_bytes, plan_epsilon, plan_epsilon_pld, schedule
from silo.site import Site


def forecast_plan(directory: Path, path: Path) -> dict[str, Any]:
    """Epsilon, bytes and this silo's own verdict on a plan; nothing is reserved, nothing leaves.

    Raises:
        PolicyFileError: everything wrong with the plan.
        PlanImpossibleError: no sum can carry it.
    """
    plan = load_yaml(path, Plan)
    shapes = schedule(plan)
    with Site(directory) as site:
        policy = site.trusted_policy()
        traffic = forecast_bytes(plan, verify_sums=1.0 if len(shapes) == 1 else policy.accepts.verify_sums)
        verdict: dict[str, Any] = {"silo": site.name, "accepted": True, "reasons": []}
        try:
            authorize(plan, policy, site.ledger_state(policy), site.now(), charter=site.charter)
        except PolicyDeniedError as denied:
            verdict = {
                "silo": site.name,
                "accepted": False,
                "reasons": [asdict(reason) for reason in denied.reasons],
            }
    return {
        "plan_sha256": digest(plan),
        "epsilon": plan_epsilon(plan),
        "target_epsilon": plan.privacy.target_epsilon,
        "delta": plan.privacy.target_delta,
        "filter": plan.privacy.filter,
        "epsilon_pld": plan_epsilon_pld(plan),
        "unit": plan.privacy.unit,
        "neighboring_relation": plan.privacy.neighboring_relation,
        "noise_multiplier": plan.privacy.noise_multiplier,
        "rounds": len(shapes),
        "max_burned_rounds": plan.training.max_burned_rounds,
        "loss_at_cap": cap_loss(plan),
        "bits": shapes[0].layout.bits,
        "values_per_slot": shapes[0].layout.values_per_slot,
        "traffic": asdict(traffic),
        "verdict": verdict,
    }


def describe(found: dict[str, Any]) -> list[object]:
    """The forecast for people."""
    traffic, verdict = found["traffic"], found["verdict"]
    table = Table(show_header=False, title="What this plan would cost")
    figures = f"{found['filter']}; PLD {found['epsilon_pld']:.4f}"
    promise = f"{found['epsilon']:.4f} of {found['target_epsilon']:g} at delta {found['delta']:g} ({figures})"
    table.add_row("epsilon", promise)
    table.add_row("protects", f"one {found['unit']}'s whole history, {found['neighboring_relation']}")
    table.add_row("noise multiplier", f"{found['noise_multiplier']:.4f}")
    table.add_row("secure sums", f"{found['rounds']} and up to {found['max_burned_rounds']} burned, "
                  f"{found['bits']} bits, {found['values_per_slot']} values a slot")  # fmt: skip
    table.add_row(
        "this silo sends",
        f"{byte_size(traffic['upload_bytes'])} ({traffic['ratio_to_float32']:.2f} x float32)",
    )
    table.add_row("this silo fetches", byte_size(traffic["download_bytes"]))
    table.add_row("longest histories lose", f"{100 * found['loss_at_cap']:.1f} % of their weight to the grid")
    parts: list[object] = [table]
    if verdict["accepted"]:
        return [*parts, f"{verdict['silo']} would accept it."]
    parts.append(f"{verdict['silo']} would refuse it:")
    parts += [
        f"  {r['field']}: {r['found']} (allowed: {r['allowed']}); {r['remedy']}" for r in verdict["reasons"]
    ]
    return parts
