"""In which encoding a text file that is not UTF-8 was probably written."""

from __future__ import annotations

import codecs
from typing import Final

_MARKS: Final = ((codecs.BOM_UTF16_LE, "UTF-16"), (codecs.BOM_UTF16_BE, "UTF-16"))
_CANDIDATES: Final = ("GB18030", "BIG5", "SHIFT_JIS")
_MIN_SHARE_OF_IDEOGRAPHS: Final = 0.5


def guess_encoding(data: bytes) -> str | None:
    """Name it as ``iconv -f`` knows it; ``None`` for UTF-8.

    A guess: single-byte encodings decode anything, so LATIN1 is what remains. A multi-byte encoding is named
    only where most of what is not ASCII becomes ideographs or kana in it.
    """
    for mark, name in _MARKS:
        if data.startswith(mark):
            return name
    try:
        data.decode()
    except UnicodeDecodeError:
        return next((name for name in _CANDIDATES if _reads_as(data, name)), "LATIN1")
    return None


def _reads_as(data: bytes, encoding: str) -> bool:
    try:
        beyond = [character for character in data.decode(encoding) if ord(character) > 127]
    except UnicodeDecodeError:
        return False
    eastern = sum(
        "\u3040" <= character <= "\u30ff" or "\u4e00" <= character <= "\u9fff" for character in beyond
    )
    return eastern > _MIN_SHARE_OF_IDEOGRAPHS * len(beyond)
