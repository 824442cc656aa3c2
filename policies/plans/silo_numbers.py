"""Options of ``archipel plan new`` that say a number of a silo: ``shop-a=6000``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from privacy.errors import UsageError

_NUMBER: Final = re.compile(r"(?P<silo>[^:=]+)=(?P<number>[1-9][0-9]*)")


def read_numbers(given: Iterable[str], option: str, what: str) -> dict[str, int]:
    """Return the positive number of each silo that is named.

    Args:
        given: the option's values.
        option: as it is written, for errors.
        what: the number is of, such as ``people``.

    Raises:
        UsageError: not ``SILO=NUMBER``, or a silo twice.
    """
    numbers: dict[str, int] = {}
    for text in given:
        match = _NUMBER.fullmatch(text)
        if match is None:
            raise UsageError(
                f"{text} is no number of {what} of a silo",
                where=option,
                remedy=f"write SILO={what.upper()}, a whole number above 0",
            )
        once(numbers, match["silo"], option)
        numbers[match["silo"]] = int(match["number"])
    return numbers


def once(known: Iterable[str], silo: str, option: str) -> None:
    """Refuse a silo that stands among those known.

    Raises:
        UsageError: it does.
    """
    if silo in known:
        raise UsageError(f"{silo} stands here twice", where=option, remedy="write each silo once")
