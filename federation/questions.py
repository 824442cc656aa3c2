"""What silos say to each other about one person in session: an offered key, a question, an answer.

The coordinator carries them and can read the offer alone. A :class:`KeyOffer` is public and signed by the
silo that answers. A :class:`Question` travels sealed (:mod:`privacy.questions`), signed by the silo that
asks; a :class:`FeatureAnswer` needs no signature, because only who opened the question can seal it.

::

    Answer content      is it given (1) ‖ number of values (2) ‖ float64, little-endian, each

A refusal has no reason: whatever is wrong, whoever asks reads the same.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from federation.messages import Hex32, PartyName
from policies.canonical import canonical_bytes, signed_bytes
from policies.signing import PrivateKey, PublicKey, SignatureError
from privacy.errors import PeerError, ProtocolError, TrustError, UsageError

MAX_FEATURES = 64
MAX_TOKEN_CHARS = 128
MAX_OFFER_BYTES = 1024
CLOCKS_APART = timedelta(minutes=5)
"""By how much the clocks of two silos may differ."""
_ANSWER_HEADER = struct.Struct(">?H")


class OfferError(TrustError):
    """A key offered in a silo's name that is not signed by it, is another's, or is over."""

    code: ClassVar[str] = "offer"


class QuestionError(TrustError):
    """A question that opened and is not one: not in the vocabulary, or not signed by who asks."""

    code: ClassVar[str] = "question"


class NotAnsweringError(PeerError):
    """A silo's agent answers no questions at the moment."""

    code: ClassVar[str] = "not_answering"


class NoAnswerError(PeerError):
    """A silo was asked and said nothing in time."""

    code: ClassVar[str] = "no_answer"


class _Signed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    signature: Annotated[str, Field(max_length=100)] = ""

    def _payload(self) -> dict[str, object]:
        return self.model_dump(mode="json", exclude={"signature"})


class KeyOffer(_Signed):
    """The key that a silo's agent opens questions with, until it expires.

    Attributes:
        silo: who answers.
        public_key: X25519, 32 bytes, hex.
        expires: Unix time in seconds.
    """

    silo: PartyName
    public_key: Hex32
    expires: Annotated[int, Field(ge=0, lt=1 << 40)]

    @classmethod
    def issue(cls, silo: str, public_key: bytes, expires: datetime, identity: PrivateKey) -> Self:
        """Sign an offer."""
        made = cls(silo=silo, public_key=public_key.hex(), expires=int(expires.timestamp()))
        return made.model_copy(update={"signature": identity.sign(made._signed_part())})

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Read an offer; its signature is not checked here.

        Raises:
            ProtocolError: it is none.
        """
        if len(raw) > MAX_OFFER_BYTES:
            raise ProtocolError(f"an offer of {len(raw)} bytes; at most {MAX_OFFER_BYTES} are read")
        try:
            return cls.model_validate_json(raw)
        except ValidationError as error:
            raise ProtocolError("an offered key that is not in the vocabulary") from error

    def to_bytes(self) -> bytes:
        """Canonical bytes."""
        return canonical_bytes(self.model_dump(mode="json"))

    def verify(self, silo: str, identity: PublicKey, now: datetime) -> bytes:
        """Return the public key, if ``silo`` offers it now.

        Raises:
            OfferError: another silo's, not signed by it, or over.
        """
        remedy = "ask again; if it repeats, distrust the coordinator"
        if self.silo != silo:
            raise OfferError(f"a key of {self.silo} where {silo}'s was asked for", remedy=remedy)
        try:
            identity.verify(self._signed_part(), self.signature)
        except SignatureError as error:
            raise OfferError(f"the key offered as {silo}'s is not signed by it", remedy=remedy) from error
        if now > datetime.fromtimestamp(self.expires, UTC) + CLOCKS_APART:
            raise OfferError(
                f"the key that {silo} offered is over", remedy="compare the clocks of both machines"
            )
        return bytes.fromhex(self.public_key)

    def _signed_part(self) -> bytes:
        return signed_bytes("key-offer", self._payload())


class Question(_Signed):
    """A silo asks for the numbers of the person who brought it a token.

    Attributes:
        job: whose model they are for.
        token: as the person brought it.
    """

    job: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    token: Annotated[str, Field(min_length=1, max_length=MAX_TOKEN_CHARS)]

    @classmethod
    def ask(cls, job: str, token: str, *, transcript: bytes, identity: PrivateKey) -> Self:
        """Sign a question of exactly one exchange.

        Args:
            job: its full id.
            token: as the person brought it.
            transcript: who asks whom under which keys (:class:`privacy.questions.Direction`).
            identity: of the asker.

        Raises:
            UsageError: no token has that form.
        """
        try:
            made = cls(job=job, token=token)
        except ValidationError as error:
            raise UsageError(
                "that is no consent token",
                where="--consent",
                remedy="pass on what the person brought, unchanged",
            ) from error
        return made.model_copy(update={"signature": identity.sign(made._signed_part(transcript))})

    @classmethod
    def read(cls, raw: bytes, *, transcript: bytes, asker: PublicKey) -> Self:
        """Read an opened question.

        Raises:
            QuestionError: not in the vocabulary, or not signed by the asker for this exchange.
        """
        try:
            found = cls.model_validate_json(raw)
            asker.verify(found._signed_part(transcript), found.signature)
        except (ValidationError, SignatureError) as error:
            raise QuestionError("a question that is not signed by who asks it") from error
        return found

    def to_bytes(self) -> bytes:
        """Canonical bytes."""
        return canonical_bytes(self.model_dump(mode="json"))

    def _signed_part(self, transcript: bytes) -> bytes:
        return signed_bytes("question", self._payload() | {"transcript": transcript.hex()})


@dataclass(frozen=True)
class FeatureAnswer:
    """What is answered.

    Attributes:
        features: one number a dimension; None where nothing is given, and no reason.
    """

    features: tuple[float, ...] | None

    def to_bytes(self) -> bytes:
        """Bytes of one size for each number of features; padded when sealed."""
        values = self.features or ()
        if len(values) > MAX_FEATURES or not all(map(math.isfinite, values)):
            raise UsageError(f"{len(values)} features; at most {MAX_FEATURES} finite ones are answered")
        return _ANSWER_HEADER.pack(self.features is not None, len(values)) + struct.pack(
            f"<{len(values)}d", *values
        )

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Read an answer.

        Raises:
            ProtocolError: it is none.
        """
        try:
            is_given, count = _ANSWER_HEADER.unpack_from(raw)
            values = struct.unpack(f"<{count}d", raw[_ANSWER_HEADER.size :])
        except struct.error as error:
            raise ProtocolError("an answer that is cut off") from error
        if count > MAX_FEATURES or not all(map(math.isfinite, values)) or (values and not is_given):
            raise ProtocolError("an answer that is not in the vocabulary")
        return cls(tuple(values) if is_given else None)
