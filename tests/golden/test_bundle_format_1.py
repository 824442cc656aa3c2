"""A bundle from before there were charters and freezes in bundles is read, and says the same for ever.

``bundle.zip`` and the auditor's ``charter.yaml`` were written once, by the last version that made format 1.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from silo.audit.bundle import BundleEvidence
from silo.audit.evidence import open_evidence
from silo.audit.replay import replay
from silo.audit.spending import overview
from silo.audit.verify import verify

OLD = Path(__file__).parent / "bundle_format_1"
NOW = datetime(2026, 6, 1, tzinfo=UTC)


def test_it_is_of_format_1() -> None:
    with open_evidence(OLD / "bundle.zip") as evidence:
        assert isinstance(evidence, BundleEvidence)
        assert evidence.manifest.schema_version == 1
        assert not any("charter" in name or "freeze" in name for name in evidence.names())


def test_nothing_is_found_in_it() -> None:
    report = verify(OLD / "bundle.zip", OLD / "charter.yaml", now=NOW)
    assert report.findings == ()
    assert (report.silo, report.entries, report.charges, report.receipts) == ("shop-a", 5, 1, 2)
    assert report.head_hash == "228dcc97e5ab2a8f4184fc250a8e32cc5c07512d8ea7e243f40ca564aa79a744"


def test_it_adds_up_to_the_same() -> None:
    with open_evidence(OLD / "bundle.zip") as evidence:
        (account,) = overview(evidence).accounts
        assert (account.account, account.epsilon, account.policy) == ("customers", 8.0, 1)
        assert account.spent == pytest.approx(1.3661848537890462, rel=1e-9)
        assert replay(evidence).findings == ()
