"""One sealed question of a silo to another, and the one sealed answer to it, past who only carries them.

The asker makes an ephemeral X25519 key for each question; the answerer's key is one that it offers while its
agent runs. Both keys below are HKDF-SHA256 over their shared secret (:func:`privacy.agreement.pair_key`)::

    question key    salt = names in order ‖ offered key ‖ ephemeral key
    answer key      salt = all of that ‖ the job ‖ the sealed question, byte by byte

    sealed question = offered key (32) ‖ ephemeral key (32) ‖ nonce (12) ‖ AES-256-GCM of 512 bytes (528)
    sealed answer   = nonce (12) ‖ AES-256-GCM of 1,024 bytes (1,040)

Guarantees
    * A question opens only for the silo it was sealed to, as coming from the silo it was sealed by; an answer
      opens only for who holds the ephemeral key, and only as the answer to exactly that question.
    * Every question has the same size, and so has every answer, whatever is in them.
    * Once both keys are erased, what was recorded on the way opens for nobody: the asker erases its own with
      the answer, the answerer its own when its offer is over.

Who the two are is not proved here: the caller signs offers and questions, and verifies them.

========================================  ============================================================
edge                                      what happens
========================================  ============================================================
a question or answer of another size      ``QuestionSealError``
an offered key that is over               ``QuestionSealError`` at the answerer: it holds another key
an offered key of low order               ``KeyAgreementError`` at the asker, before anything is sealed
the same question twice                   opens twice: that it is answered once is the caller's business
content that is too long to be padded     ``QuestionSealError``; nothing is sealed
========================================  ============================================================
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Self

from privacy.agreement import (
    KEY_BYTES,
    NONCE_BYTES,
    EphemeralKey,
    KeyAgreementError,
    Purpose,
    WrapError,
    length_prefixed,
    pair_key,
    unwrap,
    wrap,
)
from privacy.errors import TrustError

QUESTION_CONTENT_BYTES = 512
ANSWER_CONTENT_BYTES = 1024
_TAG_BYTES = 16
_SEAL_BYTES = NONCE_BYTES + _TAG_BYTES
QUESTION_BYTES = 2 * KEY_BYTES + _SEAL_BYTES + QUESTION_CONTENT_BYTES
ANSWER_BYTES = _SEAL_BYTES + ANSWER_CONTENT_BYTES
_LENGTH_BYTES = 2
_LABEL = b"archipel/questions/v1"


class QuestionSealError(TrustError):
    """A question or an answer was altered, exchanged or cut, or is for or from somebody else."""

    code = "question_seal"


@dataclass(frozen=True)
class Direction:
    """Who asks whom.

    Attributes:
        asker: name in the charter.
        answerer: name in the charter.
    """

    asker: str
    answerer: str

    def transcript(self, offered: bytes, ephemeral: bytes) -> bytes:
        """Canonical bytes before anything is sealed: both keys and the asker's signature bind them."""
        return length_prefixed(_LABEL, self.asker.encode(), self.answerer.encode(), offered, ephemeral)


class Asking:
    """The asker's end of one question.

    Args:
        direction: who asks whom.
        offered: the answerer's public key, 32 bytes, its signature already verified.

    Raises:
        KeyAgreementError: not a key to agree with.
    """

    def __init__(self, direction: Direction, offered: bytes) -> None:
        self._direction = direction
        self._offered = offered
        self._key = EphemeralKey.generate()
        self._key.exchange(offered)
        self._sealed = b""
        self._job = ""

    @property
    def transcript(self) -> bytes:
        """What the asker signs, with its content."""
        return self._direction.transcript(self._offered, self._key.public_bytes())

    def seal(self, content: bytes, job: str) -> bytes:
        """Return the sealed question, ``QUESTION_BYTES`` long.

        Args:
            content: at most 510 bytes.
            job: which the answer is about; bound into the answer's key, not readable in the question.

        Raises:
            QuestionSealError: the content is too long, or this key has sealed a question before.
        """
        if self._sealed:
            raise QuestionSealError("one key seals one question", remedy="make another Asking")
        key = _pair(self._key, self._offered, self._direction, self.transcript, Purpose.QUESTION)
        padded = _pad(content, QUESTION_CONTENT_BYTES)
        header = self._offered + self._key.public_bytes()
        self._sealed, self._job = header + wrap(key, padded, self.transcript), job
        return self._sealed

    def open(self, answer: bytes) -> bytes:
        """Return what the answerer said to this question.

        Raises:
            QuestionSealError: it is no answer to this question, or not by whom it was asked.
        """
        if len(answer) != ANSWER_BYTES or not self._sealed:
            raise QuestionSealError("no answer to a question that was asked", remedy=_ASK_AGAIN)
        bound = _answer_transcript(self.transcript, self._job, self._sealed)
        key = _pair(self._key, self._offered, self._direction, bound, Purpose.ANSWER)
        return _unpad(_opened(key, answer, bound, what="the answer"))


class Opening:
    """The answerer's end of one question, opened.

    Attributes:
        content: what was asked.
        transcript: what the asker signed, with its content.
    """

    def __init__(self, key: EphemeralKey, direction: Direction, sealed: bytes, content: bytes) -> None:
        self._key = key
        self._direction = direction
        self._sealed = sealed
        self.content = content

    @classmethod
    def of(cls, key: EphemeralKey, direction: Direction, sealed: bytes) -> Self:
        """Open a question.

        Args:
            key: whose public half is offered.
            direction: who asks, as the carrier says, and this silo.
            sealed: the question.

        Raises:
            QuestionSealError: another size, for another key, altered, or by another than the carrier says.
        """
        offered = sealed[:KEY_BYTES]
        if len(sealed) != QUESTION_BYTES or offered != key.public_bytes():
            raise QuestionSealError("a question to another key than this one", remedy=_ASK_AGAIN)
        made = cls(key, direction, sealed, b"")
        try:
            question_key = _pair(key, made._ephemeral, direction, made.transcript, Purpose.QUESTION)
        except KeyAgreementError as error:
            raise QuestionSealError("a question under no key", remedy=_ASK_AGAIN) from error
        wrapped = sealed[2 * KEY_BYTES :]
        made.content = _unpad(_opened(question_key, wrapped, made.transcript, what="the question"))
        return made

    @property
    def _ephemeral(self) -> bytes:
        return self._sealed[KEY_BYTES : 2 * KEY_BYTES]

    @property
    def transcript(self) -> bytes:
        """What the asker signed, with its content."""
        return self._direction.transcript(self._key.public_bytes(), self._ephemeral)

    def answer(self, content: bytes, job: str) -> bytes:
        """Return the sealed answer, ``ANSWER_BYTES`` long.

        Args:
            content: at most 1,022 bytes.
            job: which the question was about.

        Raises:
            QuestionSealError: the content is too long.
        """
        bound = _answer_transcript(self.transcript, job, self._sealed)
        key = _pair(self._key, self._ephemeral, self._direction, bound, Purpose.ANSWER)
        return wrap(key, _pad(content, ANSWER_CONTENT_BYTES), bound)


def no_answer() -> bytes:
    """Bytes that no asker opens, of an answer's size: for a question that did not open."""
    return os.urandom(ANSWER_BYTES)


def offered_key(sealed: bytes) -> bytes:
    """The key that a question was sealed to; anybody can read it."""
    return sealed[:KEY_BYTES]


_ASK_AGAIN = "ask again; if it repeats, the way to that silo is at fault"


def _answer_transcript(transcript: bytes, job: str, sealed: bytes) -> bytes:
    return length_prefixed(transcript, job.encode(), sealed)


def _pair(
    mine: EphemeralKey, theirs: bytes, direction: Direction, transcript: bytes, purpose: Purpose
) -> bytes:
    return pair_key(
        mine, theirs, transcript, purpose, round_number=0, attempt=0, a=direction.asker, b=direction.answerer
    )


def _opened(key: bytes, wrapped: bytes, associated: bytes, *, what: str) -> bytes:
    try:
        return unwrap(key, wrapped, associated)
    except WrapError as error:
        raise QuestionSealError(f"{what} does not open", remedy=_ASK_AGAIN) from error


def _pad(content: bytes, size: int) -> bytes:
    if len(content) > size - _LENGTH_BYTES:
        raise QuestionSealError(f"{len(content)} bytes where at most {size - _LENGTH_BYTES} are carried")
    return len(content).to_bytes(_LENGTH_BYTES, "big") + content.ljust(size - _LENGTH_BYTES, b"\0")


def _unpad(padded: bytes) -> bytes:
    length = int.from_bytes(padded[:_LENGTH_BYTES], "big")
    if length > len(padded) - _LENGTH_BYTES:
        raise QuestionSealError("a length beyond its content")
    return padded[_LENGTH_BYTES : _LENGTH_BYTES + length]
