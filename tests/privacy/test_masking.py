from __future__ import annotations

import os

import numpy as np
import pytest
from scipy.stats import chisquare

from privacy.masking import Keystream, MaskError, Masks, Tag, apply_masks, keystream_mod_t, tag_of
from privacy.packing import PLAIN_MODULUS

KEYS = {"b": bytes(range(32)), "c": bytes(range(32, 64))}


def test_the_stream_is_uniform() -> None:
    stream = keystream_mod_t(bytes(32), 400_000)
    counts = np.bincount((stream // (PLAIN_MODULUS // 64 + 1)).astype(np.int64), minlength=64)
    assert chisquare(counts).pvalue > 1e-4


def test_words_at_or_above_the_modulus_are_dropped_not_reduced() -> None:
    modulus = (1 << 46) + 1
    words = keystream_words(bytes(32), 3000, bits=47)
    want = [word for word in words if word < modulus][:1000]
    assert Keystream(bytes(32), modulus).take(1000).tolist() == want
    assert len([word for word in words[:1000] if word >= modulus]) > 300


def test_the_input_is_left_as_it_was() -> None:
    slots = np.arange(100)
    masked = apply_masks(slots, KEYS, "a")
    np.testing.assert_array_equal(slots, np.arange(100))
    assert (masked != slots).all()


def test_every_slot_is_masked_in_every_frame() -> None:
    masks = Masks(KEYS, "a")
    zeros = np.zeros(4096, np.int64)
    first, second = masks.apply(zeros), masks.apply(zeros)
    assert (first != 0).all()
    assert (second != 0).all()
    assert (first != second).all()


def test_the_lower_name_adds_and_the_higher_subtracts() -> None:
    key = {"b": KEYS["b"]}
    mask = keystream_mod_t(KEYS["b"], 50)
    zeros = np.zeros(50, np.int64)
    np.testing.assert_array_equal(apply_masks(zeros, key, "a"), mask)
    np.testing.assert_array_equal(apply_masks(zeros, key, "c"), (PLAIN_MODULUS - mask) % PLAIN_MODULUS)


def test_names_sort_as_bytes_at_both_ends() -> None:
    key = os.urandom(32)
    zeros = np.zeros(50, np.int64)
    for a, b in (("shop-a", "shop-b"), ("Z", "a"), ("é", "z"), ("a", "aa")):
        total = apply_masks(zeros, {b: key}, a) + apply_masks(zeros, {a: key}, b)
        assert not (total % PLAIN_MODULUS).any(), (a, b)


@pytest.mark.parametrize(
    ("pair_keys", "reason"),
    [
        ({}, "without a peer"),
        ({"a": bytes(32)}, "own peer"),
        ({"b": bytes(32), "c": bytes(32)}, "same pair key"),
        ({"b": bytes(31)}, "32 bytes"),
    ],
)
def test_keys_that_do_not_mask_are_refused(pair_keys: dict[str, bytes], reason: str) -> None:
    with pytest.raises(MaskError, match=reason):
        Masks(pair_keys, "a")


def test_the_tag_of_a_sum_is_the_sum_of_the_tags() -> None:
    rng = np.random.default_rng(0)
    key = os.urandom(32)
    parts = [rng.integers(0, PLAIN_MODULUS, 10_000) for _ in range(5)]
    total = sum(parts) % PLAIN_MODULUS
    assert tag_of(total, key) == sum(tag_of(part, key) for part in parts) % PLAIN_MODULUS


def test_a_tag_taken_in_pieces_is_the_tag() -> None:
    slots = np.random.default_rng(0).integers(0, PLAIN_MODULUS, 10_000)
    tag = Tag(bytes(32))
    for start, stop in ((0, 0), (0, 1), (1, 5000), (5000, 10_000)):
        tag.update(slots[start:stop])
    assert tag.value() == tag_of(slots, bytes(32))


def test_any_single_change_changes_the_tag() -> None:
    slots = np.random.default_rng(0).integers(0, PLAIN_MODULUS - 1, 5000)
    before = tag_of(slots, bytes(32))
    for index in (0, 1, 4095, 4096, 4999):
        altered = slots.copy()
        altered[index] += 1
        assert tag_of(altered, bytes(32)) != before


def keystream_words(key: bytes, count: int, bits: int) -> list[int]:
    """The words by another route: AES-256 of an explicit big-endian counter, block by block."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    blocks = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    stream = b"".join(blocks.update(counter.to_bytes(16, "big")) for counter in range(count // 2))
    return [int.from_bytes(stream[at : at + 8], "little") % (1 << bits) for at in range(0, len(stream), 8)]
