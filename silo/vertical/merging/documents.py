"""What a person carries between silos and to their device: a ticket, and a part of each silo.

The ticket is public, and names a job, a label silo and a device, nobody else. The parts are sealed to the
device; what they say is signed by the silo that made it, so who carries one can neither read nor alter it.

::

    part file           kind (a line of text) ‖ HPKE of canonical JSON, sealed as that kind
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Annotated, ClassVar, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from federation.messages import Hex32, PartyName
from federation.questions import CLOCKS_APART
from policies.canonical import canonical_bytes, signed_bytes
from policies.signing import PrivateKey, PublicKey, SignatureError
from privacy.devices import DeviceAddress, DeviceKey
from privacy.errors import DataError, TrustError
from privacy.merging import MaskedModel, UnmaskingFeatures, Words

MAX_TICKET_BYTES = 4096
MAX_PART_BYTES = 1 << 28
MAX_LIFETIME = timedelta(hours=1)


class MergePartError(DataError):
    """A file that is no ticket or no part."""

    code = "merge_part"


class MergeTrustError(TrustError):
    """A ticket or a part that is not signed by whose it claims to be, is over, or is for somebody else."""

    code = "merge_trust"


class _Signed(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64", strict=True
    )
    kind: ClassVar[str]

    signature: Annotated[str, Field(max_length=100)] = ""

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Read one; its signature is not checked here.

        Raises:
            MergePartError: it is none.
        """
        try:
            return cls.model_validate_json(raw)
        except ValidationError as error:
            raise MergePartError(
                f"this is no {cls.kind.replace('-', ' ')}", remedy="pass on the file as the silo made it"
            ) from error

    def to_bytes(self) -> bytes:
        """Canonical bytes."""
        return canonical_bytes(self.model_dump(mode="json"))

    def signed_by(self, identity: PrivateKey) -> Self:
        """The same, signed."""
        return self.model_copy(update={"signature": identity.sign(self._signed_part())})

    def verify(self, silo: str, identity: PublicKey) -> None:
        """Accept that ``silo`` made this.

        Raises:
            MergeTrustError: it did not.
        """
        try:
            identity.verify(self._signed_part(), self.signature)
        except SignatureError as error:
            what = self.kind.replace("-", " ")
            raise MergeTrustError(f"this {what} is not signed by {silo}", remedy=_START_AGAIN) from error

    def _signed_part(self) -> bytes:
        return signed_bytes(self.kind, self.model_dump(mode="json", exclude={"signature"}))


class MergeTicket(_Signed):
    """A label silo has given a part to a device; each partner may give one to the same device.

    Attributes:
        job: whose model.
        label: the label silo.
        device: to which parts are sealed.
        nonce: fresh.
        expires: Unix time in seconds.
    """

    kind: ClassVar[str] = "merge-ticket"

    job: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    label: PartyName
    device: Annotated[str, Field(max_length=100)]
    nonce: Hex32
    expires: Annotated[int, Field(ge=0, lt=1 << 40)]

    @property
    def digest(self) -> bytes:
        """SHA-256 of all of it: masks are drawn for exactly this ticket."""
        return hashlib.sha256(self.to_bytes()).digest()

    @property
    def ends(self) -> datetime:
        """When no part is given for it any more."""
        return datetime.fromtimestamp(self.expires, UTC)

    def require_current(self, now: datetime) -> None:
        """Accept that it holds now.

        Raises:
            MergeTrustError: it is over, or lasts longer than any ticket does.
        """
        if not now - CLOCKS_APART < self.ends <= now + MAX_LIFETIME + CLOCKS_APART:
            raise MergeTrustError(
                f"this ticket of {self.label} is over, or lasts too long", remedy=_START_AGAIN
            )


class MaskedTerm(BaseModel):
    """One partner's term of a person's scores, masked; see :class:`privacy.merging.MaskedModel`."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64", strict=True
    )

    loadings: bytes
    offset: bytes
    exponent: Annotated[int, Field(ge=-1100, le=1100)]

    @classmethod
    def of(cls, model: MaskedModel) -> Self:
        """Write words as bytes, little-endian."""
        return cls(
            loadings=_bytes_of(model.loadings), offset=_bytes_of(model.offset), exponent=model.exponent
        )

    def model(self, num_items: int) -> MaskedModel:
        """Read it back.

        Raises:
            MergePartError: not whole rows of ``num_items`` items.
        """
        loadings, offset = _words_in(self.loadings), _words_in(self.offset)
        if offset.size != num_items or loadings.size % max(num_items, 1):
            raise MergePartError("a part whose tables do not fit", remedy=_START_AGAIN)
        return MaskedModel(loadings.reshape(num_items, -1), offset, self.exponent)


class LabelPart(_Signed):
    """What a label silo gives one of its people.

    Attributes:
        ticket: the one that goes with it.
        item_ids: of what is ranked.
        titles: of the same.
        seen: places in ``item_ids`` that the person has already.
        own: scores of the label silo's own half, float64, little-endian.
        partners: each feature silo's term.
    """

    kind: ClassVar[str] = "merge-label-part"

    ticket: MergeTicket
    item_ids: list[str]
    titles: list[str]
    seen: list[Annotated[int, Field(ge=0)]]
    own: bytes
    partners: dict[PartyName, MaskedTerm]

    def own_scores(self) -> npt.NDArray[np.float64]:
        """(items,) float64.

        Raises:
            MergePartError: sizes that do not belong together.
        """
        num_items = len(self.item_ids)
        if len(self.own) != 8 * num_items or len(self.titles) != num_items or any(
            place >= num_items for place in self.seen
        ):  # fmt: skip
            raise MergePartError("a part whose tables do not fit", remedy=_START_AGAIN)
        return np.frombuffer(self.own, dtype="<f8").astype(np.float64)


class FeaturePart(_Signed):
    """What a feature silo gives one of its people, for one ticket.

    Attributes:
        silo: which.
        ticket_sha256: of the ticket, hex.
        features: the person's numbers, int64, little-endian, in fixed point.
        unmasking: what takes the masks off the scores; words, little-endian.
    """

    kind: ClassVar[str] = "merge-feature-part"

    silo: PartyName
    ticket_sha256: Hex32
    features: bytes
    unmasking: bytes

    @classmethod
    def of(cls, silo: str, ticket: MergeTicket, given: UnmaskingFeatures) -> Self:
        """Write words as bytes."""
        return cls(
            silo=silo,
            ticket_sha256=ticket.digest.hex(),
            features=_bytes_of(given.features.view(np.uint64)),
            unmasking=_bytes_of(given.unmasking),
        )

    @property
    def content(self) -> UnmaskingFeatures:
        """The numbers in it."""
        return UnmaskingFeatures(_words_in(self.features).view(np.int64), _words_in(self.unmasking))


def seal_part(part: LabelPart | FeaturePart, device: DeviceAddress) -> bytes:
    """Bytes of a part's file."""
    header = _header_of(type(part))
    return header + device.seal(part.to_bytes(), header)


def open_part(raw: bytes, key: DeviceKey) -> LabelPart | FeaturePart:
    """Read a part's file on the person's device; signatures are not checked here.

    Raises:
        MergePartError: no part.
        DeviceSealError: for another device, or altered.
    """
    for kind in (LabelPart, FeaturePart):
        header = _header_of(kind)
        if raw.startswith(header):
            return kind.parse(key.open(raw[len(header) :], header))
    raise MergePartError("this is no part of a list", remedy="name the files that the silos gave you")


_START_AGAIN = "begin again at the silo that makes the list: `archipel merge start`"


def _header_of(kind: type[LabelPart | FeaturePart]) -> bytes:
    return f"archipel-{kind.kind}/v1\n".encode()


def _bytes_of(words: Words) -> bytes:
    return words.astype("<u8").tobytes()


def _words_in(raw: bytes) -> Words:
    if len(raw) % 8:
        raise MergePartError("a part whose tables are cut", remedy=_START_AGAIN)
    return np.frombuffer(raw, dtype="<u8").astype(np.uint64)
