"""What a vertical plan takes of each silo: bytes, and minutes of machines like this one."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from policies.plans.models import PrivateEncoderModel
from policies.plans.plan import Plan
from policies.plans.summary import describe
from policies.plans.vertical.summary import summarise_vertical
from privacy.errors import ArchipelError
from silo.forecasts.vertical_traffic import vertical_traffic


def forecast_vertical(plan: Plan, *, is_timed: bool) -> dict[str, Any]:
    """Return bytes by silo, time and words, as JSON values; nothing is reserved, nothing leaves.

    Args:
        plan: vertical.
        is_timed: find out how long it takes; takes seconds.
    """
    traffic = vertical_traffic(plan)
    return {
        "description": describe(plan, summarise_vertical(plan)),
        "traffic": {silo: asdict(of_silo) for silo, of_silo in traffic.items()},
        "time": _time(plan) if is_timed else None,
        "warnings": [],
    }


def _time(plan: Plan) -> dict[str, Any]:
    """Return what a probe found, or why there is none: a forecast tells the rest all the same."""
    from silo.forecasts.encoder_probe import EncoderProbe, probe_encoder
    from silo.forecasts.vertical_probe import VerticalProbe, probe_vertical

    is_encoder = isinstance(plan.model, PrivateEncoderModel)
    try:
        taken: EncoderProbe | VerticalProbe = probe_encoder(plan) if is_encoder else probe_vertical(plan)
    except ArchipelError as error:
        return {"minutes": None, "why": str(error)}
    return asdict(taken) | {"minutes": taken.minutes, "why": None}
