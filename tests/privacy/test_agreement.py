from __future__ import annotations

import itertools
import os
from typing import Any

import pytest

from privacy.agreement import (
    DisagreementError,
    EphemeralKey,
    KeyAgreementError,
    Purpose,
    WrapError,
    key_fingerprint,
    length_prefixed,
    pair_key,
    received_mac,
    require_equal,
    round_digest,
    tag_key,
    unwrap,
    wrap,
)

ALICE = EphemeralKey.from_bytes(bytes(range(32)))
BOB = EphemeralKey.from_bytes(bytes(range(32, 64)))
GROUP = bytes(range(64, 96))
JOB = "cd" * 32


def agreed(private: EphemeralKey = ALICE, public: bytes | None = None, **changes: Any) -> bytes:
    place: dict[str, Any] = {
        "transcript": b"transcript",
        "purpose": Purpose.MASK,
        "round_number": 3,
        "attempt": 1,
        "a": "alice",
        "b": "bob",
    } | changes
    return pair_key(private, public or BOB.public_bytes(), **place)


def test_both_ends_agree_whatever_the_order_of_names() -> None:
    other_end = agreed(BOB, ALICE.public_bytes(), a="bob", b="alice")
    assert agreed() == other_end
    assert len(other_end) == 32


@pytest.mark.parametrize(
    "change",
    [
        {"transcript": b"transcripT"},
        {"purpose": Purpose.WRAP},
        {"purpose": Purpose.FINGERPRINT},
        {"round_number": 4},
        {"attempt": 2},
        {"b": "carol"},
        {"a": "alic", "b": "ebob"},
        {"round_number": 1, "attempt": 3},
        {"public": EphemeralKey.from_bytes(bytes(range(1, 33))).public_bytes()},
    ],
)
def test_every_part_of_the_place_changes_the_key(change: dict[str, Any]) -> None:
    assert agreed(**change) != agreed()


def test_no_two_purposes_share_a_key() -> None:
    assert len({agreed(purpose=purpose) for purpose in Purpose}) == len(Purpose)


def test_a_key_survives_the_outbox() -> None:
    key = EphemeralKey.generate()
    again = EphemeralKey.from_bytes(key.private_bytes())
    assert again.public_bytes() == key.public_bytes()
    assert EphemeralKey.generate().private_bytes() != key.private_bytes()


@pytest.mark.parametrize(
    "public",
    [
        pytest.param(bytes(32), id="the point zero"),
        pytest.param((1).to_bytes(32, "little"), id="the point one"),
        pytest.param((2**255 - 19).to_bytes(32, "little"), id="zero, not reduced"),
        pytest.param(bytes(31), id="too short"),
        pytest.param(bytes(33), id="too long"),
        pytest.param(ALICE.public_bytes(), id="reflected"),
    ],
)
def test_public_keys_without_a_secret_are_refused(public: bytes) -> None:
    with pytest.raises(KeyAgreementError):
        agreed(public=public)


def test_nobody_agrees_with_itself() -> None:
    with pytest.raises(KeyAgreementError):
        agreed(b="alice")


@pytest.mark.parametrize("number", [-1, 1 << 64])
def test_rounds_out_of_range_are_refused(number: int) -> None:
    with pytest.raises(KeyAgreementError):
        agreed(round_number=number)


def test_parts_cannot_slide_into_each_other() -> None:
    parts = [(b"ab", b"c"), (b"a", b"bc"), (b"abc",), (b"abc", b""), (b"", b"abc"), ()]
    assert len({length_prefixed(*part) for part in parts}) == len(parts)


def test_group_keys_differ_by_place_and_use() -> None:
    keys = [
        tag_key(GROUP, JOB, 1, 0),
        tag_key(GROUP, JOB, 1, 1),
        tag_key(GROUP, JOB, 2, 0),
        tag_key(GROUP, "ef" * 32, 1, 0),
        tag_key(bytes(32), JOB, 1, 0),
        round_digest(GROUP, JOB, 1, b"", b""),
    ]
    assert len(set(keys)) == len(keys)


def test_the_digest_of_a_round_binds_all_before_it() -> None:
    first = round_digest(GROUP, JOB, 1, b"", b"opened")
    digests = {
        round_digest(GROUP, JOB, 2, first, b"opened"),
        round_digest(GROUP, JOB, 2, b"", b"opened"),
        round_digest(GROUP, JOB, 2, first, b"Opened"),
        round_digest(GROUP, JOB, 3, first, b"opened"),
        round_digest(bytes(32), JOB, 2, first, b"opened"),
        first,
    }
    assert len(digests) == 6


def test_a_received_mac_cannot_be_repeated_as_ones_own() -> None:
    place = (GROUP, JOB, 1, 0)
    macs = [received_mac(*place, sender=s, sum_sha256=h) for s in ("a", "b") for h in (bytes(32), b"x" * 32)]
    assert len(set(macs)) == 4
    key = agreed(purpose=Purpose.FINGERPRINT)
    assert key_fingerprint(key, JOB, "a", b"secret") != key_fingerprint(key, JOB, "b", b"secret")


def test_a_difference_is_told_without_the_values() -> None:
    require_equal(b"x" * 32, b"x" * 32, sender="shop-b")
    for other in (b"y" * 32, b"", b"x" * 31):
        with pytest.raises(DisagreementError, match="shop-b") as refusal:
            require_equal(b"x" * 32, other, sender="shop-b")
        assert "xxx" not in str(refusal.value)


def test_wrapped_secrets_open_only_in_their_place() -> None:
    key, secret, place = os.urandom(32), os.urandom(96), b"job, leader, receiver"
    wrapped = wrap(key, secret, place)
    assert unwrap(key, wrapped, place) == secret
    assert secret not in wrapped
    assert wrap(key, secret, place) != wrapped
    altered = [
        bytes([*wrapped[:at], wrapped[at] ^ 1, *wrapped[at + 1 :]]) for at in (0, 12, len(wrapped) - 1)
    ]
    refused = itertools.chain(
        [(key, other, place) for other in (*altered, wrapped[:-1], wrapped[:5], b"")],
        [(os.urandom(32), wrapped, place), (key, wrapped, b"job, leader, other")],
    )
    for arguments in refused:
        with pytest.raises(WrapError):
            unwrap(*arguments)


@pytest.mark.parametrize("short", [b"", bytes(16), bytes(31)])
def test_short_keys_are_refused_everywhere(short: bytes) -> None:
    uses = [
        lambda: tag_key(short, JOB, 1, 0),
        lambda: round_digest(short, JOB, 1, b"", b""),
        lambda: key_fingerprint(short, JOB, "a", b""),
        lambda: wrap(short, b"", b""),
        lambda: unwrap(short, bytes(40), b""),
        lambda: EphemeralKey.from_bytes(short),
    ]
    for use in uses:
        with pytest.raises(KeyAgreementError):
            use()
