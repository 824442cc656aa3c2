"""Which column of a table plays which role, told by its name.

One list of names serves the reader of public sets, which needs an answer, and ``archipel data check``, which
makes a suggestion for ``columns`` in ``policy.yaml``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from silo.data.item_files import plain

ALIASES: Final = {
    "user_id": (
        *("userid", "user", "customerid", "customer", "memberid", "visitorid", "reviewerid", "clientid"),
        *("accountid", "uid", "u"),
    ),
    "item_id": (
        *("itemid", "item", "movieid", "movie", "productid", "product", "sku", "asin", "articleid"),
        *("contentid", "songid", "bookid", "i"),
    ),
    "timestamp": (
        *("timestamp", "time", "unixtime", "unixreviewtime", "datetime", "date", "eventtime", "createdat"),
        *("at", "when", "ts", "t"),
    ),
    "event": (
        "event",
        "eventtype",
        "action",
        "actiontype",
        "behavior",
        "behaviour",
        "interactiontype",
        "kind",
    ),
    "rating": ("rating", "score", "stars", "overall", "r"),
    "weight": ("weight", "quantity", "playcount", "plays", "watchtime", "count"),
}
"""Role -> plain names (``silo.data.item_files.plain``), the surest first."""


def match_columns(found: Sequence[str]) -> dict[str, str]:
    """Role -> column, for every role that some column's name fits; of two equal names the first."""
    by_plain_name = {plain(name): name for name in reversed(found)}
    matches = {
        role: next((by_plain_name[alias] for alias in aliases if alias in by_plain_name), None)
        for role, aliases in ALIASES.items()
    }
    return {role: column for role, column in matches.items() if column is not None}


def columns_line(columns: dict[str, str]) -> str:
    """The mapping as a line of ``policy.yaml``."""
    pairs = ", ".join(f"{role}: {_yaml_text(name)}" for role, name in columns.items())
    return f"columns: {{{pairs}}}"


def _yaml_text(name: str) -> str:
    is_simple = name.isascii() and name.replace("_", "").isalnum() and not name[0].isdigit()
    return name if is_simple else "'" + name.replace("'", "''") + "'"
