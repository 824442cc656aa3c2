"""What a transport is: a connection for clients, a service for the coordinator.

Both sides speak of the same ten calls. Everything is bytes of a declared size; who calls is known from the
connection (a TLS certificate pinned by the charter), never from the content of a request.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Protocol

from pydantic import BaseModel, ConfigDict

from federation.messages import BlobRef
from privacy.errors import PeerError

PROTOCOL_VERSION = 1
MAX_CHUNK_BYTES = 4 * 1024 * 1024
MAX_MESSAGE_BYTES = 5 * 1024 * 1024
MAX_WAIT_SECONDS = 60.0


class UnreachableError(PeerError):
    """The other end did not answer; calls that may be repeated are repeated until the patience is over."""

    code: ClassVar[str] = "unreachable"


class CoordinatorInfo(BaseModel):
    """What a coordinator says about itself.

    Attributes:
        name: its name in the charter.
        version: of the protocol (:data:`PROTOCOL_VERSION`).
        tenseal_version: ciphertexts are not compatible across versions.
        charter_sha256: digest of the charter it runs under.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    version: int
    tenseal_version: str
    charter_sha256: str


class Connection(Protocol):
    """One party's way to the coordinator.

    Guarantees:
        * A call either returns, or raises an :class:`~privacy.errors.ArchipelError`.
        * Failures of the network are retried with growing, jittered pauses until the connection's patience is
          over, then raised as :class:`UnreachableError`. Refusals are raised at once.
        * Bulk bytes go on where they stopped, also after a restart of either side.
    """

    @property
    def bytes_sent(self) -> int:
        """Bytes of all requests handed to the transport, repetitions included."""
        ...

    @property
    def bytes_received(self) -> int:
        """Bytes of all answers taken from the transport."""
        ...

    async def info(self) -> CoordinatorInfo:
        """Who answers, and with which versions."""
        ...

    async def post(self, envelope: bytes) -> int:
        """Hand in a signed post and return its number on the board; posting it again changes nothing."""
        ...

    async def posts(self, after: int, wait_seconds: float) -> list[tuple[int, bytes]]:
        """Posts numbered above ``after`` in this party's jobs, in order; waits for the first one.

        A long board comes in pieces: call again with the last number.
        """
        ...

    async def upload(self, ref: BlobRef, path: Path) -> None:
        """Send the announced bytes in ``path``."""
        ...

    async def download(self, ref: BlobRef, path: Path, *, sha256: str, num_bytes: int) -> None:
        """Fetch bytes into ``path``, which appears only when they are those of the signed manifest."""
        ...

    async def offer_of(self, silo: str) -> bytes:
        """The signed key that ``silo`` answers questions with (:class:`~federation.questions.KeyOffer`)."""
        ...

    async def ask(self, silo: str, question: bytes, wait_seconds: float) -> bytes:
        """Put a sealed question to ``silo`` and wait for its sealed answer."""
        ...

    async def listen(self, offer: bytes, wait_seconds: float) -> list[tuple[str, str, bytes]]:
        """(ticket, asker, sealed question) of what this party is asked; waits for the first one."""
        ...

    async def answer(self, ticket: str, answer: bytes) -> None:
        """Hand in the sealed answer to a question."""
        ...

    async def close(self) -> None:
        """Hang up."""
        ...


class Service(Protocol):
    """What a coordinator offers to any transport. ``party`` is who the transport has authenticated."""

    async def info(self, party: str) -> CoordinatorInfo:
        """Who answers."""
        ...

    async def handle_post(self, party: str, raw: bytes, /) -> int:
        """Accept a post and return its number."""
        ...

    async def handle_posts(self, party: str, after: int, wait_seconds: float) -> list[tuple[int, bytes]]:
        """Posts above ``after`` that ``party`` may read."""
        ...

    async def blob_offset(self, party: str, ref: BlobRef) -> int:
        """How many bytes of ``ref`` are here."""
        ...

    async def append_blob(self, party: str, ref: BlobRef, offset: int, chunk: bytes, sha256: str) -> int:
        """Take a chunk that starts at ``offset`` and return the new offset."""
        ...

    async def read_blob(self, party: str, ref: BlobRef, offset: int, limit: int) -> bytes:
        """Up to ``limit`` bytes from ``offset``."""
        ...

    async def offer_of(self, party: str, silo: str) -> bytes:
        """The signed key that ``silo`` answers with now."""
        ...

    async def ask(self, party: str, silo: str, question: bytes, wait_seconds: float) -> bytes:
        """Carry a sealed question to ``silo``, and its sealed answer back."""
        ...

    async def listen(self, party: str, offer: bytes, wait_seconds: float) -> list[tuple[str, str, bytes]]:
        """(ticket, asker, sealed question) of what ``party`` is asked."""
        ...

    async def take_answer(self, party: str, ticket: str, answer: bytes) -> None:
        """Take the sealed answer to a question that ``party`` was handed."""
        ...
