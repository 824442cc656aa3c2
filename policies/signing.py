"""Ed25519 keys, detached signatures and thresholds.

A public key is written ``ed25519:<base64 of the 32 raw bytes>`` and named by its ``key_id``, the first 16 hex
digits of the SHA-256 of the raw bytes. Signatures are base64 of 64 bytes. Both have exactly one spelling: any
other base64 of the same bytes is refused.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from policies.canonical import sha256_hex
from privacy.errors import DataError, HostError, TrustError

_PREFIX = "ed25519:"
_PATTERN = r"^ed25519:[A-Za-z0-9+/]{43}=$"
MAX_SIGNATURES = 256
_NO_KEY = "name the party's directory with --dir, or the administrator's key with --key"


class SignatureError(TrustError):
    """A signature does not fit the bytes and the key."""

    code: ClassVar[str] = "signature"


class ThresholdError(SignatureError):
    """Fewer valid signatures by different keys than are required."""

    code: ClassVar[str] = "signatures_missing"


class KeyFileError(DataError):
    """A private key file that cannot be used."""

    code: ClassVar[str] = "key_file"


class PassphraseError(TrustError):
    """A private key whose passphrase is missing or wrong."""

    code: ClassVar[str] = "passphrase"


class PublicKey:
    """An Ed25519 public key; equal and hashed by its bytes, valid as a Pydantic field (written as text)."""

    __slots__ = ("_raw",)

    def __init__(self, raw: bytes) -> None:
        if len(raw) != 32:
            raise ValueError(f"an Ed25519 public key has 32 bytes, not {len(raw)}")
        self._raw = raw

    @classmethod
    def parse(cls, text: str | PublicKey) -> PublicKey:
        """Read the text form ``ed25519:<base64>``.

        Raises:
            ValueError: another form.
        """
        if isinstance(text, PublicKey):
            return text
        if not text.startswith(_PREFIX):
            raise ValueError('a public key is written "ed25519:<base64>"; copy it from card.json')
        return cls(_decode(text.removeprefix(_PREFIX), 32, "public key"))

    @property
    def raw(self) -> bytes:
        """The 32 bytes."""
        return self._raw

    @property
    def key_id(self) -> str:
        """First 16 hex digits of SHA-256 of the raw bytes."""
        return sha256_hex(self._raw)[:16]

    def verify(self, data: bytes, signature: str) -> None:
        """Accept ``signature`` as this key's over ``data``.

        Raises:
            SignatureError: it is not, or it is not canonical base64 of 64 bytes.
        """
        try:
            Ed25519PublicKey.from_public_bytes(self._raw).verify(_decode(signature, 64, "signature"), data)
        except (InvalidSignature, ValueError) as error:
            raise SignatureError(
                f"the signature does not fit key {self.key_id}",
                remedy="the content was altered after signing, or another key signed it",
            ) from error

    def __str__(self) -> str:
        return _PREFIX + base64.b64encode(self._raw).decode("ascii")

    def __repr__(self) -> str:
        return f"PublicKey({self.key_id})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublicKey) and other._raw == self._raw

    def __hash__(self) -> int:
        return hash(self._raw)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Validate from text (or an instance), serialise to text."""
        text = core_schema.no_info_after_validator_function(cls.parse, core_schema.str_schema())
        return core_schema.json_or_python_schema(
            json_schema=text,
            python_schema=core_schema.union_schema([core_schema.is_instance_schema(cls), text]),
            serialization=core_schema.to_string_ser_schema(),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: Any) -> dict[str, Any]:
        """Editors see a string of the right form."""
        return {"type": "string", "pattern": _PATTERN}


class PrivateKey:
    """An Ed25519 private key. Never printed, never serialised but to its own PEM file."""

    __slots__ = ("_key",)

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @classmethod
    def generate(cls) -> PrivateKey:
        """A new key from the operating system's generator."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path, passphrase: bytes | None = None) -> PrivateKey:
        """Read a PKCS#8 PEM file.

        Args:
            path: the file.
            passphrase: of an encrypted one; ignored where the file is not encrypted.

        Raises:
            KeyFileError: no such file, or not an Ed25519 PEM.
            PassphraseError: the file is encrypted, and the passphrase is missing or wrong.
            HostError: the file can be read by other accounts of this machine.
        """
        try:
            with path.open("rb") as file:
                exposed = os.fstat(file.fileno()).st_mode & 0o077
                pem = file.read(65_536)
        except FileNotFoundError as error:
            raise KeyFileError("there is no such key", where=str(path), remedy=_NO_KEY) from error
        if exposed:
            raise HostError(
                "this private key can be read by others", where=str(path), remedy=f"chmod 600 {path}"
            )
        key = _decrypt(pem, passphrase, str(path))
        if not isinstance(key, Ed25519PrivateKey):
            raise KeyFileError("this is not an Ed25519 key", where=str(path), remedy="restore the right file")
        return cls(key)

    def save(self, path: Path, passphrase: bytes | None = None) -> None:
        """Write a PEM file that only its owner can read (0600). Never overwrites.

        Args:
            path: the file.
            passphrase: encrypts it (PBKDF2 and AES-256); without one the file is the key.

        Raises:
            KeyFileError: the file exists.
        """
        scheme = NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase)
        pem = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, scheme)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError as error:
            raise KeyFileError(
                "there is a key already and keys are never overwritten",
                where=str(path),
                remedy="choose another directory, or move the old key away",
            ) from error
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())

    @property
    def public_key(self) -> PublicKey:
        """Its public half."""
        return PublicKey(self._key.public_key().public_bytes_raw())

    @property
    def key_id(self) -> str:
        """The public key's id."""
        return self.public_key.key_id

    def sign_raw(self, data: bytes) -> bytes:
        """Signature over ``data``, 64 bytes."""
        return self._key.sign(data)

    def sign(self, data: bytes) -> str:
        """Signature over ``data``, base64."""
        return base64.b64encode(self.sign_raw(data)).decode("ascii")

    def __repr__(self) -> str:
        return f"PrivateKey({self.key_id})"


class KeySignature(BaseModel):
    """One signature and the id of the key that made it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key_id: str = Field(pattern=r"^[0-9a-f]{16}$")
    signature: str = Field(max_length=100)


class DetachedSignatures(BaseModel):
    """The file beside a signed YAML file (``policy.sig.json``).

    ``payload_sha256`` is the SHA-256 of the signed bytes; it tells an edited file from a forged signature.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    payload_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    signatures: tuple[KeySignature, ...] = Field(max_length=MAX_SIGNATURES)

    @classmethod
    def over(cls, payload: bytes) -> DetachedSignatures:
        """No signature yet over these signed bytes."""
        return cls(payload_sha256=sha256_hex(payload), signatures=())

    def signed_by(self, key: PrivateKey, payload: bytes) -> DetachedSignatures:
        """These signatures and that of ``key``; signing again changes nothing (Ed25519 is deterministic).

        Raises:
            SignatureError: ``payload`` is not what the others signed.
        """
        fresh = DetachedSignatures(
            payload_sha256=sha256_hex(payload),
            signatures=(KeySignature(key_id=key.key_id, signature=key.sign(payload)),),
        )
        return self.united(fresh)

    def united(self, other: DetachedSignatures) -> DetachedSignatures:
        """Both sets of signatures over the same payload, ordered by key id.

        Raises:
            SignatureError: the payloads differ.
        """
        if other.payload_sha256 != self.payload_sha256:
            raise SignatureError(
                f"these are signatures of different contents ({self.payload_sha256[:12]}… and "
                f"{other.payload_sha256[:12]}…)",
                remedy="make sure that all parties signed the very same file",
            )
        unique = {(entry.key_id, entry.signature): entry for entry in self.signatures + other.signatures}
        return DetachedSignatures(
            payload_sha256=self.payload_sha256, signatures=tuple(unique[name] for name in sorted(unique))
        )


def valid_signers(
    payload: bytes, signatures: DetachedSignatures, keys: Iterable[PublicKey]
) -> frozenset[PublicKey]:
    """Which of ``keys`` validly signed ``payload``.

    Signatures by keys that are not asked for, and invalid ones, count for nothing.

    Raises:
        SignatureError: the signatures belong to other content.
    """
    if signatures.payload_sha256 != sha256_hex(payload):
        raise SignatureError(
            "the content is not what was signed",
            remedy="it was changed after signing: sign it again, or restore the signed version",
        )
    found = set()
    for key in frozenset(keys):
        for entry in signatures.signatures:
            if entry.key_id == key.key_id and _fits(key, payload, entry.signature):
                found.add(key)
    return frozenset(found)


def verify_threshold(
    payload: bytes, signatures: DetachedSignatures, keys: Iterable[PublicKey], threshold: int
) -> frozenset[PublicKey]:
    """Accept ``payload`` when at least ``threshold`` different ``keys`` signed it; returns the signers.

    Args:
        payload: signed bytes (:func:`policies.canonical.signed_bytes`).
        signatures: the detached file.
        keys: who may sign; the same key twice counts once.
        threshold: how many different ones must, at least 1.

    Raises:
        SignatureError: the signatures belong to other content.
        ThresholdError: too few valid signatures by these keys.
        ValueError: ``threshold`` below 1.
    """
    if threshold < 1:
        raise ValueError(f"threshold {threshold}: nothing is trusted without a signature")
    allowed = frozenset(keys)
    signers = valid_signers(payload, signatures, allowed)
    if len(signers) < threshold:
        missing = ", ".join(sorted(key.key_id for key in allowed - signers))
        raise ThresholdError(
            f"{len(signers)} of {threshold} required signatures are there and valid",
            remedy=f"have it signed by {threshold - len(signers)} more of: {missing or 'no key is listed'}",
        )
    return signers


def is_encrypted(path: Path) -> bool:
    """Whether a private key file needs a passphrase.

    Raises:
        KeyFileError: there is no such file.
    """
    try:
        return b"ENCRYPTED" in path.read_bytes()[:200]
    except FileNotFoundError as error:
        raise KeyFileError("there is no such key", where=str(path), remedy=_NO_KEY) from error


def _decrypt(pem: bytes, passphrase: bytes | None, where: str) -> PrivateKeyTypes:
    is_closed = b"ENCRYPTED" in pem[:200]
    if is_closed and passphrase is None:
        raise PassphraseError(
            "this key has a passphrase",
            where=where,
            remedy="give it: --passphrase-file FILE, or at a terminal",
        )
    try:
        return load_pem_private_key(pem, password=passphrase if is_closed else None)
    except (ValueError, TypeError) as error:
        if is_closed:
            raise PassphraseError(
                "this is not the key's passphrase", where=where, remedy="try again; nothing was signed"
            ) from error
        raise KeyFileError("this is not a PEM key", where=where, remedy="restore the file") from error


def _fits(key: PublicKey, payload: bytes, signature: str) -> bool:
    try:
        key.verify(payload, signature)
    except SignatureError:
        return False
    return True


def _decode(text: str, num_bytes: int, what: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"the {what} is not base64") from error
    if len(raw) != num_bytes or base64.b64encode(raw).decode("ascii") != text:
        raise ValueError(f"the {what} is not the base64 of {num_bytes} bytes")
    return raw
