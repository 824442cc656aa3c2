from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from federation.locking import exclusive
from policies.trust import ExpiredError
from privacy.errors import HostError, TrustError, UsageError
from silo.jobs.contribute import LEAVING_SECONDS, seconds_to_leave
from silo.site import JobRecordLostError, NotJoinedError, Site
from tests.contracts.small_federation import SmallFederation, make_small_federation

JOB = "ab" * 16


@pytest.fixture
def federation(tmp_path: Path) -> SmallFederation:
    return make_small_federation(tmp_path, silos=("shop-a", "shop-b"))


def test_a_site_knows_its_name_its_policy_and_the_charters_parties(federation: SmallFederation) -> None:
    with Site(federation.directory("shop-a")) as site:
        assert site.name == "shop-a"
        assert site.trusted_policy().silo == "shop-a"
        assert site.identity_of("hub") == federation.parties.hub.identity.public_key
        with pytest.raises(TrustError, match="not in the charter"):
            site.identity_of("stranger")


def test_a_silo_that_has_not_joined_is_told_how(federation: SmallFederation) -> None:
    (federation.directory("shop-a") / "charter.yaml").unlink()
    with pytest.raises(NotJoinedError) as caught:
        Site(federation.directory("shop-a"))
    assert "silo join" in str(caught.value)


def test_a_coordinators_directory_is_no_silos(federation: SmallFederation) -> None:
    with pytest.raises(UsageError, match="hub is a coordinator"):
        Site(federation.parties.hub.directory)


def test_an_edited_policy_is_no_policy_until_it_is_signed(federation: SmallFederation) -> None:
    path = federation.directory("shop-a") / "policy.yaml"
    path.write_text(path.read_text().replace("epsilon: 8.0", "epsilon: 80.0"))
    with Site(federation.directory("shop-a")) as site, pytest.raises(TrustError):
        site.trusted_policy()


def test_an_expired_policy_stops_the_silo(federation: SmallFederation) -> None:
    def later() -> datetime:
        return datetime(2098, 1, 1, tzinfo=UTC)

    with Site(federation.directory("shop-a"), clock=later) as site, pytest.raises(ExpiredError):
        site.trusted_policy()


def test_without_a_record_nothing_is_authorised(federation: SmallFederation) -> None:
    with Site(federation.directory("shop-a")) as site:
        with pytest.raises(JobRecordLostError):
            site.authorization_for(JOB, federation.plan)
        site.remember_job(JOB, federation.plan, site.trusted_policy())
        assert site.policy_of(JOB) == site.trusted_policy()
        with pytest.raises(JobRecordLostError):
            site.authorization_for(JOB, federation.plan)


def test_what_was_damaged_is_kept_for_the_silos_own_people(federation: SmallFederation) -> None:
    with Site(federation.directory("shop-a")) as site:
        assert site.repairs(JOB) == []
        site.remember_repair(JOB, "round 2: altered; rebuilt")
        site.remember_repair(JOB, "round 5: altered; rebuilt")
        assert site.repairs(JOB) == ["round 2: altered; rebuilt", "round 5: altered; rebuilt"]


@pytest.mark.parametrize("content", [b"", b'{"job": "ab'])
def test_a_note_that_was_cut_short_is_no_note(federation: SmallFederation, content: bytes) -> None:
    with Site(federation.directory("shop-a")) as site:
        path = site.directory / "jobs" / JOB / "state.json"
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        assert (site.job_note(JOB), site.job_notes()) == ({}, [])


def test_one_process_holds_a_directory(tmp_path: Path) -> None:
    with (
        exclusive(tmp_path, "agent"),
        pytest.raises(HostError, match="another agent runs in this directory"),
        exclusive(tmp_path, "agent"),
    ):
        raise AssertionError("never entered")
    with exclusive(tmp_path, "agent"):
        pass


@pytest.mark.parametrize("taken", [0.0, 0.3, 0.999, 1.0, 1.5, 2.0, 3.1, 9.7, 300.0])
def test_contributions_leave_at_fixed_times(taken: float) -> None:
    left = taken + seconds_to_leave(taken)
    assert left >= taken
    assert left in {LEAVING_SECONDS * 2**power for power in range(12)}
    assert left < max(2 * taken, 2 * LEAVING_SECONDS)
