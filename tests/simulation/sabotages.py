"""Mistakes that the simulator has to catch: each takes one guarantee out of the product.

They exist under tests only. Each is what a hurried change might do, in one silo or at the coordinator; none
tells the simulator that it did anything.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from federation.bulletin import Bulletin
from federation.duties import Duty
from federation.messages import Envelope, PostKind
from federation.store import Store, StoredPost
from privacy.agreement import EphemeralKey
from privacy.encryption.frames import StreamSummary
from privacy.errors import ProtocolError
from privacy.events import Event
from privacy.ledger.ledger import Charge, Ledger
from privacy.ledger.proofs import charge_of
from privacy.ledger.records import Committed
from silo import agent
from silo.jobs import contribute
from silo.jobs.context import JobContext
from silo.outbox import Contribution, Outbox
from silo.session import Course, Session
from tests.simulation.clock import OWNER
from tests.simulation.probes import InlineAdder
from tests.simulation.processes import Process
from tests.simulation.simulation import Simulation
from tests.simulation.simulator import Sabotage

Integers = NDArray[np.int64]
CULPRIT = "shop-b"


def sabotage(apply: Callable[[pytest.MonkeyPatch], None]) -> Sabotage:
    """A mistake that is in the product while a simulation runs."""

    @wraps(apply)
    def applied(_simulation: Simulation) -> AbstractContextManager[None]:
        return _patched(apply)

    return applied


@contextmanager
def _patched(apply: Callable[[pytest.MonkeyPatch], None]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        apply(patch)
        yield


@sabotage
def draws_twice(patch: pytest.MonkeyPatch) -> None:
    """An agent that draws anew for every resend, under the key that it has posted."""
    patch.setattr(Outbox, "store_contribution", _replace_levels)
    patch.setattr(Outbox, "store_post", _replace_post)
    said, is_drawing = JobContext.said, ContextVar("is_drawing", default=False)

    def forget_stream(self: JobContext, kind: PostKind, *, in_round: bool = False) -> Envelope | None:
        is_forgotten = is_drawing.get() and kind is PostKind.STREAM
        return None if is_forgotten else said(self, kind, in_round=in_round)

    async def protect(context: JobContext) -> Envelope:
        token = is_drawing.set(True)
        try:
            await contribute._draw(context)
            return await contribute.protect(context)
        finally:
            is_drawing.reset(token)

    patch.setattr(JobContext, "said", forget_stream)
    patch.setitem(agent.HANDLERS, Duty.PROTECT, protect)


@sabotage
def outbox_forgets(patch: pytest.MonkeyPatch) -> None:
    """An outbox that keeps neither keys nor streams: "they are on the board anyway"."""
    post = Outbox.post

    def forgetful(
        self: Outbox, job: str, kind: PostKind, round_: int = 0, attempt: int = 0
    ) -> Envelope | None:
        is_forgotten = kind in (PostKind.EPHEMERAL, PostKind.STREAM) and round_ > 0
        return None if is_forgotten else post(self, job, kind, round_, attempt)

    patch.setattr(Outbox, "post", forgetful)
    patch.setattr(Outbox, "store_post", _replace_post)


@sabotage
def skips_a_charge(patch: pytest.MonkeyPatch) -> None:
    """A ledger that takes a second round for a repetition of the first."""
    commit = Ledger.commit

    def forgiving(self: Ledger, reservation: Any, *, round: int, attempt: int, event: Event) -> Charge:
        if round == 1:
            return commit(self, reservation, round=round, attempt=attempt, event=event)
        status = self.state().jobs[str(reservation)]
        record = Committed(
            account=status.account, job=status.job, dataset=status.dataset, round=round, attempt=attempt,
            event=event, plan_sha256=status.plan_sha256, policy_sha256=status.policy_sha256,
            requested_by=status.requested_by,
        )  # fmt: skip
        return charge_of(record, 1)

    patch.setattr(Ledger, "commit", forgiving)


@sabotage
def sums_one_stream_twice(patch: pytest.MonkeyPatch) -> None:
    """A coordinator that adds the first stream twice."""
    add = InlineAdder.sum

    async def add_twice(
        self: InlineAdder, streams: Sequence[Path], num_frames: int, out: Path
    ) -> StreamSummary:
        return await add(self, [streams[0], *streams], num_frames, out)

    patch.setattr(InlineAdder, "sum", add_twice)


@sabotage
def repeats_its_integers(patch: pytest.MonkeyPatch) -> None:
    """A silo that takes the integers of a burned attempt for the next one: "they are paid for"."""
    store = Outbox.store_contribution

    def store_old(
        self: Outbox, job: str, round_: int, attempt: int, levels: Integers, contributors: Sequence[str]
    ) -> None:
        before = self.contribution(job, round_, attempt - 1)
        is_same_size = before is not None and before.levels.shape == levels.shape
        old = before.levels if before and is_same_size else levels
        store(self, job, round_, attempt, old, contributors)

    patch.setattr(Outbox, "store_contribution", store_old)


@sabotage
def masks_with_one_key(patch: pytest.MonkeyPatch) -> None:
    """A silo that makes one ephemeral key in each of its lives."""
    keys: dict[object, EphemeralKey] = {}
    generate = EphemeralKey.generate
    patch.setattr(EphemeralKey, "generate", lambda: keys.setdefault(OWNER.get(), generate()))


@sabotage
def loses_the_last_post(patch: pytest.MonkeyPatch) -> None:
    """A coordinator whose last post was not durable when it was killed."""
    posts, load = Store.posts, Bulletin.load

    def all_but_one(self: Store, after: int = 0) -> list[StoredPost]:
        found = posts(self, after)
        if len(found) > 5:
            self._db.execute("DELETE FROM posts WHERE seq = ?", (found[-1].seq,))
        return posts(self, after)

    def load_less(self: Bulletin) -> None:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(Store, "posts", all_but_one)
            load(self)

    patch.setattr(Bulletin, "load", load_less)


@sabotage
def refuses_after_the_fact(patch: pytest.MonkeyPatch) -> None:
    """A coordinator that first stores a post and then looks whether it likes it."""
    publish = Bulletin.publish

    def publish_first(self: Bulletin, job: str, envelope: Envelope) -> tuple[int, bool]:
        seq, is_new = publish(self, job, envelope)
        if is_new and envelope.kind is PostKind.HEAD:
            raise ProtocolError("a head that came too late")
        return seq, is_new

    patch.setattr(Bulletin, "publish", publish_first)


@sabotage
def keeps_secrets(patch: pytest.MonkeyPatch) -> None:
    """An outbox that deletes rows and lets SQLite keep their bytes."""
    erase, init = Outbox.erase_secrets, Outbox.__init__

    def quick(self: Outbox, directory: Path) -> None:
        init(self, directory)
        self._execute("PRAGMA secure_delete=OFF")

    patch.setattr(Outbox, "__init__", quick)
    patch.setattr(Outbox, "erase_secrets", erase)


@sabotage
def keeps_the_rest(patch: pytest.MonkeyPatch) -> None:
    """A ledger that gives nothing back."""
    patch.setattr(Ledger, "release_rest", lambda self, job: None)


@sabotage
def absorbs_twice(patch: pytest.MonkeyPatch) -> None:
    """One silo's worker takes the state it kept for that of the round before."""
    from_disk = Session._from_disk

    def one_behind(self: Session, course: Course) -> Any:
        found, owner = from_disk(self, course), OWNER.get()
        if found is None or not isinstance(owner, Process) or owner.party != CULPRIT:
            return found
        tables, rounds, _ = found
        return tables, rounds - 1, course.digest_after(rounds - 1)

    patch.setattr(Session, "_from_disk", one_behind)


@sabotage
def gives_up(patch: pytest.MonkeyPatch) -> None:
    """An agent that never repeats a duty that failed once."""
    handle = agent.Agent._handle
    failed: set[object] = set()

    async def once(self: agent.Agent, due: Duty, context: JobContext) -> Envelope | None:
        if (self, due, context.at) in failed:
            return None
        failed.add((self, due, context.at))
        envelope = await handle(self, due, context)
        failed.discard((self, due, context.at))
        return envelope

    patch.setattr(agent.Agent, "_handle", once)


ALL: dict[Sabotage, str] = {
    draws_twice: "masked two contributions with one key",
    outbox_forgets: "without a reason",
    skips_a_charge: "left and was not charged",
    sums_one_stream_twice: "sums were rejected",
    repeats_its_integers: "made the same contribution",
    masks_with_one_key: "was sent for",
    loses_the_last_post: "the trail does not note exactly the posts",
    refuses_after_the_fact: "is on the board",
    keeps_secrets: "are still in the outbox",
    keeps_the_rest: "was not released",
    absorbs_twice: "different models",
    gives_up: "has not ended",
}
"""Each mistake, and the words of the finding that it has to lead to."""


def _replace_levels(
    self: Outbox, job: str, round_: int, attempt: int, levels: Integers, contributors: Sequence[str]
) -> None:
    found: Contribution | None = self.contribution(job, round_, attempt)
    key, names = found.private_key if found else None, json.dumps(contributors)
    self._execute(
        "INSERT OR REPLACE INTO contributions VALUES (?, ?, ?, ?, ?, ?)",
        (job, round_, attempt, levels.astype("<i8").tobytes(), key, names),
    )


def _replace_post(self: Outbox, envelope: Envelope) -> None:
    self._execute(
        "INSERT OR REPLACE INTO posts VALUES (?, ?, ?, ?, ?)",
        (envelope.job, envelope.kind.value, envelope.round, envelope.attempt, envelope.to_bytes()),
    )
