"""An audited silo whose charter is amended: what members sign, what the silo installs, what it then does."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from policies.administration import name_administrators
from policies.canonical import digest
from policies.charters.administration import adopt_charter, amend_charter
from policies.charters.charter import Charter
from policies.files import load_yaml, read_signed, save_signatures, save_yaml
from policies.plans.price import reserved_events
from policies.signing import DetachedSignatures, PrivateKey
from policies.silo_policy import SiloPolicy
from privacy.ledger.ledger import Ledger
from silo.policy_archive import keep_policy
from tests.contracts.audited_silo import ME, NOW, AuditedSilo


@dataclass
class AmendedSilo:
    """``silo`` after one job under version 1 of the charter, which all three members have.

    Attributes:
        silo: the record, and the auditor's own copy of version 1.
        founder: the administrator of version 1.
        administrators: whoever is the administrator now.
    """

    silo: AuditedSilo
    founder: PrivateKey
    administrators: list[PrivateKey] = field(default_factory=list)

    @classmethod
    def of(cls, silo: AuditedSilo) -> AmendedSilo:
        silo.federation.install_charter()
        founder = silo.federation.parties[ME].administrator
        assert founder is not None
        return cls(silo, founder, [founder])

    @property
    def newest(self) -> Path:
        """The latest charter, as a member has it."""
        return self.silo.root / "shop-b" / "charter.yaml"

    def amend(
        self, *, installs: bool = True, signers: tuple[str, ...] = ("shop-a", "shop-b", "shop-c")
    ) -> Path:
        """Give the silo another administrator by an amendment, which shop-b keeps and the silo installs."""
        fresh = PrivateKey.generate()
        name_administrators(self.silo.directory, [str(fresh.public_key)], 1)
        draft = self.silo.root / f"draft-{len(self.administrators)}" / "charter.yaml"
        card = self.silo.directory / "card.json"
        amended = amend_charter(self.newest.parent, draft, NOW, members=[card]).charter
        self.sign(draft, amended, *signers)
        self.administrators.append(fresh)
        if len(signers) == 3:
            adopt_charter(self.newest.parent, draft, NOW)
        if installs:
            self.install(draft)
        return draft

    def sign(self, path: Path, charter: Charter, *signers: str) -> None:
        signatures = DetachedSignatures.over(charter.signed_bytes())
        for name in signers:
            signatures = signatures.signed_by(self.silo.key(name), charter.signed_bytes())
        save_signatures(path, signatures)

    def install(self, path: Path) -> None:
        """Put the amendment into the silo's directory, and note it as the agent does."""
        adopt_charter(self.silo.directory, path, NOW)
        charter = load_yaml(path, Charter)
        with self.silo.ledger() as ledger:
            ledger.adopt_charter(digest(charter), charter.version)

    def note_first(self) -> None:
        """The entry that an agent writes before any other."""
        with self.silo.ledger() as ledger:
            ledger.adopt_charter(digest(self.silo.federation.charter), 1)

    def sign_policy(self, version: int, key: PrivateKey, **options: Any) -> SiloPolicy:
        policy = self.silo.policy(version, **options)
        path, payload = self.silo.directory / "policy.yaml", policy.signed_bytes()
        save_yaml(path, policy)
        save_signatures(path, DetachedSignatures.over(payload).signed_by(key, payload))
        keep_policy(self.silo.directory, version, read_signed(path))
        return policy

    def use(self, policy: SiloPolicy, job: str) -> None:
        """Take up a policy, and reserve for a job under it."""
        with self.silo.ledger() as ledger:
            ledger.open_account(
                "customers", policy.budgets["customers"].to_budget(), digest(policy), policy.version
            )
            self.reserve(ledger, policy, job)

    def reserve(self, ledger: Ledger, policy: SiloPolicy, job: str) -> None:
        ledger.reserve(
            account="customers",
            job=job,
            dataset="purchases",
            plan_sha256=digest(self.silo.plan),
            policy_sha256=digest(policy),
            requested_by="shop-b",
            events=reserved_events(self.silo.plan),
        )

    def auditor_has(self, version: int) -> Path:
        """The auditor's own charter becomes that one, alone in its directory."""
        auditor = self.silo.charter_path
        source = self.newest.parent / "charters" / f"{version}.yaml"
        for name in (source, source.with_suffix("").with_suffix(".sig.json")):
            target = "charter.yaml" if name.suffix == ".yaml" else "charter.sig.json"
            shutil.copy(name, auditor.parent / target)
        return auditor
