"""What every duty needs: the silo's own things, the job's folded state, the way to the coordinator."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from federation.messages import Body, Envelope, Ephemeral, PostKind
from federation.rounds import JobState
from federation.steps import Step, durable
from federation.transport.base import Connection
from policies.decisions.decision import Authorization
from policies.plans.price import RoundShape
from privacy.agreement import EphemeralKey, Purpose, pair_key
from privacy.errors import ProtocolError
from silo.release import announce
from silo.site import JobRecordLostError, Site
from silo.worker import Worker

START_KEY = "start-key"
JOB_SECRETS = "job-secrets"
GROUP_KEY_BYTES = 32


@dataclass(frozen=True)
class JobContext:
    """One job as one silo sees it now."""

    site: Site
    connection: Connection
    worker: Worker
    state: JobState

    @property
    def job(self) -> str:
        """The job's public handle."""
        return self.state.job

    @property
    def me(self) -> str:
        """This silo's name."""
        return self.site.name

    @property
    def job_id(self) -> str:
        """The transcript identity, hex; bound into keys and digests."""
        return self.state.job_id.hex()

    @property
    def at(self) -> tuple[int, int]:
        """The current (round, attempt)."""
        return self.state.round, self.state.attempt

    @property
    def contributors(self) -> tuple[str, ...]:
        """The silos of the current (round, attempt), in roster order."""
        return self.state.contributors_of(*self.at)

    @property
    def shape(self) -> RoundShape:
        """The current round's shape."""
        return self.state.shapes[self.state.round - 1]

    @property
    def directory(self) -> Path:
        """``jobs/<job>``."""
        path = self.site.directory / "jobs" / self.job
        path.mkdir(parents=True, exist_ok=True)
        return path

    @cached_property
    def authorization(self) -> Authorization:
        """What this silo's policy said when it accepted the job.

        Raises:
            JobRecordLostError: this silo has no record of having accepted.
        """
        return self.site.authorization_for(self.job, self.state.plan)

    def said(self, kind: PostKind, *, in_round: bool = False) -> Envelope | None:
        """What this silo already stored for that place."""
        round_, attempt = self.at if in_round else (0, 0)
        return self.site.outbox.post(self.job, kind, round_, attempt)

    def say(self, body: Body, step: Step, *, in_round: bool = False) -> Envelope:
        """Build a free post and make it durable; the caller sends it."""
        round_, attempt = self.at if in_round else (0, 0)
        envelope = announce(
            body, self.authorization, job=self.job, sender=self.me, identity=self.site.party.identity,
            round=round_, attempt=attempt,
        )  # fmt: skip
        with durable(step):
            self.site.outbox.store_post(envelope)
        return envelope

    def secrets(self) -> tuple[bytes, bytes]:
        """(BFV secret key, group key) of this job.

        Raises:
            JobRecordLostError: they are not in the outbox.
        """
        stored = self.site.outbox.secret(self.job, JOB_SECRETS)
        if stored is None:
            raise JobRecordLostError("this silo has lost the job's keys")
        return stored[:-GROUP_KEY_BYTES], stored[-GROUP_KEY_BYTES:]

    def ephemeral_body(self, key: EphemeralKey, nonce: bytes) -> Ephemeral:
        """A signed-to-be ephemeral key of this silo for the current place, and the silos it is for."""
        return Ephemeral(
            public_key=key.public_bytes().hex(),
            nonce=nonce.hex(),
            plan_sha256=self.state.plan_sha256,
            roster=self.contributors,
            policy_version=self.authorization.policy_version,
            expires=self.authorization.policy_expires,
        )

    def pair_keys(self, private: bytes, purpose: Purpose, *, in_round: bool = False) -> dict[str, bytes]:
        """Keys shared with each other silo of the place, from its signed ephemerals.

        Raises:
            ProtocolError: an ephemeral is missing.
        """
        round_, attempt = self.at if in_round else (0, 0)
        posts = self.state.roster_posts(PostKind.EPHEMERAL, round=round_, attempt=attempt)
        if len(posts) != len(self.state.contributors_of(round_, attempt)):
            raise ProtocolError("not every silo has posted its ephemeral key")
        mine = EphemeralKey.from_bytes(private)
        transcript = self.state.transcript(round_, attempt)
        return {
            post.sender: pair_key(
                mine, bytes.fromhex(post.content(Ephemeral).public_key), transcript, purpose,
                round_number=round_, attempt=attempt, a=self.me, b=post.sender,
            )
            for post in posts
            if post.sender != self.me
        }  # fmt: skip
