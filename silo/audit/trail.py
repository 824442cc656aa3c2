"""The coordinator's side of the story: a contribution on its board that the ledger never charged.

``trail.db`` is the coordinator's own signed chain. It names every accepted post; a stream is a contribution
that reached the coordinator under the silo's signature.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Set
from pathlib import Path

from federation.messages import PostKind
from federation.trail import ACCEPTED
from policies.signing import PublicKey
from privacy.ledger.chain import LogCorruptError, LogReader
from privacy.ledger.fold import Fold
from silo.audit.charters import CharterChain
from silo.audit.findings import Finding, finding


def check_trail(
    path: Path, fold: Fold, *, silo: str, chain: CharterChain, witnessed_jobs: Set[str]
) -> Iterator[Finding]:
    """Hold the ledger against the coordinator's trail.

    Args:
        path: a ``trail.db``, or a copy of one.
        fold: the ledger's entries.
        silo: whose ledger.
        chain: the charters; the trail is of the coordinator of one of them.
        witnessed_jobs: jobs that ended before this silo's peers, so that the trail must know them.

    Raises:
        DataError: there is no such file.
        LogStorageError: it cannot be read now.
    """
    where = path.name
    named: set[str] = set()
    try:
        with LogReader.open(path) as reader:
            for problem in reader.problems(verifier(_keeper(reader, chain))):
                yield finding("trail_broken", f"{where} entry {problem.seq}", problem.text)
            for entry in reader.entries():
                if entry.kind != ACCEPTED:
                    continue
                post = entry.payload
                named.add(str(post.get("job")))
                if (post.get("sender"), post.get("kind")) != (silo, PostKind.STREAM.value):
                    continue
                place = (str(post.get("job")), post.get("round"), post.get("attempt"))
                if place not in fold.charges:
                    text = f"a contribution of round {place[1]}, attempt {place[2]} of job {place[0]} arrived"
                    text += ", and the ledger has no charge for it"
                    yield finding("contribution_uncharged", f"{where} entry {entry.seq}", text)
    except LogCorruptError as error:
        yield finding("trail_broken", where, error.message)
    for job in sorted(witnessed_jobs - named):
        text = f"job {job} ended before this silo's peers; the trail never heard of it"
        yield finding("trail_incomplete", where, text)


def _keeper(reader: LogReader, chain: CharterChain) -> PublicKey:
    """Whose trail it is: the coordinator's whose key its entries name, the latest one's by default."""
    named = {entry.key_id for entry in reader.entries()}
    keys = [coordinator.identity_key for coordinator in chain.coordinators()]
    return next((key for key in keys if key.key_id in named), keys[0])


def verifier(key: PublicKey) -> Callable[[bytes, bytes], None]:
    """What a log asks whether its owner signed a message; raises ``TrustError`` if not."""

    def verify(message: bytes, signature: bytes) -> None:
        key.verify(message, base64.b64encode(signature).decode("ascii"))

    return verify
