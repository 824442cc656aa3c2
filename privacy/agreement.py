"""Keys that exist between two silos, or inside the group, and what is authenticated with them.

Three kinds of secrets, none of which the coordinator ever holds:

* **pair keys**: X25519 between two ephemeral keys, expanded by HKDF-SHA256 (RFC 5869) with the hash of
  the canonical transcript as salt. Purpose, round, attempt and both names are bound, each part
  length-prefixed, so no key serves two uses;
* **group keys**: derived from the 32-byte group key that the roster's first silo makes per job;
* **wrap keys**: pair keys under which the key holder's secret and the group key travel (AES-256-GCM).

Identities and signatures are not here: whoever calls has verified that a peer's ephemeral key is signed
by the identity its charter names.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from enum import StrEnum
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from privacy.errors import ProtocolError, TrustError

KEY_BYTES = 32
NONCE_BYTES = 12
_LABEL = b"archipel/agreement/v1"


class KeyAgreementError(ProtocolError):
    """A public key, a name or a length from which no key may be agreed."""

    code = "key_agreement"


class WrapError(TrustError):
    """A wrapped secret was altered, or meant for somebody else or for another job."""

    code = "wrap"


class DisagreementError(TrustError):
    """Another silo of the roster holds other keys or another sum than this one."""

    code = "disagreement"


class Purpose(StrEnum):
    """What a derived key is for; a key of one purpose says nothing about a key of another."""

    MASK = "mask"
    WRAP = "wrap"
    FINGERPRINT = "fingerprint"
    TAG = "tag"
    ROUND_DIGEST = "round-digest"
    RECEIVED = "received"
    LEG = "leg"
    QUESTION = "question"
    ANSWER = "answer"
    PEPPER = "pepper"
    MERGE = "merge"


class EphemeralKey:
    """An X25519 private key (RFC 7748) of one job start or one (round, attempt)."""

    def __init__(self, private: X25519PrivateKey) -> None:
        self._private = private

    @classmethod
    def generate(cls) -> Self:
        """Make a key from the operating system's generator."""
        return cls(X25519PrivateKey.generate())

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Read a key from the 32 bytes of :meth:`private_bytes` (a silo's own outbox).

        Raises:
            KeyAgreementError: another length.
        """
        _check_key(raw, "private key")
        return cls(X25519PrivateKey.from_private_bytes(raw))

    def private_bytes(self) -> bytes:
        """Return the 32 secret bytes, for the outbox only."""
        return self._private.private_bytes_raw()

    def public_bytes(self) -> bytes:
        """Return the 32 bytes that peers need."""
        return self._private.public_key().public_bytes_raw()

    def exchange(self, peer_public: bytes) -> bytes:
        """Return the 32-byte shared secret.

        Raises:
            KeyAgreementError: not 32 bytes, the silo's own key, or a point of low order.
        """
        _check_key(peer_public, "public key")
        if peer_public == self.public_bytes():
            raise KeyAgreementError("a peer presented this silo's own public key")
        try:
            return self._private.exchange(X25519PublicKey.from_public_bytes(peer_public))
        except ValueError as error:
            raise KeyAgreementError("a peer's public key is a point of low order") from error


def length_prefixed(*parts: bytes) -> bytes:
    """Join byte strings so that no two sequences give the same bytes (lengths are u64, little-endian)."""
    return b"".join(len(part).to_bytes(8, "little") + part for part in parts)


def pair_key(
    private: EphemeralKey,
    peer_public: bytes,
    transcript: bytes,
    purpose: Purpose,
    *,
    round_number: int,
    attempt: int,
    a: str,
    b: str,
) -> bytes:
    """Derive the key of one purpose that silos ``a`` and ``b`` share.

    ``HKDF-SHA256(X25519, salt = SHA-256(transcript), info = purpose ‖ round ‖ attempt ‖ lower ‖ higher)``

    Args:
        private: this silo's ephemeral key.
        peer_public: the other's ephemeral public key, 32 bytes, signature already verified.
        transcript: canonical bytes of all signed ephemerals of this job start or (round, attempt).
        purpose: what the key is for.
        round_number: round, 0 at job start.
        attempt: attempt within the round, 0 at job start.
        a: one silo's name.
        b: the other's; the order does not matter.

    Returns:
        32 bytes, equal at both ends.

    Raises:
        KeyAgreementError: a bad public key, or twice the same name.
    """
    if a == b:
        raise KeyAgreementError(f"{a!r} cannot agree a key with itself")
    lower, higher = sorted((a.encode(), b.encode()))
    info = length_prefixed(_LABEL, purpose.encode(), _number(round_number), _number(attempt), lower, higher)
    salt = hashlib.sha256(transcript).digest()
    return HKDF(SHA256(), KEY_BYTES, salt, info).derive(private.exchange(peer_public))


def tag_key(group_key: bytes, job_id: str, round_number: int, attempt: int) -> bytes:
    """Derive the key of the tag coefficients of one (round, attempt) from the group key: 32 bytes."""
    return _group_subkey(group_key, Purpose.TAG, job_id.encode(), _number(round_number), _number(attempt))


def round_digest(group_key: bytes, job_id: str, round_number: int, previous: bytes, opened: bytes) -> bytes:
    """Return the keyed digest of what a round opened, chained to the round before.

    Keyed, because a plain hash of low-entropy sums could be guessed by the coordinator.

    Args:
        group_key: 32 bytes.
        job_id: 64 hexadecimal digits.
        round_number: the round that was opened.
        previous: digest of the round before, empty for the first.
        opened: canonical bytes of the opened integers (int64, little-endian).

    Returns:
        32 bytes; equal in all silos that opened the same integers in the same rounds.
    """
    key = _group_subkey(group_key, Purpose.ROUND_DIGEST, job_id.encode())
    return _mac(key, _number(round_number), previous, opened)


def received_mac(
    group_key: bytes, job_id: str, round_number: int, attempt: int, *, sender: str, sum_sha256: bytes
) -> bytes:
    """Return the sealed hash of the sum a silo received, compared before anyone decrypts.

    The sender's name is inside, so that a silo cannot repeat another's value as its own.
    """
    key = _group_subkey(group_key, Purpose.RECEIVED, job_id.encode())
    return _mac(key, _number(round_number), _number(attempt), sender.encode(), sum_sha256)


def key_fingerprint(fingerprint_key: bytes, job_id: str, sender: str, secrets: bytes) -> bytes:
    """Return the proof to one peer that ``sender`` holds these job secrets.

    Args:
        fingerprint_key: pair key of purpose ``FINGERPRINT``.
        job_id: 64 hexadecimal digits.
        sender: who proves.
        secrets: the key holder's secret ‖ group key, as wrapped.
    """
    _check_key(fingerprint_key, "fingerprint key")
    return _mac(fingerprint_key, job_id.encode(), sender.encode(), secrets)


def pepper(group_key: bytes, job_id: str) -> bytes:
    """The key under which a job's silos hash people's ids before they blind them; the coordinator has it not.

    Every silo's ephemeral key and nonce are in ``job_id``, so no silo alone can make two jobs use one pepper.

    Args:
        group_key: 32 bytes.
        job_id: the job's transcript identity, hex.
    """
    return _group_subkey(group_key, Purpose.PEPPER, bytes.fromhex(job_id))


def require_equal(expected: bytes, received: bytes, *, sender: str) -> None:
    """Compare two digests in constant time.

    Raises:
        DisagreementError: they differ. Nothing is said about the values.
    """
    if not hmac.compare_digest(expected, received):
        raise DisagreementError(
            f"{sender} holds something else than this silo",
            remedy="burn the attempt; if it happens again, end the job and ask the coordinator's operator",
        )


def wrap(key: bytes, plaintext: bytes, associated: bytes) -> bytes:
    """Encrypt a job's secrets to one silo: nonce (12) ‖ AES-256-GCM ciphertext and tag.

    Args:
        key: pair key of purpose ``WRAP``, used for this one message.
        plaintext: the key holder's secret ‖ group key, nothing else.
        associated: canonical context (job, sender, receiver), authenticated but not sent.
    """
    _check_key(key, "wrap key")
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plaintext, associated)


def unwrap(key: bytes, wrapped: bytes, associated: bytes) -> bytes:
    """Undo :func:`wrap`.

    Raises:
        WrapError: altered, cut short, under another key or for another context.
    """
    _check_key(key, "wrap key")
    try:
        return AESGCM(key).decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], associated)
    except (InvalidTag, ValueError) as error:
        raise WrapError(
            "the wrapped job keys do not open",
            remedy="start the job again; if it repeats, the leader or the way to it is at fault",
        ) from error


def _group_subkey(group_key: bytes, purpose: Purpose, *context: bytes) -> bytes:
    _check_key(group_key, "group key")
    info = length_prefixed(_LABEL, purpose.encode(), *context)
    return HKDF(SHA256(), KEY_BYTES, None, info).derive(group_key)


def _mac(key: bytes, *parts: bytes) -> bytes:
    return hmac.digest(key, length_prefixed(*parts), "sha256")


def _number(value: int) -> bytes:
    if not 0 <= value < 1 << 64:
        raise KeyAgreementError(f"round or attempt {value} is out of range")
    return value.to_bytes(8, "little")


def _check_key(key: bytes, what: str) -> None:
    if len(key) != KEY_BYTES:
        raise KeyAgreementError(f"a {what} has {KEY_BYTES} bytes, not {len(key)}")
