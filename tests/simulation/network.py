"""The network between simulated processes: the production protocol, and everything a network may do to it.

Each call of a party's production connection becomes messages with times of their own, so messages of one
party overtake each other and those of others. What arrives is answered by the production dispatcher in the
coordinator's process; whoever asked may be dead by then. A lost answer leaves its effect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from federation.transport.base import Service, UnreachableError
from federation.transport.codec import Method
from federation.transport.inprocess import InProcessWire
from privacy.errors import ArchipelError
from tests.simulation.processes import HEAL_SECONDS, Killed, Process
from tests.simulation.schedules import CALM, Cut, Weather

CONNECT_SECONDS = 0.05
DEADLINE_SECONDS = 600.0


class Server(Protocol):
    """Where calls go: the coordinator's party, up or not."""

    @property
    def process(self) -> Process | None:
        """The coordinator's process, None while it is down."""
        ...

    @property
    def service(self) -> Service | None:
        """The coordinator, None while it is down or starting."""
        ...


class Observer(Protocol):
    """Who sees what crosses."""

    def arrived(self, party: str, method: Method, request: bytes) -> None:
        """A request reached the coordinator."""
        ...

    def refused(self, party: str, method: Method, request: bytes, error: ArchipelError) -> None:
        """The coordinator refused it, just now."""
        ...

    def lost(self, party: str, what: str, method: Method) -> None:
        """The network did something to a call."""
        ...


@dataclass(frozen=True)
class Fate:
    """What happens to one call: when it arrives, how often, and whether its answer comes back."""

    arrivals: tuple[float, ...]
    answer_seconds: float
    is_answer_lost: bool


class Network:
    """Carries calls from parties to the coordinator.

    Args:
        server: the coordinator's party.
        observer: sees every call.
        weather: until ``HEAL_SECONDS``.
        cuts: parties without a network for a while; the coordinator's is everybody's.
        hub: name of the coordinator.
    """

    def __init__(
        self, server: Server, observer: Observer, weather: Weather, cuts: tuple[Cut, ...], hub: str
    ) -> None:
        self.server = server
        self.observer = observer
        self._weather = weather
        self._cuts = cuts
        self._hub = hub

    def fate(self, process: Process, now: float) -> Fate:
        """Decide what happens to a call that ``process`` makes now."""
        if any(c.party in (process.party, self._hub) and c.begin <= now < c.end for c in self._cuts):
            return Fate((), CONNECT_SECONDS, is_answer_lost=True)
        rng, weather = process.rng, self._weather if now < HEAL_SECONDS else CALM
        arrivals = [rng.uniform(0.0, weather.max_delay)]
        if rng.random() < weather.lost_request:
            arrivals = []
        if rng.random() < weather.duplicated:
            arrivals.append(rng.uniform(0.0, weather.max_lateness))
        is_answer_lost = rng.random() < weather.lost_answer
        return Fate(tuple(arrivals), rng.uniform(0.0, weather.max_delay), is_answer_lost)

    def wire(self, process: Process) -> Wire:
        """A connection's way through this network."""
        return Wire(self, process)


class Wire:
    """One process' way to the coordinator; see :class:`~federation.transport.connection.Wire`."""

    def __init__(self, network: Network, process: Process) -> None:
        self._network = network
        self._process = process
        self._way: tuple[Service, InProcessWire] | None = None

    async def call(self, method: Method, request: bytes, *, deadline_seconds: float) -> bytes:
        """One call, as the network and the coordinator please."""
        process, network, loop = self._process, self._network, asyncio.get_running_loop()
        if not process.is_alive:
            raise Killed
        fate = network.fate(process, loop.time())
        answer: asyncio.Future[bytes] = loop.create_future()
        for number, seconds in enumerate(fate.arrivals):
            reply = _reply_to(answer, fate) if number == 0 else _nobody
            loop.call_later(seconds, self._arrive, method, request, reply)
        if not fate.arrivals:
            network.observer.lost(process.party, "lost request", method)
            loop.call_later(fate.answer_seconds, _fail, answer, "the request was lost")
        elif fate.is_answer_lost:
            network.observer.lost(process.party, "will lose the answer", method)
        if len(fate.arrivals) > 1:
            network.observer.lost(process.party, "will arrive twice", method)
        try:
            async with asyncio.timeout(deadline_seconds):
                return await answer
        except TimeoutError as error:
            raise UnreachableError("no answer in time") from error

    async def close(self) -> None:
        """Hang up."""

    def _arrive(self, method: Method, request: bytes, reply: Reply) -> None:
        server, party = self._network.server, self._process.party
        if server.process is None or server.service is None:
            reply(UnreachableError("nobody listens"))
            return
        self._network.observer.arrived(party, method, request)
        task = server.process.run(self._serve(self._way_to(server.service), method, request))
        task.add_done_callback(lambda task: reply(_result_of(task)))

    def _way_to(self, service: Service) -> InProcessWire:
        if self._way is None or self._way[0] is not service:
            self._way = service, InProcessWire(service, self._process.party)
        return self._way[1]

    async def _serve(self, way: InProcessWire, method: Method, request: bytes) -> bytes | ArchipelError:
        try:
            return await way.call(method, request, deadline_seconds=DEADLINE_SECONDS)
        except ArchipelError as error:
            self._network.observer.refused(self._process.party, method, request, error)
            return error


Result = bytes | ArchipelError
Reply = Callable[[Result], None]


def _nobody(_result: Result) -> None:
    """Who asked has its answer already, or has gone."""


def _reply_to(answer: asyncio.Future[bytes], fate: Fate) -> Reply:
    def reply(result: Result) -> None:
        loop = answer.get_loop()
        if fate.is_answer_lost:
            result = UnreachableError("the answer was lost")
        loop.call_later(fate.answer_seconds, _settle, answer, result)

    return reply


def _result_of(task: asyncio.Task[Result]) -> Result:
    if task.cancelled() or task.exception() is not None:
        return UnreachableError("the connection broke")
    return task.result()


def _fail(answer: asyncio.Future[bytes], why: str) -> None:
    _settle(answer, UnreachableError(why))


def _settle(answer: asyncio.Future[bytes], result: Result) -> None:
    if answer.done():
        return
    if isinstance(result, bytes):
        answer.set_result(result)
    else:
        answer.set_exception(result)
