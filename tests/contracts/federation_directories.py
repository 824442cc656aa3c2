"""Party directories and a charter for tests, made by the product's own functions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

from federation.identity import Party, make_party
from federation.transport.handshake import Endpoint
from federation.transport.tls import PinnedCertificates, TlsIdentity
from policies.charter import Amendments, Charter

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
