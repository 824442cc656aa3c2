"""Every field that may leave a silo or be logged, with its price or the reason it has none.

What stands nowhere here does not leave: :mod:`silo.release` looks it up and refuses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from federation.legs.legs import LegPurpose
from federation.messages import (
    Acceptance,
    Approval,
    Body,
    Burn,
    Cancel,
    Denial,
    Ephemeral,
    Failed,
    Fingerprint,
    Keys,
    LedgerHead,
    Opened,
    Pause,
    Receipts,
    Received,
    Repaired,
    Resume,
    Return,
    Stream,
)
from federation.questions import FeatureAnswer, KeyOffer, Question
from silo.vertical.merging.documents import FeaturePart, LabelPart, MergeTicket


@dataclass(frozen=True)
class Free:
    """A field without a price, and why it has none."""

    reason: str


@dataclass(frozen=True)
class Priced:
    """A field that the ledger pays for."""

    by: str


@dataclass(frozen=True)
class Consented:
    """A field that no account pays for: the person whose data it is has allowed it, once."""

    by: str


Declaration = Free | Priced
Said = KeyOffer | Question | FeatureAnswer | MergeTicket | LabelPart | FeaturePart

_PUBLIC = Free("from the signed plan or policy alone")
_KEY = Free("fresh randomness of this job")
_KEYED_BY_IDENTITY = Free("a signature over the other fields")
_KEYED = Free("a keyed hash of what its readers hold; uniform to everybody else")

OUTBOUND: Mapping[type[Body], Mapping[str, Declaration]] = {
    Acceptance: {"plan_sha256": _PUBLIC, "policy_sha256": _PUBLIC, "policy_version": _PUBLIC},
    Denial: {
        "plan_sha256": _PUBLIC,
        "reasons": Free("codes and field names; a budget refusal says that it is one, never what is left"),
    },
    Ephemeral: {
        "public_key": _KEY,
        "nonce": _KEY,
        "plan_sha256": _PUBLIC,
        "roster": _PUBLIC,
        "policy_version": _PUBLIC,
        "expires": _PUBLIC,
    },
    Keys: {"wrapped": Free("fresh keys, sealed to each silo")},
    Fingerprint: {"macs": _KEYED},
    Stream: {
        "sha256": Priced("the contribution's own event: the frames are masked, noised and encrypted"),
        "num_bytes": Free("follows from the plan up to the randomness of the ciphertext"),
        "num_frames": _PUBLIC,
    },
    Received: {"mac": _KEYED},
    Opened: {"digest": _KEYED},
    Failed: {},
    Burn: {"reason": Free("one of two constants")},
    Cancel: {},
    Approval: {"approved": Free("a yes or no of this silo's policy or people; it rests on no row")},
    # Said by whoever may stop a job; a person says it, and it carries nothing.
    Pause: {},
    Resume: {},
    Return: {},
    Repaired: {"digest": _KEYED},
    LedgerHead: {
        "seq": Free("number of ledger entries: one per durable step of a job, never per row"),
        "hash": Free("a hash over signed entries"),
    },
    Receipts: {"receipts": Free("countersignatures of what others posted")},
}

LEGS: Mapping[LegPurpose, Declaration] = {
    LegPurpose.HOP: Priced("in leg 1 the noised numbers of its people and in common; later another's list"),
    LegPurpose.BLINDED: Free("people of another silo, blinded by all: a further encryption of what it sent"),
    LegPurpose.KEY: Free("fresh randomness of this job"),
    LegPurpose.BLOCK: Free("encrypted under this silo's own key, which never leaves it"),
    LegPurpose.MOMENTS: Priced("the noised moments: a fresh encryption of noise is added to each ciphertext"),
    LegPurpose.FEATURES: Priced("noised numbers of every slot, of an encoder whose training was paid before"),
}
"""What a silo sends in the legs of a vertical job. Slots come from the coordinator, so no silo sends any."""

SERVING: Mapping[type[Said], Mapping[str, Declaration | Consented]] = {
    KeyOffer: {
        "silo": _PUBLIC,
        "public_key": Free("fresh randomness of this run of the agent"),
        "expires": Free("a fixed time from when the key was made"),
        "signature": _KEYED_BY_IDENTITY,
    },
    Question: {
        "job": _PUBLIC,
        "token": Free("a random word of the silo that is asked; it names nobody to anybody else"),
        "signature": _KEYED_BY_IDENTITY,
    },
    FeatureAnswer: {"features": Consented("the person's own token, single use, for this silo and purpose")},
    MergeTicket: {
        "job": _PUBLIC,
        "label": _PUBLIC,
        "device": Free("a key that the person's device made"),
        "nonce": Free("fresh randomness of this ticket"),
        "expires": Free("a fixed time from now, of the policy"),
        "signature": _KEYED_BY_IDENTITY,
    },
    LabelPart: {
        "ticket": Free("what the person may show to anybody"),
        "item_ids": Free("items of the catalogue that the model ranks, as any long list shows them"),
        "titles": _PUBLIC,
        "seen": Consented("the person, whose own rows these are"),
        "own": Consented("the person: the scores of the list that they are shown here"),
        "partners": Free("uniform words to who lacks the masks; merged, the person's scores alone"),
        "signature": _KEYED_BY_IDENTITY,
    },
    FeaturePart: {
        "silo": _PUBLIC,
        "ticket_sha256": _PUBLIC,
        "features": Consented("the person, who takes their own numbers to their own device"),
        "unmasking": Free("with the label silo's part the person's scores, without it uniform words"),
        "signature": _KEYED_BY_IDENTITY,
    },
}
"""What leaves about one person: sealed to a silo, past the coordinator, or sealed to the person's device."""

LOG_FIELDS: frozenset[str] = frozenset(
    # structlog's own
    {"event", "level", "timestamp", "logger", "exc_info"}
    # names, codes, places: public to the members
    | {"job", "silo", "kind", "round", "attempt", "phase", "duty", "code", "outcome", "purpose", "step"}
    # what an operator needs and what depends on no row
    | {"what", "where", "remedy", "host", "port", "seconds_to_retry", "version", "attempts", "policy_version"}
    | {"charter_version"}
)
