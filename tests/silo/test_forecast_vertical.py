"""``archipel plan forecast`` of a vertical plan: who learns what, bytes, minutes, verdict, and no trace."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from federation.legs.legs import legs
from policies.administration import sign_policy
from policies.catalog import render_template
from policies.plans.plan import Plan
from policies.plans.price import plan_epsilon
from policies.plans.text import render_plan
from policies.plans.vertical.drafting import VerticalDraft, complete_vertical_plan
from policies.plans.vertical.encoder_drafting import EncoderDraft, complete_encoder_plan
from policies.plans.vertical.reveals import COORDINATOR, describe_disclosures, disclosures, epsilon_towards
from privacy.errors import ExitCode, UsageError
from silo.commands import forecast
from silo.forecasts.vertical_probe import probe_vertical
from silo.forecasts.vertical_traffic import most_slots, parcel_bytes, vertical_traffic
from tests.contracts.decision_scene import make_plan as make_horizontal
from tests.contracts.family_contract import make_catalogue
from tests.contracts.federation_directories import SILOS, make_federation

LABEL, FEATURE, OTHER = SILOS
CAPACITIES = {LABEL: 600, FEATURE: 500, OTHER: 400}

app = typer.Typer()
app.command()(forecast)


def make_plan(**changes: Any) -> Plan:
    return complete_vertical_plan(make_draft(**changes))


def make_draft(**changes: Any) -> VerticalDraft:
    catalogue = make_catalogue()
    fields: dict[str, Any] = {
        "label": LABEL,
        "features": {FEATURE: "user", OTHER: "user_row"},
        "catalogue_sha256": catalogue.sha256,
        "catalogue_items": len(catalogue),
        "target_epsilon": 4.0,
        "target_delta": 1e-6,
        "capacities": CAPACITIES,
        "min_intersection": 100,
    }
    return VerticalDraft(**(fields | changes))


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three joined silos with signed policies and no row."""
    root = tmp_path_factory.mktemp("forecast")
    federation = make_federation(root)
    federation.install_charter()
    directories = {name: federation.parties[name].directory for name in SILOS}
    for name, directory in directories.items():
        text = render_template(
            "vertical-partner",
            silo=name,
            with_members=[other for other in SILOS if other != name],
            capacity=CAPACITIES[name],
            min_intersection=100,
            unit="user_row" if name == OTHER else None,
        )
        (directory / "policy.yaml").write_text(text)
        sign_policy(directory, datetime.now(UTC))
    return directories


def ask(directory: Path, tmp_path: Path, plan: Plan, *options: str) -> Result:
    path = tmp_path / "plan.yaml"
    path.write_text(render_plan(plan))
    words = [str(path), "--dir", str(directory), "--json", str(tmp_path / "found.json"), *options]
    return CliRunner().invoke(app, words)


def told(directory: Path, tmp_path: Path, plan: Plan, *options: str) -> tuple[dict[str, Any], str]:
    result = ask(directory, tmp_path, plan, *options)
    assert result.exit_code == 0, result.output
    return json.loads((tmp_path / "found.json").read_text()), " ".join(result.output.split())


# ── who learns what ──


def test_epsilon_stands_by_the_silo_that_learns() -> None:
    plan = make_plan()
    spent = plan_epsilon(plan)
    assert epsilon_towards(plan) == {
        LABEL: {FEATURE: 0.1, OTHER: 0.1},
        FEATURE: {LABEL: spent, OTHER: 0.1},
        OTHER: {LABEL: spent, FEATURE: 0.1},
    }


@pytest.mark.parametrize("silo", SILOS)
def test_the_coordinator_is_said_to_see_what_no_noise_bounds(silo: str) -> None:
    (seen,) = [one for one in disclosures(make_plan()) if (one.silo, one.to) == (silo, COORDINATOR)]
    assert (seen.bound, seen.epsilon) == ("none", None)


def test_revealing_plans_say_so_of_every_pair() -> None:
    words = "which people all silos have in common"
    assert not any(one.what == words for one in disclosures(make_plan()))
    shown = {(one.silo, one.to) for one in disclosures(make_plan(reveal="both")) if one.what == words}
    assert shown == {(silo, other) for silo in SILOS for other in SILOS if silo != other}


def test_only_the_label_silo_sends_rows_and_under_its_own_key() -> None:
    assert {one.silo for one in disclosures(make_plan()) if one.bound == "key"} == {LABEL}


def test_lines_for_people_join_those_that_show_the_same() -> None:
    lines = describe_disclosures(make_plan())
    assert sum(COORDINATOR in line for line in lines) == 1
    assert any(line.startswith(f"{LABEL} shows {FEATURE} and {OTHER} whether") for line in lines)


def test_a_horizontal_plan_has_none_of_this() -> None:
    with pytest.raises(UsageError):
        disclosures(make_horizontal())


def test_a_private_encoder_shows_numbers_and_no_row_of_the_label_silo() -> None:
    plan = complete_encoder_plan(make_draft(), EncoderDraft(dimensions=4))
    assert not any(one.bound == "key" for one in disclosures(plan))
    (shown,) = [
        one for one in disclosures(plan) if (one.silo, one.to, one.bound) == (FEATURE, LABEL, "noise")
    ]
    assert shown.what.startswith("4 numbers of each person")
    assert shown.epsilon == plan_epsilon(plan)


# ── bytes ──


@pytest.mark.parametrize("reveal", ["none", "both"])
def test_every_file_is_within_what_its_leg_allows(reveal: str) -> None:
    plan = make_plan(reveal=reveal, features={FEATURE: "user", OTHER: "user_node:30"})
    slots = 1500 if reveal == "none" else most_slots(plan)
    encoder = complete_encoder_plan(make_draft(reveal=reveal), EncoderDraft())
    for made in (plan, encoder):
        for leg in legs(made, slots):
            for sender, parcel in leg.parcels.items():
                assert 0 < parcel_bytes(made, leg, sender, slots) <= parcel.max_bytes


def test_what_is_sent_is_fetched() -> None:
    """The coordinator keeps the blinded lists and makes the slots; blocks have two readers."""
    plan = make_plan()
    traffic = vertical_traffic(plan)
    sent = sum(one.upload_bytes for one in traffic.values())
    fetched = sum(one.download_bytes for one in traffic.values())
    lists = sum(33 * people + 32 for people in CAPACITIES.values())
    slots = sum(8 * people for people in CAPACITIES.values())
    key_and_blocks = 110_592 + 1500 * 36_928
    assert fetched == sent - lists + slots + key_and_blocks
    assert traffic[LABEL].upload_bytes > key_and_blocks


def test_a_spine_of_common_people_has_at_most_the_shortest_list() -> None:
    plan = make_plan(reveal="both")
    assert most_slots(plan) == 400
    few, most = vertical_traffic(plan, 150), vertical_traffic(plan)
    assert (
        few[LABEL].upload_bytes < most[LABEL].upload_bytes < vertical_traffic(make_plan())[LABEL].upload_bytes
    )


# ── minutes ──


def test_a_probe_grows_with_slots_and_dimensions() -> None:
    small, large = probe_vertical(make_plan()), probe_vertical(make_plan(dimensions=64))
    assert large.absorb_seconds > 1.5 * small.absorb_seconds
    assert small.spine_slots == 1500
    expected = small.spine_slots * max(small.encrypt_seconds, small.absorb_seconds)
    expected += small.release_seconds + 2 * small.open_seconds
    assert small.moments_minutes == pytest.approx(expected / 60)
    assert small.minutes == small.alignment_minutes + small.moments_minutes > 0


def test_a_probe_of_a_graph_with_a_high_degree_takes_no_more_memory() -> None:
    plan = make_plan(
        features={FEATURE: "user", OTHER: "user_node:700"},
        capacities={LABEL: 60_000, FEATURE: 60_000, OTHER: 60_000},
        target_epsilon=90.0,
        alignment_epsilon=0.2,
    )
    assert probe_vertical(plan).spine_slots == 180_000


def test_what_an_encoder_takes_is_measured_too(parties: dict[str, Path], tmp_path: Path) -> None:
    found, text = told(parties[FEATURE], tmp_path, complete_encoder_plan(make_draft(), EncoderDraft()))
    assert found["time"]["minutes"] > found["time"]["encoder_minutes"] > 0
    assert "to train an encoder and release" in text
    assert found["traffic"][FEATURE]["upload_bytes"] > 4 * 8 * 1500


# ── the command ──


def test_a_forecast_tells_it_all_and_leaves_nothing(parties: dict[str, Path], tmp_path: Path) -> None:
    def traces() -> dict[str, str]:
        paths = sorted(path for path in parties[FEATURE].rglob("*") if path.is_file())
        kept = [path for path in paths if path.name not in ("ledger.db", "ledger.db-wal", "ledger.db-shm")]
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}

    plan = make_plan()
    told(parties[FEATURE], tmp_path, plan, "--no-probe")  # opens the ledger
    before = traces()
    found, text = told(parties[FEATURE], tmp_path, plan, "--for-epsilon", "2")
    assert traces() == before
    assert found["verdict"] == {"silo": FEATURE, "accepted": True, "reasons": []}
    assert found["epsilon_towards"] == epsilon_towards(plan)
    assert found["disclosures"] == [asdict(one) for one in disclosures(plan)]
    assert found["traffic"] == {silo: asdict(one) for silo, one in vertical_traffic(plan).items()}
    assert found["time"]["minutes"] > 0
    assert found["for_epsilon"]["noise_multiplier"] > plan.privacy.noise_multiplier
    for words in (
        f"{FEATURE} would accept it.", "What it takes each silo", "MB", "to find who is in common",
        "epsilon 2 takes noise multiplier", "one person's own list",
    ):  # fmt: skip
        assert words in text


def test_without_a_probe_there_is_no_time(parties: dict[str, Path], tmp_path: Path) -> None:
    found, text = told(parties[LABEL], tmp_path, make_plan(), "--no-probe")
    assert found["time"] is None
    assert "machines like this one" not in text


def test_who_would_refuse_is_told_with_values(parties: dict[str, Path], tmp_path: Path) -> None:
    plan = make_plan(capacities={**CAPACITIES, OTHER: 401})
    found, text = told(parties[OTHER], tmp_path, plan, "--no-probe")
    assert [reason["code"] for reason in found["verdict"]["reasons"]] == ["capacity_mismatch"]
    assert "401 (allowed: 400)" in text


def test_published_requirements_of_the_others_are_judged(parties: dict[str, Path], tmp_path: Path) -> None:
    from policies.policy_commands import policy_app

    for name in SILOS:
        out = tmp_path / "published" / f"{name}.json"
        out.parent.mkdir(exist_ok=True)
        result = CliRunner().invoke(policy_app, ["publish", "--dir", str(parties[name]), "--out", str(out)])
        assert result.exit_code == 0, result.output
    plan = make_plan(min_intersection=90, alignment_epsilon=0.2)
    found, text = told(
        parties[LABEL], tmp_path, plan, "--no-probe", "--requirements", str(tmp_path / "published")
    )
    codes = {"min_intersection_too_small", "alignment_epsilon_too_high"}
    refusals = {silo: {one["code"] for one in given} for silo, given in found["members"]["refusals"].items()}
    assert refusals == dict.fromkeys(SILOS, codes)
    assert f"{FEATURE} would refuse it" in text
    assert "at least 100" in text


def test_rounds_are_not_asked_of_a_vertical_plan(parties: dict[str, Path], tmp_path: Path) -> None:
    result = ask(parties[LABEL], tmp_path, make_plan(), "--rounds-for-epsilon", "2")
    assert result.exit_code == ExitCode.USAGE
    assert "it has no number of rounds" in result.output
