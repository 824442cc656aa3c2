"""An auditor follows the charter through its amendments; and an operator, or a revoked administrator, cheats.

Version 1 of the charter gave shop-a one administrator; later versions give it others.
"""

from __future__ import annotations

import json
import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from policies.canonical import digest
from policies.charters.charter import Charter
from policies.files import load_yaml, save_signatures, save_yaml
from policies.freezing import write_freeze
from policies.signing import DetachedSignatures, PrivateKey
from policies.silo_policy import SiloPolicy
from privacy.errors import DataError, DeniedError, TrustError
from privacy.ledger.ledger import Ledger, PolicyFrozenError, StaleCharterError
from silo.audit.export import export_bundle
from silo.audit.verify import verify
from tests.contracts.amended_silo import AmendedSilo
from tests.contracts.audited_silo import ME, NOW, make_audited_silo

JOB = "fedcba9876543210fedcba9876543210"
OTHER = "00112233445566778899aabbccddeeff"
EARLIER = NOW - timedelta(minutes=30)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> AmendedSilo:
    return AmendedSilo.of(make_audited_silo(tmp_path_factory.mktemp("history")))


@pytest.fixture
def history(made: AmendedSilo, tmp_path: Path) -> AmendedSilo:
    return AmendedSilo(made.silo.copy(tmp_path / "copy"), made.founder, [made.founder])


def codes(history: AmendedSilo, path: Path | None = None) -> set[str]:
    found = verify(path or history.silo.directory, history.silo.charter_path, now=NOW)
    return {item.code for item in found.findings} - {"unwitnessed"}


def rotated(history: AmendedSilo) -> AmendedSilo:
    """Version 2 of policy and charter are in force, a job was reserved for under them."""
    history.note_first()
    history.amend()
    history.use(history.sign_policy(2, history.administrators[-1]), JOB)
    return history


class TestAnHonestSilo:
    def test_versions_of_a_since_revoked_administrator_stay_what_they_were(self, history):
        assert codes(rotated(history)) == set()

    @pytest.mark.parametrize("version", [1, 2, 3])
    def test_any_charter_of_the_chain_is_a_root(self, history, version):
        rotated(history).amend()
        history.use(history.sign_policy(3, history.administrators[-1]), OTHER)
        history.auditor_has(version)
        assert codes(history) == set()

    def test_a_bundle_holds_what_is_needed(self, history, tmp_path):
        rotated(history)
        bundle = tmp_path / "bundle.zip"
        export_bundle(history.silo.directory, bundle, now=NOW)
        assert codes(history, bundle) == set()
        history.auditor_has(2)
        assert codes(history, bundle) == set()

    def test_the_same_policy_signed_anew_by_the_new_administrators(self, history):
        history.note_first()
        history.amend()
        history.sign_policy(1, history.administrators[-1])
        with history.silo.ledger() as ledger:
            history.reserve(ledger, history.silo.policy(), JOB)
        assert codes(history) == set()

    def test_an_amendment_that_the_silo_has_not_installed_is_said(self, history):
        history.note_first()
        history.amend(installs=False)
        history.auditor_has(2)
        shutil.copytree(history.newest.parent / "charters", history.silo.charter_path.parent / "charters")
        assert codes(history) == {"charter_not_adopted"}
        (found,) = history.silo.verify().findings
        assert "version 1 stands since entry 6 of 2026-06-01T" in found.text
        assert "jobs reserved for since then: 0" in found.text


class TestAHiddenAmendment:
    """The operator does not install it; a peer did, and shows since when."""

    @pytest.fixture
    def hidden(self, history):
        history.note_first()
        history.amend(installs=False)
        with history.silo.ledger() as ledger:
            history.reserve(ledger, history.silo.policy(), JOB)
        history.auditor_has(2)
        shutil.copytree(history.newest.parent / "charters", history.silo.charter_path.parent / "charters")
        return history

    def peer(self, hidden, signer="shop-b", version=2):
        """The directory of shop-b, whose ledger takes up the amendment half an hour before shop-a's job."""
        charter = load_yaml(hidden.newest, Charter)
        key = hidden.silo.key(signer)
        path = hidden.newest.parent / "ledger.db"
        with Ledger.open(path, sign=key.sign_raw, key_id=key.key_id, clock=lambda: EARLIER) as ledger:
            ledger.adopt_charter(digest(hidden.silo.federation.charter), 1)
            if version == 2:
                ledger.adopt_charter(digest(charter), 2)
        return path.parent

    def test_a_peers_record_says_since_when(self, hidden):
        (found,) = said(hidden, self.peer(hidden))
        assert "shop-b has gone by version 2 since 2026-05-31T23:30:00" in found
        assert "jobs reserved for here after that: 2" in found

    def test_so_does_its_bundle(self, hidden, tmp_path):
        bundle = tmp_path / "shop-b.zip"
        export_bundle(self.peer(hidden), bundle, now=NOW)
        (found,) = said(hidden, bundle)
        assert "since 2026-05-31T23:30:00" in found

    @pytest.mark.parametrize("options", [{"signer": "shop-c"}, {"version": 1}])
    def test_a_record_that_the_peer_did_not_sign_or_without_the_amendment_says_nothing(self, hidden, options):
        (found,) = said(hidden, self.peer(hidden, **options))
        assert "shown by a peer's bundle" in found


def said(history: AmendedSilo, peer: Path) -> list[str]:
    found = history.silo.verify(receipts=[peer]).findings
    return [item.text for item in found if item.code == "charter_not_adopted"]


class TestARevokedAdministrator:
    def test_signs_a_later_policy(self, history):
        history.note_first()
        history.amend()
        history.use(history.sign_policy(2, history.founder), JOB)
        assert "signers_revoked" in codes(history)

    def test_signs_a_later_policy_that_nothing_rests_on_yet(self, history):
        rotated(history)
        history.sign_policy(9, history.founder)
        assert codes(history) == {"policy_untrusted"}

    def test_a_job_under_the_policy_that_only_they_signed(self, history):
        history.note_first()
        history.amend()
        with history.silo.ledger() as ledger:
            history.reserve(ledger, history.silo.policy(), JOB)
        assert codes(history) == {"signers_revoked"}

    def test_with_the_operators_help_no_entry_says_which_charter_it_was(self, history):
        history.amend(installs=False)
        history.use(history.sign_policy(2, history.founder), JOB)
        history.auditor_has(2)
        shutil.copytree(history.newest.parent / "charters", history.silo.charter_path.parent / "charters")
        assert codes(history) == {"charter_unrecorded"}

    def test_with_the_operators_help_goes_back_to_the_charter_before(self, history):
        rotated(history)
        first = digest(history.silo.federation.charter)
        with history.silo.ledger() as ledger, pytest.raises(StaleCharterError):
            ledger.adopt_charter(first, 1)
        with history.silo.log() as log:
            log.append("charter_adopted", {"charter_sha256": first, "charter_version": 1})
        assert "charter_rolled_back" in codes(history)


class TestForgedCharters:
    def test_an_amendment_that_too_few_signed_is_no_charter_of_the_ledger(self, history):
        history.note_first()
        draft = history.amend(installs=False, signers=("shop-a", "shop-b"))
        for name in ("charter.yaml", "charter.sig.json"):
            shutil.copy(draft.parent / name, history.silo.directory / name)
        forged = load_yaml(draft, Charter)
        with history.silo.ledger() as ledger:
            ledger.adopt_charter(digest(forged), 2)
        history.use(history.sign_policy(2, history.administrators[-1]), JOB)
        assert {"charter_untrusted", "policy_untrusted"} <= codes(history)

    def test_another_first_charter_in_the_bundle(self, history, tmp_path):
        elsewhere = make_audited_silo(tmp_path / "elsewhere")
        elsewhere.federation.install_charter()
        for name in ("charter.yaml", "charter.sig.json"):
            shutil.copy(elsewhere.directory / name, history.silo.directory / name)
        assert codes(history) == {"charter_untrusted"}

    def test_a_charter_is_left_out(self, history):
        rotated(history)
        shutil.rmtree(history.silo.directory / "charters")
        for name in ("charter.yaml", "charter.sig.json"):
            shutil.copy(history.silo.charter_path.parent / name, history.silo.directory / name)
        assert "charter_untrusted" in codes(history)

    def test_an_auditors_amendment_with_nothing_before_it(self, history):
        rotated(history)
        history.auditor_has(2)
        shutil.rmtree(history.silo.directory / "charters")
        with pytest.raises(DataError, match="nowhere"):
            codes(history)

    def test_the_auditors_own_copy_was_altered(self, history):
        rotated(history)
        history.auditor_has(2)
        text = history.silo.charter_path.read_text().replace("port: 8443", "port: 8444")
        history.silo.charter_path.write_text(text)
        with pytest.raises(TrustError):
            codes(history)

    def test_hostile_charters_in_a_directory_do_not_stop_the_audit(self, history):
        rotated(history)
        (history.silo.directory / "charters" / "3.yaml").write_text("kind: Charter\nversion: *a\n")
        (history.silo.directory / "charters" / "3.sig.json").write_text("{")
        (history.silo.directory / "charters" / "99999.yaml").write_bytes(b"\x00" * 1000)
        assert codes(history) == set()


class TestFreezes:
    def test_a_freeze_outlives_its_files(self, history):
        """Whoever deletes the file does not lift the freeze: the ledger has it."""
        with history.silo.ledger() as ledger:
            ledger.freeze(1, "e" * 64, "2026-06-01T00:00:00Z")
            with pytest.raises(PolicyFrozenError, match="frozen since"):
                history.reserve(ledger, history.silo.policy(), JOB)
        history.use(history.sign_policy(2, history.founder), JOB)
        assert codes(history) == set()

    def test_a_weaker_freeze_does_not_lift_a_stronger_one(self, history):
        with history.silo.ledger() as ledger:
            ledger.freeze(5, "e" * 64, "2026-06-01T00:00:00Z")
            ledger.freeze(1, "f" * 64, "2026-06-02T00:00:00Z")
            assert ledger.state().freeze.policy_version == 5

    def test_a_job_reserved_after_the_ledger_noted_a_freeze(self, history, monkeypatch):
        with history.silo.ledger() as ledger:
            ledger.freeze(1, "e" * 64, "2026-06-01T00:00:00Z")
            monkeypatch.setattr("privacy.ledger.ledger.refuse_frozen", lambda *_: None)
            history.reserve(ledger, history.silo.policy(), JOB)
        assert codes(history) == {"reserved_while_frozen"}

    def test_a_job_reserved_after_an_administrator_signed_the_freeze(self, history):
        """The agent was kept from noting it; the signed freeze itself came with the record."""
        write_freeze(history.silo.directory, NOW - timedelta(hours=1), silo=ME, key=history.founder)
        with history.silo.ledger() as ledger:
            history.reserve(ledger, history.silo.policy(), JOB)
        assert "reserved_while_frozen" in codes(history)

    def test_a_freeze_that_was_heeded_is_no_finding(self, history):
        """As an agent leaves it: the file, its kept copy and the entry; also in a bundle."""
        write_freeze(history.silo.directory, NOW + timedelta(seconds=1), silo=ME, key=history.founder)
        kept = history.silo.directory / "policies"
        for name in ("freeze.yaml", "freeze.sig.json"):
            shutil.copy(history.silo.directory / name, kept / name)
        with history.silo.ledger() as ledger:
            ledger.freeze(1, "e" * 64, "2026-06-01T00:00:00Z")
        assert codes(history) == set()
        bundle = history.silo.root / "bundle.zip"
        export_bundle(history.silo.directory, bundle, now=NOW)
        assert codes(history, bundle) == set()

    def test_jobs_before_a_freeze_are_no_finding(self, history):
        write_freeze(history.silo.directory, NOW + timedelta(seconds=1), silo=ME, key=history.founder)
        assert codes(history) == set()

    def test_a_freeze_that_nobody_may_sign(self, history):
        write_freeze(history.silo.directory, NOW, silo=ME, key=PrivateKey.generate())
        assert codes(history) == {"freeze_untrusted"}

    def test_a_freeze_is_no_charge(self, history):
        with history.silo.ledger() as ledger:
            before = ledger.status("customers").epsilon_spent
            ledger.freeze(1, "e" * 64, "2026-06-01T00:00:00Z")
            assert ledger.status("customers").epsilon_spent == before
            with pytest.raises(DeniedError):
                history.reserve(ledger, history.silo.policy(), JOB)


class TestRenewals:
    def test_a_renewal_taken_before_its_day_by_a_changed_program(self, history):
        """The policy is trusted today; the entry that took the renewal is older than the renewal's day."""
        policy = history.silo.policy(2)
        values = policy.model_dump(mode="json", exclude_unset=True)
        values["budgets"]["customers"] |= {
            "scope": "renewals",
            "renewals": [{"date": "2026-09-01", "epsilon": 8.0}],
            "renewed": 1,
        }
        renewed = SiloPolicy.model_validate_json(json.dumps(values))
        path, payload = history.silo.directory / "policy.yaml", renewed.signed_bytes()
        save_yaml(path, renewed)
        save_signatures(path, DetachedSignatures.over(payload).signed_by(history.founder, payload))
        history.use(renewed, JOB)
        later = NOW + timedelta(days=120)
        found = verify(history.silo.directory, history.silo.charter_path, now=later)
        assert "renewal_early" in {item.code for item in found.findings}
