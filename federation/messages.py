"""The closed vocabulary of what crosses between organisations.

A job is a bulletin board of signed posts. A post is an :class:`Envelope`: who says what at which place
(kind, job, round, attempt), with one Ed25519 signature of the sender's charter identity over all of it.
Each place holds one post: the same bytes again change nothing, other bytes are an equivocation. Bulk bytes
(catalogue, streams, sums) travel beside the board; a signed post names their size and SHA-256 first.

Nothing here is a row, a secret or code. Unknown fields and kinds are refused.
"""

from __future__ import annotations

import hashlib
from datetime import date
from enum import StrEnum
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from policies.canonical import canonical_bytes, signed_bytes
from policies.plans.plan import Plan
from policies.sections import MAX_SILOS
from policies.signing import PrivateKey, PublicKey, SignatureError
from privacy.errors import ProtocolError, TrustError

MAX_POST_BYTES = 256 * 1024
MAX_REASON_CHARS = 2000

Hex32 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
ProposalId = Annotated[str, Field(pattern=r"^([0-9a-f]{32})?$")]
PartyName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
Utc = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$")]


class PostKind(StrEnum):
    """What a post says; its body's model is ``BODIES[kind]``."""

    PROPOSAL = "proposal"
    ACCEPTANCE = "acceptance"
    DENIAL = "denial"
    EPHEMERAL = "ephemeral"
    KEYS = "keys"
    FINGERPRINT = "fingerprint"
    STREAM = "stream"
    SUM = "sum"
    RECEIVED = "received"
    OPENED = "opened"
    FAILED = "failed"
    BURN = "burn"
    CANCEL = "cancel"
    ABSENCE = "absence"
    RETURN = "return"
    REPAIRED = "repaired"
    PAUSE = "pause"
    RESUME = "resume"
    HEAD = "head"
    RECEIPTS = "receipts"
    RELAYED = "relayed"
    MATCHED = "matched"
    APPROVAL = "approval"
    ENDED = "ended"


class Body(BaseModel):
    """Base of all bodies: frozen, closed."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Proposal(Body):
    """A plan put to its silos, unchanged from here on."""

    plan: dict[str, Any]
    catalogue_bytes: int = Field(ge=1)
    submitted_at: Utc
    nonce: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class Acceptance(Body):
    """A silo takes part in exactly this plan, under exactly this policy."""

    plan_sha256: Hex32
    policy_sha256: Hex32
    policy_version: int = Field(ge=1)


class ReasonCode(Body):
    """One reason of a refusal: its code and the plan's field, never a value of the silo's."""

    code: str = Field(max_length=80)
    field: str = Field(max_length=120)


class Denial(Body):
    """A silo does not take part."""

    plan_sha256: Hex32
    reasons: tuple[ReasonCode, ...] = Field(min_length=1, max_length=64)


class Ephemeral(Body):
    """A fresh X25519 key and nonce for one (round, attempt); round 0 is the job's start.

    Attributes:
        roster: whose contributions the sum is to hold: all silos at the start, then the attempt's
            contributors. Each signs it, so silos that were shown different absences never share a mask.
    """

    public_key: Hex32
    nonce: Hex32
    plan_sha256: Hex32
    roster: tuple[PartyName, ...]
    policy_version: int = Field(ge=1)
    expires: date


class Keys(Body):
    """The leader's wrapped job secret, base64, one for each other silo."""

    wrapped: dict[PartyName, Annotated[str, Field(max_length=200_000)]]


class Fingerprint(Body):
    """MACs of the job secret's fingerprint, one under each pair key, hex."""

    macs: dict[PartyName, Hex32]


class Stream(Body):
    """Manifest of a contribution's frames, durable before the first one leaves."""

    sha256: Hex32
    num_bytes: int = Field(ge=1)
    num_frames: int = Field(ge=1)


class Sum(Stream):
    """Manifest of the sum, with the streams that went into it."""

    streams: dict[PartyName, Hex32]


class Received(Body):
    """Keyed hash of the sum that a silo received, posted before anybody opens."""

    mac: Hex32


class Opened(Body):
    """Keyed digest of the opened integers."""

    digest: Hex32


class Failed(Body):
    """The sum was not accepted. Nothing is told about why."""


class Burn(Body):
    """A silo cannot finish this attempt; its charge stays spent."""

    reason: Literal["record_lost", "administrator"]


class Cancel(Body):
    """Somebody who may stops the job."""


class Absence(Body):
    """The coordinator has waited long enough for these silos; the others go on without them."""

    silos: tuple[PartyName, ...] = Field(min_length=1, max_length=MAX_SILOS)


class Return(Body):
    """An absent silo has caught up and takes part again, from the next attempt or round on."""


class Repaired(Body):
    """A silo that opened other integers than all others opened them again, now alike."""

    digest: Hex32


class Pause(Body):
    """No further round begins until somebody resumes the job."""


class Resume(Body):
    """Rounds go on."""


class LedgerHead(Body):
    """Where a silo's ledger stands at the end of a job."""

    seq: int = Field(ge=1)
    hash: Hex32


class Receipt(Body):
    """One member's countersignature of another's ledger head."""

    silo: PartyName
    seq: int = Field(ge=1)
    hash: Hex32
    signature: str = Field(max_length=200)


class Receipts(Body):
    """Countersignatures of all other members' heads."""

    receipts: tuple[Receipt, ...]


class Relayed(Body):
    """All announced bytes of a leg are here; its readers may fetch them.

    Attributes:
        streams: SHA-256 of each sender's, as signed by it.
    """

    streams: dict[PartyName, Hex32]


class SlotFile(Body):
    """Manifest of the slots of one silo's list."""

    sha256: Hex32
    num_bytes: int = Field(ge=1)


class Matched(Body):
    """The coordinator has found enough people in common; durable before anybody sees it.

    Attributes:
        streams: SHA-256 of each blinded list that it matched.
        spine_slots: slots of the spine.
        slots: manifest of each silo's slot file.
    """

    streams: dict[PartyName, Hex32]
    spine_slots: int = Field(ge=1)
    slots: dict[PartyName, SlotFile]


class Approval(Body):
    """Whether a silo takes its slots, now that enough people are in common; none has them before all say yes.

    Attributes:
        approved: by its policy, or by somebody of its own people; a no ends the job.
    """

    approved: bool


class Ended(Body):
    """The coordinator closes the job."""

    outcome: Literal["completed", "denied", "cancelled", "failed", "expired"]
    reason: str = Field(max_length=MAX_REASON_CHARS)


BODIES: dict[PostKind, type[Body]] = {
    PostKind.PROPOSAL: Proposal,
    PostKind.ACCEPTANCE: Acceptance,
    PostKind.DENIAL: Denial,
    PostKind.EPHEMERAL: Ephemeral,
    PostKind.KEYS: Keys,
    PostKind.FINGERPRINT: Fingerprint,
    PostKind.STREAM: Stream,
    PostKind.SUM: Sum,
    PostKind.RECEIVED: Received,
    PostKind.OPENED: Opened,
    PostKind.FAILED: Failed,
    PostKind.BURN: Burn,
    PostKind.CANCEL: Cancel,
    PostKind.ABSENCE: Absence,
    PostKind.RETURN: Return,
    PostKind.REPAIRED: Repaired,
    PostKind.PAUSE: Pause,
    PostKind.RESUME: Resume,
    PostKind.HEAD: LedgerHead,
    PostKind.RECEIPTS: Receipts,
    PostKind.RELAYED: Relayed,
    PostKind.MATCHED: Matched,
    PostKind.APPROVAL: Approval,
    PostKind.ENDED: Ended,
}

BodyT = TypeVar("BodyT", bound=Body)


class Place(NamedTuple):
    """Where in a job a post stands; each place holds one post."""

    kind: PostKind
    round: int
    attempt: int
    sender: str


class Envelope(BaseModel):
    """One signed post."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: PostKind
    job: ProposalId
    round: int = Field(ge=0)
    attempt: int = Field(ge=0)
    sender: PartyName
    body: dict[str, Any]
    signature: str = Field(max_length=200)

    @property
    def place(self) -> Place:
        """Where in its job this post stands."""
        return Place(self.kind, self.round, self.attempt, self.sender)

    def content(self, model: type[BodyT]) -> BodyT:
        """The body as ``model``; the caller names the model that ``BODIES`` has for the kind.

        Raises:
            ProtocolError: it is not one.
        """
        try:
            return model.model_validate(self.body)
        except ValidationError as error:
            raise ProtocolError(f"a {self.kind} whose body is not one") from error

    def to_bytes(self) -> bytes:
        """Canonical bytes: what is stored, sent and compared."""
        return canonical_bytes(self.model_dump(mode="json"))

    def signed_part(self) -> bytes:
        """What the signature covers."""
        return _signed_part(self.kind, self.job, self.round, self.attempt, self.sender, self.body)


def _signed_part(
    kind: PostKind, job: str, round_: int, attempt: int, sender: str, body: dict[str, Any]
) -> bytes:
    payload = {
        "kind": kind.value, "job": job, "round": round_, "attempt": attempt, "sender": sender, "body": body,
    }  # fmt: skip
    return signed_bytes("post", payload)


def seal(
    body: Body,
    *,
    job: str,
    sender: str,
    identity: PrivateKey,
    round: int = 0,
    attempt: int = 0,
) -> Envelope:
    """Sign ``body`` as ``sender``'s post at (round, attempt) of ``job``."""
    kind = next(kind for kind, model in BODIES.items() if model is type(body))
    payload = body.model_dump(mode="json")
    signature = identity.sign(_signed_part(kind, job, round, attempt, sender, payload))
    return Envelope(
        kind=kind, job=job, round=round, attempt=attempt, sender=sender, body=payload, signature=signature
    )


def parse_envelope(raw: bytes) -> Envelope:
    """Parse a peer's bytes; the signature is not checked here.

    Raises:
        ProtocolError: too large, not JSON, unknown kind or field, or not in canonical form.
    """
    if len(raw) > MAX_POST_BYTES:
        raise ProtocolError(f"a post of {len(raw)} bytes; at most {MAX_POST_BYTES} are read")
    try:
        envelope = Envelope.model_validate_json(raw)
        BODIES[envelope.kind].model_validate(envelope.body)
    except ValidationError as error:
        detail = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3])
        raise ProtocolError(f"a post that is not in the vocabulary ({detail})") from error
    if envelope.to_bytes() != raw:
        raise ProtocolError("a post that is not in canonical form")
    return envelope


def verify_envelope(envelope: Envelope, key: PublicKey) -> Envelope:
    """Check the sender's signature.

    Raises:
        TrustError: the signature does not fit the post and the key.
    """
    try:
        key.verify(envelope.signed_part(), envelope.signature)
    except SignatureError as error:
        raise TrustError(
            f"the {envelope.kind} in the name of {envelope.sender} is not signed by its charter identity",
            remedy="the post was altered or forged; nothing was changed",
        ) from error
    return envelope


def proposal_id(envelope: Envelope) -> str:
    """Public handle of a job: SHA-256 of its signed proposal, 32 hex digits."""
    return hashlib.sha256(envelope.to_bytes()).hexdigest()[:32]


def plan_of(proposal: Envelope) -> Plan:
    """The plan that a proposal puts forward.

    Raises:
        ProtocolError: the plan does not validate.
    """
    try:
        return Plan.model_validate(proposal.content(Proposal).plan)
    except ValidationError as error:
        raise ProtocolError(f"the proposed plan is not valid: {error.errors()[0]['msg']}") from error


class BlobKind(StrEnum):
    """Bulk bytes beside the board."""

    CATALOGUE = "catalogue"
    STREAM = "stream"
    SUM = "sum"
    SLOTS = "slots"


class BlobRef(BaseModel):
    """Names bulk bytes; size and SHA-256 come from the signed post that announced them.

    Slots, which the coordinator makes, stand by the silo that they are for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    job: ProposalId
    kind: BlobKind
    round: int = Field(ge=0, default=0)
    attempt: int = Field(ge=0, default=0)
    sender: PartyName
