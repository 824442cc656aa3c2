"""What happened in a simulation, line by line; the same seed gives the same lines in every process."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any

import structlog

from tests.simulation.clock import OWNER, VirtualTimeLoop
from tests.simulation.processes import Process

_LOGGED = ("kind", "sender", "duty", "round", "attempt", "phase", "code", "outcome", "step")
"""Fields of a log line that follow from the schedule; texts may name bytes, which chance has chosen."""


class Trace:
    """Lines with their virtual time and party.

    Args:
        loop: says what time it is.

    Attributes:
        events: (party, event) of every line the product's own code logged.
    """

    def __init__(self, loop: VirtualTimeLoop) -> None:
        self._loop = loop
        self._lines: list[tuple[float, str, str, str]] = []
        self.events: list[tuple[str, str]] = []

    def add(self, party: str, what: str, note: str = "") -> None:
        """Note an event.

        Args:
            party: whose.
            what: part of the digest, so it must follow from the schedule alone.
            note: for people.
        """
        self._lines.append((self._loop.time(), party, what, note))

    def lines(self) -> Iterator[str]:
        """The lines as people read them."""
        for seconds, party, what, note in self._lines:
            yield f"{seconds:9.3f}  {party:<8} {what}" + (f"  ({note})" if note else "")

    def said_by(self, party: str) -> list[str]:
        """What happened at one party, without times and notes."""
        return [what for _, who, what, _ in self._lines if who == party]

    def digest(self) -> str:
        """SHA-256 over every line without its note."""
        hashed = hashlib.sha256()
        for seconds, party, what, _ in self._lines:
            hashed.update(f"{seconds:.6f} {party} {what}\n".encode())
        return hashed.hexdigest()

    def process_log(
        self, _logger: object, _method: str, event: MutableMapping[str, Any]
    ) -> Mapping[str, Any]:
        """Structlog processor: the product's own log lines are part of the trace."""
        owner = OWNER.get()
        if isinstance(owner, Process) and owner.is_alive:
            said = " ".join(f"{name}={event[name]}" for name in _LOGGED if name in event)
            note = " ".join(str(event[name]) for name in ("what", "where") if name in event)
            self.add(owner.party, f"{event['event']} {said}".rstrip(), note)
            self.events.append((owner.party, str(event["event"])))
        raise structlog.DropEvent


@contextmanager
def logged_into(trace: Trace) -> Iterator[None]:
    """Send every log line of the product to ``trace``; loggers that exist already follow."""
    processors = structlog.get_config()["processors"]
    before = processors.copy()
    processors[:] = [trace.process_log]
    try:
        yield
    finally:
        processors[:] = before
