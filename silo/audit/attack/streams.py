"""What the coordinator and the silos that help it read together in the recorded streams."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from federation.messages import Ephemeral, PostKind
from privacy.agreement import EphemeralKey, Purpose, pair_key
from privacy.encryption.keyholder import KeyHolder
from privacy.encryption.summation import Summation
from privacy.masking import Masks
from privacy.packing import PLAIN_MODULUS, SLOTS_PER_FRAME
from silo.audit.attack.recording import Integers, Place, Recording, RecordingError, SiloSecrets


def open_streams(frames: Iterable[bytes], holder: KeyHolder) -> Integers:
    """Slots of any frames. Honest code opens sums only, so an encryption of zero is added to each."""
    summation, zeros = Summation(), holder.encrypt(np.zeros(SLOTS_PER_FRAME, np.int64))
    return np.concatenate([holder.decrypt(summation.sum_frames([frame, zeros])) for frame in frames])


def public_key(recording: Recording, place: Place, silo: str) -> bytes:
    """A silo's signed ephemeral public key of an attempt.

    Raises:
        RecordingError: it is not among the posts.
    """
    posted = recording.state.post(PostKind.EPHEMERAL, silo, round=place.round, attempt=place.attempt)
    if posted is None:
        raise RecordingError(f"the posts hold no key of {silo}", where="coordinator/posts.json")
    return bytes.fromhex(posted.content(Ephemeral).public_key)


def mask_key(recording: Recording, mine: SiloSecrets, peer: str) -> bytes:
    """The mask key of the recorded attempt that a corrupted silo shares with a peer."""
    place = recording.place
    return pair_key(
        EphemeralKey.from_bytes(bytes.fromhex(mine.round_key)),
        public_key(recording, place, peer),
        recording.state.transcript(place.round, place.attempt),
        Purpose.MASK,
        round_number=place.round, attempt=place.attempt, a=mine.silo, b=peer,
    )  # fmt: skip


def opened(recording: Recording, victim: str, coalition: tuple[SiloSecrets, ...]) -> Integers:
    """A victim's slots, decrypted with the key that every silo holds; tag slot left out."""
    holder = KeyHolder.from_secret(bytes.fromhex(coalition[0].secret))
    return open_streams(recording.stream(recording.place, victim), holder)[:-1]


def peeled(
    recording: Recording, victim: str, slots: Integers, coalition: tuple[SiloSecrets, ...]
) -> Integers:
    """A victim's opened slots without every mask that the coalition shares with it."""
    known = {helper.silo: mask_key(recording, helper, victim) for helper in coalition}
    masks = Masks(known, victim).apply(np.zeros_like(slots))
    return (slots - masks) % PLAIN_MODULUS
