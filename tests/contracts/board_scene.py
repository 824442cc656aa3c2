"""A roster that says whatever a job asks for next, signed, without doing the work behind it."""

from __future__ import annotations

import base64
import functools
import hashlib
import os
from dataclasses import dataclass, field

from federation.messages import (
    Acceptance,
    Body,
    Burn,
    Cancel,
    Denial,
    Ended,
    Envelope,
    Ephemeral,
    Failed,
    Fingerprint,
    Keys,
    LedgerHead,
    Opened,
    PostKind,
    Proposal,
    ReasonCode,
    Receipt,
    Receipts,
    Received,
    Stream,
    Sum,
    seal,
)
from federation.rounds import Close, Duty, JobState, Phase, SumStreams, advance, duty, pending, propose
from policies.canonical import digest
from policies.drafting import Draft, complete_plan
from policies.plan import Plan
from policies.signing import PrivateKey

HUB = "hub"
NAMES = ("a", "b", "c")
HEX = "0" * 64


@functools.cache
def scene_plan(
    silos: tuple[str, ...] = NAMES,
    *,
    max_burned_rounds: int = 0,
    max_failed_opens: int = 2,
    metrics: bool = False,
    rounds: int = 1,
) -> Plan:
    linear = {"family": "linear", "features": 2, "rounds": rounds, "expected_batch_size": 10.0}
    return complete_plan(
        Draft(
            silos=silos,
            catalogue_sha256=HEX,
            catalogue_items=20,
            target_epsilon=4.0,
            target_delta=1e-6,
            max_users_per_silo=64,
            max_silos_per_user=1,
            max_interactions_per_user=20,
            max_burned_rounds=max_burned_rounds,
            max_failed_opens=max_failed_opens,
            holdout="random" if metrics else "none",
            metrics_epsilon=0.5 if metrics else None,
            **(linear if rounds > 1 else {"family": "popularity"}),  # type: ignore[arg-type]
        )
    )


@dataclass
class Scene:
    """One job among parties whose keys the scene holds."""

    plan: Plan
    keys: dict[str, PrivateKey] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.keys = {name: PrivateKey.generate() for name in (*self.plan.silos, HUB, "stranger")}
        body = Proposal(
            plan=self.plan.model_dump(mode="json", exclude_unset=True),
            catalogue_bytes=10,
            submitted_at="2026-01-01T00:00:00Z",
            nonce=os.urandom(16).hex(),
        )
        self.proposal = self.sealed(body, self.plan.silos[0], job="")
        self.start = propose(self.proposal, HUB)

    def sealed(
        self, body: Body, sender: str, *, job: str | None = None, at: tuple[int, int] = (0, 0)
    ) -> Envelope:
        return seal(
            body,
            job=self.start.job if job is None else job,
            sender=sender,
            identity=self.keys[sender],
            round=at[0],
            attempt=at[1],
        )

    def say(self, state: JobState, silo: str, due: Duty) -> Envelope | None:
        """The post with which ``silo`` does its duty."""
        here = (state.round, state.attempt)
        others = [name for name in state.roster if name != silo]
        match due:
            case Duty.ANSWER:
                return self.sealed(
                    Acceptance(plan_sha256=digest(self.plan), policy_sha256=HEX, policy_version=3), silo
                )
            case Duty.START:
                return self.sealed(self.ephemeral(), silo)
            case Duty.WRAP:
                wrapped = base64.b64encode(b"secret").decode()
                return self.sealed(Keys(wrapped=dict.fromkeys(others, wrapped)), silo)
            case Duty.FINGERPRINT:
                return self.sealed(Fingerprint(macs=dict.fromkeys(others, HEX)), silo)
            case Duty.CONTRIBUTE:
                return self.sealed(self.ephemeral(), silo, at=here)
            case Duty.PROTECT:
                return self.sealed(self.stream(state), silo, at=here)
            case Duty.RECEIVE:
                return self.sealed(Received(mac=HEX), silo, at=here)
            case Duty.OPEN:
                return self.sealed(Opened(digest=HEX), silo, at=here)
            case Duty.HEAD:
                return self.sealed(LedgerHead(seq=7, hash=hashlib.sha256(silo.encode()).hexdigest()), silo)
            case Duty.RECEIPTS:
                return self.sealed(self.receipts(state, silo), silo)
            case _:
                return None

    def ephemeral(self) -> Ephemeral:
        return Ephemeral(
            public_key=os.urandom(32).hex(),
            nonce=os.urandom(32).hex(),
            plan_sha256=digest(self.plan),
            roster=self.plan.silos,
            policy_version=3,
            expires="2099-01-01",
        )

    def stream(self, state: JobState) -> Stream:
        num_frames = state.shapes[state.round - 1].layout.num_frames
        return Stream(sha256=os.urandom(32).hex(), num_bytes=1000, num_frames=num_frames)

    def receipts(self, state: JobState, silo: str) -> Receipts:
        heads = [post for post in state.roster_posts(PostKind.HEAD) if post.sender != silo]
        return Receipts(
            receipts=tuple(
                Receipt(silo=post.sender, seq=post.body["seq"], hash=post.body["hash"], signature="s")
                for post in heads
            )
        )

    def sum_of(self, state: JobState) -> Envelope:
        here = (state.round, state.attempt)
        posts = state.roster_posts(PostKind.STREAM, round=state.round, attempt=state.attempt)
        body = Sum(
            sha256=HEX,
            num_bytes=2000,
            num_frames=state.shapes[state.round - 1].layout.num_frames,
            streams={post.sender: post.body["sha256"] for post in posts},
        )
        return self.sealed(body, HUB, at=here)

    def denial(self, silo: str) -> Envelope:
        reasons = (ReasonCode(code="epsilon", field="privacy.target_epsilon"),)
        return self.sealed(Denial(plan_sha256=digest(self.plan), reasons=reasons), silo)

    def burn(self, state: JobState, silo: str) -> Envelope:
        return self.sealed(Burn(reason="record_lost"), silo, at=(state.round, state.attempt))

    def failed(self, state: JobState, silo: str) -> Envelope:
        return self.sealed(Failed(), silo, at=(state.round, state.attempt))

    def cancel(self, who: str) -> Envelope:
        return self.sealed(Cancel(), who)

    def ended(self, outcome: str, reason: str = "") -> Envelope:
        return self.sealed(Ended.model_validate({"outcome": outcome, "reason": reason}), HUB)

    def due(self, state: JobState) -> list[Envelope]:
        """Everything that an honest party would post now."""
        posts = []
        for silo in state.roster:
            what = duty(state, silo)
            post = self.say(state, silo, what) if what is not None else None
            if post is not None:
                posts.append(post)
        match pending(state):
            case SumStreams():
                posts.append(self.sum_of(state))
            case Close(outcome=outcome, reason=reason):
                posts.append(self.ended(outcome, reason))
            case None:
                pass
        return posts

    def until(self, state: JobState, phase: Phase, *, round: int = 0) -> JobState:
        """Go on honestly until the job comes to ``phase`` (of ``round``)."""
        while state.phase is not phase or (round and state.round != round):
            state = advance(state, self.due(state)[0])
        return state
