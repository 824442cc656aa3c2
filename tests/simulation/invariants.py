"""What must hold after every simulation, whatever went wrong in it.

Each check reads what is left on the disks and what the probes wrote down, and yields a sentence for
everything that does not hold. A check that a fault excuses says which.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from federation.messages import Envelope, PostKind, Stream
from federation.rounds import JobState, Phase, fold
from federation.store import Store
from federation.trail import ACCEPTED
from policies.plans.price import reserved_events
from privacy.errors import ArchipelError
from privacy.ledger.chain import LogReader
from privacy.ledger.fold import Fold
from privacy.ledger.state import LedgerState
from silo.audit.verify import verify
from tests.simulation.probes import At, Notebook
from tests.simulation.schedules import Command
from tests.simulation.simulation import Simulation
from tests.simulation.vertical import check_legs

IN_ROUND = (PostKind.EPHEMERAL, PostKind.STREAM)
NEVER = ("job_crashed", "sum_rejected", "receipt_refused")
"""Lines that no log may hold while every party is honest."""

AUDITED = 10
"""Every so many seeds an auditor looks at each silo's record, which takes longer."""

WRITES_ONCE = frozenset(PostKind) - {PostKind.CANCEL, PostKind.PAUSE, PostKind.RESUME}


def check(simulation: Simulation) -> tuple[JobState | None, list[str]]:
    """Check everything; returns the job at its end and what does not hold."""
    posts = stored_posts(simulation.hub.disk)
    wrongs = list(simulation.notebook.wrongs)
    wrongs += [bug for process in simulation.processes() for bug in process.bugs]
    wrongs += [f"{party}: {event}" for party, event in simulation.trace.events if event in NEVER]
    if not posts:
        return None, [*wrongs, "the job never began"]
    try:
        state = fold(posts, simulation.hub.name)
    except ArchipelError as error:
        return None, [*wrongs, f"the stored board cannot be folded: {error.message}"]
    wrongs += check_end(simulation, state)
    wrongs += check_board(simulation, state, posts)
    if state.plan.is_vertical:
        return state, [*wrongs, *check_legs(simulation, state)]
    wrongs += check_contributions(simulation.notebook, state)
    wrongs += check_sums(simulation.notebook, state)
    for name in state.roster:
        wrongs += check_ledger(simulation, name, state)
        wrongs += check_secrets(simulation, name, state)
    wrongs += check_models(simulation, state)
    if simulation.schedule.seed % AUDITED == 0:
        for name in state.roster:
            wrongs += check_audit(simulation, name)
    return state, wrongs


def stored_posts(directory: Path) -> list[Envelope]:
    """Every post on the coordinator's disk, in order."""
    with closing(Store(directory)) as store:
        return [post.envelope for post in store.posts()]


def check_end(simulation: Simulation, state: JobState) -> Iterator[str]:
    """The job has ended, and for a reason that its schedule gives."""
    schedule = simulation.schedule
    if state.phase is not Phase.ENDED:
        yield f"the job is {state.phase} at the end"
    is_cancelled = any(request.command is Command.CANCEL for request in schedule.requests)
    excused = {
        "completed": True,
        "cancelled": is_cancelled or schedule.may_lose_records,
        "failed": schedule.may_lose_rounds,
    }
    if not excused.get(str(state.outcome), False):
        yield f"the job is {state.outcome} ({state.reason}), and nothing in its schedule is a reason"
    if (state.burned or state.absent) and not schedule.may_lose_rounds:
        yield f"{state.burned} attempts were burned, {len(state.absent)} silos absent, without a reason"
    if state.failed_opens:
        yield f"{state.failed_opens} sums were rejected, and nobody is dishonest"


def check_board(simulation: Simulation, state: JobState, posts: list[Envelope]) -> Iterator[str]:
    """The board is what its posts fold to, each place was said once, and the trail knows all of it."""
    known = simulation.hub.states.get(state.job)
    if known != state:
        yield "the coordinator's state is not what its stored posts fold to"
    restored = {restore.silo for restore in simulation.schedule.restores}
    for place, said in simulation.notebook.sent.items():
        if len(said) > 1 and place.kind in WRITES_ONCE and place.sender not in restored:
            yield f"{place.sender} sent {len(said)} different {place.kind} for {place.round}, {place.attempt}"
    with LogReader.open(simulation.hub.disk / "trail.db") as trail:
        yield from _problems(simulation, simulation.hub.name, trail)
        noted = [entry.payload["sha256"] for entry in trail.entries() if entry.kind == ACCEPTED]
    if noted != [hashlib.sha256(post.to_bytes()).hexdigest() for post in posts]:
        yield "the trail does not note exactly the posts of the board"
    if (simulation.hub.disk / "spool" / state.job).exists():
        yield "the coordinator keeps bulk bytes of an ended job"


def check_contributions(notebook: Notebook, state: JobState) -> Iterator[str]:
    """No mask key hides two contributions, and no contribution is made twice."""
    for public_key, places in notebook.ephemerals.items():
        if len(places) > 1:
            yield f"the ephemeral key {public_key[:8]} was sent for {len(places)} places"
    for by_silo in notebook.masked.values():
        at = {(here.round, here.attempt) for masked in by_silo.values() for here, _ in masked}
        twice = [silo for silo, masked in by_silo.items() if len(masked) > 1]
        if twice:
            yield f"{twice[0]} masked two contributions with one key, in {sorted(at)}"
        elif len(at) > 1:
            yield f"one mask key serves the attempts {sorted(at)}"
    places_of: dict[tuple[str, bytes], set[At]] = defaultdict(set)
    for here, levels in notebook.levels.values():
        places_of[here.silo, levels].add(here)
    for (silo, _), everywhere in places_of.items():
        if len(everywhere) > 1:
            yield f"{silo} made the same contribution to {sorted(everywhere)}"


def check_sums(notebook: Notebook, state: JobState) -> Iterator[str]:
    """Every contributor opened the sum of exactly the contributions that the board announces."""
    for number, attempt in enumerate(state.opened, start=1):
        at = {"round": number, "attempt": attempt}
        if len(set(state.opened_digests(**at).values())) != 1:
            yield f"round {number} was opened with different digests"
        contributors = state.contributors_of(number, attempt)
        total = np.zeros(state.shapes[number - 1].values, dtype=np.int64)
        total += len(contributors) * state.shapes[number - 1].offset
        for post in state.roster_posts(PostKind.STREAM, **at):
            sent = notebook.levels.get(post.content(Stream).sha256)
            if sent is None or sent[0] != At(post.sender, number, attempt):
                yield f"the stream of {post.sender} for {number}, {attempt} is none of its contributions"
            else:
                total += np.frombuffer(sent[1], dtype="<i8")
        for silo in state.roster:
            opened = notebook.opened.get(At(silo, number, attempt), [])
            if any(integers != total.astype("<i8").tobytes() for integers in opened):
                yield f"{silo} opened round {number} to something else than the sum of its contributions"
            if silo in contributors and not opened:
                yield f"{silo} contributed to round {number} and never opened it"


def check_ledger(simulation: Simulation, name: str, state: JobState) -> Iterator[str]:
    """The chain holds, nothing left unpaid, nothing was paid twice, the rest was given back."""
    with LogReader.open(simulation.silos[name].disk / "ledger.db") as reader:
        yield from _problems(simulation, name, reader)
        book, problems = Fold.of(reader.entries())
    yield from (f"{name}: ledger: {problem.code}: {problem.text}" for problem in problems)
    ledger = book.state()
    status = ledger.jobs.get(state.job)
    if status is None:
        was_restored = name in {restore.silo for restore in simulation.schedule.restores}
        if not was_restored and state.post(PostKind.ACCEPTANCE, name):
            yield f"{name}: accepted the job and reserved nothing"
        return
    if status.open or ledger.accounts[status.account].outstanding:
        yield f"{name}: the unused rest was not released"
    reserved = {item.event: item.count for item in reserved_events(state.plan)}
    if {item.event: item.reserved for item in status.allowances} != reserved:
        yield f"{name}: something else was reserved than the plan costs"
    if any(item.committed > item.reserved for item in status.allowances):
        yield f"{name}: more was committed than reserved"
    yield from _unpaid(simulation, name, state, ledger, {(at[1], at[2]) for at in book.charges})


def _unpaid(
    simulation: Simulation, name: str, state: JobState, ledger: LedgerState, charged: set[tuple[int, int]]
) -> Iterator[str]:
    """Everything that left is charged, and that is all there is."""
    left = {(p.round, p.attempt) for p in state.posts if p.sender == name and p.round and p.kind in IN_ROUND}
    sent = {
        (p.round, p.attempt)
        for p in simulation.notebook.sent
        if p.sender == name and p.round and p.kind in IN_ROUND
    }
    was_restored = name in {restore.silo for restore in simulation.schedule.restores}
    if unpaid := (left if was_restored else left | sent) - charged:
        yield f"{name}: {sorted(unpaid)} left and was not charged"
    account = ledger.accounts[ledger.jobs[state.job].account]
    if sum(item.count for item in account.committed) != len(charged):
        yield f"{name}: {account.committed} is not {len(charged)} charges"
    promised = state.plan.privacy.target_epsilon
    if account.epsilon_spent > promised:
        yield f"{name}: spent epsilon {account.epsilon_spent} of a plan of {promised}"


def check_secrets(simulation: Simulation, name: str, state: JobState) -> Iterator[str]:
    """Nothing secret is left: no row of the outbox, no file, no bytes in what SQLite has freed."""
    disk = simulation.silos[name].disk
    with closing(sqlite3.connect(disk / "outbox" / "outbox.db")) as outbox:
        rest = outbox.execute("SELECT job FROM secrets UNION SELECT job FROM contributions").fetchall()
    files = [*(disk / "outbox").glob(f"{state.job}-*")]
    for pattern in ("aggregate-*", "*.part", "state.safetensors"):
        files += (disk / "jobs" / state.job).glob(pattern)
    if rest or files:
        yield f"{name}: {len(rest)} secrets and {[path.name for path in files]} outlive the job"
    raw = b"".join(path.read_bytes() for path in (disk / "outbox").iterdir())
    secrets = [simulation.job_key, *simulation.notebook.secrets]
    secrets += [levels for at, levels in simulation.notebook.levels.values() if at.silo == name]
    if found := sum(secret in raw for secret in secrets):
        yield f"{name}: the bytes of {found} secrets are still in the outbox' files"


def check_models(simulation: Simulation, state: JobState) -> Iterator[str]:
    """Models of as many rounds are the same files at every silo; a completed job leaves a whole one at each.

    But a silo that was absent at the end, or whose disk went back to a time before the last rounds were
    opened when it could no longer get their sums, has what it has.
    """
    restored = {restore.silo for restore in simulation.schedule.restores}
    made: dict[int, dict[str, set[str]]] = defaultdict(lambda: {"model": set(), "checkpoint": set()})
    for name in state.roster:
        directory = simulation.silos[name].disk / "jobs" / state.job
        if not (directory / "model.safetensors").exists():
            if state.outcome == "completed" and name not in state.absent:
                yield f"{name} has no model of the completed job"
            continue
        card: dict[str, Any] = json.loads((directory / "model-card.json").read_bytes())
        model = hashlib.sha256((directory / "model.safetensors").read_bytes()).hexdigest()
        if model != card["model"]["sha256"]:
            yield f"{name}: the card is of another model"
        opened = int(card["rounds"]["opened"])
        made[opened]["model"].add(model)
        made[opened]["checkpoint"].add(str(card["checkpoint"]))
        is_whole = opened == state.plan.training.rounds
        if state.outcome == "completed" and name not in state.absent | restored and not is_whole:
            yield f"{name}: the model of the completed job is of {opened} rounds"
    for opened, files in made.items():
        for what, different in files.items():
            if len(different) > 1:
                yield f"{len(different)} different {what}s of {opened} rounds"


def check_audit(simulation: Simulation, name: str) -> Iterator[str]:
    """The product's own auditor finds no error; a silo whose ledger went back in time is one."""
    if any(restore.silo == name and not restore.outbox_only for restore in simulation.schedule.restores):
        return
    charter = simulation.hub.disk / "charter.yaml"
    receipts = [silo.disk for silo in simulation.silos.values() if silo.name != name]
    report = verify(simulation.silos[name].disk, charter, now=simulation.loop.now(), receipts=receipts)
    for found in report.findings:
        if found.severity == "error":
            yield f"{name}: an auditor finds {found.code}: {found.text}"


def _problems(simulation: Simulation, name: str, reader: LogReader) -> Iterator[str]:
    identity = simulation.template.parties.parties[name].identity.public_key

    def verify(message: bytes, signature: bytes) -> None:
        identity.verify(message, base64.b64encode(signature).decode())

    for problem in reader.problems(verify):
        yield f"{name}: {reader.path.name}: {problem.code} at {problem.seq}"
