"""What is sealed to one person's device: HPKE (RFC 9180), base mode, one message a seal.

A device has an X25519 key of its own, made there. Who seals is not proved here: the content is signed by
whoever made it.

Guarantees
    * What is sealed opens on that device alone, and only as what it was sealed as (``context``).
    * Its length is that of the content plus 48 bytes.
"""

from __future__ import annotations

import base64
import binascii
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from privacy.agreement import KEY_BYTES, length_prefixed
from privacy.errors import TrustError, UsageError

PREFIX = "archipel-device-v1."
_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_LABEL = b"archipel/devices/v1"


class DeviceKeyError(UsageError):
    """A device's key that cannot be read."""

    code = "device_key"


class DeviceSealError(TrustError):
    """What does not open on this device: for another, of another kind, or altered."""

    code = "device_seal"


class DeviceAddress:
    """The public key of a device, written ``archipel-device-v1.`` and 43 characters of base64url.

    Args:
        raw: 32 bytes.
    """

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text form.

        Raises:
            DeviceKeyError: it is none.
        """
        try:
            raw = base64.b64decode(text.removeprefix(PREFIX) + "=", altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        address = cls(raw)
        if len(raw) != KEY_BYTES or str(address) != text:
            raise DeviceKeyError(
                "this is no device's key",
                remedy=f"pass on what `archipel merge key` printed: {PREFIX} and 43 characters",
            )
        return address

    def __str__(self) -> str:
        return PREFIX + base64.urlsafe_b64encode(self._raw).decode().rstrip("=")

    def seal(self, content: bytes, context: bytes) -> bytes:
        """Return ``content`` sealed to this device.

        Args:
            content: of any length.
            context: what it is; opening it as something else fails.

        Raises:
            DeviceKeyError: a point of low order.
        """
        try:
            return _SUITE.encrypt(content, X25519PublicKey.from_public_bytes(self._raw), self._info(context))
        except ValueError as error:
            raise DeviceKeyError("this device's key is a point of low order") from error

    def _info(self, context: bytes) -> bytes:
        return length_prefixed(_LABEL, self._raw, context)


class DeviceKey:
    """The private key of a device; it stays there."""

    def __init__(self, private: X25519PrivateKey) -> None:
        self._private = private

    @classmethod
    def generate(cls) -> Self:
        """Make a key from the operating system's generator."""
        return cls(X25519PrivateKey.generate())

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Read a key from the 32 bytes of :meth:`private_bytes`.

        Raises:
            DeviceKeyError: another length.
        """
        if len(raw) != KEY_BYTES:
            raise DeviceKeyError(f"a device's key has {KEY_BYTES} bytes, not {len(raw)}")
        return cls(X25519PrivateKey.from_private_bytes(raw))

    def private_bytes(self) -> bytes:
        """Return the 32 secret bytes, for the device's own file only."""
        return self._private.private_bytes_raw()

    @property
    def address(self) -> DeviceAddress:
        """The public half."""
        return DeviceAddress(self._private.public_key().public_bytes_raw())

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """Return what was sealed to this device as ``context``.

        Raises:
            DeviceSealError: it was not, or it was altered.
        """
        try:
            return _SUITE.decrypt(sealed, self._private, self.address._info(context))
        except (InvalidTag, ValueError) as error:
            raise DeviceSealError(
                "this does not open with the key of this device",
                remedy="ask for it again, for the key that `archipel merge key` printed here",
            ) from error
