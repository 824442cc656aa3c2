"""The coordinator and ``c`` silos against the rest, on the frames of a job that really ran.

They pool what they have: every stream and post, the BFV key, the group key, the colluders' own ephemeral keys
and contributions. Up to the sum of the honest rest, what they read must be uniform. Each test that finds
nothing stands beside one that shows where the same search does find something.
"""

from __future__ import annotations

import itertools
import math
import os

import numpy as np
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from numpy.typing import NDArray
from scipy.stats import chisquare

from federation.messages import Keys, PostKind
from privacy.agreement import EphemeralKey, Purpose, WrapError, pair_key, unwrap
from privacy.encryption.frames import FrameError, FrameKind
from privacy.encryption.keyholder import SECRET_BYTES, KeyHolder
from privacy.encryption.parameters import DATA_PRIME
from privacy.masking import Masks, tag_of
from privacy.packing import PLAIN_MODULUS, SLOTS_PER_FRAME
from privacy.securesum import SumRejectedError, open_sum
from tests.support.captured_job import CapturedJob
from tests.support.recorded_demo import SILOS, recorded_demo
from tests.support.uniformity import BY_CHANCE, correlation_in_stds, p_independent, p_uniform

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

Integers = NDArray[np.int64]

FIVE_STDS = 5.0
VICTIM = "shop-b"
OTHER = "shop-c"
COALITIONS = [
    pytest.param(("shop-a",), id="the-leader"),
    pytest.param(("shop-d",), id="a-member"),
    pytest.param(("shop-a", "shop-d"), id="two-silos"),
]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> CapturedJob:
    return CapturedJob(recorded_demo(tmp_path_factory))


def low_digits(job: CapturedJob, slots: Integers) -> Integers:
    """The first value of each slot, if the slots were unmasked."""
    return slots[: job.shape.layout.data_slots] % job.shape.layout.radix


def says_nothing_about(job: CapturedJob, slots: Integers, silo: str) -> None:
    """Fail when slots are not uniform, or tell something about what the silo put into them."""
    data = slots[: job.shape.layout.data_slots]
    packed = job.packed(silo)[: job.shape.layout.data_slots]
    assert p_uniform(slots) > BY_CHANCE
    assert p_independent(data, packed) > BY_CHANCE
    assert p_independent(data, low_digits(job, packed)) > BY_CHANCE
    assert abs(correlation_in_stds(data, packed)) < FIVE_STDS
    assert abs(correlation_in_stds(low_digits(job, slots), low_digits(job, packed))) < FIVE_STDS


# ── the coordinator with silos ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("colluders", COALITIONS)
def test_a_stream_opened_with_the_shared_key_is_uniform(job: CapturedJob, colluders: tuple[str, ...]) -> None:
    secret = job.silos[colluders[0]].secret
    for victim in set(SILOS) - set(colluders):
        slots = job.decrypt(job.frames(victim), secret)
        says_nothing_about(job, slots, victim)


@pytest.mark.parametrize("colluders", COALITIONS)
def test_without_the_masks_they_share_it_still_is(job: CapturedJob, colluders: tuple[str, ...]) -> None:
    for victim in set(SILOS) - set(colluders):
        says_nothing_about(job, job.peeled(victim, colluders), victim)


def test_two_victims_streams_together_say_nothing_but_their_sum(job: CapturedJob) -> None:
    """Any combination of the honest streams that is not all of them keeps a mask."""
    peeled = {name: job.peeled(name, ("shop-a",)) for name in ("shop-b", "shop-c", "shop-d")}
    for one, other in itertools.combinations(peeled, 2):
        for combined in (peeled[one] + peeled[other], peeled[one] - peeled[other]):
            says_nothing_about(job, combined % PLAIN_MODULUS, one)
            says_nothing_about(job, combined % PLAIN_MODULUS, other)


@pytest.mark.parametrize("colluders", COALITIONS)
def test_what_they_do_get_is_exactly_the_sum_of_the_rest(
    job: CapturedJob, colluders: tuple[str, ...]
) -> None:
    honest = [name for name in SILOS if name not in colluders]
    layout = job.shape.layout
    slots = sum(job.peeled(name, colluders) for name in honest) % PLAIN_MODULUS
    rest = np.stack([job.silos[name].levels for name in honest]).sum(axis=0)
    np.testing.assert_array_equal(layout.unpack(slots), rest)
    # It is what the opened aggregate gives them anyway.
    own = np.stack([job.silos[name].levels for name in colluders]).sum(axis=0)
    opened = job.aggregate("shop-a") - len(SILOS) * job.shape.offset
    np.testing.assert_array_equal(opened - own, rest)


def test_swapping_two_honest_contributions_changes_nothing_they_can_see(job: CapturedJob) -> None:
    """Both assignments explain the recorded view with masks that are uniform, and with the same sum."""
    peeled = {name: job.peeled(name, ("shop-a",)) for name in (VICTIM, OTHER)}
    packed = {name: job.packed(name)[:-1] for name in (VICTIM, OTHER)}
    implied = {}
    for world, (first, second) in {"true": (VICTIM, OTHER), "swapped": (OTHER, VICTIM)}.items():
        masks = [
            (peeled[VICTIM] - packed[first]) % PLAIN_MODULUS,
            (peeled[OTHER] - packed[second]) % PLAIN_MODULUS,
        ]
        assert all(p_uniform(mask) > BY_CHANCE for mask in masks)
        implied[world] = np.stack(masks).sum(axis=0) % PLAIN_MODULUS
    np.testing.assert_array_equal(implied["true"], implied["swapped"])
    # A distinguisher that scores how well each assignment fits the view is left without a signal.
    for seen in (VICTIM, OTHER):
        fits = [
            correlation_in_stds(low_digits(job, peeled[seen]), low_digits(job, packed[n])) for n in packed
        ]
        assert abs(fits[0] - fits[1]) < math.sqrt(2) * FIVE_STDS


def test_all_but_one_silo_see_the_last_ones_noised_share_and_no_more(job: CapturedJob) -> None:
    """The limit that is said aloud; and the proof that the other tests would see an unmasked stream."""
    rest = tuple(name for name in SILOS if name != VICTIM)
    slots = job.peeled(VICTIM, rest)
    np.testing.assert_array_equal(job.shape.layout.unpack(slots), job.silos[VICTIM].levels)
    assert p_uniform(slots) < BY_CHANCE
    noise = job.silos[VICTIM].levels + job.shape.offset - job.exact(VICTIM)
    assert noise.std() == pytest.approx(job.shape.share_std, rel=0.1)


def test_the_tag_slot_tells_nothing_the_other_slots_do_not(job: CapturedJob) -> None:
    from privacy.agreement import tag_key

    helper = job.silos["shop-a"]
    key = tag_key(helper.group_key, job.state.job_id.hex(), 1, 1)
    for victim in ("shop-b", "shop-c", "shop-d"):
        slots = job.decrypt(job.frames(victim), helper.secret)
        assert slots[-1] == tag_of(slots[:-1], key)


# ── recovering keys ─────────────────────────────────────────────────────────────────────────────────────────


def test_honest_pairs_share_keys_that_no_colluder_can_derive(job: CapturedJob) -> None:
    """Every private key of the coalition, every public key of the victims, every purpose, every two names."""
    between_honest = job.pair_key(job.silos[VICTIM], OTHER)
    assert between_honest == job.pair_key(job.silos[OTHER], VICTIM)
    privates = [
        key for name in ("shop-a", "shop-d") for key in (job.silos[name].round_key, job.silos[name].start_key)
    ]
    guesses = {
        pair_key(
            EphemeralKey.from_bytes(private), job.public_key(peer), job.state.transcript(*place), purpose,
            round_number=place[0], attempt=place[1], a=a, b=b,
        )
        for private in privates
        for peer in (VICTIM, OTHER)
        for purpose in Purpose
        for place in ((0, 0), (1, 1))
        for a, b in itertools.combinations(SILOS, 2)
    }  # fmt: skip
    assert len(guesses) == 4 * 2 * len(Purpose) * 2 * 6
    assert between_honest not in guesses
    # The search would find a key it can find: the one of a colluder and the victim.
    assert job.pair_key(job.silos["shop-a"], VICTIM) in guesses


def test_public_values_taken_for_private_ones_open_nothing(job: CapturedJob) -> None:
    between_honest = job.pair_key(job.silos[VICTIM], OTHER)
    transcript = job.state.transcript(1, 1)
    for public in (job.public_key(VICTIM), job.public_key(OTHER), transcript, job.state.job_id):
        for peer in (VICTIM, OTHER):
            if public == job.public_key(peer):
                continue
            guess = pair_key(
                EphemeralKey.from_bytes(public), job.public_key(peer), transcript, Purpose.MASK,
                round_number=1, attempt=1, a=VICTIM, b=OTHER,
            )  # fmt: skip
            assert guess != between_honest


def test_every_pair_of_silos_masks_with_a_key_of_its_own(job: CapturedJob) -> None:
    keys = {pair: job.pair_key(job.silos[pair[0]], pair[1]) for pair in itertools.combinations(SILOS, 2)}
    assert len(set(keys.values())) == 6
    assert (
        len({silo.round_key for silo in job.silos.values()} | {s.start_key for s in job.silos.values()}) == 8
    )
    slots = np.zeros(SLOTS_PER_FRAME, np.int64)
    streams = [Masks({"peer": key}, "me").apply(slots) for key in keys.values()]
    for left, right in itertools.combinations(streams, 2):
        assert abs(correlation_in_stds(left, right)) < FIVE_STDS


# ── the coordinator alone ───────────────────────────────────────────────────────────────────────────────────


def test_the_coordinator_alone_sees_uniform_coefficients(job: CapturedJob) -> None:
    for name in SILOS:
        for frame in job.frames(name):
            words = np.frombuffer(
                frame, "<u8", FrameKind.SEEDED.coefficients, offset=len(FrameKind.SEEDED.prefix)
            )
            counts = np.bincount((words.astype(np.float64) / DATA_PRIME * 64).astype(int), minlength=64)
            assert chisquare(counts).pvalue > BY_CHANCE


def test_the_coordinator_alone_opens_neither_a_stream_nor_the_sum(job: CapturedJob) -> None:
    """Keys it can make, keys from bytes that passed its hands: none shows a trace of a level."""
    posted = job.state.post(PostKind.KEYS, job.state.leader)
    assert posted is not None
    wrapped = b"".join(text.encode() for text in posted.content(Keys).wrapped.values())
    candidates = [
        os.urandom(SECRET_BYTES),
        bytes(SECRET_BYTES),
        wrapped[:SECRET_BYTES],
        job.state.job_id + job.state.transcript(1, 1),
        job.public_key(VICTIM) + job.public_key(OTHER),
    ]
    radix_bound = job.shape.layout.slot_bound
    for secret in candidates:
        holder = KeyHolder.from_secret(secret)
        opened = job.decrypt(job.frames(VICTIM), secret)
        says_nothing_about(job, opened, VICTIM)
        total = np.concatenate([holder.decrypt(frame) for frame in job.sum_frames])
        assert p_uniform(total) > BY_CHANCE
        assert total.max() > 0.99 * PLAIN_MODULUS
        with pytest.raises(SumRejectedError):
            open_sum(
                job.sum_frames,
                job.shape.layout,
                contributors=len(job.names),
                tag_key=secret[:32],
                holder=holder,
            )
    # With the key, the sum is bounded by the radix: what the coordinator would see if it had it.
    true = KeyHolder.from_secret(job.silos["shop-a"].secret)
    total = np.concatenate([true.decrypt(frame) for frame in job.sum_frames])
    assert total[: job.shape.layout.data_slots].max() < radix_bound
    assert p_uniform(total) < BY_CHANCE


def test_honest_code_does_not_open_a_single_stream_even_with_the_key(job: CapturedJob) -> None:
    holder = KeyHolder.from_secret(job.silos["shop-a"].secret)
    with pytest.raises(FrameError):
        holder.decrypt(job.frames(VICTIM)[0])


def test_the_wrapped_keys_open_for_nobody_but_their_receiver(job: CapturedJob) -> None:
    import base64

    posted = job.state.post(PostKind.KEYS, job.state.leader)
    assert posted is not None
    wrapped = {name: base64.b64decode(text) for name, text in posted.content(Keys).wrapped.items()}
    assert set(wrapped) == set(SILOS) - {job.state.leader}
    context = f"{job.state.job_id.hex()}\0{job.state.leader}\0{VICTIM}".encode()
    for key in (bytes(32), job.state.job_id, job.public_key(VICTIM), job.silos["shop-d"].round_key):
        with pytest.raises(WrapError):
            unwrap(key, wrapped[VICTIM], context)
        with pytest.raises(InvalidTag):
            AESGCM(key).decrypt(wrapped[VICTIM][:12], wrapped[VICTIM][12:], None)
    assert len(set(wrapped.values())) == 3


def test_streams_are_told_apart_by_nothing_but_their_sender(job: CapturedJob) -> None:
    """Lengths are those of the plan: a silo of 43 users sends as many bytes as one of 138."""
    sizes = {name: [len(frame) for frame in job.frames(name)] for name in SILOS}
    assert len({tuple(size) for size in sizes.values()}) == 1
    assert len(sizes[VICTIM]) == job.shape.layout.num_frames >= 2
