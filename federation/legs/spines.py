"""The coordinator's answer to finished lists: who is in common, and a slot for everybody.

What arrives from each silo is one file: its own veil, then the list that it was the last to blind, which is
that of the next silo in the roster. Only the coordinator holds veils and lists together, and it holds no
layer (:mod:`privacy.alignment.spine`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from federation.legs.matching import Found, TooFew
from policies.files import write_atomically
from policies.plans.vertical.terms import AlignmentTerms

KEY_FILE = "match-key"
KEY_BYTES = 32


def find_spine(lists: Mapping[str, Path], terms: AlignmentTerms, slots: Mapping[str, Path]) -> Found | TooFew:
    """Match finished lists by points, and write each silo's slots as u64, little-endian, in its list's order.

    The same lists get the same answer however often they are matched: noise and slots follow from a key that
    is on the disk before anything is counted. Otherwise a full disk, which only a yes meets, or a crash would
    be another look at the number for the price of one.

    Args:
        lists: by the silo whose people they are, in the roster's order; the key lies beside them.
        terms: the plan's.
        slots: file to write for each silo, if enough people are in common.

    Raises:
        PointsError: a file is no veil with a list of the declared capacity.
    """
    from privacy.alignment.points import SCALAR_BYTES
    from privacy.alignment.spine import find_common, unveiled
    from privacy.randomness import WordSource

    files = {owner: path.read_bytes() for owner, path in lists.items()}
    # Each silo sends its own veil with the list of the next one.
    successors = dict(zip(files, [*list(files)[1:], next(iter(files))], strict=True))
    points = {
        owner: unveiled(
            content[SCALAR_BYTES:],
            terms.capacities[owner],
            files[successors[owner]][:SCALAR_BYTES],
            where=owner,
        )
        for owner, content in files.items()
    }
    spine = find_common(
        points,
        least=terms.min_intersection,
        epsilon=terms.epsilon,
        reveal=terms.reveal,
        source=WordSource(_kept_key(next(iter(lists.values())).parent / KEY_FILE)),
    )
    if spine is None:
        return TooFew()
    for owner, path in slots.items():
        path.write_bytes(spine.slots[owner].astype("<u8").tobytes())
    return Found(spine.num_slots)


def _kept_key(path: Path) -> bytes:
    """The job's key, drawn where there is none yet; erased with everything else of the job."""
    if not path.exists():
        write_atomically(path, os.urandom(KEY_BYTES), mode=0o600)
    return path.read_bytes()
