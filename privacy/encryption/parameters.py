"""The one set of BFV parameters, as constants. Nothing here loads TenSEAL.

128 bits of security by the table of the Homomorphic Encryption Standard: at degree 4096 the coefficient
modulus may have 109 bits, and 60 + 49 are used. Only the 60-bit prime carries data; with ``t`` of 47 bits
a decryption failure is impossible up to 190 additions of honest frames.
"""

from __future__ import annotations

from privacy.errors import ProtocolError

COEFFICIENT_MODULUS_BITS = (60, 49)
DATA_PRIME = 0xFFFF_FFFF_FFFC_001
"""The 60-bit prime: every coefficient of a frame is below it."""

PARAMETERS_ID = bytes.fromhex("24a8d27afddb690013f6916ec370110a5eb21fa6b6e18539a4a7cda3ed152010")
"""SEAL's hash of the parameters a frame was made under."""

TENSEAL_VERSION = "0.3.18"
"""Versions reject each other's bytes, so all parties of a charter run this one."""


class IncompatibleTensealError(ProtocolError):
    """A peer runs a TenSEAL whose bytes this one rejects."""

    code = "incompatible_tenseal"


def check_tenseal_version(version: str, *, where: str) -> str:
    """Return a peer's TenSEAL version if its frames can be read here.

    Args:
        version: what the peer says, at joining.
        where: the peer's name.

    Raises:
        IncompatibleTensealError: another version.
    """
    if version != TENSEAL_VERSION:
        raise IncompatibleTensealError(
            f"TenSEAL {version[:32]!r} there, {TENSEAL_VERSION} here: they reject each other's frames",
            where=where,
            remedy=f"install tenseal=={TENSEAL_VERSION} at both ends",
        )
    return version
