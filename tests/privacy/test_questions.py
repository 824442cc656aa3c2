"""One sealed question and its one sealed answer: who can open what, and that sizes say nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from privacy.agreement import EphemeralKey, KeyAgreementError
from privacy.questions import (
    ANSWER_BYTES,
    ANSWER_CONTENT_BYTES,
    QUESTION_BYTES,
    QUESTION_CONTENT_BYTES,
    Asking,
    Direction,
    Opening,
    QuestionSealError,
    no_answer,
    offered_key,
)

WAY = Direction("shop-a", "social-b")
JOB = "ab" * 16


@pytest.fixture
def key() -> EphemeralKey:
    return EphemeralKey.generate()


def asked(key: EphemeralKey, content: bytes = b"a token") -> tuple[Asking, bytes]:
    asking = Asking(WAY, key.public_bytes())
    return asking, asking.seal(content, JOB)


@pytest.mark.parametrize("content", [b"", b"a token", bytes(QUESTION_CONTENT_BYTES - 2)])
def test_both_ends_read_what_the_other_said(key: EphemeralKey, content: bytes) -> None:
    asking, sealed = asked(key, content)
    opening = Opening.of(key, WAY, sealed)
    assert (opening.content, opening.transcript) == (content, asking.transcript)
    assert asking.open(opening.answer(content[::-1], JOB)) == content[::-1]


def test_sizes_say_nothing(key: EphemeralKey) -> None:
    sizes = {len(asked(key, bytes(size))[1]) for size in (0, 1, 100, QUESTION_CONTENT_BYTES - 2)}
    assert sizes == {QUESTION_BYTES}
    opening = Opening.of(key, WAY, asked(key)[1])
    answers = {len(opening.answer(bytes(size), JOB)) for size in (0, 100, ANSWER_CONTENT_BYTES - 2)}
    assert answers == {ANSWER_BYTES} == {len(no_answer())}


def test_what_does_not_fit_is_not_cut(key: EphemeralKey) -> None:
    asking = Asking(WAY, key.public_bytes())
    with pytest.raises(QuestionSealError, match="at most 510"):
        asking.seal(bytes(QUESTION_CONTENT_BYTES - 1), JOB)
    opening = Opening.of(key, WAY, asked(key)[1])
    with pytest.raises(QuestionSealError, match="at most 1022"):
        opening.answer(bytes(ANSWER_CONTENT_BYTES - 1), JOB)


def test_every_byte_of_a_question_is_authenticated(key: EphemeralKey) -> None:
    _, sealed = asked(key)
    for place in range(0, QUESTION_BYTES, 7):
        altered = sealed[:place] + bytes([sealed[place] ^ 4]) + sealed[place + 1 :]
        with pytest.raises(QuestionSealError):
            Opening.of(key, WAY, altered)


def test_every_byte_of_an_answer_is_authenticated(key: EphemeralKey) -> None:
    asking, sealed = asked(key)
    answer = Opening.of(key, WAY, sealed).answer(b"numbers", JOB)
    for place in range(0, ANSWER_BYTES, 11):
        with pytest.raises(QuestionSealError):
            asking.open(answer[:place] + bytes([answer[place] ^ 4]) + answer[place + 1 :])


@pytest.mark.parametrize(
    "way", [replace(WAY, asker="shop-c"), replace(WAY, answerer="social-c"), Direction("social-b", "shop-a")]
)
def test_a_question_opens_for_nobody_and_from_nobody_else(key: EphemeralKey, way: Direction) -> None:
    with pytest.raises(QuestionSealError):
        Opening.of(key, way, asked(key)[1])


def test_a_question_to_another_key_does_not_open(key: EphemeralKey) -> None:
    _, sealed = asked(key)
    other = EphemeralKey.generate()
    for forged in (sealed, other.public_bytes() + sealed[32:]):
        with pytest.raises(QuestionSealError):
            Opening.of(other, WAY, forged)
    assert offered_key(sealed) == key.public_bytes()


@pytest.mark.parametrize("size", [0, 31, 64, QUESTION_BYTES - 1, QUESTION_BYTES + 1])
def test_a_question_of_another_size_does_not_open(key: EphemeralKey, size: int) -> None:
    _, sealed = asked(key)
    with pytest.raises(QuestionSealError):
        Opening.of(key, WAY, (sealed + b"!")[:size])


def test_an_answer_fits_its_own_question_and_job_only(key: EphemeralKey) -> None:
    first, sealed = asked(key)
    second, other = asked(key)
    opening = Opening.of(key, WAY, sealed)
    with pytest.raises(QuestionSealError):
        second.open(opening.answer(b"numbers", JOB))
    with pytest.raises(QuestionSealError):
        first.open(Opening.of(key, WAY, other).answer(b"numbers", JOB))
    with pytest.raises(QuestionSealError):
        first.open(opening.answer(b"numbers", "cd" * 16))
    assert first.open(opening.answer(b"numbers", JOB)) == b"numbers"


def test_a_question_is_not_its_own_answer(key: EphemeralKey) -> None:
    asking, sealed = asked(key)
    for answer in (sealed, sealed.ljust(ANSWER_BYTES, b"\0"), no_answer(), b""):
        with pytest.raises(QuestionSealError):
            asking.open(answer)


def test_two_questions_of_one_token_have_nothing_in_common(key: EphemeralKey) -> None:
    (_, one), (_, two) = asked(key), asked(key)
    assert one[:32] == two[:32]
    assert sum(a == b for a, b in zip(one[32:], two[32:], strict=True)) < 30


def test_one_key_seals_one_question(key: EphemeralKey) -> None:
    asking, _ = asked(key)
    with pytest.raises(QuestionSealError, match="one question"):
        asking.seal(b"again", JOB)


def test_a_key_of_low_order_is_not_agreed_with(key: EphemeralKey) -> None:
    with pytest.raises(KeyAgreementError):
        Asking(WAY, bytes(32))
    _, sealed = asked(key)
    with pytest.raises(QuestionSealError):
        Opening.of(key, WAY, sealed[:32] + bytes(32) + sealed[64:])
