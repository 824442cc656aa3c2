"""Trust: what is accepted, and that nothing but the reference time decides what is over."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from policies.canonical import digest
from policies.files import load_charter, load_policy
from policies.signing import DetachedSignatures
from policies.trust import (
    ExpiredError,
    ThresholdError,
    UnsignedError,
    WrongSiloError,
    days_left,
    missing_signatures,
    require_unexpired,
    trust_charter,
    trust_policy,
)
from privacy.errors import ExitCode
from tests.contracts.policy_scene import EXPIRES, NOW, make_scene, policy_text, read_policy, sign

SCENE = make_scene()
POLICY = policy_text()
SIGNED = sign(read_policy(POLICY).signed_bytes(), *SCENE.administrators()[:2])


def trusted(**changes: object) -> object:
    arguments = {
        "charter": SCENE.charter,
        "silo": "shop-a",
        "previous_version": 6,
        "now": NOW,
        **changes,
    }
    return trust_policy(POLICY.encode(), SIGNED, **arguments)  # type: ignore[arg-type]


class TestCharterTrust:
    def test_signed_by_all_members_is_in_force(self):
        charter = trust_charter(SCENE.charter_bytes(), SCENE.charter_signatures(), NOW)
        assert digest(charter) == digest(SCENE.charter)

    @pytest.mark.parametrize("missing", ["shop-a", "shop-b", "shop-c"])
    def test_every_member_is_needed(self, missing):
        signers = [name for name in SCENE.silos if name != missing]
        with pytest.raises(ThresholdError, match=f"not signed by {missing}") as caught:
            trust_charter(SCENE.charter_bytes(), SCENE.charter_signatures(*signers), NOW)
        assert caught.value.exit_code is ExitCode.TRUST

    def test_missing_signatures_are_listed_in_the_charters_order(self):
        signatures = DetachedSignatures.over(SCENE.charter.signed_bytes())
        assert missing_signatures(SCENE.charter, signatures) == ("shop-a", "shop-b", "shop-c")


class TestPolicyTrust:
    def test_enough_administrators_of_the_charter(self):
        assert trusted() == read_policy(POLICY)

    @pytest.mark.parametrize("previous", [None, 1, 6, 7])
    def test_the_same_or_a_newer_version(self, previous):
        assert trusted(previous_version=previous, previous_sha256=digest(read_policy(POLICY))) is not None

    def test_a_silo_outside_the_charter_has_no_policy(self):
        with pytest.raises(WrongSiloError, match="no member"):
            trusted(silo="shop-x")


class TestTime:
    def test_the_last_day_counts_until_its_end_in_utc(self):
        last = datetime(EXPIRES.year, EXPIRES.month, EXPIRES.day, 23, 59, 59, tzinfo=UTC)
        assert days_left(EXPIRES, last) == 0
        assert trusted(now=last) is not None
        with pytest.raises(ExpiredError, match=EXPIRES.isoformat()):
            trusted(now=last + timedelta(seconds=1))

    def test_other_time_zones_are_converted(self):
        west = timezone(timedelta(hours=-10))
        with pytest.raises(ExpiredError):
            require_unexpired("charter", date(2026, 1, 1), datetime(2026, 1, 1, 20, tzinfo=west))

    def test_a_time_without_a_zone_is_a_bug(self):
        with pytest.raises(ValueError, match="UTC"):
            days_left(EXPIRES, NOW.replace(tzinfo=None))

    def test_an_accepted_date_is_returned(self):
        assert require_unexpired("policy", EXPIRES, NOW) == EXPIRES


class TestDirectory:
    def test_is_trusted_as_a_whole(self, tmp_path):
        (tmp_path / "charter.yaml").write_bytes(SCENE.charter_bytes())
        (tmp_path / "charter.sig.json").write_bytes(SCENE.charter_signatures())
        (tmp_path / "policy.yaml").write_text(POLICY)
        charter = load_charter(tmp_path, NOW)
        with pytest.raises(UnsignedError):
            load_policy(tmp_path, charter=charter, silo="shop-a", previous_version=None, now=NOW)
        (tmp_path / "policy.sig.json").write_bytes(SIGNED)
        policy = load_policy(tmp_path, charter=charter, silo="shop-a", previous_version=None, now=NOW)
        assert policy.version == 7
