"""An amendment that is installed while a party runs is taken up without a new process.

Whoever runs asks :func:`amended`; when it returns, everything that rests on the charter (who may connect,
whose posts count, whose policy) is opened anew. Jobs go on: they survive the end of a process as well.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import structlog

from policies.canonical import digest
from policies.charters.charter import Charter
from policies.files import load_card, load_charter, signature_path
from privacy.errors import ArchipelError

CHECK_SECONDS = 5.0
Stamp = tuple[tuple[int, ...], ...]

log = structlog.get_logger("federation")


async def amended(directory: Path, charter: Charter) -> Charter:
    """Wait until another charter is in force in ``directory`` than ``charter``; returns it.

    A charter that cannot be trusted is said once, and changes nothing; one that pins a TLS key which is not
    in its place yet is waited for.

    Args:
        directory: the party's.
        charter: the one it runs under.
    """
    seen: Stamp | None = None
    said = ""
    while True:
        if (stamp := _stamp(directory)) == seen:
            await asyncio.sleep(CHECK_SECONDS)
            continue
        try:
            found = load_charter(directory, datetime.now(UTC))
            if digest(found) != digest(charter) and _fits(directory, found):
                log.info("charter_amended", charter_version=found.version)
                return found
            seen = stamp
        except (ArchipelError, OSError) as error:
            if str(error) != said:  # it may be half copied: the next look sees the rest
                said = str(error)
                log.error("charter_refused", code=getattr(error, "code", "host"), what=said)
            await asyncio.sleep(CHECK_SECONDS)


def _fits(directory: Path, charter: Charter) -> bool:
    """Whether the party's card has the certificate that the charter pins: its key may just be replaced."""
    card = load_card(directory / "card.json")
    pinned = {party.name: party.certificate_sha256 for party in charter.parties()}
    return pinned.get(card.name, card.certificate_sha256) == card.certificate_sha256


def _stamp(directory: Path) -> Stamp:
    """What changes when the charter, its signatures or the party's card are replaced."""
    charter = directory / "charter.yaml"
    return tuple(map(file_stamp, (charter, signature_path(charter), directory / "card.json")))


def file_stamp(path: Path) -> tuple[int, ...]:
    """What changes when a file is replaced; empty where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return ()
    return (found.st_ino, found.st_size, found.st_mtime_ns)
