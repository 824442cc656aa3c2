"""Parties, a charter and a policy for tests of trust, with real keys and certificates."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from policies.canonical import sha256_hex
from policies.catalog import render_template
from policies.charters.charter import Administrators, Card, Charter
from policies.files import dump_yaml, save_card
from policies.signing import DetachedSignatures, PrivateKey
from policies.silo_policy import SiloPolicy
from policies.validation import parse_yaml

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
EXPIRES = date(2027, 6, 30)
SILOS = ("shop-a", "shop-b", "shop-c")


def certificate(common_name: str, key: ec.EllipticCurvePrivateKey | None = None) -> bytes:
    """Self-signed DER certificate, ECDSA P-256 unless a key says otherwise."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(NOW - timedelta(days=1)).not_valid_after(NOW + timedelta(days=800))
    return builder.sign(key, SHA256()).public_bytes(Encoding.DER)


@dataclass
class Silo:
    name: str
    identity: PrivateKey
    administrators: tuple[PrivateKey, ...]
    card: Card


@dataclass
class Scene:
    """A federation of three silos; ``shop-a`` has a policy that two of three administrators must sign."""

    silos: dict[str, Silo]
    hub: Silo
    charter: Charter

    def charter_bytes(self) -> bytes:
        return dump_yaml(self.charter).encode()

    def charter_signatures(self, *signers: str) -> bytes:
        return sign(self.charter.signed_bytes(), *(self.silos[name].identity for name in signers or SILOS))

    def administrators(self, silo: str = "shop-a") -> tuple[PrivateKey, ...]:
        return self.silos[silo].administrators

    def write(self, root: Path) -> None:
        """Directories as ``silo init`` and ``coordinator init`` make them (without TLS keys)."""
        for silo in (*self.silos.values(), self.hub):
            directory = root / silo.name
            silo.identity.save(directory / "keys" / "identity.pem")
            for index, key in enumerate(silo.administrators):
                key.save(directory / "keys" / f"administrator{index or ''}.pem")
            save_card(directory / "card.json", silo.card)
            if silo.administrators:
                (directory / "policy.yaml").write_text(policy_text(silo.name))


def sign(payload: bytes, *keys: PrivateKey) -> bytes:
    signatures = DetachedSignatures.over(payload)
    for key in keys:
        signatures = signatures.signed_by(key, payload)
    return signatures.model_dump_json().encode()


def make_silo(name: str, *, administrators: int = 1, threshold: int = 1) -> Silo:
    identity = PrivateKey.generate()
    keys = tuple(PrivateKey.generate() for _ in range(administrators))
    listed = Administrators(threshold=threshold, keys=tuple(key.public_key for key in keys))
    card = Card.issue(
        identity, role="silo", name=name, certificate_der=certificate(name), administrators=listed
    )
    return Silo(name, identity, keys, card)


def make_hub(name: str = "hub") -> Silo:
    identity = PrivateKey.generate()
    card = Card.issue(
        identity,
        role="coordinator",
        name=name,
        certificate_der=certificate(name),
        host="hub.example.org",
        port=8443,
    )
    return Silo(name, identity, (), card)


def make_scene() -> Scene:
    silos = {name: make_silo(name) for name in SILOS}
    silos["shop-a"] = make_silo("shop-a", administrators=3, threshold=2)
    hub = make_hub()
    charter = Charter.model_validate(
        {
            "kind": "Charter",
            "schema_version": 1,
            "name": "nordic-retail",
            "coordinator": hub.card.as_coordinator(),
            "members": tuple(silo.card.as_member() for silo in silos.values()),
            "amendments": {"threshold": 3},
            "expires": EXPIRES,
        }
    )
    return Scene(silos, hub, charter)


def policy_text(silo: str = "shop-a", *, version: int = 7, expires: date = EXPIRES) -> str:
    partners = [name for name in SILOS if name != silo]
    text = render_template("retailer", silo=silo, expires=expires, with_members=partners)
    return text.replace("version: 1\nsilo", f"version: {version}\nsilo")


def read_policy(text: str) -> SiloPolicy:
    return parse_yaml(text.encode(), SiloPolicy, "policy.yaml")


def pinned(der: bytes) -> dict[str, str]:
    return {"certificate": base64.b64encode(der).decode(), "certificate_sha256": sha256_hex(der)}
