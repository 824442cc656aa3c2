"""Certificates: how a party's is made, and how the charter's are recognised.

ECDSA P-256, self-signed, subject CN and DNS name = the party's name. The certificate may sign nothing
(``CA:FALSE``, key usage ``digitalSignature`` only), so that BoringSSL refuses a leaf issued with its key. A
member could still make itself a certificate that may sign; therefore who calls is decided by the SHA-256 of
the *leaf*, never by its name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from policies.charters.charter import Charter
from privacy.errors import TrustError

VALIDITY = timedelta(days=3650)
CLOCK_SKEW = timedelta(days=1)


@dataclass(frozen=True)
class TlsIdentity:
    """A party's TLS key and certificate.

    Attributes:
        key_pem: private key, PKCS#8.
        certificate_der: its self-signed certificate.
    """

    key_pem: bytes
    certificate_der: bytes

    @classmethod
    def generate(cls, name: str, *, now: datetime | None = None) -> TlsIdentity:
        """A new key and certificate for ``name``, valid from a day before ``now`` (clocks differ)."""
        moment = now or datetime.now(UTC)
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = x509.KeyUsage(
            digital_signature=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=False,
            crl_sign=False,
            encipher_only=False,
            decipher_only=False,
        )
        both_ends = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(moment - CLOCK_SKEW)
            .not_valid_after(moment + VALIDITY)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(both_ends, critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(
            key_pem=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            certificate_der=certificate.public_bytes(Encoding.DER),
        )

    @property
    def certificate_pem(self) -> bytes:
        """The certificate as gRPC wants it."""
        return _to_pem(self.certificate_der)

    @property
    def certificate_sha256(self) -> str:
        """SHA-256 of the DER bytes, as the charter pins it."""
        return hashlib.sha256(self.certificate_der).hexdigest()

    def __repr__(self) -> str:
        return f"TlsIdentity({self.certificate_sha256[:16]})"


@dataclass(frozen=True)
class PinnedCertificates:
    """The charter's certificates.

    Attributes:
        coordinator: the coordinator's name.
        der: certificate of every party by name.
    """

    coordinator: str
    der: Mapping[str, bytes]

    @classmethod
    def of(cls, charter: Charter) -> PinnedCertificates:
        """Those of a trusted charter."""
        der = {party.name: party.certificate_der for party in charter.parties()}
        return cls(coordinator=charter.coordinator.name, der=der)

    @property
    def all_pem(self) -> bytes:
        """Every certificate: whom a coordinator lets shake hands."""
        return b"".join(_to_pem(der) for der in self.der.values())

    @property
    def coordinator_der(self) -> bytes:
        """The coordinator's certificate."""
        return self.der[self.coordinator]

    @property
    def coordinator_pem(self) -> bytes:
        """The coordinator's certificate, the only one a client trusts."""
        return _to_pem(self.coordinator_der)

    def party_of(self, leaf_pem: bytes) -> str:
        """Name of the party whose pinned certificate this leaf *is*.

        Raises:
            TrustError: nobody's, whatever name it carries.
        """
        leaf = x509.load_pem_x509_certificate(leaf_pem).public_bytes(Encoding.DER)
        found = hashlib.sha256(leaf).digest()
        for name, der in self.der.items():
            if hashlib.sha256(der).digest() == found:
                return name
        raise TrustError(
            f"the certificate {found.hex()[:16]}… is not pinned by the charter",
            remedy="use the certificate of your card.json; no member may issue one in another's name",
        )


def _to_pem(der: bytes) -> bytes:
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)
