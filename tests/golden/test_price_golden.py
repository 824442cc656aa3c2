"""Published plans keep their digests and every number derived from them, whatever is added to plans later.

``price_vectors.json`` was written once: the statistics and linear plans by the version before there were
autoencoders, the others by the first that had them. Shares, sensitivities and event noise are products and
roots of doubles; they are compared to 1e-12.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from policies.canonical import digest
from policies.plans.plan import Plan
from policies.plans.price import RoundShape, reserved_events, schedule

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "price_vectors.json").read_text())


def figures(shape: RoundShape) -> dict[str, Any]:
    return {
        "purpose": shape.purpose,
        "values": shape.values,
        "grid": shape.grid,
        "bits": shape.layout.bits,
        "values_per_slot": shape.layout.values_per_slot,
        "signal_min": shape.signal_min,
        "signal_max": shape.signal_max,
        "headroom": shape.headroom,
        "share_std": pytest.approx(shape.share_std, rel=1e-12),
        "sensitivity": pytest.approx(shape.sensitivity, rel=1e-12),
        "event": approximate(shape.event.model_dump(mode="json")),
    }


def approximate(event: dict[str, Any]) -> dict[str, Any]:
    inner = {"event": approximate(event["event"])} if "event" in event else {}
    noise = event.get("noise_multiplier")
    return event | inner | ({} if noise is None else {"noise_multiplier": pytest.approx(noise, rel=1e-12)})


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_a_published_plan_keeps_its_digest_and_its_numbers(vector: dict[str, Any]) -> None:
    plan = Plan.model_validate(vector["plan"])
    assert digest(plan) == vector["sha256"]
    assert vector["shapes"] == [figures(shape) for shape in dict.fromkeys(schedule(plan))]
    assert [count for _, count in reserved_events(plan)] == vector["reserved"]
