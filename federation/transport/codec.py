"""Bytes of the ten calls and of their errors.

Requests are small JSON, bulk is raw::

    Post        envelope                              -> {seq}
    Posts       {after, wait_seconds}                 -> (u64 seq, u32 length, envelope)*
    Info                                              -> CoordinatorInfo
    BlobStatus  {ref}                                 -> {offset}
    Upload      u32 length, {ref, offset, sha256}, chunk -> {offset}
    Download    {ref, offset, limit}                  -> bytes
    Offer       {silo}                                -> a signed key offer
    Ask         {silo, question, wait_seconds}        -> sealed answer
    Listen      {offer, wait_seconds}                 -> {questions: [{ticket, asker, question}]}
    Answer      {ticket, answer}                      -> {}

An error crosses as ``{codes, message, remedy}``: the codes of its class and its ancestors, nearest first, so
that a peer of another version still finds one it knows. ``where`` stays behind: it may be a path of the other
machine.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from federation.messages import BlobRef, Hex32, PartyName
from federation.questions import MAX_OFFER_BYTES
from federation.relay import MAX_HANDED_OUT
from federation.transport.base import MAX_CHUNK_BYTES, MAX_WAIT_SECONDS
from privacy.errors import ArchipelError, PeerError, ProtocolError
from privacy.questions import ANSWER_BYTES, QUESTION_BYTES

SERVICE_NAME = "archipel.v1.Coordinator"
_POST_HEADER = struct.Struct(">QI")
_UPLOAD_HEADER = struct.Struct(">I")
MAX_POSTS_BYTES = 4 * 1024 * 1024
MAX_ERROR_TEXT = 1500


class Method(StrEnum):
    """The calls by their names on the wire."""

    POST = "Post"
    POSTS = "Posts"
    INFO = "Info"
    BLOB_STATUS = "BlobStatus"
    UPLOAD = "Upload"
    DOWNLOAD = "Download"
    OFFER = "Offer"
    ASK = "Ask"
    LISTEN = "Listen"
    ANSWER = "Answer"


class _Part(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, ser_json_bytes="base64", val_json_bytes="base64"
    )


class PostsRequest(_Part):
    """Ask for the board above ``after``."""

    after: int = Field(ge=0)
    wait_seconds: float = Field(ge=0, le=MAX_WAIT_SECONDS)


class StatusRequest(_Part):
    """Ask how much of a blob is there."""

    ref: BlobRef


class UploadHeader(_Part):
    """Stands before a chunk."""

    ref: BlobRef
    offset: int = Field(ge=0)
    sha256: Hex32


class DownloadRequest(_Part):
    """Ask for a part of a blob."""

    ref: BlobRef
    offset: int = Field(ge=0)
    limit: int = Field(ge=1, le=MAX_CHUNK_BYTES)


class OfferRequest(_Part):
    """Ask for the key that a silo answers with."""

    silo: PartyName


class AskRequest(_Part):
    """A sealed question to a silo."""

    silo: PartyName
    question: Annotated[bytes, Field(max_length=QUESTION_BYTES)]
    wait_seconds: float = Field(ge=0, le=MAX_WAIT_SECONDS)


class ListenRequest(_Part):
    """Wait for questions under a signed key offer."""

    offer: Annotated[bytes, Field(max_length=MAX_OFFER_BYTES)]
    wait_seconds: float = Field(ge=0, le=MAX_WAIT_SECONDS)


class HandedOut(_Part):
    """A sealed question, and who asks it."""

    ticket: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    asker: PartyName
    question: Annotated[bytes, Field(max_length=QUESTION_BYTES)]


class Questions(_Part):
    """What a silo is asked."""

    questions: Annotated[tuple[HandedOut, ...], Field(max_length=MAX_HANDED_OUT)]


class AnswerRequest(_Part):
    """The sealed answer to a question."""

    ticket: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    answer: Annotated[bytes, Field(max_length=ANSWER_BYTES)]


class Nothing(_Part):
    """An answer that says nothing but that the call was carried out."""


class Posted(_Part):
    """Number of a post on the board."""

    seq: int = Field(ge=1)


class Offset(_Part):
    """Bytes of a blob that are there."""

    offset: int = Field(ge=0)


class ErrorDetail(_Part):
    """An error on its way to a peer."""

    codes: tuple[Annotated[str, Field(max_length=80)], ...] = Field(min_length=1, max_length=16)
    message: str
    remedy: str | None = None


PartT = TypeVar("PartT", bound=BaseModel)


def encode(part: BaseModel) -> bytes:
    """JSON of a request or an answer."""
    return part.model_dump_json().encode()


def decode(model: type[PartT], raw: bytes) -> PartT:
    """Parse a peer's JSON.

    Raises:
        ProtocolError: not what the call carries.
    """
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise ProtocolError(f"not a {model.__name__}: {field}: {first['msg']}") from error


def encode_posts(posts: list[tuple[int, bytes]]) -> bytes:
    """As many posts as fit one answer, at least one of them."""
    parts: list[bytes] = []
    size = 0
    for seq, envelope in posts:
        size += _POST_HEADER.size + len(envelope)
        if parts and size > MAX_POSTS_BYTES:
            break
        parts.append(_POST_HEADER.pack(seq, len(envelope)) + envelope)
    return b"".join(parts)


def decode_posts(raw: bytes) -> list[tuple[int, bytes]]:
    """The posts of an answer.

    Raises:
        ProtocolError: the answer is cut off.
    """
    return list(_posts_in(raw))


def _posts_in(raw: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position < len(raw):
        start = position + _POST_HEADER.size
        if start > len(raw):
            raise ProtocolError("a list of posts that is cut off")
        seq, length = _POST_HEADER.unpack_from(raw, position)
        position = start + length
        if position > len(raw):
            raise ProtocolError("a list of posts that is cut off")
        yield seq, raw[start:position]


def encode_upload(header: UploadHeader, chunk: bytes) -> bytes:
    """A chunk behind its header."""
    text = encode(header)
    return _UPLOAD_HEADER.pack(len(text)) + text + chunk


def decode_upload(raw: bytes) -> tuple[UploadHeader, bytes]:
    """Header and chunk.

    Raises:
        ProtocolError: no header, or a chunk larger than :data:`MAX_CHUNK_BYTES`.
    """
    if len(raw) < _UPLOAD_HEADER.size:
        raise ProtocolError("an upload without a header")
    (length,) = _UPLOAD_HEADER.unpack_from(raw)
    start = _UPLOAD_HEADER.size + length
    if start > len(raw):
        raise ProtocolError("an upload whose header is cut off")
    if len(raw) - start > MAX_CHUNK_BYTES:
        raise ProtocolError(f"a chunk of {len(raw) - start} bytes; at most {MAX_CHUNK_BYTES} are taken")
    return decode(UploadHeader, raw[_UPLOAD_HEADER.size : start]), raw[start:]


def encode_error(error: ArchipelError) -> str:
    """What a peer is told about ``error``."""
    lineage = (cls for cls in type(error).__mro__ if issubclass(cls, ArchipelError))
    codes = tuple(dict.fromkeys(cls.code for cls in lineage))[:16]
    remedy = error.remedy[:MAX_ERROR_TEXT] if error.remedy else None
    return ErrorDetail(codes=codes, message=error.message[:MAX_ERROR_TEXT], remedy=remedy).model_dump_json()


def decode_error(text: str, *, where: str) -> ArchipelError | None:
    """Our error for a peer's detail, None when ``text`` is not one.

    The class is the nearest one this process knows; control characters never reach a terminal.
    """
    try:
        detail = ErrorDetail.model_validate_json(text)
    except ValidationError:
        return None
    known = _plain_error_classes()
    cls = next((known[code] for code in detail.codes if code in known), PeerError)
    remedy = _printable(detail.remedy) if detail.remedy else None
    return cls(_printable(detail.message), where=where, remedy=remedy)


def _plain_error_classes() -> dict[str, type[ArchipelError]]:
    """Classes by code that are made of message, where and remedy alone, parents before children.

    Never a silo's own: what an agent concludes from its records is not for a coordinator to say.
    """
    found: dict[str, type[ArchipelError]] = {}
    queue: list[type[ArchipelError]] = [ArchipelError]
    for cls in queue:
        if cls.__init__ is ArchipelError.__init__ and not cls.__module__.startswith("silo."):
            found.setdefault(cls.code, cls)
        queue.extend(cls.__subclasses__())
    return found


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text[:MAX_ERROR_TEXT])
