"""What tests of logs and ledgers share: an owner's keys, a budget, work for other processes, and forgery."""

from __future__ import annotations

import base64
import hashlib
import hmac
import multiprocessing
import os
import resource
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from privacy.budget import Budget, FilterSpec, ZcdpFilter
from privacy.errors import ArchipelError, TrustError
from privacy.events import SAMPLER, Event, EventCount, GaussianEvent
from privacy.ledger.chain import GENESIS, ChainLog, entry_hash, signed_message
from privacy.ledger.ledger import Ledger, Reservation

PLAN = "b" * 64
POLICY = "a" * 64
NEWER_POLICY = "c" * 64
EVENT = GaussianEvent(noise_multiplier=2.0, sampler=SAMPLER)
CHEAP = GaussianEvent(noise_multiplier=100.0, sampler=SAMPLER)
OTHER_EVENT = GaussianEvent(noise_multiplier=3.0, sampler=SAMPLER)


class Owner:
    """Signs as one party; survives the way into another process."""

    def __init__(self, name: str = "owner") -> None:
        self.name = name

    @property
    def key_id(self) -> str:
        return hashlib.sha256(self.name.encode()).hexdigest()[:16]

    def sign(self, message: bytes) -> bytes:
        return hmac.digest(self.name.encode(), message, "sha512")

    def verify(self, message: bytes, signature: bytes) -> None:
        if not hmac.compare_digest(self.sign(message), signature):
            raise TrustError("not signed by this owner")


class Clock:
    """A second passes at each look."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


def budget(epsilon: float = 4.0, delta: float = 1e-5, filter: FilterSpec | None = None) -> Budget:
    """Pays for two of ``EVENT`` by default, not for three."""
    return Budget(epsilon=epsilon, delta=delta, filter=filter or ZcdpFilter())


def open_log(path: Path, owner: Owner | None = None) -> ChainLog:
    owner = owner or Owner()
    return ChainLog.open(path, sign=owner.sign, key_id=owner.key_id, clock=Clock())


def open_ledger(path: Path, owner: Owner | None = None) -> Ledger:
    owner = owner or Owner()
    return Ledger.open(path, sign=owner.sign, key_id=owner.key_id, clock=Clock())


def open_customers(path: Path, epsilon: float = 4.0) -> Ledger:
    """A ledger with the account ``customers``."""
    ledger = open_ledger(path)
    ledger.open_account("customers", budget(epsilon), POLICY, 1)
    return ledger


def reserve(
    ledger: Ledger, job: str = "job-1", count: int = 1, event: Event = EVENT, **changes: Any
) -> Reservation:
    events: Sequence[EventCount] = [EventCount(event, count)]
    arguments: dict[str, Any] = {
        "account": "customers",
        "dataset": "purchases",
        "plan_sha256": PLAN,
        "policy_sha256": POLICY,
        "requested_by": "shop-a",
        "events": events,
    }
    return ledger.reserve(job=job, **(arguments | changes))


def in_processes(work: Callable[..., None], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Run ``work(*arguments, queue)`` in fresh processes at once; what each put on the queue."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    start = context.Barrier(len(arguments))
    processes = [context.Process(target=work, args=(*one, start, results), daemon=True) for one in arguments]
    for process in processes:
        process.start()
    answers = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(60)
    results.close()
    results.join_thread()
    assert [process.exitcode for process in processes] == [0] * len(processes)
    return answers


def append_many(path: Path, count: int, start: Any, results: Any) -> None:
    start.wait(60)
    with open_log(path) as log:
        results.put([log.append("note", {"i": index}).seq for index in range(count)])


def open_fresh_logs(directory: Path, count: int, start: Any, results: Any) -> None:
    """Again and again, all processes open the same log that is not there yet."""
    for number in range(count):
        start.wait(60)
        with open_log(directory / f"{number}.db") as log:
            log.append("note", {})
    results.put("done")


def reserve_once(path: Path, job: str, start: Any, results: Any) -> None:
    with open_customers(path) as ledger:
        start.wait(60)
        try:
            reserve(ledger, job)
        except ArchipelError as error:
            results.put(error.code)
        else:
            results.put("reserved")


def commit_many(path: Path, rounds: int, start: Any, results: Any) -> None:
    with open_customers(path) as ledger:
        start.wait(60)
        charges = [ledger.commit("job-1", round=r, attempt=0, event=EVENT).seq for r in range(rounds)]
        results.put(charges)


class Killed:
    """A signer in whose process the power fails: at the ``number``-th signature."""

    def __init__(self, number: int) -> None:
        self.left = number

    def __call__(self, message: bytes) -> bytes:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return Owner().sign(message)


def commit_until_killed(path: Path, number: int) -> None:
    ledger = Ledger.open(path, sign=Killed(number), key_id=Owner().key_id, clock=Clock())
    for attempt in range(10):
        ledger.commit("job-1", round=1, attempt=attempt, event=CHEAP)


def killed_process(work: Callable[..., None], *arguments: Any) -> int | None:
    """Run ``work`` in a fresh process that is expected to die; its exit code."""
    process = multiprocessing.get_context("spawn").Process(target=work, args=arguments, daemon=True)
    process.start()
    process.join(120)
    return process.exitcode


def append_until_full(path: Path, limit_bytes: int, start: Any, results: Any) -> None:
    """The disk as this process sees it ends at ``limit_bytes`` per file."""
    with open_log(path) as log:
        start.wait(60)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, resource.RLIM_INFINITY))
        durable = 0
        try:
            while durable < 10_000:
                durable = log.append("note", {"text": "x" * 500}).seq
        except ArchipelError as error:
            code = (error.code, int(error.exit_code))
        else:
            code = ("never", 0)
        head = log.head().seq
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        after = log.append("note", {"text": "room again"}).seq
        results.put((code, durable, head, after))


@contextmanager
def tampering(path: Path) -> Iterator[sqlite3.Connection]:
    """The file in the hands of somebody who does not care for triggers."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DROP TRIGGER IF EXISTS entries_are_never_altered")
        connection.execute("DROP TRIGGER IF EXISTS entries_are_never_deleted")
        yield connection


def reseal(
    connection: sqlite3.Connection, sign: Callable[[bytes], bytes], key_id: str, *, from_seq: int = 1
) -> None:
    """Renumber, rehash and sign again, so that the chain is whole under this key."""
    query = "SELECT seq, at, kind, payload, hash FROM entries ORDER BY seq"
    rows = connection.execute(query).fetchall()
    connection.execute("UPDATE entries SET hash = 'h' || seq, previous = 'p' || seq")
    previous = GENESIS
    for number, (seq, at, kind, payload, kept) in enumerate(rows, start=1):
        digest = kept
        if number >= from_seq:
            digest = entry_hash(
                seq=number, at=at, kind=kind, payload=payload, previous=previous, key_id=key_id
            )
        signature = base64.b64encode(sign(signed_message(digest))).decode()
        connection.execute(
            "UPDATE entries SET seq = ?, previous = ?, hash = ?, key_id = ?, signature = ? WHERE seq = ?",
            (number, previous, digest, key_id, signature, seq),
        )
        previous = digest


def reserve_at_once(path: Path, names: Sequence[str], start: Any, results: Any) -> None:
    """One thread a job, each with a ledger of its own, all at the same moment."""
    ready = threading.Barrier(len(names))

    def work(job: str) -> str:
        with open_ledger(path) as ledger:
            ready.wait(60)
            try:
                reserve(ledger, job)
            except ArchipelError as error:
                return error.code
            return "reserved"

    with ThreadPoolExecutor(len(names)) as pool:
        start.wait(60)
        results.put(list(pool.map(work, names)))


def commit_under_limits(path: Path, places: int, step: int, start: Any, results: Any) -> None:
    """The disk ends ``number * step`` bytes further on, at one charge after another; then it is mended.

    Puts the codes of the failures, how often the failed state was not that before, and the number of charges.
    """
    with open_ledger(path) as ledger:
        start.wait(60)
        failures: dict[str, int] = {}
        torn = 0
        wal = path.with_name(path.name + "-wal")
        for number in range(places):
            before = ledger.state()
            size = wal.stat().st_size if wal.exists() else 0
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + number * step, resource.RLIM_INFINITY))
            try:
                ledger.commit("job-1", round=1, attempt=number, event=CHEAP)
            except ArchipelError as error:
                failures[error.code] = failures.get(error.code, 0) + 1
                torn += ledger.state() != before
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            for _ in range(2):
                ledger.commit("job-1", round=1, attempt=number, event=CHEAP)
        (committed,) = ledger.status("customers").committed
        results.put((failures, torn, committed.count))


def commit_and_tell(path: Path, told: Any) -> None:
    """Charge on and on, telling each charge only once it has returned."""
    with open_ledger(path) as ledger:
        for attempt in range(100_000):
            ledger.commit("job-1", round=1, attempt=attempt, event=CHEAP)
            told.send(attempt)


def use_without_permission(path: Path, start: Any, results: Any) -> None:
    """Open and charge as somebody who may only read; root first becomes nobody."""
    if os.geteuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    start.wait(60)
    try:
        with open_ledger(path) as ledger:
            ledger.commit("job-1", round=1, attempt=0, event=CHEAP)
    except ArchipelError as error:
        results.put((error.code, int(error.exit_code)))
    else:
        results.put(("never", 0))
