"""What the coordinator did, so that members and auditors can hold it to account.

A hash-chained, signed log (``trail.db``): every accepted post by its digest, every refusal by its code. It
holds no bytes of anybody's contribution.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from federation.messages import Absence, Envelope, PostKind
from policies.signing import PrivateKey
from privacy.ledger.chain import ChainLog

ACCEPTED = "accepted"
REFUSED = "refused"


class Trail:
    """The coordinator's own log of one directory."""

    def __init__(self, directory: Path, identity: PrivateKey) -> None:
        self._log = ChainLog.open(
            directory / "trail.db", sign=identity.sign_raw, key_id=identity.public_key.key_id
        )

    def last_post(self) -> int:
        """Number of the last post that was noted, 0 if none was."""
        noted = [entry.payload["post"] for entry in self._log.entries() if entry.kind == ACCEPTED]
        return max(noted, default=0)

    def accepted(self, job: str, seq: int, envelope: Envelope) -> None:
        """Note a post that went onto the board, and whom the coordinator itself declared absent."""
        payload: dict[str, Any] = {
            "job": job,
            "post": seq,
            "kind": envelope.kind.value,
            "round": envelope.round,
            "attempt": envelope.attempt,
            "sender": envelope.sender,
            "sha256": hashlib.sha256(envelope.to_bytes()).hexdigest(),
        }
        if envelope.kind is PostKind.ABSENCE:
            payload["silos"] = list(envelope.content(Absence).silos)
        self._log.append(ACCEPTED, payload)

    def refused(self, party: str, code: str, what: str) -> None:
        """Note a request that changed nothing."""
        self._log.append(REFUSED, {"party": party, "code": code, "what": what})

    def close(self) -> None:
        """Close the log."""
        self._log.close()
