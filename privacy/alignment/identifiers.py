"""Ids of people, written alike in every silo, then as words that say nothing without the silos' pepper."""

from __future__ import annotations

import hmac
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from privacy.agreement import length_prefixed
from privacy.errors import DataError

IdentifierKind = Literal["exact", "email", "phone"]

_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")
_PHONE_FILLING = re.compile(r"[\s().\-/\u2010-\u2015]")
_NATIONAL = re.compile(r"[0-9]{3,17}")
_E164 = re.compile(r"\+[1-9][0-9]{6,14}")


class IdentifierError(DataError):
    """An id that is none of its kind. The message does not name it."""

    code = "identifier"


@dataclass(frozen=True)
class Pseudonyms:
    """One silo's people as words.

    Attributes:
        words: 64 hexadecimal digits each, all different, in the order in which they first occur.
        places: for each id given, the place of its word: ids that are written alike are one person.
    """

    words: tuple[str, ...]
    places: tuple[int, ...]

    @property
    def num_merged(self) -> int:
        """How many ids turned out to be another one written differently."""
        return len(self.places) - len(self.words)


def normalise(identifier: str, kind: IdentifierKind, default_region: str | None = None) -> str:
    """Write an id as every silo writes it.

    A number with its country is written alike everywhere, whatever ``default_region`` is: no library and no
    version of one comes into it. The region is each silo's own, as its tables are; silos agree on the result.

    Args:
        identifier: as the table writes it.
        kind: what it is.
        default_region: of telephone numbers that name no country: two letters of ISO 3166, such as ``DE``.

    ============  =======================================================================
    kind          what becomes of it
    ============  =======================================================================
    ``exact``     Unicode NFC, nothing else: ids that the silos have agreed on; not blank
    ``email``     NFKC, spaces around it removed, lower case; no provider's own rules
    ``phone``     E.164: ``+`` and 7 to 15 digits; ``00`` is ``+``; spaces, brackets, dots,
                  dashes and slashes removed. A number without a country is one of the default
                  region, by the national prefixes of libphonenumber; without a region it is
                  refused, and so is one with a national prefix in brackets, ``+49 (0)30``
    ============  =======================================================================

    Raises:
        IdentifierError: empty, or none of its kind.
    """
    if not _is_text(identifier):
        written, fits = "", False
    elif kind == "exact":
        written = unicodedata.normalize("NFC", identifier)
        fits = bool(written.strip())
    elif kind == "email":
        written = unicodedata.normalize("NFKC", identifier).strip().lower()
        fits = _EMAIL.fullmatch(written) is not None
    else:
        written = _phone(unicodedata.normalize("NFKC", identifier), default_region)
        fits = bool(written)
    if not fits:
        raise IdentifierError(
            f"an id that is no {kind} id",
            where="columns.user_id",
            remedy="clean the ids, or agree on another alignment.identifiers",
        )
    return written


def _phone(plain: str, default_region: str | None) -> str:
    """A telephone number as E.164; empty where it is none."""
    digits = _PHONE_FILLING.sub("", plain)
    digits = f"+{digits[2:]}" if digits.startswith("00") else digits
    if digits.startswith("+"):
        return digits if _E164.fullmatch(digits) and "(0" not in plain.replace(" ", "") else ""
    return _national(digits, default_region) if default_region and _NATIONAL.fullmatch(digits) else ""


def _national(digits: str, region: str) -> str:
    """A number without its country as E.164, if its length is one of that region's numbers; else empty."""
    import phonenumbers  # the tables of all regions take longer to load than ids of other kinds to write

    try:
        number = phonenumbers.parse(digits, region)
    except phonenumbers.NumberParseException:
        return ""
    if not phonenumbers.is_possible_number(number):
        return ""
    written = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    return written if _E164.fullmatch(written) else ""


def is_region(name: str) -> bool:
    """Whether telephone numbers can be those of a region: two capital letters of ISO 3166."""
    import phonenumbers

    return name in phonenumbers.SUPPORTED_REGIONS


def _is_text(identifier: str) -> bool:
    """Whether it can be written at all: half of a surrogate pair cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in identifier)


def pseudonyms(
    identifiers: Sequence[str], kind: IdentifierKind, pepper: bytes, default_region: str | None = None
) -> Pseudonyms:
    """Turn ids into words: ``HMAC-SHA256(pepper, kind, normalised id)``.

    Args:
        identifiers: of one silo's people.
        kind: what they are.
        pepper: 32 bytes that all silos of the job hold and the coordinator does not. With it anybody can try
            out ids, so it lives no longer than its job.
        default_region: see :func:`normalise`.

    Raises:
        IdentifierError: an id is none of its kind; where in the list, not which, is said.
    """
    place_of: dict[str, int] = {}
    places = []
    for number, identifier in enumerate(identifiers):
        try:
            written = normalise(identifier, kind, default_region)
        except IdentifierError as error:
            raise IdentifierError(
                f"{error.message} (number {number + 1})", where=error.where, remedy=error.remedy
            ) from None
        message = length_prefixed(b"archipel/alignment/v1", kind.encode(), written.encode())
        word = hmac.digest(pepper, message, "sha256").hex()
        places.append(place_of.setdefault(word, len(place_of)))
    return Pseudonyms(tuple(place_of), tuple(places))
