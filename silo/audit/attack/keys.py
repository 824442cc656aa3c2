"""Recovering keys: from known plaintexts, from masks and seeds used twice, from files that must hold none."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterator
from itertools import combinations, pairwise
from pathlib import Path
from typing import Final

from federation.messages import Ephemeral, PostKind
from privacy.encryption.frames import FrameKind, check_frame
from privacy.encryption.keyholder import KeyHolder
from privacy.encryption.recovery import is_ternary, solve_for_key
from privacy.encryption.summation import Summation
from privacy.packing import PLAIN_MODULUS, SLOTS_PER_FRAME
from silo.audit.attack.recording import Integers, Place, Recording, SiloSecrets
from silo.audit.attack.results import Attacked, Report
from silo.audit.attack.statistics import BY_CHANCE, p_uniform
from silo.audit.attack.streams import mask_key, open_streams

NAME: Final = "key recovery"
KNOWN_FRAMES: Final = 3
_STRETCH: Final = 64
_SEED_BYTES: Final = 64
_SEARCHED: Final = ("coordinator", "silos")


def attack(recording: Recording, report: Report) -> Attacked:
    """Solve for the BFV key, look for masks, seeds and keys used twice, and search files for secrets."""
    attacked = Attacked(NAME)
    holder = KeyHolder.from_secret(bytes.fromhex(recording.secrets(recording.manifest.colluders[0]).secret))
    report("key recovery: solving for the BFV key")
    _solve(attacked, recording, holder)
    report("key recovery: comparing streams")
    _twice(attacked, recording, holder)
    _public_repeats(attacked, recording)
    report("key recovery: searching files")
    _files(attacked, recording)
    return attacked


def _solve(attacked: Attacked, recording: Recording, holder: KeyHolder) -> None:
    """Known plaintexts, as if somebody had leaked them to a coordinator that has no key."""
    summation, place = Summation(), recording.place
    known: list[tuple[str, bytes, Integers]] = []
    for silo in recording.contributors:
        frame = recording.stream(place, silo)[0]
        known.append((f"the first frame of {silo}", summation.expand(frame), open_streams([frame], holder)))
    total = recording.sum_frames(place)[0]
    known.append(("the first frame of the sum", total, holder.decrypt(total)))
    solved = [what for what, frame, slots in known if is_ternary(solve_for_key(frame, slots))]
    attacked.check(
        "a coordinator that was told what frames hold solves for the key as if there were no error",
        f"garbage from {len(known) - len(solved)} of {len(known)} frames, a ternary key from {len(solved)}",
        code="key_recovered",
        where="coordinator/streams",
        found=f"the BFV key follows from {solved[0]}: it was encrypted without error" if solved else None,
    )


def _twice(attacked: Attacked, recording: Recording, holder: KeyHolder) -> None:
    """A two-time pad: where masks repeat, the difference of two masked vectors is that of what they hide."""
    least, worst, pairs = 1.0, "", 0
    for silo in recording.honest:
        opened = {
            place: open_streams(recording.stream(place, silo), holder)[:-1] for place in _of(recording, silo)
        }
        for what, one, other in _pairs(opened):
            pairs += 1
            p = p_uniform((one - other) % PLAIN_MODULUS)
            if p < least:
                least, worst = p, f"{what} of {silo}"
    if not pairs:
        attacked.add("masks used twice", "one frame and one round: there is nothing to compare")
        return
    attacked.check(
        "coordinator and helper subtract frames and rounds of one silo from each other",
        f"least p-value {least:.2g} that {pairs} differences are uniform",
        code="mask_reused",
        where="coordinator/streams",
        found=f"a mask repeats: {worst} differ by what they hide" if least < BY_CHANCE / pairs else None,
    )


def _of(recording: Recording, silo: str) -> list[Place]:
    return [
        place
        for place in recording.manifest.streams
        if silo in recording.state.contributors_of(place.round, place.attempt)
    ]


def _pairs(opened: dict[Place, Integers]) -> Iterator[tuple[str, Integers, Integers]]:
    for (place, slots), (later, others) in combinations(opened.items(), 2):
        length = min(len(slots), len(others))
        yield f"rounds {place.round} and {later.round}", slots[:length], others[:length]
    for place, slots in opened.items():
        frames = [slots[i : i + SLOTS_PER_FRAME] for i in range(0, len(slots), SLOTS_PER_FRAME)]
        for number, (one, other) in enumerate(pairwise(frames)):
            yield f"frames {number} and {number + 1} of round {place.round}", one[: len(other)], other


def _public_repeats(attacked: Attacked, recording: Recording) -> None:
    """What the coordinator alone sees twice: ephemeral keys, and seeds of second polynomials."""
    keys = Counter(
        post.content(Ephemeral).public_key
        for post in recording.state.posts.values()
        if post.kind is PostKind.EPHEMERAL
    )
    seeds = Counter(
        frame[-_SEED_BYTES:]
        for place in recording.manifest.streams
        for silo in recording.state.contributors_of(place.round, place.attempt)
        for frame in recording.stream(place, silo)
        if check_frame(frame) is FrameKind.SEEDED
    )
    helpers = [recording.secrets(silo) for silo in recording.manifest.colluders]
    masks = Counter(
        mask_key(recording, helper, peer)
        for helper in helpers
        for peer in recording.contributors
        if peer not in recording.manifest.colluders
    )
    repeated = [
        what
        for what, counted in (("an ephemeral key", keys), ("a frame's seed", seeds), ("a mask key", masks))
        if counted and max(counted.values()) > 1
    ]
    attacked.check(
        "they look for keys and seeds that appear twice",
        f"{keys.total()} ephemeral keys, {seeds.total()} seeds, {masks.total()} mask keys: "
        + ("all different" if not repeated else "not all different"),
        code="mask_reused",
        where="coordinator",
        found=f"{' and '.join(repeated)} was used twice" if repeated else None,
    )


# ── files ──


def _files(attacked: Attacked, recording: Recording) -> None:
    """Who takes a disk after the job, or the coordinator's at any time, finds no secret on it."""
    wanted = {spelling: what for what, secret in _secrets(recording) for spelling in _spellings(secret)}
    paths = [p for name in _SEARCHED for p in sorted((recording.directory / name).rglob("*")) if p.is_file()]
    found = [(path, what) for path in paths for what in _held(path, wanted)]
    named = [f"{path.relative_to(recording.directory)} ({what})" for path, what in found]
    attacked.check(
        "somebody takes the coordinator's disk, and the silos' after the job",
        f"{len(found)} traces of {len(wanted)} spellings of secrets in {len(paths)} files",
        code="secret_in_file",
        where="coordinator, silos",
        found=f"secrets lie in {', '.join(named[:3])}" if named else None,
    )


def _held(path: Path, wanted: dict[bytes, str]) -> Iterator[str]:
    content = path.read_bytes()
    yield from dict.fromkeys(what for spelling, what in wanted.items() if spelling in content)


def _secrets(recording: Recording) -> Iterator[tuple[str, bytes]]:
    manifest = recording.manifest
    names = [*manifest.colluders, *([manifest.one_more] if manifest.one_more else [])]
    for helper in (recording.secrets(name) for name in names):
        for what in ("secret", "group_key", "start_key", "round_key"):
            yield f"{what} of {helper.silo}", bytes.fromhex(getattr(helper, what))
        yield from _mask_keys(recording, helper)
    for silo in recording.contributors:
        yield f"contribution of {silo}", _stretch(recording.levels(silo))
    for place in manifest.opened:
        yield f"aggregate of round {place.round}", _stretch(recording.aggregate(place))


def _mask_keys(recording: Recording, helper: SiloSecrets) -> Iterator[tuple[str, bytes]]:
    for peer in recording.contributors:
        if peer != helper.silo:
            yield f"mask key of {helper.silo} and {peer}", mask_key(recording, helper, peer)


def _stretch(values: Integers) -> bytes:
    """Some bytes from the middle: long enough to be there by no chance."""
    content = values.astype("<i8").tobytes()
    start = 8 * (len(values) // 2)
    return content[max(0, min(start, len(content) - _STRETCH)) :][:_STRETCH]


def _spellings(secret: bytes) -> tuple[bytes, ...]:
    """Bytes as they are, in hexadecimal, and as base64 may carry them at any offset."""
    encoded = [base64.b64encode(bytes(shift) + secret)[4:-4] for shift in range(3)]
    return secret, secret.hex().encode(), *encoded
