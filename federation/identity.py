"""A party's directory: its keys and the card that tells others of them.

::

    DIR/keys/identity.pem       Ed25519, signs posts, the charter, the card
    DIR/keys/administrator.pem  Ed25519, signs the policy (silos only; may be moved to a safer place)
    DIR/keys/tls.pem            ECDSA P-256 key and its self-signed certificate
    DIR/card.json               the public halves, signed by the identity

No private key leaves its directory. No file here is overwritten, but the TLS key and its card once an
amendment pins the next ones (:mod:`federation.rekeying`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from pydantic import ValidationError

from federation.transport.tls import TlsIdentity
from policies.charters.charter import Administrators, Card
from policies.files import NEXT_CARD, load_card, save_card
from policies.signing import PrivateKey, is_encrypted
from privacy.errors import DataError, HostError, TrustError, UsageError

Role = Literal["silo", "coordinator"]
_MAX_FILE_BYTES = 64 * 1024


class PartyFilesError(DataError):
    """A party's directory lacks a file, has one too many, or holds one that cannot be read."""

    code: ClassVar[str] = "party_files"


@dataclass(frozen=True)
class Party:
    """One organisation as this machine knows itself.

    Attributes:
        directory: its directory.
        identity: signs its posts.
        administrator: signs its policy; None for coordinators, and where the key is kept elsewhere or has a
            passphrase.
        tls: its transport key and certificate.
        card: what it tells others.
    """

    directory: Path
    identity: PrivateKey
    administrator: PrivateKey | None
    tls: TlsIdentity
    card: Card

    @property
    def name(self) -> str:
        """Its name in every charter."""
        return self.card.name

    @property
    def role(self) -> Role:
        """Silo or coordinator."""
        return self.card.role

    @classmethod
    def load(cls, directory: Path) -> Party:
        """Read a party's directory and check that keys and card belong together.

        Raises:
            PartyFilesError: a file is missing or unreadable.
            HostError: a private key can be read by others.
            TrustError: the card was altered, or is not of these keys.
        """
        keys = directory / "keys"
        tls = load_tls(keys / "tls.pem")
        card = _card_of(directory, tls)
        administrator = keys / "administrator.pem"
        party = cls(
            directory=directory,
            identity=PrivateKey.load(keys / "identity.pem"),
            administrator=_at_hand(administrator),
            tls=tls,
            card=card,
        )
        if party.identity.public_key != card.identity_key:
            raise TrustError("the card is of another identity key", where=str(directory), remedy=_RESTORE)
        if party.tls.certificate_sha256 != card.certificate_sha256:
            raise TrustError("the card is of another TLS certificate", where=str(directory), remedy=_RESTORE)
        return party


_RESTORE = "restore card.json and keys/ from one backup"


def make_party(
    directory: Path, name: str, role: Role, *, host: str | None = None, port: int | None = None
) -> Party:
    """Make a new party's keys and card in ``directory``.

    Args:
        directory: the party's directory; made if missing.
        name: lower-case letters, digits and hyphens; also the CN of its certificate.
        role: silo or coordinator.
        host: where a coordinator is reached.
        port: likewise.

    Raises:
        UsageError: no such name, host or port can be.
        PartyFilesError: a party lives there already.
    """
    if (directory / "card.json").exists() or (directory / "keys").exists():
        raise PartyFilesError(
            "a party lives here already; keys are never overwritten",
            where=str(directory),
            remedy="choose another --dir, or move the old one away",
        )
    identity = PrivateKey.generate()
    administrator = PrivateKey.generate() if role == "silo" else None
    try:
        tls = TlsIdentity.generate(name)
        card = Card.issue(
            identity,
            role=role,
            name=name,
            certificate_der=tls.certificate_der,
            administrators=Administrators(threshold=1, keys=(administrator.public_key,))
            if administrator
            else None,
            host=host,
            port=port,
        )
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(map(str, problem["loc"])) or role
        raise UsageError(f"{field}: {problem['msg']}", where=name, remedy=_NAMES) from error
    except ValueError as error:
        raise UsageError(f"name: {error}", where=name, remedy=_NAMES) from error
    keys = directory / "keys"
    keys.mkdir(parents=True, mode=0o700)
    identity.save(keys / "identity.pem")
    if administrator is not None:
        administrator.save(keys / "administrator.pem")
    write_new(keys / "tls.pem", tls.key_pem + tls.certificate_pem, mode=0o600)
    save_card(directory / "card.json", card)
    return Party(directory=directory, identity=identity, administrator=administrator, tls=tls, card=card)


_NAMES = "a name is 1 to 63 lower-case letters, digits and hyphens, such as shop-a; a port is 1 to 65535"


def _card_of(directory: Path, tls: TlsIdentity) -> Card:
    """The party's card; the next one, where a crash came between taking its key and taking it."""
    card, following = load_card(directory / "card.json"), directory / NEXT_CARD
    if card.certificate_sha256 != tls.certificate_sha256 and following.exists():
        found = load_card(following)
        if found.certificate_sha256 == tls.certificate_sha256 and found.name == card.name:
            return found
    return card


def _at_hand(administrator: Path) -> PrivateKey | None:
    """The administrator's key; None where it is kept elsewhere, or behind a passphrase."""
    if not administrator.exists() or is_encrypted(administrator):
        return None
    return PrivateKey.load(administrator)


def load_tls(path: Path) -> TlsIdentity:
    """Read a TLS key with its certificate.

    Raises:
        PartyFilesError: there is none, or it cannot be read.
        HostError: it can be read by others.
    """
    pem = _read(path)
    if path.stat().st_mode & 0o077:
        raise HostError("this private key can be read by others", where=str(path), remedy=f"chmod 600 {path}")
    try:
        key = load_pem_private_key(pem, password=None)
        certificate = x509.load_pem_x509_certificate(pem)
    except (ValueError, TypeError) as error:
        raise PartyFilesError(
            "not a TLS key with its certificate", where=str(path), remedy="restore the file"
        ) from error
    if key.public_key() != certificate.public_key():
        raise PartyFilesError("key and certificate do not fit", where=str(path), remedy="restore the file")
    return TlsIdentity(
        key_pem=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        certificate_der=certificate.public_bytes(Encoding.DER),
    )


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_FILE_BYTES)
    except FileNotFoundError as error:
        raise PartyFilesError(
            "there is no such file",
            where=str(path),
            remedy="name the party's directory with --dir; silo init and coordinator init make one",
        ) from error


def write_new(path: Path, data: bytes, *, mode: int) -> None:
    """Write a file that is not there yet, durably, readable as ``mode`` says from its first byte on."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
