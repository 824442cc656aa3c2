"""Party directories, a charter and a plan for tests, made by the product's own functions."""

from __future__ import annotations

import hashlib
import socket
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from federation.identity import Party, make_party
from federation.transport.handshake import Endpoint
from federation.transport.tls import PinnedCertificates, TlsIdentity
from policies.charters.charter import Amendments, Charter
from policies.files import save_signatures, save_yaml
from policies.plans.drafting import Draft, complete_plan
from policies.plans.plan import Plan
from policies.signing import DetachedSignatures

SILOS = ("shop-a", "shop-b", "shop-c")


@dataclass
class Federation:
    charter: Charter
    parties: dict[str, Party]

    @property
    def hub(self) -> Party:
        return self.parties["hub"]

    @property
    def pinned(self) -> PinnedCertificates:
        return PinnedCertificates.of(self.charter)

    def endpoint(
        self,
        party: str,
        port: int,
        *,
        identity: TlsIdentity | None = None,
        pinned: PinnedCertificates | None = None,
    ) -> Endpoint:
        return Endpoint(
            host="127.0.0.1",
            port=port,
            party=party,
            identity=identity or self.parties[party].tls,
            pinned=pinned or self.pinned,
        )

    def install_charter(self) -> None:
        """Put the charter, signed by every member, into every party's directory."""
        payload = self.charter.signed_bytes()
        signatures = DetachedSignatures.over(payload)
        for member in self.charter.members:
            signatures = signatures.signed_by(self.parties[member.silo].identity, payload)
        for party in self.parties.values():
            save_yaml(party.directory / "charter.yaml", self.charter)
            save_signatures(party.directory / "charter.yaml", signatures)


def make_federation(
    directory: Path, *, silos: tuple[str, ...] = SILOS, expires: date = date(2099, 1, 1), port: int = 8443
) -> Federation:
    hub = make_party(directory / "hub", "hub", "coordinator", host="127.0.0.1", port=port)
    parties = {"hub": hub} | {name: make_party(directory / name, name, "silo") for name in silos}
    charter = Charter(
        kind="Charter",
        schema_version=1,
        name="test",
        coordinator=hub.card.as_coordinator(),
        members=tuple(parties[name].card.as_member() for name in silos),
        amendments=Amendments(threshold=len(silos)),
        expires=expires,
    )
    return Federation(charter, parties)


def popularity_plan(catalogue: bytes, silos: tuple[str, ...] = SILOS) -> Plan:
    return complete_plan(
        Draft(
            silos=silos,
            catalogue_sha256=hashlib.sha256(catalogue).hexdigest(),
            catalogue_items=50,
            family="popularity",
            target_epsilon=4.0,
            target_delta=1e-6,
            max_users_per_silo=1000,
            max_silos_per_user=1,
        )
    )


def free_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])
