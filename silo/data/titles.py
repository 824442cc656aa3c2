"""What stands in the titles of a public item list: models of text read them, and people see them in lists."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from silo.data.catalogue import Catalogue
from silo.data.quality import Finding

LONG_TITLE_CHARS: Final = 500
_MOJIBAKE: Final = re.compile("[\u00c3\u00c2][\u0080-\u00bf]|\u00e2\u20ac|\N{REPLACEMENT CHARACTER}")
_MARKUP: Final = re.compile(r"</?[a-z][^>]*>|&(amp|lt|gt|quot|nbsp|#\d+);", re.IGNORECASE)


def inspect_titles(items: Catalogue) -> tuple[Finding, ...]:
    """What a reader or a text model would stumble over; none of it is a problem for ids and counts."""
    titles = [item.title for item in items.items]
    repeated = sum(count for title, count in Counter(titles).items() if title and count > 1)
    bare = sum(not item.attributes for item in items.items)
    longest = max(map(len, titles), default=0)
    found = (
        ("empty_titles", _count(titles, lambda it: not it.strip()), "items without a title"),
        ("long_titles", _count(titles, lambda it: len(it) > LONG_TITLE_CHARS),
         f"titles of over {LONG_TITLE_CHARS} characters, the longest of {longest:,}: text models cut them"),
        ("control_characters", _count(titles, _has_control), "titles with control characters"),
        ("broken_text", _count(titles, lambda it: bool(_MOJIBAKE.search(it))),
         "titles that were read in the wrong encoding once, such as 'Ã©' for 'é'"),
        ("markup", _count(titles, lambda it: bool(_MARKUP.search(it))), "titles with HTML in them"),
        ("repeated_titles", repeated, "items share their title with another: one product twice, or editions"),
        ("no_attributes", bare, "items without attributes: new ones can only be recommended by text"),
        ("symbols", _count(titles, _has_symbol), "titles with emoji or other symbols: kept as they are"),
    )  # fmt: skip
    findings = [Finding(code=code, is_problem=False, count=n, text=text) for code, n, text in found if n]
    return (*findings, *_script_findings(titles))


def _script_findings(titles: Iterable[str]) -> list[Finding]:
    scripts = Counter(script for title in titles for script in _scripts(title))
    if len(scripts) < 2:
        return []
    words = ", ".join(f"{name} {count:,}" for name, count in scripts.most_common(6))
    text = f"scripts in titles ({words}): a text encoder must know them all"
    return [Finding(code="scripts", is_problem=False, count=len(scripts), text=text)]


def _scripts(title: str) -> set[str]:
    """First words of the Unicode names of the letters, such as latin and cjk."""
    letters = {character for character in title if character.isalpha()}
    return {unicodedata.name(letter, "UNKNOWN").split(" ")[0].split("-")[0].lower() for letter in letters}


def _count(titles: Iterable[str], fits: Callable[[str], bool]) -> int:
    return sum(fits(title) for title in titles)


def _has_control(title: str) -> bool:
    return any(unicodedata.category(character) == "Cc" for character in title)


def _has_symbol(title: str) -> bool:
    return any(unicodedata.category(character) == "So" for character in title)
