"""The one way out: what is not declared stays, what has a price leaves with its charge only."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_type_hints

import pytest

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
from policies.decision import Authorization, PolicyDeniedError, Reason, authorize
from silo import release
from silo.release import (
    LOG_FIELDS,
    OUTBOUND,
    Free,
    Priced,
    UndeclaredReleaseError,
    announce,
    declared_log_fields,
    refuse,
    release_stream,
)
from silo.site import Site
from tests.contracts.small_federation import SmallFederation, make_small_federation

JOB = "ab" * 16
NOT_A_SILOS = {PostKind.PROPOSAL, PostKind.SUM, PostKind.ABSENCE, PostKind.ENDED}
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
    assert release.OUTBOUND[Return] == release.OUTBOUND[Pause] == release.OUTBOUND[Resume] == {}


def test_undeclared_log_fields_are_dropped_and_that_is_said() -> None:
    kept = declared_log_fields(None, "info", {"event": "drawn", "job": JOB, "num_users": 812, "norm": 0.3})
    assert kept == {"event": "drawn", "job": JOB, "what": "undeclared fields were not logged"}
    assert not LOG_FIELDS & {"num_users", "num_rows", "batch_size", "norm", "seconds", "loss", "users"}
