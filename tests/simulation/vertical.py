"""What must hold after a vertical job, besides what every board has to hold.

The job's contents are opaque (:class:`tests.support.vertical_federation.OpaqueContent`): bytes that are made
of what was received before. So a leg that is lost, exchanged or read twice shows at the end.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing

from federation.legs.legs import legs, price_of
from federation.messages import PostKind
from federation.rounds import JobState
from policies.plans.price import reserved_events
from privacy.ledger.chain import LogReader
from privacy.ledger.fold import Fold
from tests.simulation.simulation import Simulation


def check_legs(simulation: Simulation, state: JobState) -> Iterator[str]:
    """Every silo has what it should have of the job, has paid for what left, and keeps nothing."""
    for name in state.roster:
        yield from _check_ledger(simulation, name, state)
        yield from _check_outbox(simulation, name, state)
        if state.outcome == "completed":
            yield from _check_left(simulation, name, state)


def _check_ledger(simulation: Simulation, name: str, state: JobState) -> Iterator[str]:
    """What left is paid for, at its leg and once; a completed job cost exactly what it reserved."""
    with LogReader.open(simulation.silos[name].disk / "ledger.db") as reader:
        book, problems = Fold.of(reader.entries())
    yield from (f"{name}: ledger: {problem.code}: {problem.text}" for problem in problems)
    status = book.state().jobs.get(state.job)
    if status is None:
        if state.post(PostKind.ACCEPTANCE, name):
            yield f"{name}: accepted the job and reserved nothing"
        return
    if status.open or book.state().accounts[status.account].outstanding:
        yield f"{name}: the unused rest was not released"
    prices = {leg.number for leg in legs(state.plan) if price_of(state.plan, leg, name) is not None}
    charged = {at[1] for at in book.charges}
    sent = {place.round for place in simulation.notebook.sent if _is_stream_of(place, name)}
    if unpaid := sent & prices - charged:
        yield f"{name}: {sorted(unpaid)} left and was not charged"
    if unknown := charged - prices:
        yield f"{name}: {sorted(unknown)} is charged and costs nothing"
    if state.outcome == "completed" and charged != prices:
        yield f"{name}: {sorted(charged)} is charged of {sorted(prices)}"
    reserved = {item.event: item.count for item in reserved_events(state.plan, name)}
    if {item.event: item.reserved for item in status.allowances} != reserved:
        yield f"{name}: something else was reserved than the plan costs it"


def _is_stream_of(place: object, name: str) -> bool:
    return getattr(place, "kind", None) is PostKind.STREAM and getattr(place, "sender", None) == name


def _check_outbox(simulation: Simulation, name: str, state: JobState) -> Iterator[str]:
    disk = simulation.silos[name].disk
    with closing(sqlite3.connect(disk / "outbox" / "outbox.db")) as outbox:
        rest = outbox.execute("SELECT job FROM secrets").fetchall()
    files = [path.name for path in (disk / "outbox").glob(f"{state.job}-*")]
    if rest or files:
        yield f"{name}: {len(rest)} secrets and {files} outlive the job"


def _check_left(simulation: Simulation, name: str, state: JobState) -> Iterator[str]:
    path = simulation.silos[name].disk / "jobs" / state.job / "concluded.json"
    if not path.exists():
        yield f"{name} has nothing of the completed job"
        return
    found = json.loads(path.read_bytes())
    if found["slots"] != f"slots of {name}":
        yield f"{name} has {found['slots']}"
    expected = dict.fromkeys(state.roster[1:], True) if name == state.leader else {}
    if found["moments"] != expected:
        yield f"{name}: partners saw other bytes than were sent: {found['moments']}"
