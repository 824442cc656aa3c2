"""A roster that says whatever a job asks for next, signed, without doing the work behind it."""

from __future__ import annotations

import base64
import functools
import hashlib
import os
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from federation.messages import (
    Absence,
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
    Pause,
    PostKind,
    Proposal,
    ReasonCode,
    Receipt,
    Receipts,
    Received,
    Repaired,
    Resume,
    Return,
    Stream,
    Sum,
    seal,
)
from federation.rounds import Close, Duty, JobState, Phase, SumStreams, advance, duty, pending, propose
from policies.canonical import digest
from policies.plans.drafting import Draft, complete_plan
from policies.plans.plan import Plan
from policies.signing import PrivateKey

HUB = "hub"
NAMES = ("a", "b", "c")
FOUR = ("a", "b", "c", "d")
FIVE = (*FOUR, "e")
ROUND_MINUTES = 10.0
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
            **_draft(silos, max_burned_rounds, max_failed_opens, metrics),
            **(linear if rounds > 1 else {"family": "popularity"}),
        )
    )


@functools.cache
def patient_plan(
    silos: tuple[str, ...] = FOUR,
    *,
    min_silos: int = 3,
    colluding_silos: int = 1,
    max_burned_rounds: int = 3,
    rounds: int = 3,
    popularity: bool = False,
    metrics: bool = False,
) -> Plan:
    """A training whose rounds go on without silos that let them wait for ten minutes."""
    return complete_plan(
        Draft(
            **_draft(silos, max_burned_rounds, 2, metrics),
            family="autoencoder",
            features=2,
            hidden=2,
            rounds=rounds,
            expected_batch_size=10.0,
            bias_epsilon=0.5 if popularity else 0.0,
            min_silos=min_silos,
            round_minutes=ROUND_MINUTES,
            colluding_silos=colluding_silos,
        )
    )


def _draft(silos: tuple[str, ...], max_burned: int, max_failed: int, metrics: bool) -> dict[str, Any]:
    return {
        "silos": silos,
        "catalogue_sha256": HEX,
        "catalogue_items": 20,
        "target_epsilon": 4.0,
        "target_delta": 1e-6,
        "max_users_per_silo": 64,
        "max_silos_per_user": 1,
        "max_interactions_per_user": 20,
        "max_burned_rounds": max_burned,
        "max_failed_opens": max_failed,
        "holdout": "random" if metrics else "none",
        "metrics_epsilon": 0.5 if metrics else None,
    }


@dataclass
class Scene:
    """One job among parties whose keys the scene holds."""

    plan: Plan
    keys: dict[str, PrivateKey] = field(default_factory=dict)

    def __post_init__(self) -> None:
        made = {name: PrivateKey.generate() for name in (*self.plan.silos, HUB, "stranger")}
        self.keys = made | self.keys
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
        body = self._body_in_round(state, silo, due)
        if body is not None:
            return self.sealed(body, silo, at=(state.round, state.attempt))
        body = self._body_of_job(state, silo, due)
        return None if body is None else self.sealed(body, silo)

    def _body_of_job(self, state: JobState, silo: str, due: Duty) -> Body | None:
        others = [name for name in state.roster if name != silo]
        match due:
            case Duty.ANSWER:
                return Acceptance(plan_sha256=digest(self.plan), policy_sha256=HEX, policy_version=3)
            case Duty.START:
                return self.ephemeral()
            case Duty.WRAP:
                return Keys(wrapped=dict.fromkeys(others, base64.b64encode(b"secret").decode()))
            case Duty.FINGERPRINT:
                return Fingerprint(macs=dict.fromkeys(others, HEX))
            case Duty.HEAD:
                return self.head(silo)
            case Duty.RECEIPTS:
                return self.receipts(state, silo)
            case _:
                return None

    def _body_in_round(self, state: JobState, silo: str, due: Duty) -> Body | None:
        match due:
            case Duty.CONTRIBUTE:
                return self.ephemeral(state.contributors)
            case Duty.PROTECT:
                return self.stream(state)
            case Duty.RECEIVE:
                return Received(mac=HEX)
            case Duty.OPEN:
                return Opened(digest=HEX)
            case Duty.REPAIR:
                digests = state.opened_digests(state.round, state.attempt)
                return Repaired(digest=next(value for name, value in digests.items() if name != silo))
            case Duty.RETURN:
                return Return()
            case _:
                return None

    def ephemeral(self, roster: tuple[str, ...] = ()) -> Ephemeral:
        return Ephemeral(
            public_key=os.urandom(32).hex(),
            nonce=os.urandom(32).hex(),
            plan_sha256=digest(self.plan),
            roster=roster or self.plan.silos,
            policy_version=3,
            expires=date(2099, 1, 1),
        )

    def stream(self, state: JobState) -> Stream:
        num_frames = state.shapes[state.round - 1].layout.num_frames
        return Stream(sha256=os.urandom(32).hex(), num_bytes=1000, num_frames=num_frames)

    def head(self, silo: str) -> LedgerHead:
        return LedgerHead(seq=7, hash=hashlib.sha256(silo.encode()).hexdigest())

    def receipt_of(self, silo: str) -> Receipt:
        head = self.head(silo)
        return Receipt(silo=silo, seq=head.seq, hash=head.hash, signature="s")

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

    def absence(self, state: JobState, *silos: str) -> Envelope:
        return self.sealed(Absence(silos=silos), HUB, at=state.absence_place)

    def back(self, state: JobState, silo: str) -> Envelope:
        return self.sealed(Return(), silo, at=(state.round, state.attempt))

    def opened(self, state: JobState, silo: str, digest: str = HEX) -> Envelope:
        return self.sealed(Opened(digest=digest), silo, at=(state.round, state.attempt))

    def pause(self, state: JobState, who: str) -> Envelope:
        return self.sealed(Pause(), who, at=state.pause_place)

    def resume(self, state: JobState, who: str) -> Envelope:
        return self.sealed(Resume(), who, at=state.pause_place)

    def cancel(self, who: str) -> Envelope:
        return self.sealed(Cancel(), who)

    def ended(self, outcome: str, reason: str = "") -> Envelope:
        return self.sealed(Ended.model_validate({"outcome": outcome, "reason": reason}), HUB)

    def due(self, state: JobState, *, without: tuple[str, ...] = ()) -> list[Envelope]:
        """Everything that an honest party would post now, ``without`` those that are away."""
        posts = []
        for silo in (silo for silo in state.roster if silo not in without):
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

    def until(
        self,
        state: JobState,
        phase: Phase,
        *,
        round: int = 0,
        attempt: int = 0,
        without: tuple[str, ...] = (),
    ) -> JobState:
        """Go on honestly until the job comes to ``phase`` (of ``round``, of ``attempt``)."""
        while state.phase is not phase or state.round < round or state.attempt < attempt:
            state = advance(state, self.due(state, without=without)[0])
        return state
