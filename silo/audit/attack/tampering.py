"""Altered sums, posts, ledgers, receipts and policies, put before the checks of silos and auditors.

Everything is altered on copies. Each alteration must be refused by the production code, and what was recorded
must be accepted by it, or a refusal would mean nothing.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np

from federation.aggregation import sum_to_file
from federation.messages import PostKind, Sum, verify_envelope
from policies.files import load_charters
from privacy.agreement import tag_key
from privacy.encryption.frames import FrameKind
from privacy.encryption.keyholder import KeyHolder
from privacy.encryption.parameters import DATA_PRIME
from privacy.encryption.summation import Summation
from privacy.errors import TrustError
from privacy.packing import PLAIN_MODULUS, SLOTS_PER_FRAME
from privacy.securesum import SumRejectedError, open_sum
from silo.audit.attack.recording import Recording, RecordingError
from silo.audit.attack.results import Attacked, Report
from silo.audit.findings import Finding
from silo.audit.verify import verify
from silo.tensor_files import sha256_of

NAME: Final = "tampering"
CODE: Final = "tampering_accepted"

Frames = list[bytes]
Change = Callable[[Path], None]


def attack(recording: Recording, report: Report) -> Attacked:
    """Try each alteration; whatever is accepted is a finding.

    Raises:
        RecordingError: the recording itself is refused.
    """
    attacked = Attacked(NAME)
    report("tampering: sums and streams")
    _sums(attacked, recording)
    report("tampering: posts and ledgers")
    _posts(attacked, recording)
    _records(attacked, recording)
    return attacked


def _note(attacked: Attacked, tried: str, *, refused_by: str | None, where: str) -> None:
    attacked.check(
        tried,
        f"refused: {refused_by}" if refused_by else "accepted",
        code=CODE,
        where=where,
        found=None if refused_by else f"{tried}: nothing refused it",
    )


# ── sums ──


def _sums(attacked: Attacked, recording: Recording) -> None:
    """A coordinator without helpers gives out something else than the sum."""
    place = recording.place
    streams = {silo: recording.stream(place, silo) for silo in recording.contributors}
    honest = recording.sum_frames(place)
    if _refusal(recording, honest) is not None:
        raise RecordingError("the recorded sum does not open", where="coordinator/streams")
    first, second, *rest = streams
    twice = {**streams, second: streams[first]}
    without = {name: frames for name, frames in streams.items() if name != second}
    tries = {
        "one coefficient of the sum is flipped": [_shifted(honest[0], 1 << 50), *honest[1:]],
        "one step of the plaintext is added to the sum": [
            _shifted(honest[0], DATA_PRIME // PLAIN_MODULUS), *honest[1:]
        ],
        f"{first} counts twice, {second} not at all": _added(twice, honest),
        "the last frame of the sum is left out": honest[:-1],
    }  # fmt: skip
    if rest:
        tries[f"{second} is left out"] = _added(without, honest)
    if len(honest) > 1:
        tries["two frames of the sum change places"] = [honest[1], honest[0], *honest[2:]]
    for tried, frames in tries.items():
        _note(attacked, tried, refused_by=_refusal(recording, frames), where="coordinator/streams")
    _recomputed(attacked, recording)


def _refusal(recording: Recording, frames: Frames) -> str | None:
    """What a silo's opening says to these frames, None where it opens them."""
    place, shape = recording.place, recording.shape(recording.place)
    secrets = recording.secrets(recording.manifest.colluders[0])
    job_id = recording.state.job_id.hex()
    try:
        open_sum(
            frames,
            shape.layout,
            contributors=len(recording.contributors),
            tag_key=tag_key(bytes.fromhex(secrets.group_key), job_id, place.round, place.attempt),
            holder=KeyHolder.from_secret(bytes.fromhex(secrets.secret)),
        )
    except SumRejectedError as error:
        return error.code
    return None


def _added(streams: dict[str, Frames], honest: Frames) -> Frames:
    """The first frame summed anew, which is enough to be another sum."""
    return [Summation().sum_frames([frames[0] for frames in streams.values()]), *honest[1:]]


def _shifted(frame: bytes, by: int) -> bytes:
    """The frame with something added to its first coefficient."""
    start = len(FrameKind.FULL.prefix)
    words = np.frombuffer(frame, "<u8", 2 * SLOTS_PER_FRAME, offset=start).copy()
    words[0] = (int(words[0]) + by) % DATA_PRIME
    return frame[:start] + words.tobytes()


def _recomputed(attacked: Attacked, recording: Recording) -> None:
    """A coordinator with a helper can match the tag; whoever recomputes the sum sees it."""
    place, state = recording.place, recording.state
    posted = state.post(PostKind.SUM, state.coordinator, round=place.round, attempt=place.attempt)
    if posted is None:
        raise RecordingError("the posts do not announce the sum", where="coordinator/posts.json")
    announced = posted.content(Sum).sha256
    paths = [recording.stream_path(place, silo) for silo in recording.contributors]
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "sum"
        num_frames = recording.shape(place).layout.num_frames
        if sum_to_file(tuple(paths), num_frames, target).sha256 != announced:
            raise RecordingError("the recorded streams do not make the sum", where="coordinator/streams")
        altered = Path(scratch) / "altered"
        content = bytearray(target.read_bytes())
        content[len(content) // 2] ^= 1
        altered.write_bytes(content)
        other = sum_to_file((paths[0], *paths[:-1]), num_frames, target).sha256
        differs = announced not in (sha256_of(altered), other)
    _note(
        attacked,
        "a coordinator with a helper gives out another sum with a fitting tag",
        refused_by="the sum recomputed from the signed streams differs" if differs else None,
        where="coordinator/streams",
    )


# ── posts and records ──


def _posts(attacked: Attacked, recording: Recording) -> None:
    """A coordinator changes what a silo has said."""
    charter_file = recording.directory / "charter.yaml"
    charter = load_charters(charter_file, datetime.now(UTC), is_last_day_over_allowed=True)[-1]
    state, victim = recording.state, recording.honest[0]
    keys = {member.silo: member.identity_key for member in charter.members}
    place = recording.place
    for kind in (PostKind.STREAM, PostKind.EPHEMERAL):
        post = state.post(kind, victim, round=place.round, attempt=place.attempt)
        if post is None:
            raise RecordingError(f"the posts hold no {kind} of {victim}", where="coordinator/posts.json")
        verify_envelope(post, keys[victim])
        field = "sha256" if kind is PostKind.STREAM else "public_key"
        forged = post.model_copy(update={"body": post.body | {field: "0" * 64}})
        moved = post.model_copy(update={"attempt": post.attempt + 1})
        for tried, altered in ((f"{kind}: another {field}", forged), (f"{kind}: another attempt", moved)):
            refused = None
            try:
                verify_envelope(altered, keys[victim])
            except TrustError as error:
                refused = error.code
            _note(
                attacked, f"a post of {victim} is altered ({tried})", refused_by=refused, where="posts.json"
            )


def _records(attacked: Attacked, recording: Recording) -> None:
    """The owner of a silo, or who took its disk, edits its record; an auditor verifies it."""
    silo, job = recording.honest[0], recording.manifest.job
    untouched = _verified(recording, silo, lambda _: None)
    attacked.findings += untouched
    if untouched:
        attacked.add(f"{silo}: its record as it is", f"findings: {_codes(untouched)}", stands=False)
        return
    changes: dict[str, Change] = {
        "the charge is deleted from the ledger": _ledger("DELETE FROM entries WHERE kind = 'committed'"),
        "the charge names another round": _ledger(
            "UPDATE entries SET payload = replace(payload, '\"round\":1', '\"round\":9') "
            "WHERE kind = 'committed'"
        ),
        "the end of the ledger is cut off": _ledger(
            "DELETE FROM entries WHERE seq > (SELECT max(seq) FROM entries WHERE kind = 'reserved')"
        ),
        "a receipt is attributed to another head": _receipt(job),
        "the policy's budget is raised": _replace("policy.yaml", b"epsilon: ", b"epsilon: 1"),
        "the plan kept with the job allows more": _replace(
            f"jobs/{job}/plan.yaml", b"target_epsilon: ", b"target_epsilon: 1"
        ),
    }
    for tried, change in changes.items():
        refused_by = _codes(_verified(recording, silo, change)) or None
        _note(attacked, f"{silo}: {tried}", refused_by=refused_by, where=f"silos/{silo}")


def _codes(findings: tuple[Finding, ...]) -> str:
    return ", ".join(dict.fromkeys(item.code for item in findings))


def _verified(recording: Recording, silo: str, change: Change) -> tuple[Finding, ...]:
    """What ``audit verify`` finds in an altered copy."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / silo
        shutil.copytree(recording.directory / "silos" / silo, copy)
        change(copy)
        return verify(copy, recording.directory / "charter.yaml", now=datetime.now(UTC), silo=silo).findings


def _ledger(statement: str) -> Change:
    def change(directory: Path) -> None:
        with closing(sqlite3.connect(directory / "ledger.db", isolation_level=None)) as connection:
            for trigger in ("entries_are_never_altered", "entries_are_never_deleted"):
                connection.execute(f"DROP TRIGGER IF EXISTS {trigger}")
            if not connection.execute(statement).rowcount:
                raise RecordingError("the ledger holds nothing to alter", where=str(directory))

    return change


def _receipt(job: str) -> Change:
    def change(directory: Path) -> None:
        path = directory / "jobs" / job / "receipts.json"
        receipts = json.loads(path.read_bytes())
        receipts[0]["head_hash"] = "0" * 64
        path.write_text(json.dumps(receipts))

    return change


def _replace(name: str, old: bytes, new: bytes) -> Change:
    def change(directory: Path) -> None:
        content = (directory / name).read_bytes()
        if old not in content:
            raise RecordingError("there is nothing to alter", where=str(directory / name))
        (directory / name).write_bytes(content.replace(old, new, 1))

    return change
