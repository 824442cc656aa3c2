"""What a plan with a private encoder takes of each silo, before anything is touched."""

from __future__ import annotations

import pytest

from privacy.sealing import sealed_bytes
from silo.forecasts.vertical import forecast_vertical
from silo.forecasts.vertical_traffic import vertical_traffic
from tests.contracts.leg_scene import encoder_plan, leg_plan


def test_numbers_of_every_slot_are_in_the_traffic_and_no_ciphertext_is() -> None:
    plan, moments = encoder_plan(), vertical_traffic(leg_plan())
    found = vertical_traffic(plan)
    numbers = sealed_bytes(450 * 8 * 4)
    assert found["a"].upload_bytes < moments["a"].upload_bytes / 100
    without = {silo: found[silo].upload_bytes - numbers for silo in ("b", "c")}
    # What is left are lists, as long as everybody's capacities: the label silo sends as many.
    assert all(0 < left < found["a"].upload_bytes + numbers for left in without.values())
    assert found["a"].download_bytes > 2 * numbers


def test_the_time_of_a_training_is_tried_and_grows_with_its_steps() -> None:
    found = forecast_vertical(encoder_plan(), is_timed=True)
    time = found["time"]
    assert time["why"] is None
    assert time["minutes"] == time["alignment_minutes"] + time["encoder_minutes"]
    plan = encoder_plan()
    at_most = max(plan.alignment.capacities[silo] for silo in plan.silos[1:]) if plan.alignment else 0
    seconds = (
        plan.training.rounds
        * (time["step_seconds"] + plan.training.sample_rate * at_most * time["person_seconds"])
        + at_most * time["encode_seconds"]
        + time["spine_slots"] * time["slot_seconds"]
    )
    assert time["encoder_minutes"] == pytest.approx(seconds / 60)
    assert any("8 numbers of each person" in line for line in found["description"])
