"""The charter: who we are to each other. Every member signs the same one.

It pins, for each party, the identity key (posts, cards, this charter), the TLS certificate (transport) and,
for each silo, the administrator keys that may sign its policy. There is no central authority: whoever is not
in a charter that all members signed does not exist. A :class:`Card` is what a party hands out so that
somebody can draft the charter.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Iterator
from datetime import date
from typing import Annotated, Literal, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.x509.oid import NameOID
from pydantic import Field, StringConstraints, field_validator, model_validator

from policies.canonical import sha256_hex, signed_bytes
from policies.sections import MAX_SILOS, PartyName, Section, Sha256, Whole
from policies.signing import PrivateKey, PublicKey, SignatureError

CHARTER_KIND = "charter"
CARD_KIND = "card"
MAX_ADMINISTRATORS = 32

Certificate = Annotated[str, StringConstraints(max_length=20_000)]
Port = Annotated[Whole, Field(ge=1, le=65_535)]
Host = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.:-]{0,252}[A-Za-z0-9])?$")]
T = TypeVar("T")


class Administrators(Section):
    """Who may sign a silo's policy.

    Attributes:
        threshold: how many different keys must sign.
        keys: the keys.
    """

    threshold: Annotated[Whole, Field(ge=1, le=MAX_ADMINISTRATORS)]
    keys: Annotated[tuple[PublicKey, ...], Field(min_length=1, max_length=MAX_ADMINISTRATORS)]

    @model_validator(mode="after")
    def _reachable(self) -> Administrators:
        if len(set(self.keys)) != len(self.keys):
            raise ValueError("keys: a key stands here twice; each counts once")
        if self.threshold > len(self.keys):
            raise ValueError(
                f"threshold: {self.threshold} signatures of {len(self.keys)} keys can never be reached; "
                f"write at most {len(self.keys)}"
            )
        return self


class PartyEntry(Section):
    """What the charter pins of any party.

    Attributes:
        identity_key: signs the party's posts and this charter.
        certificate: TLS certificate, base64 of the DER bytes.
        certificate_sha256: SHA-256 of those bytes.
    """

    identity_key: PublicKey
    certificate: Certificate
    certificate_sha256: Sha256

    @model_validator(mode="after")
    def _certificate_is_the_pinned_one(self) -> PartyEntry:
        if sha256_hex(self.certificate_der) != self.certificate_sha256:
            raise ValueError(
                "certificate_sha256: it is not that of the certificate; copy both from card.json"
            )
        return self

    @field_validator("certificate")
    @classmethod
    def _is_base64(cls, text: str) -> str:
        try:
            base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError("not base64; copy it from card.json") from error
        return text

    @property
    def certificate_der(self) -> bytes:
        """The DER bytes of the TLS certificate."""
        return base64.b64decode(self.certificate)

    @property
    def certificate_pem(self) -> bytes:
        """The TLS certificate as PEM, as gRPC wants it."""
        text = base64.b64encode(self.certificate_der).decode("ascii")
        lines = [text[start : start + 64] for start in range(0, len(text), 64)]
        return "\n".join(["-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", ""]).encode(
            "ascii"
        )


class CoordinatorEntry(PartyEntry):
    """The coordinator and where it listens.

    Attributes:
        name: its name, also the CN of its certificate.
        host: where silos reach it.
        port: likewise.
    """

    name: PartyName
    host: Host
    port: Port


class Member(PartyEntry):
    """One silo and the administrators of its policy.

    Attributes:
        silo: its name, also the CN of its certificate.
        administrators: who may sign its policy.
    """

    silo: PartyName
    administrators: Administrators

    @property
    def name(self) -> str:
        """The silo's name."""
        return self.silo


class Amendments(Section):
    """How many members must agree to change the charter.

    Attributes:
        threshold: that many.
    """

    threshold: Annotated[Whole, Field(ge=1, le=MAX_SILOS)]


class Charter(Section):
    """One federation: its parties and their keys, until ``expires`` (the last day in force, UTC).

    Attributes:
        name: the federation.
        coordinator: the hub.
        members: the silos.
        amendments: how the charter changes.
        expires: last day in force, UTC.
        version: goes up by one with every amendment.
        amends: SHA-256 (of the canonical bytes) of the charter before it; from version 2 on.
    """

    kind: Literal["Charter"]
    schema_version: Literal[1]
    name: PartyName
    coordinator: CoordinatorEntry
    members: Annotated[tuple[Member, ...], Field(min_length=2, max_length=MAX_SILOS)]
    amendments: Amendments
    expires: date
    version: Annotated[Whole, Field(ge=1, le=10_000)] = 1
    amends: Sha256 | None = None

    @model_validator(mode="after")
    def _parties_are_distinct(self) -> Charter:
        problems = list(_charter_problems(self))
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def member(self, name: str) -> Member | None:
        """The silo called ``name``; None for a stranger and for the coordinator."""
        return next((member for member in self.members if member.silo == name), None)

    def parties(self) -> tuple[CoordinatorEntry | Member, ...]:
        """The coordinator and all members, each with a ``name``."""
        return (self.coordinator, *self.members)

    def identity_keys(self) -> dict[str, PublicKey]:
        """Identity key of every party by name."""
        return {party.name: party.identity_key for party in self.parties()}

    def signed_bytes(self) -> bytes:
        """What the members sign."""
        return signed_bytes(CHARTER_KIND, self)


class Card(PartyEntry):
    """What a party says of itself (``card.json``), signed by its identity; public.

    Attributes:
        role: silo or coordinator.
        name: the party's name, also the CN of its certificate.
        administrators: of a silo's policy.
        host: where a coordinator is reached.
        port: likewise.
        signature: the identity key's, over everything else.
    """

    kind: Literal["Card"]
    schema_version: Literal[1]
    role: Literal["silo", "coordinator"]
    name: PartyName
    administrators: Administrators | None = None
    host: Host | None = None
    port: Port | None = None
    signature: Annotated[str, StringConstraints(max_length=100)]

    @model_validator(mode="after")
    def _complete_for_its_role(self) -> Card:
        is_silo = self.role == "silo"
        if (self.administrators is not None) != is_silo:
            raise ValueError("administrators: a silo's card names them, a coordinator has none")
        if (self.host is None) != is_silo or (self.port is None) != is_silo:
            raise ValueError("host: a coordinator's card says host and port, a silo is never dialled")
        return self

    @classmethod
    def issue(
        cls,
        identity: PrivateKey,
        *,
        role: Literal["silo", "coordinator"],
        name: str,
        certificate_der: bytes,
        administrators: Administrators | None = None,
        host: str | None = None,
        port: int | None = None,
    ) -> Card:
        """Make and sign a card.

        Args:
            identity: the party's identity key.
            role: silo (with ``administrators``) or coordinator (with ``host`` and ``port``).
            name: the party's name.
            certificate_der: its TLS certificate.
            administrators: keys that may sign the silo's policy.
            host: where the coordinator is reached.
            port: likewise.

        Raises:
            pydantic.ValidationError: the parts do not make a card.
        """
        content: dict[str, object] = {
            "kind": "Card",
            "schema_version": 1,
            "role": role,
            "name": name,
            "identity_key": str(identity.public_key),
            "certificate": base64.b64encode(certificate_der).decode("ascii"),
            "certificate_sha256": sha256_hex(certificate_der),
        }
        optional = {
            "administrators": administrators.model_dump(mode="json") if administrators else None,
            "host": host,
            "port": port,
        }
        content |= {name: value for name, value in optional.items() if value is not None}
        return cls.model_validate({**content, "signature": identity.sign(signed_bytes(CARD_KIND, content))})

    def verify(self) -> Card:
        """Accept the card: signed by its own identity, with a certificate in its own name.

        Raises:
            SignatureError: altered after signing, or a certificate that TLS would not accept.
        """
        content = self.model_dump(mode="json", exclude_unset=True, exclude={"signature"})
        try:
            self.identity_key.verify(signed_bytes(CARD_KIND, content), self.signature)
        except SignatureError as error:
            raise SignatureError(
                f"the card of {self.name} was altered after it was signed",
                remedy=f"ask {self.name} for a fresh card.json, over a way you trust",
            ) from error
        check_certificate(self.name, self)
        return self

    def as_member(self) -> Member:
        """The charter's entry of this silo.

        Raises:
            SignatureError: the card is a coordinator's.
        """
        if self.administrators is None:
            raise SignatureError(
                f"the card of {self.name} is a coordinator's", remedy="pass it as --coordinator"
            )
        return Member(
            silo=self.name,
            identity_key=self.identity_key,
            certificate=self.certificate,
            certificate_sha256=self.certificate_sha256,
            administrators=self.administrators,
        )

    def as_coordinator(self) -> CoordinatorEntry:
        """The charter's entry of this coordinator.

        Raises:
            SignatureError: the card is a silo's.
        """
        if self.host is None or self.port is None:
            raise SignatureError(f"the card of {self.name} is a silo's", remedy="pass it as --member")
        return CoordinatorEntry(
            name=self.name,
            identity_key=self.identity_key,
            certificate=self.certificate,
            certificate_sha256=self.certificate_sha256,
            host=self.host,
            port=self.port,
        )


def check_certificate(name: str, entry: PartyEntry) -> PartyEntry:
    """Accept a TLS certificate: X.509, ECDSA P-256 (gRPC connects with no Ed25519), CN = the party's name.

    Raises:
        SignatureError: anything else.
    """
    try:
        certificate = x509.load_der_x509_certificate(entry.certificate_der)
        key = certificate.public_key()
    except ValueError as error:
        raise SignatureError(
            f"the certificate of {name} is not X.509", remedy="copy it from card.json"
        ) from error
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        raise SignatureError(
            f"the certificate of {name} has no ECDSA P-256 key", remedy="make the party's keys with init"
        )
    names = [item.value for item in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if names != [name]:
        raise SignatureError(
            f"the certificate of {name} is in the name of {', '.join(map(str, names)) or 'nobody'}",
            remedy="a certificate's CN is its party's name; ask for the right card",
        )
    return entry


def _charter_problems(charter: Charter) -> Iterator[str]:
    parties = charter.parties()
    checks: tuple[tuple[str, Callable[[CoordinatorEntry | Member], object]], ...] = (
        ("name", lambda party: party.name),
        ("identity_key", lambda party: party.identity_key),
        ("certificate", lambda party: party.certificate_sha256),
    )
    for what, read in checks:
        for twice in _repeated(read(party) for party in parties):
            names = ", ".join(party.name for party in parties if read(party) == twice)
            yield f"members: one {what} stands for two parties ({names}); each party has its own"
    if (charter.version == 1) != (charter.amends is None):
        yield "amends: an amendment names the charter before it, and the first one none; use charter amend"
    if charter.amendments.threshold > len(charter.members):
        yield f"amendments.threshold: it can never be reached; write at most {len(charter.members)}"


def _repeated(values: Iterable[T]) -> list[T]:
    seen: set[T] = set()
    again: dict[T, None] = {}
    for value in values:
        if value in seen:
            again[value] = None
        seen.add(value)
    return list(again)
