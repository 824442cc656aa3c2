"""The production protocol in memory, with faults on demand. For tests: nothing in the product imports it.

Requests, answers and errors cross as the same bytes as over TLS; only the network is missing, and with it who
calls: the test says so.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from federation.transport.base import Service, UnreachableError
from federation.transport.codec import Method, decode_error, encode_error
from federation.transport.connection import Patience, WireConnection
from federation.transport.dispatch import Dispatcher
from privacy.errors import ArchipelError, PeerError

Alteration = Callable[[Method, bytes], bytes]


def unaltered(_method: Method, data: bytes) -> bytes:
    """Leave ``data`` as it is."""
    return data


@dataclass
class Faults:
    """What the network does wrong.

    Attributes:
        rng: decides.
        drop_request: probability that a request never arrives.
        drop_answer: probability that a request is carried out and its answer lost.
        duplicate: probability that a request arrives twice.
        max_delay_seconds: each direction waits up to that long.
        alter_request: changes requests on their way.
        alter_answer: changes answers on their way.
    """

    rng: random.Random
    drop_request: float = 0.0
    drop_answer: float = 0.0
    duplicate: float = 0.0
    max_delay_seconds: float = 0.0
    alter_request: Alteration = field(default=unaltered)
    alter_answer: Alteration = field(default=unaltered)

    def happens(self, probability: float) -> bool:
        """Toss a coin."""
        return self.rng.random() < probability


class InProcessWire:
    """Carries calls straight to a service.

    Args:
        service: the coordinator.
        party: who calls.
        faults: see :class:`Faults`; none by default.
    """

    def __init__(self, service: Service, party: str, faults: Faults | None = None) -> None:
        self._dispatcher = Dispatcher(service)
        self._party = party
        self._faults = faults or Faults(rng=random.Random())  # noqa: S311 - no fault, no coin
        self._is_open = True

    async def call(self, method: Method, request: bytes, *, deadline_seconds: float) -> bytes:
        """One call; see :class:`~federation.transport.connection.Wire`."""
        faults = self._faults
        if not self._is_open:
            raise UnreachableError("the connection is closed")
        await self._delay()
        if faults.happens(faults.drop_request):
            raise UnreachableError("the request was lost")
        arrived = faults.alter_request(method, request)
        repetitions = 2 if faults.happens(faults.duplicate) else 1
        try:
            async with asyncio.timeout(deadline_seconds):
                for _ in range(repetitions):
                    answer = await self._dispatcher.answer(self._party, method, arrived)
        except TimeoutError as error:
            raise UnreachableError("no answer in time") from error
        except ArchipelError as error:
            raise (decode_error(encode_error(error), where="in process") or PeerError("no reason")) from error
        await self._delay()
        if faults.happens(faults.drop_answer):
            raise UnreachableError("the answer was lost")
        return faults.alter_answer(method, answer)

    async def close(self) -> None:
        """Answer no further call."""
        self._is_open = False

    async def _delay(self) -> None:
        if self._faults.max_delay_seconds:
            await asyncio.sleep(self._faults.rng.uniform(0, self._faults.max_delay_seconds))


def connect_in_process(
    service: Service, party: str, *, faults: Faults | None = None, patience: Patience | None = None
) -> WireConnection:
    """A connection of ``party`` to ``service`` without a network."""
    return WireConnection(InProcessWire(service, party, faults), patience=patience)
