r"""One canonical encoding for everything that is signed or hashed.

The bytes are RFC 8785 (JSON canonicalisation) of ``model_dump(mode="json", exclude_unset=True)``, behind a
prefix ``archipel/<kind>/v1\0`` that keeps a signature of one kind from being used as another.

Compatibility law: what a file did not say is not in its bytes. A field added later has a default that means
what its absence meant before, so every signature and digest made under an older version stays valid; a
default is never changed and a field is never renamed. ``tests/golden/test_canonical_vectors.py`` holds the
proof.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import rfc8785
from pydantic import BaseModel

from privacy.errors import DataError

_KIND = re.compile(r"[a-z][a-z0-9-]{0,62}")


class CanonicalError(DataError):
    """A value without a canonical encoding: NaN, an infinity, an integer beyond 2**53 - 1."""

    code: ClassVar[str] = "not_canonical"


def canonical_bytes(value: BaseModel | Mapping[str, Any]) -> bytes:
    """RFC 8785 bytes of a model (fields that were set only) or of a JSON object.

    Args:
        value: a Pydantic model, or a mapping of JSON values.

    Raises:
        CanonicalError: a number outside JSON's interoperable range, or a value that is not JSON.
    """
    payload = (
        value.model_dump(mode="json", exclude_unset=True) if isinstance(value, BaseModel) else dict(value)
    )
    try:
        return rfc8785.dumps(payload)
    except rfc8785.CanonicalizationError as error:
        raise CanonicalError(
            f"this content has no canonical bytes: {error}",
            remedy="use finite numbers, and integers below 2**53",
        ) from error


def signed_bytes(kind: str, payload: BaseModel | Mapping[str, Any]) -> bytes:
    r"""What a signature of ``payload`` covers: ``archipel/<kind>/v1\0`` and the canonical bytes.

    Args:
        kind: what is signed, lower case with hyphens; signatures of different kinds never fit each other.
        payload: a model or JSON object.

    Raises:
        CanonicalError: see :func:`canonical_bytes`.
        ValueError: ``kind`` is not a plain name.
    """
    if not _KIND.fullmatch(kind):
        raise ValueError(f"kind {kind!r} is not of the form [a-z][a-z0-9-]*")
    return b"archipel/" + kind.encode("ascii") + b"/v1\0" + canonical_bytes(payload)


def sha256_hex(data: bytes) -> str:
    """SHA-256 of ``data``, 64 lower-case hex digits."""
    return hashlib.sha256(data).hexdigest()


def digest(value: BaseModel | Mapping[str, Any]) -> str:
    """SHA-256 (hex) of the canonical bytes: how plans and policies are named in records."""
    return sha256_hex(canonical_bytes(value))
