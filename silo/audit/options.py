"""What the audit commands share: which record, whose charter, and from when to when."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from privacy.errors import UsageError

Bundle = Annotated[
    Path | None,
    typer.Argument(help="An exported bundle; left out: the directory --dir.", dir_okay=False),
]
CharterFile = Annotated[
    Path, typer.Option("--charter", help="The auditor's own copy of the charter.", metavar="FILE")
]
Silo = Annotated[str | None, typer.Option("--silo", help="Whose record it is; default: what its card says.")]
ReceiptFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--receipts", help="What a peer handed out: receipts.json, or its bundle; repeatable.", metavar="FILE"
    ),
]
TrailFile = Annotated[
    Path | None, typer.Option("--trail", help="The coordinator's trail.db.", metavar="FILE", dir_okay=False)
]
EarlierBundle = Annotated[
    Path | None,
    typer.Option("--earlier", help="A bundle of this silo that was exported earlier.", metavar="FILE"),
]
Since = Annotated[
    str | None, typer.Option("--since", help="From this day or second on, UTC: 2026-06-01[T12:00:00].")
]
Until = Annotated[str | None, typer.Option("--until", help="Up to this day or second, itself included, UTC.")]

_MOMENT = re.compile(r"\d{4}(-\d\d(-\d\d(T\d\d(:\d\d(:\d\d)?)?)?)?)?")


def moment(text: str | None) -> str | None:
    """A year, month, day or time of day, as the beginning of an entry's time.

    Raises:
        UsageError: neither.
    """
    if text is not None and not _MOMENT.fullmatch(text.removesuffix("Z")):
        raise UsageError(
            f"{text!r} is no moment",
            where="--since, --until",
            remedy="write 2026-06-01 or 2026-06-01T12:00:00",
        )
    return None if text is None else text.removesuffix("Z")
