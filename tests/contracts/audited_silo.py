"""A silo's directory after one job, as an agent leaves it, and the auditor's own charter beside it."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from policies.canonical import canonical_bytes, digest, signed_bytes
from policies.files import read_signed, save_signatures, save_yaml
from policies.plans.drafting import Draft, complete_plan
from policies.plans.plan import Plan
from policies.plans.price import reserved_events
from policies.signing import DetachedSignatures
from policies.silo_policy import SiloPolicy
from privacy.ledger.chain import ChainLog, Head
from privacy.ledger.ledger import Ledger
from privacy.ledger.records import Receipt
from silo.audit.findings import Report
from silo.audit.verify import verify
from silo.policy_archive import keep_policy
from tests.contracts.federation_directories import Federation, make_federation

NOW = datetime(2026, 6, 1, tzinfo=UTC)
JOB = "0123456789abcdef0123456789abcdef"
ME = "shop-a"


@dataclass
class AuditedSilo:
    root: Path
    federation: Federation
    plan: Plan

    @property
    def directory(self) -> Path:
        return self.root / ME

    @property
    def ledger_path(self) -> Path:
        return self.directory / "ledger.db"

    @property
    def charter_path(self) -> Path:
        return self.root / "auditor" / "charter.yaml"

    def key(self, party: str = ME) -> Any:
        return self.federation.parties[party].identity

    def ledger(self, party: str = ME) -> Ledger:
        key = self.key(party)
        return Ledger.open(self.ledger_path, sign=key.sign_raw, key_id=key.key_id, clock=lambda: NOW)

    def log(self, party: str = ME) -> ChainLog:
        """The chain below the ledger: what a dishonest owner writes to."""
        key = self.key(party)
        return ChainLog.open(self.ledger_path, sign=key.sign_raw, key_id=key.key_id, clock=lambda: NOW)

    def receipt(self, head: Head, *, by: str = "shop-b", job: str = JOB, silo: str = ME) -> Receipt:
        statement = {"job": job, "silo": silo, "seq": head.seq, "hash": head.hash, "by": by}
        signature = self.key(by).sign(signed_bytes("receipt", statement))
        return Receipt(silo=silo, by=by, head_seq=head.seq, head_hash=head.hash, job=job, signature=signature)

    def verify(self, **options: Any) -> Report:
        return verify(self.directory, self.charter_path, **({"now": NOW} | options))

    def codes(self, **options: Any) -> set[str]:
        return {finding.code for finding in self.verify(**options).findings}

    def policy(self, version: int = 1, epsilon: float = 8.0) -> SiloPolicy:
        return SiloPolicy.model_validate(
            {
                "kind": "SiloPolicy",
                "schema_version": 1,
                "version": version,
                "silo": ME,
                "expires": "2027-01-01",
                "datasets": {
                    "purchases": {
                        "source": {"csv": "rows.csv"},
                        "max_interactions_per_user": 200,
                        "population": "customers",
                        "max_silos_per_user": 1,
                    }
                },
                "budgets": {
                    "customers": {"epsilon": epsilon, "delta": 1e-5, "scope": "lifetime", "filter": "zcdp"}
                },
                "accepts": {
                    "purposes": {"product-recommendation": "purchases"},
                    "with_members": ["shop-b", "shop-c"],
                    "max_epsilon_per_plan": 4.0,
                    "min_silos": 3,
                    "min_colluding_silos": 1,
                },
            }
        )

    def sign_policy(self, policy: SiloPolicy) -> None:
        administrator = self.federation.parties[ME].administrator
        assert administrator is not None
        path, payload = self.directory / "policy.yaml", policy.signed_bytes()
        save_yaml(path, policy)
        save_signatures(path, DetachedSignatures.over(payload).signed_by(administrator, payload))
        keep_policy(self.directory, policy.version, read_signed(path))

    def run_job(
        self, ledger: Ledger, job: str = JOB, *, witnesses: tuple[str, ...] = ("shop-b", "shop-c")
    ) -> None:
        """Everything an agent writes about one job."""
        policy = self.policy()
        kept = self.directory / "jobs" / job
        kept.mkdir(parents=True)
        save_yaml(kept / "plan.yaml", self.plan)
        (kept / "policy.json").write_bytes(canonical_bytes(policy))
        events = reserved_events(self.plan)
        ledger.open_account("customers", policy.budgets["customers"].to_budget(), digest(policy), 1)
        ledger.reserve(
            account="customers",
            job=job,
            dataset="purchases",
            plan_sha256=digest(self.plan),
            policy_sha256=digest(policy),
            requested_by="shop-b",
            events=events,
        )
        ledger.commit(job, round=1, attempt=0, event=events[0].event)
        ledger.release_rest(job)
        receipts = [self.receipt(ledger.head(), by=peer, job=job) for peer in witnesses]
        if receipts:
            ledger.witness(job, receipts)
            text = json.dumps([item.model_dump(mode="json") for item in receipts])
            (kept / "receipts.json").write_text(text)

    def copy(self, root: Path) -> AuditedSilo:
        shutil.copytree(self.root, root, dirs_exist_ok=True)
        return AuditedSilo(root, self.federation, self.plan)


def make_audited_silo(root: Path) -> AuditedSilo:
    """Three members, one job of two reserved releases of which one was used, receipts by both peers."""
    federation = make_federation(root)
    plan = complete_plan(
        Draft(
            silos=("shop-a", "shop-b", "shop-c"),
            catalogue_sha256="d" * 64,
            catalogue_items=50,
            family="popularity",
            target_epsilon=2.0,
            target_delta=1e-5,
            max_users_per_silo=100,
            max_interactions_per_user=20,
            max_silos_per_user=1,
            max_burned_rounds=1,
        )
    )
    silo = AuditedSilo(root, federation, plan)
    payload = federation.charter.signed_bytes()
    signatures = DetachedSignatures.over(payload)
    for member in federation.charter.members:
        signatures = signatures.signed_by(federation.parties[member.silo].identity, payload)
    silo.charter_path.parent.mkdir()
    save_yaml(silo.charter_path, federation.charter)
    save_signatures(silo.charter_path, signatures)
    silo.sign_policy(silo.policy())
    with silo.ledger() as ledger:
        silo.run_job(ledger)
    return silo
