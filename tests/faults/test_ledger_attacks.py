"""Somebody with the ledger's file in hand, and somebody with the owner's key as well."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from federation.identity import make_party
from policies.canonical import digest
from policies.files import save_yaml
from policies.plans.price import reserved_events
from privacy.accounting import Spending
from privacy.budget import ZcdpFilter
from privacy.events import SAMPLER, GaussianEvent, PoissonSampledGaussianEvent
from privacy.ledger.chain import Head, read_entries
from tests.contracts.audited_silo import JOB, ME, AuditedSilo, make_audited_silo
from tests.contracts.ledger_tools import reseal, tampering

OTHER_JOB = "f" * 32


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> AuditedSilo:
    return make_audited_silo(tmp_path_factory.mktemp("original"))


@pytest.fixture
def silo(original: AuditedSilo, tmp_path: Path) -> AuditedSilo:
    copy = original.copy(tmp_path)
    assert copy.codes() == set()
    return copy


def places(silo: AuditedSilo, code: str) -> list[str]:
    return [finding.where for finding in silo.verify().findings if finding.code == code]


class TestOutsiderEditsTheFile:
    @pytest.mark.parametrize(
        ("column", "value"),
        [
            ("payload", '{"account":"customers"}'),
            ("at", "2020-01-01T00:00:00.000000Z"),
            ("kind", "released"),
            ("key_id", "0" * 16),
        ],
    )
    def test_altered(self, silo: AuditedSilo, column: str, value: str) -> None:
        with tampering(silo.ledger_path) as connection:
            connection.execute(f"UPDATE entries SET {column} = ? WHERE seq = 3", (value,))
        assert "ledger.db entry 3" in places(silo, "entry_altered")

    def test_the_same_content_in_another_spelling(self, silo: AuditedSilo) -> None:
        with tampering(silo.ledger_path) as connection:
            connection.execute("UPDATE entries SET payload = ' ' || payload WHERE seq = 3")
        assert places(silo, "entry_altered") == ["ledger.db entry 3"]

    def test_the_same_signature_in_another_spelling(self, silo: AuditedSilo) -> None:
        """The last letter before ``==`` carries four bits that no byte needs."""
        letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
        with tampering(silo.ledger_path) as connection:
            (text,) = connection.execute("SELECT signature FROM entries WHERE seq = 3").fetchone()
            twin = text[:-3] + letters[letters.index(text[-3]) ^ 1] + "=="
            assert base64.b64decode(twin) == base64.b64decode(text)
            connection.execute("UPDATE entries SET signature = ? WHERE seq = 3", (twin,))
        assert places(silo, "entry_signature") == ["ledger.db entry 3"]

    def test_deleted(self, silo: AuditedSilo) -> None:
        with tampering(silo.ledger_path) as connection:
            connection.execute("DELETE FROM entries WHERE seq = 3")
        assert places(silo, "entry_missing") == places(silo, "chain_broken") == ["ledger.db entry 4"]
        assert "accounts_differ" in silo.codes()

    def test_deleted_and_renumbered(self, silo: AuditedSilo) -> None:
        with tampering(silo.ledger_path) as connection:
            connection.execute("DELETE FROM entries WHERE seq = 3")
            connection.execute("UPDATE entries SET seq = 3 WHERE seq = 4")
            connection.execute("UPDATE entries SET seq = 4 WHERE seq = 5")
        assert {"entry_altered", "chain_broken"} <= silo.codes()

    def test_reordered(self, silo: AuditedSilo) -> None:
        with tampering(silo.ledger_path) as connection:
            for old, new in ((3, 99), (4, 3), (99, 4)):
                connection.execute("UPDATE entries SET seq = ? WHERE seq = ?", (new, old))
        assert places(silo, "entry_altered") == ["ledger.db entry 3", "ledger.db entry 4"]
        assert "chain_broken" in silo.codes()

    def test_inserted(self, silo: AuditedSilo) -> None:
        with tampering(silo.ledger_path) as connection:
            connection.execute(
                f"INSERT INTO entries SELECT 6, at, kind, payload, hash, '{'9' * 64}', key_id, signature "
                "FROM entries WHERE seq = 5"
            )
        assert "ledger.db entry 6" in places(silo, "entry_altered")

    def test_truncated_leaves_accounts_that_nothing_explains(self, silo: AuditedSilo) -> None:
        with tampering(silo.ledger_path) as connection:
            connection.execute("DELETE FROM entries WHERE seq > 2")
        assert {"accounts_differ", "ledger_truncated"} <= silo.codes()

    def test_re_signed_with_another_key(self, silo: AuditedSilo) -> None:
        thief = silo.key("shop-c")
        with tampering(silo.ledger_path) as connection:
            reseal(connection, thief.sign_raw, silo.key().key_id)
        assert len(places(silo, "entry_signature")) == 5

    def test_re_signed_with_a_new_identity_and_a_card_to_match(
        self, silo: AuditedSilo, tmp_path: Path
    ) -> None:
        impostor = make_party(tmp_path / "impostor", ME, "silo")
        shutil.copy(tmp_path / "impostor" / "card.json", silo.directory / "card.json")
        with tampering(silo.ledger_path) as connection:
            reseal(connection, impostor.identity.sign_raw, impostor.identity.key_id)
        assert len(places(silo, "entry_signature")) == 5

    def test_another_members_ledger_in_its_place(self, silo: AuditedSilo) -> None:
        silo.ledger_path.unlink()
        with silo.ledger("shop-b") as ledger:
            shutil.rmtree(silo.directory / "jobs")
            silo.run_job(ledger)
        assert len(places(silo, "entry_signature")) == 5

    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE allowances SET committed = 0",
            "UPDATE accounts SET budget = replace(budget, '8', '9')",
            "UPDATE accounts SET budget = 'nonsense'",
            "UPDATE accounts SET frozen = 1",
            "UPDATE jobs SET open = 1",
            "UPDATE folded SET seq = 4",
            """UPDATE balances SET spent = replace(spent, '[', '[1.0e-9, ')""",
            "UPDATE balances SET spent = 'nonsense'",
            "DELETE FROM balances",
            "DELETE FROM charges",
            "DELETE FROM accounts",
        ],
    )
    def test_accounts_beside_the_entries(self, silo: AuditedSilo, statement: str) -> None:
        with tampering(silo.ledger_path) as connection:
            connection.execute(statement)
        assert silo.codes() == {"accounts_differ"}

    @pytest.mark.parametrize("table", ["entries", "accounts", "charges"])
    def test_a_table_removed(self, silo: AuditedSilo, table: str) -> None:
        with tampering(silo.ledger_path) as connection:
            connection.execute("PRAGMA foreign_keys = OFF")
            connection.execute(f"DROP TABLE {table}")
        assert "ledger_unreadable" in silo.codes()

    def test_the_file_overwritten(self, silo: AuditedSilo) -> None:
        content = bytearray(silo.ledger_path.read_bytes())
        content[4096:] = b"\x5a" * (len(content) - 4096)
        silo.ledger_path.write_bytes(content)
        assert "ledger_unreadable" in silo.codes()

    def test_an_entry_that_is_not_json(self, silo: AuditedSilo) -> None:
        with tampering(silo.ledger_path) as connection:
            connection.execute("UPDATE entries SET payload = '{' WHERE seq = 4")
        assert {"entry_altered", "ledger_unreadable"} <= silo.codes()

    @pytest.mark.parametrize("assignment", ["hash = x'00ff'", "signature = x'07'", "payload = '5'"])
    def test_values_that_no_log_ever_wrote(self, silo: AuditedSilo, assignment: str) -> None:
        with tampering(silo.ledger_path) as connection:
            connection.execute("PRAGMA writable_schema = ON")
            connection.execute(
                "UPDATE sqlite_master SET sql = replace(sql, ' STRICT', '') WHERE name = 'entries'"
            )
        with closing(sqlite3.connect(silo.ledger_path, isolation_level=None)) as connection:
            connection.execute(f"UPDATE entries SET {assignment} WHERE seq = 5")
        assert "ledger_unreadable" in silo.codes()
        assert silo.codes() & {"entry_altered", "entry_signature"}


class TestOwnerRewritesTheChain:
    """The owner's own key signs everything again: only what peers hold can show it."""

    def rewrite(self, silo: AuditedSilo, change: Callable[[sqlite3.Connection], None]) -> None:
        with tampering(silo.ledger_path) as connection:
            change(connection)
            reseal(connection, silo.key().sign_raw, silo.key().key_id)

    def test_another_time(self, silo: AuditedSilo) -> None:
        backdated = "UPDATE entries SET at = '2020-01-01T00:00:00.000000Z' WHERE seq = 3"
        self.rewrite(silo, lambda connection: connection.execute(backdated) and None)
        assert {"receipt_contradicted", "unwitnessed"} <= silo.codes()
        assert "entry_signature" not in silo.codes()

    def test_a_payload_that_two_readers_read_differently(self, silo: AuditedSilo) -> None:
        once, both = '"round":1', '"round":7,"round":1'
        twice = f"UPDATE entries SET payload = replace(payload, '{once}', '{both}') WHERE seq = 3"
        self.rewrite(silo, lambda connection: connection.execute(twice) and None)
        assert "entry_altered" in silo.codes()

    def test_the_end_cut_off(self, silo: AuditedSilo) -> None:
        def cut(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM entries WHERE seq > 2")
            connection.execute("DELETE FROM charges")
            connection.execute("UPDATE allowances SET committed = 0")
            connection.execute("UPDATE jobs SET open = 1")
            nothing = Spending.none(ZcdpFilter()).model_dump_json()
            sha256 = hashlib.sha256(f"customers\0{nothing}".encode()).hexdigest()
            connection.execute("UPDATE balances SET spent = ?, sha256 = ?", (nothing, sha256))

        self.rewrite(silo, cut)
        with tampering(silo.ledger_path) as connection:
            connection.execute(
                "UPDATE folded SET (seq, hash) = (SELECT seq, hash FROM entries WHERE seq = 2)"
            )
        assert silo.codes() == {"ledger_truncated"}

    def test_a_fresh_ledger_in_the_place_of_the_old(self, silo: AuditedSilo) -> None:
        silo.ledger_path.unlink()
        silo.ledger().close()
        assert silo.codes() == {"ledger_truncated"}

    def test_a_fresh_ledger_and_every_own_trace_removed(self, silo: AuditedSilo, tmp_path: Path) -> None:
        handed_out = tmp_path / "shop-b-receipts.json"
        shutil.move(silo.directory / "jobs" / JOB / "receipts.json", handed_out)
        shutil.rmtree(silo.directory / "jobs")
        silo.ledger_path.unlink()
        silo.ledger().close()
        assert silo.codes() == set()
        assert silo.codes(receipts=[handed_out]) == {"ledger_truncated"}

    def test_an_old_backup_put_back(self, silo: AuditedSilo, tmp_path: Path) -> None:
        shutil.copy(silo.ledger_path, tmp_path / "backup.db")
        with silo.ledger() as ledger:
            silo.run_job(ledger, OTHER_JOB)
        shutil.copy(tmp_path / "backup.db", silo.ledger_path)
        assert silo.codes() == {"ledger_truncated"}


class TestOwnerWritesWhatTheLedgerRefuses:
    """Entries in their place, signed by the owner, written around the ledger."""

    def forge(self, silo: AuditedSilo, *entries: tuple[str, dict[str, Any]]) -> set[str]:
        with silo.log() as log:
            for kind, payload in entries:
                log.append(kind, payload)
        found = silo.codes()
        assert not found & {"entry_altered", "entry_signature", "chain_broken", "entry_missing"}
        return found - {"accounts_differ", "unwitnessed"}

    def payload(self, silo: AuditedSilo, kind: str, **changes: Any) -> dict[str, Any]:
        (found,) = [entry for entry in read_entries(silo.ledger_path) if entry.kind == kind]
        return json.loads(json.dumps(found.payload)) | changes

    def reservation(self, silo: AuditedSilo, count: int, **changes: Any) -> tuple[str, dict[str, Any]]:
        payload = self.payload(silo, "reserved", job=OTHER_JOB, **changes)
        payload["events"][0]["count"] = count
        return "reserved", payload

    def test_double_spend(self, silo: AuditedSilo) -> None:
        charge = self.payload(silo, "committed", job=OTHER_JOB)
        found = self.forge(silo, self.reservation(silo, 2), ("committed", charge), ("committed", charge))
        assert found == {"double_spend"}

    def test_charged_again_after_the_job_was_over(self, silo: AuditedSilo) -> None:
        assert self.forge(silo, ("committed", self.payload(silo, "committed", attempt=1))) == {
            "charge_unreserved"
        }

    def test_charged_without_a_reservation(self, silo: AuditedSilo) -> None:
        charge = self.payload(silo, "committed", job=OTHER_JOB)
        assert self.forge(silo, ("committed", charge)) == {"charge_unreserved"}

    def test_charged_more_often_than_reserved(self, silo: AuditedSilo) -> None:
        charges = [
            ("committed", self.payload(silo, "committed", job=OTHER_JOB, attempt=attempt))
            for attempt in (0, 1)
        ]
        assert self.forge(silo, self.reservation(silo, 1), *charges) == {"charge_unreserved"}

    def test_charged_for_a_cheaper_event(self, silo: AuditedSilo) -> None:
        cheap = GaussianEvent(noise_multiplier=1000.0, sampler=SAMPLER).model_dump(mode="json")
        charge = self.payload(silo, "committed", job=OTHER_JOB, event=cheap)
        assert self.forge(silo, self.reservation(silo, 1), ("committed", charge)) == {"charge_unreserved"}

    @pytest.mark.parametrize("field", ["account", "dataset", "plan_sha256", "policy_sha256", "requested_by"])
    def test_charged_in_another_name(self, silo: AuditedSilo, field: str) -> None:
        charge = self.payload(silo, "committed", job=OTHER_JOB) | {field: "e" * 64}
        assert self.forge(silo, self.reservation(silo, 1), ("committed", charge)) == {"charge_mismatch"}

    def test_released_more_than_reserved(self, silo: AuditedSilo) -> None:
        release = self.payload(silo, "released", job=OTHER_JOB)
        release["events"][0]["count"] = 5
        assert self.forge(silo, self.reservation(silo, 1), ("released", release)) == {"release_exceeds"}

    def test_released_twice(self, silo: AuditedSilo) -> None:
        assert self.forge(silo, ("released", self.payload(silo, "released"))) == {"release_exceeds"}

    def test_released_less_than_was_left(self, silo: AuditedSilo) -> None:
        release = self.payload(silo, "released", job=OTHER_JOB)
        assert self.forge(silo, self.reservation(silo, 3), ("released", release)) == {"release_incomplete"}

    def test_overdraft(self, silo: AuditedSilo) -> None:
        assert self.forge(silo, self.reservation(silo, 1000)) == {"overdraft"}

    def test_charged_beyond_a_lowered_budget(self, silo: AuditedSilo) -> None:
        lowered = silo.policy(version=2, epsilon=0.5)
        terms = {
            "account": "customers",
            "budget": lowered.budgets["customers"].to_budget().model_dump(mode="json"),
            "policy_sha256": digest(lowered),
            "policy_version": 2,
        }
        reservation = self.reservation(silo, 1)
        charge = self.payload(silo, "committed", job=OTHER_JOB)
        silo.sign_policy(lowered)
        found = self.forge(silo, reservation, ("budget_changed", terms), ("committed", charge))
        assert found == {"overdraft"}

    def test_a_sampled_event_on_a_zcdp_account(self, silo: AuditedSilo) -> None:
        event = PoissonSampledGaussianEvent(
            noise_multiplier=50.0, sample_rate=0.1, max_silos_per_user=1, sampler=SAMPLER
        )
        kind, payload = self.reservation(silo, 1)
        payload["events"][0]["event"] = event.model_dump(mode="json")
        assert self.forge(silo, (kind, payload)) == {"overdraft"}

    def test_reserved_twice(self, silo: AuditedSilo) -> None:
        assert self.forge(silo, self.reservation(silo, 1), self.reservation(silo, 1)) == {"reserved_twice"}

    def test_reserved_on_no_account(self, silo: AuditedSilo) -> None:
        assert self.forge(silo, self.reservation(silo, 1, account="nobody")) == {"account_unknown"}

    def test_a_dataset_charged_to_a_fresh_account(self, silo: AuditedSilo) -> None:
        terms = self.payload(silo, "account_opened", account="fresh")
        moved = self.reservation(silo, 1, account="fresh")
        assert "dataset_moved" in self.forge(silo, ("account_opened", terms), moved)

    def test_reserved_under_another_policy(self, silo: AuditedSilo) -> None:
        assert self.forge(silo, self.reservation(silo, 1, policy_sha256="e" * 64)) == {"policy_mismatch"}

    def test_a_budget_raised_without_a_newer_policy(self, silo: AuditedSilo) -> None:
        terms = self.payload(silo, "account_opened")
        terms["budget"]["epsilon"] = 50.0
        assert self.forge(silo, ("budget_changed", terms)) == {"policy_version", "budget_differs"}

    def test_a_budget_raised_under_a_policy_nobody_signed(self, silo: AuditedSilo) -> None:
        terms = self.payload(silo, "account_opened", policy_version=2, policy_sha256="e" * 64)
        terms["budget"]["epsilon"] = 50.0
        assert self.forge(silo, ("budget_changed", terms)) == {"policy_rolled_back"}

    def test_another_filter(self, silo: AuditedSilo) -> None:
        terms = self.payload(silo, "account_opened", policy_version=2)
        terms["budget"]["filter"] = {"kind": "renyi", "orders": [2, 4]}
        assert {"filter_changed"} <= self.forge(silo, ("budget_changed", terms))

    def test_an_account_opened_twice(self, silo: AuditedSilo) -> None:
        terms = self.payload(silo, "account_opened", policy_version=2)
        assert {"account_order"} <= self.forge(silo, ("account_opened", terms))

    @pytest.mark.parametrize("kind", ["refund", "reserved"])
    def test_an_entry_this_version_does_not_know(self, silo: AuditedSilo, kind: str) -> None:
        payload = self.payload(silo, "reserved", job=OTHER_JOB, discount=True)
        assert self.forge(silo, (kind, payload)) == {"entry_unknown"}

    def test_less_reserved_than_the_plan_costs(self, silo: AuditedSilo) -> None:
        kept = silo.directory / "jobs" / OTHER_JOB
        kept.mkdir()
        save_yaml(kept / "plan.yaml", silo.plan)
        total = sum(count for _, count in reserved_events(silo.plan))
        assert self.forge(silo, self.reservation(silo, total - 1)) == {"plan_cost"}


class TestForgedReceipts:
    def witness(self, audited: AuditedSilo, **changes: Any) -> set[str]:
        with audited.ledger() as ledger:
            audited.run_job(ledger, OTHER_JOB, witnesses=())
            receipt = audited.receipt(ledger.head(), job=OTHER_JOB)
            ledger.witness(OTHER_JOB, [receipt.model_copy(update=changes)])
        return audited.codes()

    def test_a_true_receipt(self, silo: AuditedSilo) -> None:
        assert self.witness(silo) == set()

    @pytest.mark.parametrize(
        "changes",
        [
            {"by": "shop-c"},
            {"by": "shop-z"},
            {"by": "hub"},
            {"head_seq": 9},
            {"signature": "AAAA"},
            {"silo": "shop-c"},
        ],
        ids=str,
    )
    def test_a_receipt_nobody_signed(self, silo: AuditedSilo, changes: dict[str, Any]) -> None:
        assert self.witness(silo, **changes) == {"receipt_signature", "unwitnessed"}

    def test_a_receipt_by_the_silo_itself_witnesses_nothing(self, silo: AuditedSilo) -> None:
        with silo.ledger() as ledger:
            silo.run_job(ledger, OTHER_JOB, witnesses=(ME,))
        assert silo.codes() == {"unwitnessed"}

    def test_a_receipt_about_another_silo_witnesses_nothing(self, silo: AuditedSilo) -> None:
        with silo.ledger() as ledger:
            silo.run_job(ledger, OTHER_JOB, witnesses=())
            ledger.witness(OTHER_JOB, [silo.receipt(ledger.head(), job=OTHER_JOB, silo="shop-c")])
        assert silo.codes() == {"unwitnessed"}

    def test_a_receipt_of_an_older_head_does_not_cover_newer_charges(self, silo: AuditedSilo) -> None:
        with silo.ledger() as ledger:
            old = ledger.head()
            silo.run_job(ledger, OTHER_JOB, witnesses=())
            ledger.witness(OTHER_JOB, [silo.receipt(old, job=OTHER_JOB)])
        assert silo.codes() == {"unwitnessed"}

    def test_a_peer_that_saw_another_history(self, silo: AuditedSilo, tmp_path: Path) -> None:
        receipt = silo.receipt(Head(3, "9" * 64))
        path = tmp_path / "receipts.json"
        path.write_text(json.dumps([receipt.model_dump(mode="json")]))
        assert silo.codes(receipts=[path]) == {"receipt_contradicted"}


class TestFilesBesideTheLedger:
    def test_policy_altered_after_it_was_signed(self, silo: AuditedSilo) -> None:
        path = silo.directory / "policy.yaml"
        text = path.read_text()
        path.write_text(text.replace("epsilon: 8.0", "epsilon: 80.0"))
        assert path.read_text() != text
        assert silo.codes() == {"policy_untrusted"}

    def test_policy_signed_by_another_members_administrator(self, silo: AuditedSilo) -> None:
        shutil.copy(silo.root / "shop-b" / "card.json", silo.directory / "policy.sig.json")
        assert silo.codes() == {"policy_untrusted"}

    def test_policy_missing(self, silo: AuditedSilo) -> None:
        (silo.directory / "policy.yaml").unlink()
        assert silo.codes() == {"policy_untrusted"}

    def test_policy_rolled_back(self, silo: AuditedSilo) -> None:
        newer = silo.policy(version=2)
        with silo.ledger() as ledger:
            ledger.open_account("customers", newer.budgets["customers"].to_budget(), digest(newer), 2)
        assert silo.codes() == {"policy_rolled_back"}

    def test_one_policy_version_with_two_contents(self, silo: AuditedSilo) -> None:
        silo.sign_policy(silo.policy(epsilon=50.0))
        assert silo.codes() == {"policy_digest"}

    def test_plan_swapped(self, silo: AuditedSilo) -> None:
        plan = silo.plan.model_copy(update={"purpose": "something-else"})
        save_yaml(silo.directory / "jobs" / JOB / "plan.yaml", plan)
        assert silo.codes() == {"plan_digest"}

    def test_policy_of_a_job_swapped(self, silo: AuditedSilo) -> None:
        (silo.directory / "jobs" / JOB / "policy.json").write_bytes(b"{}")
        assert silo.codes() == {"policy_digest"}

    @pytest.mark.parametrize("name", ["plan.yaml", "receipts.json"])
    def test_a_job_file_that_is_nothing(self, silo: AuditedSilo, name: str) -> None:
        (silo.directory / "jobs" / JOB / name).write_text("[1, 2")
        assert silo.codes() == {"job_file_unreadable"}

    @pytest.mark.parametrize("name", ["../../", "..", ".", "x/../.."])
    def test_a_job_name_that_points_elsewhere_reads_nothing_there(self, silo: AuditedSilo, name: str) -> None:
        plan = silo.plan.model_copy(update={"purpose": "something-else"})
        for outside in (silo.root, silo.directory, silo.directory / "jobs"):
            save_yaml(outside / "plan.yaml", plan)
        forger = TestOwnerWritesWhatTheLedgerRefuses()
        payload = forger.payload(silo, "reserved", job=name)
        assert forger.forge(silo, ("reserved", payload)) == set()
