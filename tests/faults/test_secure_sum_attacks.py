"""Attacks on the secure sum by a coordinator, by a silo, and by both together.

Who plays: the *coordinator* holds frames and no key; a *colluding silo* adds the BFV key, the group key
and its own pair keys. What the two read together must be uniform up to the sum of the honest rest.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tenseal
from scipy.stats import chisquare
from tenseal import sealapi

import privacy.encryption
from privacy.agreement import DisagreementError, received_mac, require_equal
from privacy.encryption.contexts import seal_context
from privacy.encryption.frames import (
    FULL_FRAME_BYTES,
    SEEDED_FRAME_BYTES,
    FrameError,
    FrameKind,
    check_frame,
    from_protobuf,
    to_protobuf,
)
from privacy.encryption.keyholder import KeyHolder
from privacy.encryption.parameters import DATA_PRIME
from privacy.encryption.summation import Summation
from privacy.masking import MaskError, Masks, keystream_mod_t, tag_coefficients, tag_of
from privacy.packing import PLAIN_MODULUS, SLOTS_PER_FRAME, Integers, Layout
from privacy.securesum import SumRejectedError, open_sum
from tests.contracts.secure_roster import JOB_ID, Roster, add_streams

COEFFICIENTS_AT = 123
FOUR_BYTES = b"\x0a\x02\x80\x20"
DELTA = DATA_PRIME // PLAIN_MODULUS

Sum = tuple[Roster, Layout, dict[str, Integers], dict[str, list[bytes]], list[bytes]]


@pytest.fixture(scope="module")
def honest() -> Sum:
    """Three silos, an exact sum, two frames."""
    roster, layout = Roster(3), Layout.with_values_per_slot(3, 2, 9001)
    levels = roster.levels(layout)
    streams = roster.streams(layout, levels)
    return roster, layout, levels, streams, add_streams(*streams.values())


def decrypt_slots(holder: KeyHolder, frames: list[bytes]) -> Integers:
    """What a holder of the BFV key reads from any frames, one silo's included (honest code refuses those)."""
    zeros = np.zeros(SLOTS_PER_FRAME, np.int64)
    summation = Summation()
    return np.concatenate(
        [holder.decrypt(summation.sum_frames([frame, holder.encrypt(zeros)])) for frame in frames]
    )


def plus_plaintext(frame: bytes, slots: list[int]) -> bytes:
    """Add a plaintext to a full frame without any key, as a malicious coordinator can."""
    vector = tenseal._ts_cpp.BFVVector(Summation()._context.data, to_protobuf(frame))
    vector.add_plain_(slots)
    return from_protobuf(bytes(vector.serialize()))


def p_uniform(slots: Integers, bins: int = 64) -> float:
    counts = np.bincount((slots.astype(np.float64) / PLAIN_MODULUS * bins).astype(int), minlength=bins)
    return float(chisquare(counts).pvalue)


# ── 1. bytes made to crash or to empty the sum ──────


def test_the_four_byte_protobuf_does_crash_a_summation_that_takes_protobufs(
    honest: Sum, tmp_path: Path
) -> None:
    # The reason for bare frames; if this ever stops crashing, the checks below must stay all the same.
    message = tmp_path / "vector"
    message.write_bytes(to_protobuf(honest[3]["a"][0]))
    code = (
        "from tenseal import _ts_cpp as c;"
        "from privacy.encryption.contexts import keyless_context_bytes as b, load_own_context as l;"
        f"k = l(b()); v = c.BFVVector(k.data, open({str(message)!r}, 'rb').read());"
        f"v.add_(c.BFVVector(k.data, {FOUR_BYTES!r}))"
    )
    crashed = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert crashed.returncode == -signal.SIGSEGV


@pytest.mark.parametrize("position", [0, 1, 2])
def test_the_four_byte_protobuf_neither_crashes_nor_empties_the_sum(honest: Sum, position: int) -> None:
    frames = [stream[0] for stream in honest[3].values()]
    frames[position] = FOUR_BYTES
    with pytest.raises(FrameError, match="4 bytes"):
        Summation().sum_frames(frames)


def test_a_tenseal_protobuf_on_the_wire_is_refused(honest: Sum) -> None:
    frames = [stream[0] for stream in honest[3].values()]
    for message in (to_protobuf(frames[0]), to_protobuf(frames[0])[: len(frames[0])]):
        with pytest.raises(FrameError):
            Summation().sum_frames([frames[1], message])


def test_random_bytes_of_the_right_length_are_refused() -> None:
    for length in (SEEDED_FRAME_BYTES, FULL_FRAME_BYTES):
        with pytest.raises(FrameError):
            check_frame(os.urandom(length))


def test_a_valid_header_around_random_coefficients_never_crashes(honest: Sum) -> None:
    frame = honest[3]["a"][0]
    rng = np.random.default_rng(0)
    for kind in FrameKind:
        words = rng.integers(0, DATA_PRIME, kind.coefficients, dtype=np.uint64).astype("<u8").tobytes()
        seed = kind.seed_header + bytes(64) if kind.seed_header else b""
        summed = Summation().sum_frames([frame, kind.prefix + words + seed])
        assert check_frame(summed) is FrameKind.FULL


def test_no_context_is_ever_read_from_a_peers_bytes() -> None:
    folder = Path(privacy.encryption.__file__).parent
    repository = folder.parents[1]
    users = [
        path.relative_to(repository).as_posix()
        for package in ("privacy", "policies", "federation", "silo")
        for path in sorted((repository / package).rglob("*.py"))
        if "context_from(" in path.read_text("utf-8")
    ]
    assert users == ["privacy/encryption/contexts.py"]


# ── 2. weak or foreign parameters ──────


def test_one_bit_more_of_modulus_is_refused_by_tenseal() -> None:
    with pytest.raises(ValueError, match="not set correctly"):
        tenseal.context(
            tenseal.SCHEME_TYPE.BFV,
            poly_modulus_degree=4096,
            plain_modulus=PLAIN_MODULUS,
            coeff_mod_bit_sizes=[60, 50],
            encryption_type=tenseal.ENCRYPTION_TYPE.SYMMETRIC,
        )


def test_the_seal_context_refuses_weak_parameters_because_it_never_uses_level_none() -> None:
    weak = sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.BFV)
    weak.set_poly_modulus_degree(4096)
    weak.set_coeff_modulus(sealapi.CoeffModulus.Create(4096, [60, 50]))
    weak.set_plain_modulus(PLAIN_MODULUS)
    assert not seal_context(weak).parameters_set()
    assert sealapi.SEALContext(weak, True, sealapi.SEC_LEVEL_TYPE.NONE).parameters_set()
    folder = Path(privacy.encryption.__file__).parent
    assert not [path for path in folder.glob("*.py") if "SEC_LEVEL_TYPE.NONE" in path.read_text("utf-8")]


@pytest.mark.parametrize(
    ("bits", "plain_modulus"), [((60, 49), 1_032_193), ((59, 49), PLAIN_MODULUS)], ids=["t", "prime"]
)
def test_a_frame_of_other_parameters_is_refused(
    bits: tuple[int, int], plain_modulus: int, tmp_path: Path
) -> None:
    other = sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.BFV)
    other.set_poly_modulus_degree(4096)
    other.set_coeff_modulus(sealapi.CoeffModulus.Create(4096, list(bits)))
    other.set_plain_modulus(plain_modulus)
    context = seal_context(other)
    encryptor = sealapi.Encryptor(context, sealapi.KeyGenerator(context).secret_key())
    plaintext = sealapi.Plaintext()
    sealapi.BatchEncoder(context).encode([1] * 4096, plaintext)
    path = tmp_path / "frame"
    encryptor.encrypt_symmetric(plaintext).save(str(path))
    with pytest.raises(FrameError):
        check_frame(path.read_bytes())


def test_a_frame_of_another_version_is_refused(honest: Sum) -> None:
    frame = bytearray(honest[3]["a"][0])
    frame[3] -= 1  # SEAL's major version
    with pytest.raises(FrameError, match="another version"):
        check_frame(bytes(frame))


# ── 4. ciphertexts are malleable ──────


def test_an_offset_added_by_the_keyless_coordinator_passes_the_range_check_and_fails_the_tag(
    honest: Sum,
) -> None:
    roster, layout, levels, _, summed = honest
    forged = [plus_plaintext(summed[0], [1] + [0] * 4095), *summed[1:]]
    slots = decrypt_slots(roster.holder, forged)
    assert int(slots[: layout.data_slots].max()) < layout.slot_bound
    shifted = sum(levels.values())
    shifted[0] += 1
    np.testing.assert_array_equal(layout.unpack(slots), shifted)
    with pytest.raises(SumRejectedError):
        roster.open(forged, layout)


def test_the_untouched_sum_opens_so_the_refusals_here_mean_something(honest: Sum) -> None:
    roster, layout, levels, _, summed = honest
    np.testing.assert_array_equal(roster.open(summed, layout), sum(levels.values()))


@pytest.mark.parametrize("slot", [0, 4095])
@pytest.mark.parametrize("frame", [0, 1])
def test_any_touched_slot_is_refused_the_tag_itself_included(honest: Sum, frame: int, slot: int) -> None:
    roster, layout, _, _, summed = honest
    offset = [0] * 4096
    offset[slot] = -1
    forged = list(summed)
    forged[frame] = plus_plaintext(summed[frame], offset)
    with pytest.raises(SumRejectedError):
        roster.open(forged, layout)


def test_a_touched_padding_slot_is_refused(honest: Sum) -> None:
    roster, layout, _, _, summed = honest
    offset = [0] * 4096
    offset[layout.data_slots - 4096 + 1] = 1
    with pytest.raises(SumRejectedError):
        roster.open([summed[0], plus_plaintext(summed[1], offset)], layout)


def test_a_missing_doubled_or_replayed_silo_is_refused(honest: Sum) -> None:
    roster, layout, levels, streams, _ = honest
    a, b, c = streams.values()
    other_attempt = roster.streams(layout, levels, attempt=1)
    for roster_sum in ((a, b), (a, b, c, c), (a, b, b), (a, b, other_attempt["c"])):
        with pytest.raises(SumRejectedError):
            roster.open(add_streams(*roster_sum), layout)


def test_the_sum_of_one_attempt_does_not_open_in_another(honest: Sum) -> None:
    roster, layout, _, _, summed = honest
    with pytest.raises(SumRejectedError):
        roster.open(summed, layout, attempt=1)


def test_swapped_frames_are_refused(honest: Sum) -> None:
    roster, layout, _, _, summed = honest
    with pytest.raises(SumRejectedError):
        roster.open(summed[::-1], layout)


def test_a_colluding_silo_can_forge_the_tag_and_recomputing_the_sum_catches_it(honest: Sum) -> None:
    roster, layout, _, streams, summed = honest
    coefficient = int(tag_coefficients(roster.tag_key(), 1)[0])
    head = [1] + [0] * 4095
    tail = [0] * 4095 + [coefficient if coefficient <= PLAIN_MODULUS // 2 else coefficient - PLAIN_MODULUS]
    forged = [plus_plaintext(summed[0], head), plus_plaintext(summed[1], tail)]
    roster.open(forged, layout)  # the tag alone cannot help here, as the docstring says
    assert add_streams(*streams.values()) == summed
    assert add_streams(*streams.values()) != forged


def test_two_silos_that_received_different_sums_notice_before_they_open(honest: Sum) -> None:
    roster = honest[0]
    theirs = received_mac(roster.group_key, JOB_ID, 1, 0, sender="b", sum_sha256=b"x" * 32)
    mine = received_mac(roster.group_key, JOB_ID, 1, 0, sender="b", sum_sha256=b"y" * 32)
    with pytest.raises(DisagreementError):
        require_equal(mine, theirs, sender="b")


def test_a_transparent_frame_that_shows_its_plaintext_is_refused(honest: Sum) -> None:
    frame = honest[4][0]
    second = COEFFICIENTS_AT + 8 * SLOTS_PER_FRAME
    with pytest.raises(FrameError, match="transparent"):
        Summation().sum_frames([frame, frame[:second] + bytes(8 * SLOTS_PER_FRAME)])
    nothing = frame[:COEFFICIENTS_AT] + bytes(len(frame) - COEFFICIENTS_AT)
    with pytest.raises(FrameError, match="transparent"):
        Summation().sum_frames([frame, nothing])


def test_a_frame_made_to_cancel_another_is_refused(honest: Sum) -> None:
    frame = honest[4][0]
    words = np.frombuffer(frame, "<u8", offset=COEFFICIENTS_AT)
    negated = np.where(words == 0, 0, DATA_PRIME - words).astype("<u8").tobytes()
    with pytest.raises(FrameError, match="transparent"):
        Summation().sum_frames([frame, frame[:COEFFICIENTS_AT] + negated])


# ── 4, 5. what the tag and the masks hide ──────


def test_the_coordinator_and_a_silo_with_the_key_see_uniform_slots() -> None:
    roster, layout = Roster(3), Layout.with_values_per_slot(3, 2, 2 * 8 * SLOTS_PER_FRAME - 2)
    levels = dict.fromkeys(roster.names, np.zeros(layout.values, np.int64))
    keys = roster.pair_keys()
    stream = roster.streams(layout, levels, keys=keys)["a"]
    seen = decrypt_slots(roster.holder, stream)
    known = {"a": keys["c"]["a"]}  # the colluder c removes the mask it shares with a
    without_c = (seen[:-1] - keystream_mod_t(known["a"], len(seen) - 1)) % PLAIN_MODULUS
    assert p_uniform(seen[:-1]) > 1e-4
    assert p_uniform(without_c) > 1e-4
    assert (without_c[1:] != without_c[:-1]).all()


def test_all_but_one_silo_pooled_with_the_coordinator_see_its_contribution_so_this_is_the_limit() -> None:
    # The masks protect up to the sum of the honest rest; with one honest silo that is its contribution.
    roster, layout = Roster(3), Layout.with_values_per_slot(3, 2, 5000)
    levels = roster.levels(layout)
    keys = roster.pair_keys()
    seen = decrypt_slots(roster.holder, roster.streams(layout, levels, keys=keys)["a"])[:-1]
    for colluder in ("b", "c"):
        seen = (seen - keystream_mod_t(keys[colluder]["a"], len(seen))) % PLAIN_MODULUS
    np.testing.assert_array_equal(layout.unpack(seen), levels["a"])


def test_colluders_learn_the_sum_of_the_honest_rest_and_nothing_that_tells_them_apart() -> None:
    roster, layout = Roster(4), Layout.with_values_per_slot(4, 2, 5000)
    levels = roster.levels(layout)
    keys = roster.pair_keys()
    streams = roster.streams(layout, levels, keys=keys)
    honest_rest = ("b", "c", "d")
    views = {}
    for me in honest_rest:
        slots = decrypt_slots(roster.holder, streams[me])[:-1]
        mask = keystream_mod_t(keys["a"][me], len(slots))
        views[me] = (slots + mask if me > "a" else slots - mask) % PLAIN_MODULUS
    total = sum(views.values()) % PLAIN_MODULUS
    np.testing.assert_array_equal(layout.unpack(total), sum(levels[me] for me in honest_rest))
    for some in (*[(me,) for me in honest_rest], ("b", "c"), ("c", "d"), ("b", "d")):
        view = sum(views[me] for me in some) % PLAIN_MODULUS
        assert p_uniform(view[: layout.data_slots]) > 1e-4
        assert (view >= layout.slot_bound).sum() + (view[layout.data_slots :] != 0).sum() > 0


def test_padding_is_masked_too() -> None:
    roster, layout = Roster(2), Layout.with_values_per_slot(2, 2, 1)
    streams = roster.streams(layout, roster.levels(layout))
    for stream in streams.values():
        slots = decrypt_slots(roster.holder, stream)
        assert (slots[layout.data_slots : -1] != 0).all()
        assert p_uniform(slots[:-1], bins=16) > 1e-4


def test_a_tag_over_unmasked_slots_would_leak_and_this_one_does_not() -> None:
    roster, layout = Roster(2), Layout.with_values_per_slot(2, 2, 1)
    guesses = {"low": np.array([0]), "high": np.array([layout.max_level])}
    for truth in guesses.values():
        levels = {"a": truth, "b": np.array([0])}
        stream = roster.streams(layout, levels)["a"]
        seen = int(decrypt_slots(roster.holder, stream)[-1])
        unmasked = {
            name: tag_of(layout.pack(guess)[:-1], roster.tag_key()) for name, guess in guesses.items()
        }
        assert seen not in unmasked.values()


def test_the_tag_says_nothing_the_masked_slots_do_not_say(honest: Sum) -> None:
    roster, _, _, streams, _ = honest
    for stream in streams.values():
        slots = decrypt_slots(roster.holder, stream)
        assert int(slots[-1]) == tag_of(slots[:-1], roster.tag_key())


def test_everybodys_masks_sum_to_zero_and_no_part_of_the_roster_does() -> None:
    roster = Roster(5)
    keys = roster.pair_keys()
    zeros = np.zeros(5000, np.int64)
    masks = {me: Masks(keys[me], me).apply(zeros) for me in roster.names}
    assert not (sum(masks.values()) % PLAIN_MODULUS).any()
    for size in range(1, 5):
        for part in itertools.combinations(roster.names, size):
            partial = sum(masks[me] for me in part) % PLAIN_MODULUS
            assert (partial != 0).mean() > 0.99


def test_masks_are_fresh_in_every_attempt() -> None:
    roster = Roster(2)
    zeros = np.zeros(5000, np.int64)
    first, second = (Masks(roster.pair_keys(attempt)["a"], "a").apply(zeros) for attempt in (0, 1))
    assert (first != second).mean() > 0.99
    assert p_uniform((first - second) % PLAIN_MODULUS) > 1e-4


def test_a_reused_mask_shows_the_difference_of_two_contributions() -> None:
    """The two-time pad, so that an auditor can tell one: differences of slots are far from uniform."""
    roster, layout = Roster(2), Layout.with_values_per_slot(2, 2, 8000)
    keys = roster.pair_keys()
    first, second = (roster.levels(layout, seed) for seed in (1, 2))
    views = [
        decrypt_slots(roster.holder, roster.streams(layout, levels, keys=keys)["a"])[: layout.data_slots]
        for levels in (first, second)
    ]
    difference = (views[0] - views[1]) % PLAIN_MODULUS
    np.testing.assert_array_equal(
        difference, (layout.pack(first["a"]) - layout.pack(second["a"]))[: layout.data_slots] % PLAIN_MODULUS
    )
    assert p_uniform(difference) < 1e-12


def test_a_peer_listed_twice_under_one_key_is_refused_because_the_masks_would_cancel() -> None:
    key = os.urandom(32)
    with pytest.raises(MaskError, match="cancel"):
        Masks({"a": key, "c": key}, "b")


def test_masks_differ_in_47_bits_not_in_a_32_bit_seed() -> None:
    keys = [bytes([1]) + bytes(31), bytes(31) + bytes([1]), bytes(4) + bytes([1]) + bytes(27), bytes(32)]
    streams = [keystream_mod_t(key, 1000) for key in keys]
    for one, other in itertools.combinations(streams, 2):
        assert (one != other).all()
    bits = np.unpackbits(streams[0].astype("<u8").view(np.uint8), bitorder="little").reshape(-1, 64)[:, :47]
    assert (abs(bits.mean(axis=0) - 0.5) < 0.1).all()


# ── one silo over the head-room, and the oracle ──────


def test_one_silo_over_the_head_room_does_not_open_as_if_it_were_right() -> None:
    roster, layout = Roster(5), Layout.with_values_per_slot(4, 2, 9001)
    slots = layout.pack(np.full(layout.values, layout.max_level)) * 5
    assert int(slots.max()) >= layout.slot_bound
    frames = []
    tag = tag_of(slots[:-1] % PLAIN_MODULUS, roster.tag_key())
    slots[-1] = tag
    zeros = roster.holder.encrypt(np.zeros(4096, np.int64))
    for start in range(0, layout.total_slots, 4096):
        part = slots[start : start + 4096] % PLAIN_MODULUS
        frames.append(Summation().sum_frames([roster.holder.encrypt(part), zeros]))
    with pytest.raises(SumRejectedError):
        roster.open(frames, layout, contributors=4)


def test_a_padding_slot_with_a_matching_tag_is_refused(honest: Sum) -> None:
    roster, layout, _, _, summed = honest
    slots = decrypt_slots(roster.holder, summed)
    slots[layout.data_slots] = 1
    slots[-1] = tag_of(slots[:-1], roster.tag_key())
    zeros = roster.holder.encrypt(np.zeros(4096, np.int64))
    frames = [
        Summation().sum_frames([roster.holder.encrypt(slots[at : at + 4096]), zeros])
        for at in range(0, len(slots), 4096)
    ]
    with pytest.raises(SumRejectedError):
        roster.open(frames, layout)


def test_a_refusal_never_says_which_check_failed(honest: Sum) -> None:
    roster, layout, _, _, summed = honest
    stranger = KeyHolder.generate()
    said = set()
    attempts = [
        (summed[:-1], roster.tag_key(), roster.holder),
        ([plus_plaintext(summed[0], [1] * 4096), summed[1]], roster.tag_key(), roster.holder),
        (summed, os.urandom(32), roster.holder),
        (summed, roster.tag_key(), stranger),
        ([b"", b""], roster.tag_key(), roster.holder),
    ]
    for frames, tag_key, holder in attempts:
        with pytest.raises(SumRejectedError) as refusal:
            open_sum(frames, layout, contributors=roster.size, tag_key=tag_key, holder=holder)
        error = refusal.value
        said.add((str(error), error.where, error.remedy, error.code))
    assert len(said) == 1


def test_the_size_of_a_frame_says_nothing_about_its_slots(honest: Sum) -> None:
    holder = honest[0].holder
    slots = (np.zeros(4096, np.int64), np.full(4096, PLAIN_MODULUS - 1), np.arange(4096))
    assert {len(holder.encrypt(values)) for values in slots} == {SEEDED_FRAME_BYTES}
