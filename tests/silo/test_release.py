"""The one way out: what is not declared stays, what has a price leaves with its charge only."""

from __future__ import annotations

import ast
from dataclasses import fields, replace
from pathlib import Path
from typing import get_type_hints

import pytest

from federation.legs.legs import Leg, LegPurpose, legs, price_of
from federation.messages import (
    BODIES,
    Burn,
    Cancel,
    Denial,
    Opened,
    Pause,
    PostKind,
    Repaired,
    Resume,
    Return,
    Stream,
)
from federation.questions import FeatureAnswer, KeyOffer, Question
from policies.decisions.decision import Authorization, PolicyDeniedError, Reason, authorize
from policies.signing import PrivateKey
from privacy.devices import DeviceKey
from silo import release
from silo.declarations import LEGS, LOG_FIELDS, OUTBOUND, SERVING, Consented, Free, Priced
from silo.release import (
    UndeclaredReleaseError,
    announce,
    announce_leg,
    declared_log_fields,
    refuse,
    release_feature_part,
    release_features,
    release_leg,
    release_stream,
    withhold_features,
)
from silo.site import Site
from silo.vertical.merging.documents import FeaturePart, LabelPart, MergeTicket, open_part
from silo.vertical.serving.consent import Admission, Redemption
from tests.contracts.leg_scene import encoder_plan, leg_plan
from tests.contracts.small_federation import SmallFederation, make_small_federation

ROOT = Path(__file__).parents[2]
JOB = "ab" * 16
NOT_A_SILOS = {
    PostKind.PROPOSAL,
    PostKind.SUM,
    PostKind.ABSENCE,
    PostKind.RELAYED,
    PostKind.MATCHED,
    PostKind.ENDED,
}
STREAM = Stream(sha256="1" * 64, num_bytes=10, num_frames=1)


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> SmallFederation:
    return make_small_federation(tmp_path_factory.mktemp("federation"))


@pytest.fixture
def site(federation: SmallFederation, tmp_path: Path) -> Site:
    return Site(federation.directory("shop-a"))


@pytest.fixture
def authorization(federation: SmallFederation, site: Site) -> Authorization:
    policy = site.trusted_policy()
    state = site.ledger_state(policy)
    return authorize(federation.plan, policy, state, site.now(), charter=site.charter)


def test_every_field_of_every_post_of_a_silo_is_declared() -> None:
    bodies = {model for kind, model in BODIES.items() if kind not in NOT_A_SILOS}
    assert set(OUTBOUND) == bodies
    for body, declared in OUTBOUND.items():
        assert set(declared) == set(body.model_fields)
        for declaration in declared.values():
            assert declaration.reason if isinstance(declaration, Free) else declaration.by


def test_the_only_thing_with_a_price_is_the_contribution() -> None:
    priced = [
        (body, name)
        for body, declared in OUTBOUND.items()
        for name, declaration in declared.items()
        if isinstance(declaration, Priced)
    ]
    assert priced == [(Stream, "sha256")]


class WithUsers(Opened):
    num_users: int


def test_an_undeclared_field_or_post_stays(site: Site, authorization: Authorization) -> None:
    identity = site.party.identity
    with pytest.raises(UndeclaredReleaseError, match="num_users"):
        announce(
            WithUsers(digest="1" * 64, num_users=7),
            authorization,
            job=JOB,
            sender="shop-a",
            identity=identity,
        )


def test_a_field_added_later_stays_until_somebody_declares_it(
    site: Site, authorization: Authorization, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release, "OUTBOUND", {**OUTBOUND, Burn: {}})
    with pytest.raises(UndeclaredReleaseError, match="reason"):
        announce(
            Burn(reason="record_lost"), authorization, job=JOB, sender="shop-a", identity=site.party.identity
        )


def test_a_stream_is_not_announced_without_its_charge(site: Site, authorization: Authorization) -> None:
    with pytest.raises(UndeclaredReleaseError, match="has a price"):
        announce(STREAM, authorization, job=JOB, sender="shop-a", identity=site.party.identity)
    hints = get_type_hints(release_stream)
    assert hints["charge"].__name__ == "Charge"
    assert hints["authorization"] is Authorization


def test_a_charge_pays_for_its_own_job_round_and_attempt(site: Site, authorization: Authorization) -> None:
    site.ledger.reserve(
        account=authorization.account,
        job=JOB,
        dataset=authorization.dataset,
        plan_sha256=authorization.plan_sha256,
        policy_sha256=authorization.policy_sha256,
        requested_by="shop-b",
        events=authorization.events,
    )
    charge = site.ledger.commit(JOB, round=1, attempt=1, event=authorization.events[0].event)
    identity = site.party.identity
    released = release_stream(STREAM, authorization, charge, job=JOB, sender="shop-a", identity=identity)
    assert (released.round, released.attempt) == (1, 1)
    with pytest.raises(UndeclaredReleaseError, match="another job"):
        release_stream(STREAM, authorization, charge, job="cd" * 16, sender="shop-a", identity=identity)
    with pytest.raises(ValueError, match="token"):
        replace(charge, job="cd" * 16)
    assert site.ledger.status(authorization.account).committed[0].count == 1


def test_a_refusal_leaves_as_codes_without_values(site: Site) -> None:
    denied = PolicyDeniedError(
        (Reason("budget", "privacy.target_epsilon", "4.0", "0.37 is left", "ask for less"),)
    )
    envelope = refuse(denied, plan_sha256="1" * 64, job=JOB, sender="shop-a", identity=site.party.identity)
    assert envelope.content(Denial).model_dump()["reasons"] == (
        {"code": "budget", "field": "privacy.target_epsilon"},
    )
    assert b"0.37" not in envelope.to_bytes()


def test_a_cancellation_says_nothing_else(site: Site) -> None:
    envelope = release.cancel(job=JOB, sender="shop-a", identity=site.party.identity)
    assert envelope.content(Cancel).model_dump() == {}


@pytest.mark.parametrize("body", [Return(), Repaired(digest="1" * 64)])
def test_coming_back_and_repairing_need_the_authorised_job(
    body: Return | Repaired, site: Site, authorization: Authorization
) -> None:
    identity = site.party.identity
    envelope = announce(body, authorization, job=JOB, sender="shop-a", identity=identity, round=2, attempt=3)
    assert (envelope.round, envelope.attempt, envelope.body) == (2, 3, body.model_dump())
    assert OUTBOUND[Return] == OUTBOUND[Pause] == OUTBOUND[Resume] == {}


def test_undeclared_log_fields_are_dropped_and_that_is_said() -> None:
    kept = declared_log_fields(None, "info", {"event": "drawn", "job": JOB, "num_users": 812, "norm": 0.3})
    assert kept == {"event": "drawn", "job": JOB, "what": "undeclared fields were not logged"}
    assert not LOG_FIELDS & {"num_users", "num_rows", "batch_size", "norm", "seconds", "loss", "users"}


def _log_calls() -> list[tuple[str, str, frozenset[str]]]:
    """Place, event and fields of every log line that the agent's process can write."""
    found = []
    for path in [*(ROOT / "silo").rglob("*.py"), ROOT / "federation" / "amendments.py"]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if isinstance(node.func.value, ast.Name) and node.func.value.id == "log":
                place = f"{path.relative_to(ROOT)}:{node.lineno}"
                assert isinstance(node.args[0], ast.Constant), f"{place}: an event is a fixed name"
                fields = frozenset(keyword.arg or "**" for keyword in node.keywords)
                found.append((place, str(node.args[0].value), fields))
    return found


def test_every_log_line_of_an_agent_has_declared_fields_only() -> None:
    """The processor would drop the others; here it shows before somebody looks for them in vain."""
    calls = _log_calls()
    assert {"agent_started", "duty", "charter_amended"} <= {event for _, event, _ in calls}
    assert [(place, sorted(fields - LOG_FIELDS)) for place, _, fields in calls if fields - LOG_FIELDS] == []


def test_every_field_that_silos_say_about_a_person_in_session_is_declared() -> None:
    models = (KeyOffer, Question, MergeTicket, LabelPart, FeaturePart)
    spoken = {FeatureAnswer: {field.name for field in fields(FeatureAnswer)}}
    spoken |= {model: set(model.model_fields) for model in models}
    assert {kind: set(names) for kind, names in spoken.items()} == {
        kind: set(declared) for kind, declared in SERVING.items()
    }
    priceless = [
        (kind, name)
        for kind, declared in SERVING.items()
        for name, declaration in declared.items()
        if not isinstance(declaration, Free)
    ]
    assert priceless == [
        (FeatureAnswer, "features"), (LabelPart, "seen"), (LabelPart, "own"), (FeaturePart, "features"),
    ]  # fmt: skip
    assert all(isinstance(SERVING[kind][name], Consented) for kind, name in priceless)


def test_a_persons_own_numbers_leave_for_the_ticket_that_was_used_only() -> None:
    device, identity = DeviceKey.generate(), PrivateKey.generate()
    ticket = MergeTicket(job=JOB, label="shop-a", device=str(device.address), nonce="ab" * 32, expires=1)
    part = FeaturePart(silo="b", ticket_sha256=ticket.digest.hex(), features=b"", unmasking=b"")
    sealed = release_feature_part(part, Admission(ticket.digest, "anna"), device.address, identity)
    opened = open_part(sealed, device)
    opened.verify("b", identity.public_key)
    assert opened.model_copy(update={"signature": ""}) == part
    with pytest.raises(UndeclaredReleaseError, match="another ticket"):
        release_feature_part(part, Admission(bytes(32), "anna"), device.address, identity)


def test_a_persons_numbers_leave_with_that_persons_consent_only() -> None:
    consent = Redemption("anna", "shop-a", "ranking")
    assert release_features((1.0, 2.0), consent, silo="shop-a", purpose="ranking").features == (1.0, 2.0)
    for silo, purpose in (("shop-b", "ranking"), ("shop-a", "credit-scoring")):
        with pytest.raises(UndeclaredReleaseError, match="consent"):
            release_features((1.0, 2.0), consent, silo=silo, purpose=purpose)
    assert get_type_hints(release_features)["redemption"] is Redemption


def test_a_field_of_an_answer_that_nobody_declared_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "SERVING", {**SERVING, FeatureAnswer: {}})
    with pytest.raises(UndeclaredReleaseError, match="features"):
        withhold_features()


def leg_of(purpose: LegPurpose, index: int = 1) -> Leg:
    return next(leg for leg in legs(leg_plan()) if (leg.purpose, leg.index) == (purpose, index))


def test_the_legs_that_have_a_price_are_those_that_the_plan_prices() -> None:
    for plan in (leg_plan(), encoder_plan()):
        for leg in legs(plan):
            for sender in leg.senders:
                is_priced = price_of(plan, leg, sender) is not None
                declared = LEGS[leg.purpose]
                assert declared.reason if isinstance(declared, Free) else declared.by
                is_released = leg.purpose in (LegPurpose.MOMENTS, LegPurpose.FEATURES)
                assert is_priced == (leg.number == 1 or is_released)


def test_numbers_of_an_encoder_are_not_announced_without_their_charge(
    site: Site, authorization: Authorization
) -> None:
    *_, leg = legs(encoder_plan())
    with pytest.raises(UndeclaredReleaseError, match="has a price"):
        announce_leg(STREAM, authorization, leg, job=JOB, sender="shop-a", identity=site.party.identity)


@pytest.mark.parametrize("purpose", [LegPurpose.HOP, LegPurpose.MOMENTS])
def test_a_priced_leg_is_not_announced_without_its_charge(
    site: Site, authorization: Authorization, purpose: LegPurpose
) -> None:
    with pytest.raises(UndeclaredReleaseError, match="has a price"):
        announce_leg(
            STREAM, authorization, leg_of(purpose), job=JOB, sender="shop-a", identity=site.party.identity
        )
    assert get_type_hints(release_leg)["charge"].__name__ == "Charge"


@pytest.mark.parametrize(
    "leg",
    [leg_of(LegPurpose.HOP, 2), *map(leg_of, (LegPurpose.BLINDED, LegPurpose.KEY, LegPurpose.BLOCK))],
    ids=lambda leg: leg.in_words,
)
def test_a_free_leg_is_announced_at_its_own_place(site: Site, authorization: Authorization, leg: Leg) -> None:
    envelope = announce_leg(
        STREAM, authorization, leg, job=JOB, sender="shop-a", identity=site.party.identity
    )
    assert (envelope.round, envelope.attempt) == (leg.number, 1)


def test_no_silo_sends_slots(site: Site, authorization: Authorization) -> None:
    with pytest.raises(UndeclaredReleaseError, match="no silo sends slots"):
        announce_leg(
            STREAM, authorization, leg_of(LegPurpose.SLOTS), job=JOB, sender="a", identity=site.party.identity
        )


def test_a_charge_of_another_leg_or_of_a_free_one_releases_nothing(
    site: Site, authorization: Authorization
) -> None:
    job = "cd" * 16
    site.ledger.reserve(
        account=authorization.account, job=job, dataset=authorization.dataset,
        plan_sha256=authorization.plan_sha256, policy_sha256=authorization.policy_sha256,
        requested_by="shop-a", events=authorization.events,
    )  # fmt: skip
    charge = site.ledger.commit(job, round=1, attempt=1, event=authorization.events[0].event)
    about = (STREAM, authorization, charge)
    identity = site.party.identity
    with pytest.raises(UndeclaredReleaseError, match="pays for leg 1"):
        release_leg(*about, leg_of(LegPurpose.MOMENTS), job=job, sender="shop-a", identity=identity)
    with pytest.raises(UndeclaredReleaseError, match="has no price"):
        release_leg(*about, leg_of(LegPurpose.KEY), job=job, sender="shop-a", identity=identity)
    with pytest.raises(UndeclaredReleaseError, match="another job"):
        release_leg(*about, leg_of(LegPurpose.HOP), job=JOB, sender="shop-a", identity=identity)
    envelope = release_leg(*about, leg_of(LegPurpose.HOP), job=job, sender="shop-a", identity=identity)
    assert (envelope.round, envelope.attempt) == (1, 1)
